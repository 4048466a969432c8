import pytest
import torch
import torch.nn.functional as F
from toys import Linear, grey_images, planted_trigger

from iscp_lightning.classifiers.subject import Subject
from iscp_lightning.data import MemoryImages
from iscp_lightning.patterns import SearchSettings
from iscp_lightning.patterns.search import run_search
from iscp_lightning.patterns.variants import AreaConstrained, Problems
from iscp_lightning.patterns.variants.area_constrained import RankDescent

SIZES = (4 / 64, 8 / 64, 16 / 64)


def graded() -> Linear:
    """Every pixel speaks for class 1, each a little more than the one before."""
    weights = torch.linspace(0.0, 1.0, 64)[torch.randperm(64, generator=generator(3))]
    return Linear(torch.stack([torch.zeros(8, 8), weights.view(8, 8)]), scale=0.2)


def generator(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def found_in(classifier, variant, brightness=1, **settings):
    images, labels = grey_images(40)
    images = MemoryImages(images * brightness, labels)
    subject = Subject(classifier, images, "ab", torch.arange(40))
    chosen = {"canvas": "white", "seed": 0, "search_epochs": 10} | settings
    return run_search(subject, SearchSettings(variant=variant, **chosen), [1])


def problems(progress: float) -> Problems:
    return Problems(torch.ones(1, 3, 8, 8), torch.ones(1).long(), torch.ones(1), progress)


def test_each_size_gets_the_pixels_that_speak_most_for_the_class():
    classifier = graded()
    found = found_in(classifier, AreaConstrained(SIZES), brightness=0).gathered()
    order = classifier.maps[1].flatten().argsort(descending=True)
    for size in SIZES:
        selected = found.selected(size)[0].flatten()
        best = torch.zeros(64, dtype=torch.bool)
        best[order[: round(size * 64)]] = True
        assert selected.sum() == round(size * 64)
        assert torch.equal(selected, best)


def test_it_finds_a_planted_trigger_at_its_size():
    classifier, corner = planted_trigger()
    found = found_in(classifier, AreaConstrained([4 / 64])).gathered()
    assert torch.equal(found.selected(4 / 64)[0], corner)


@pytest.mark.parametrize(
    ("progress", "pixels"),
    [(0.4, 6), (0.44, 9), (0.56, 16), (0.6, 16), (0.65, 11), (0.75, 8), (0.85, 6), (0.99, 4)],
)
def test_the_mask_is_hard_and_shrinks_from_size_to_size(progress, pixels):
    """Five turns: two soft ones, 16, 8 and 4 pixels; k goes there geometrically in half a turn."""
    variables = {"scores": torch.rand(1, 8, 8, generator=generator(0), requires_grad=True)}
    mask = AreaConstrained(SIZES).stamps(variables, problems(progress)).mask
    assert set(mask.detach().unique().tolist()) == {0.0, 1.0}
    assert mask.sum() == pixels
    assert (
        variables["scores"][mask[:, 0, 0] == 1] >= variables["scores"][mask[:, 0, 0] == 0].max()
    ).all()
    (gradient,) = torch.autograd.grad((3 * mask).sum(), variables["scores"])
    assert (gradient == 3).all()  # straight through, to all pixels


def test_the_soft_turns_are_algorithm_1():
    variant = AreaConstrained(SIZES)
    variables = variant.variables(torch.zeros(1, 3, 8, 8))
    variables["scores"].fill_(0.8)
    mask = variant.stamps(variables, problems(0.1)).mask
    torch.testing.assert_close(mask, torch.full((1, 1, 1, 8, 8), 0.9))
    variables["scores"][0, 0] = 7.0
    variant.after_step(variables, 0.1)
    assert variables["kept"].max() == variables["scores"].max() == 1
    variant.after_step(variables, 0.2)
    variant.after_step(variables, 0.3)
    assert variables["kept"][0, 0].max() == 3  # a sum in the second half of the turns
    assert variant.stamps(variables, problems(0.1)).mask.max() == 1
    variables["scores"].fill_(0.8)
    mask = variant.stamps(variables, problems(0.1)).mask
    torch.testing.assert_close(variant.penalty(variables, problems(0.1)), mask.mean().view(1))
    assert variant.penalty(variables, problems(0.4)).tolist() == [0]
    logits, target = torch.tensor([[0.5, -1.0, 2.0]]), torch.tensor([1])
    torch.testing.assert_close(
        variant.loss(logits, target, 0.1), F.cross_entropy(logits, target).view(1)
    )
    hard = variant.loss(logits, target, 0.4)
    torch.testing.assert_close(hard, 1 - logits.softmax(1)[:, 1])


def test_steps_go_by_sign_and_then_by_rank():
    scores, hard = torch.zeros(2, 1, 4), torch.tensor([0.0, 1.0])
    scores.grad = torch.tensor([[[-2.0, 0.0, 3.0, 9.0]], [[5.0, -1.0, 2.0, 100.0]]])
    RankDescent(scores, hard, 0.02).step()
    torch.testing.assert_close(scores[0, 0], torch.tensor([0.04, 0, -0.04, -0.04]))
    ranks = torch.tensor([3.0, 1, 2, 4])
    torch.testing.assert_close(scores[1, 0], -0.02 * ((ranks / 4).log() + 1))


def test_the_objective_is_the_mean_over_all_sizes():
    classifier = graded()
    search = found_in(classifier, AreaConstrained(SIZES), search_epochs=1)
    images, labels = grey_images(40)
    others = images[labels == 0].float() / 255
    stamps = search.gathered().stamps(SIZES)
    failures = [
        1 - classifier(torch.where(stamps.mask[0, k], 1.0, others)).softmax(1)[:, 1].mean()
        for k in range(3)
    ]
    torch.testing.assert_close(search.objectives[0], torch.stack(failures).mean().detach())


def test_another_size_is_cut_from_the_nearest_that_was_searched():
    variant = AreaConstrained([0.1, 0.25])
    kept = torch.zeros(1, 3, 8, 8)
    kept[0, 0, 3], kept[0, 1, 0], kept[0, 2, 7] = 1, 1, 1  # soft, then the larger size first
    canvases = torch.zeros(1, 3, 8, 8, dtype=torch.uint8)
    masks = variant.pasted({"kept": kept}, {}, canvases, [1 / 64, 8 / 64, 1 / 4]).mask[0, :, 0]
    assert [mask.sum().item() for mask in masks] == [1, 8, 16]
    assert masks[1, 7].all()
    assert masks[2, 0].all()
    alone = (
        AreaConstrained([0.01]).pasted({"kept": kept}, {}, canvases, [1 / 64, 8 / 64]).mask[0, :, 0]
    )
    assert alone[0, 0].sum() == 1
    assert alone[1, 3].all()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"pattern_sizes": []}, "`pattern_sizes` must list shares in .*, got \\[\\]"),
        ({"pattern_sizes": [0.1, 1.5]}, "`pattern_sizes` .*1.5"),
    ],
)
def test_options_out_of_range(arguments, message):
    with pytest.raises(ValueError, match=message):
        AreaConstrained(**arguments)


def test_an_area_below_one_pixel_is_refused_before_anything_runs():
    class Unasked(Linear):
        def forward(self, images):
            raise AssertionError("asked")

    with pytest.raises(
        ValueError, match=r"`pattern_size` must .* at least one of 8 x 8 pixels, got 0.001"
    ):
        found_in(Unasked(torch.zeros(2, 8, 8)), AreaConstrained([0.001]))


def test_a_class_of_few_images_gets_patterns_of_every_size():
    """It idles at the end of every pass, and so in all of the last turn."""
    images, labels = grey_images(40)
    labels[:] = 1
    labels[:4] = 0  # the passes of class 1 are a tenth of those of class 0
    subject = Subject(graded(), MemoryImages(images * 0, labels), "ab", torch.arange(40))
    settings = SearchSettings(
        variant=AreaConstrained(SIZES),
        canvas="white",
        seed=0,
        search_epochs=3,
        search_batch_size=1,
    )
    found = run_search(subject, settings, [0, 1]).gathered()
    order = graded().maps[1].flatten().argsort(descending=True)
    for size in SIZES[:2]:
        assert found.selected(size)[1].flatten()[order[0]]


def test_equal_gradients_share_their_rank():
    scores = torch.zeros(1, 1, 4)
    scores.grad = torch.tensor([[[0.0, 0.0, 0.0, 1.0]]])
    RankDescent(scores, torch.ones(1), 1.0).step()
    torch.testing.assert_close(scores[0, 0], -(torch.tensor([2.0, 2.0, 2.0, 4.0]) / 4).log() - 1)
