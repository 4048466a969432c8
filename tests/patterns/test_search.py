import copy
import warnings
from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from toys import Linear, grey_images, planted_trigger, require_resumable
from trainers import quiet_trainer

from iscp_lightning.classifiers import Classifier, classifier_hash, create_classifier
from iscp_lightning.classifiers.subject import Subject
from iscp_lightning.data import MemoryImages, Shapes
from iscp_lightning.data.images import to_float
from iscp_lightning.patterns import PatternSearch, SearchSettings, engine, search_patterns
from iscp_lightning.patterns.canvas import Canvases
from iscp_lightning.patterns.search import run_search
from iscp_lightning.patterns.variants import TriggerInversion
from iscp_lightning.patterns.variants.descent import SignDescent
from iscp_lightning.seeds import derived_seed
from iscp_lightning.training import NaturalModule

WHITE = SearchSettings(canvas="white")


def search(classifier, images, labels, settings=WHITE, **kwargs):
    return search_patterns(classifier, images, labels, settings, progress=False, **kwargs)


def algorithm_1(classifier, canvas, images, target, settings, canvas_index):
    """Algorithm 1 as printed, one problem alone, with the engine's image order."""
    mask = torch.full(images.shape[2:], 0.5)
    for epoch in range(settings.course.search_epochs):
        generator = torch.Generator().manual_seed(
            derived_seed(0, "search images", target, canvas_index + 1, epoch)
        )
        order = torch.randperm(len(images), generator=generator)
        for rows in order.split(settings.course.search_batch_size):
            mask.requires_grad_()
            mixed = mask * canvas + (1 - mask) * images[rows]
            log_probability = F.log_softmax(classifier(mixed), 1)[:, target]
            loss = (-log_probability + settings.sparsity * mask.mean()).sum()
            (gradient,) = torch.autograd.grad(loss, mask)
            mask = (mask.detach() - settings.course.step_size * gradient.sign()).clamp(0, 1)
    return mask


def test_sign_descent_by_hand():
    mask = torch.tensor([0.5, 0.01, 0.99, 0.3], requires_grad=True)
    mask.grad = torch.tensor([3.0, 0.2, -7.0, 0.0])
    SignDescent([mask], 0.02).step()
    torch.testing.assert_close(mask.detach(), torch.tensor([0.48, 0.0, 1.0, 0.3]))


@pytest.mark.parametrize("sparsity", [0.2, 8.0])
def test_equals_algorithm_1_written_plainly(sparsity):
    torch.manual_seed(0)
    classifier = nn.Sequential(nn.Flatten(), nn.Linear(192, 20), nn.ReLU(), nn.Linear(20, 2))
    images, labels = grey_images(30)
    settings = SearchSettings(sparsity, canvas="random", canvases_per_class=1, search_epochs=2)
    found = search(classifier, images, labels, settings, search_fraction=0.5)
    for row, target in enumerate(found.targets.tolist()):
        index = int(found.canvas_indices[row])
        pool = [i for i in found.search_indices.tolist() if labels[i] != target and i != index]
        canvas = images[index] / 255
        expected = algorithm_1(classifier, canvas, images[pool] / 255, target, settings, index)
        torch.testing.assert_close(found.masks[row], expected)
        mixed = expected * canvas + (1 - expected) * images[pool] / 255
        loss = F.cross_entropy(classifier(mixed), torch.full((len(pool),), target))
        objective = loss + sparsity * expected.mean()
        torch.testing.assert_close(found.objectives[row].float(), objective.detach())


def test_finds_the_planted_trigger():
    classifier, corner = planted_trigger()
    images, labels = grey_images()
    settings = SearchSettings(sparsity=2.0, canvas="white")
    found = search(classifier, images, labels, settings, classes=[1], search_fraction=0.5)
    assert torch.equal(found.selected(4 / 64)[0], corner)
    power = found.predictive_power(classifier, images, labels, pattern_sizes=[4 / 64])
    assert power.predictive_power.item() == 1 / power.clean_accuracy[1]


def test_sparsity_alone_empties_the_mask():
    images, labels = grey_images()
    flat = Linear(torch.zeros(2, 8, 8))
    found = search(flat, images, labels, SearchSettings(1.0, canvas="white"), search_fraction=1.0)
    assert found.masks.max() <= 0.5 - 5 * 5 * 0.02 + 1e-6
    kept = search(flat, images, labels, SearchSettings(0.0, canvas="white"), search_fraction=1.0)
    assert (kept.masks == 0.5).all()


def test_sparsity_per_class():
    images, labels = grey_images()
    flat = Linear(torch.zeros(2, 8, 8))
    found = search(flat, images, labels, SearchSettings([1.0, 0.0], canvas="white"))
    assert found.masks[0].max() < 0.5
    assert (found.masks[1] == 0.5).all()
    with pytest.raises(ValueError, match=r"`sparsity`.*one per class \(2\), got 3"):
        search(flat, images, labels, SearchSettings([1.0, 0.0, 0.0], canvas="white"))


@pytest.fixture(scope="module")
def shapes():
    test = Shapes(train_count=10, test_count=120).test()
    return test.pixels(range(120)), test.labels


FAST = {"canvases_per_class": 2, "search_epochs": 2, "canvas": "random"}


def test_same_bits_for_every_batching(trained: Classifier, shapes):
    found = [
        search(
            trained,
            *shapes,
            SearchSettings(**FAST, micro_batch_size=size),
            classes=classes,
        )
        for size, classes in [(128, [0, 3, 7]), (8, [0, 3, 7]), (128, [3])]
    ]
    assert torch.equal(found[0].masks, found[1].masks)
    assert torch.equal(found[0].mask_means, found[1].mask_means)
    assert torch.equal(found[0].masks[2:4], found[2].masks)
    assert found[0].masks.unique().numel() > 2


def test_bf16_pads_to_one_size(trained: Classifier, shapes, monkeypatch):
    images, labels = shapes
    settings = SearchSettings(**FAST, precision="bf16")
    canvases = Canvases("random", torch.tensor([0, 0, 1]), torch.tensor([5, 6, 7]))
    sizes, masks = [], []
    for owned in ([0, 1, 2], [1]):
        monkeypatch.setattr(engine, "share", lambda items, rows=owned: [items[r] for r in rows])
        subject = Subject(
            trained, MemoryImages(images, labels), range(10), torch.arange(40), seed=0
        )
        searched = PatternSearch(subject, canvases, settings, problems_per_forward=3)
        subject.fast("bf16").register_forward_pre_hook(lambda _, args: sizes.append(len(args[0])))
        for _ in range(3):
            searched.step()
        masks.append(searched.variables["mask"].detach()[owned.index(1)])
    assert set(sizes) == {12}
    assert torch.equal(*masks)


def test_seed_decides(trained: Classifier, shapes):
    one, same, other = (
        search(
            trained,
            *shapes,
            SearchSettings(canvas="white", search_epochs=1, seed=seed),
            classes=[0],
        )
        for seed in (0, 0, 1)
    )
    assert torch.equal(one.masks, same.masks)
    assert not torch.equal(one.masks, other.masks)


def test_the_given_classifier_is_untouched():
    classifier = create_classifier("resnet20", 2, 8).train()
    classifier.network.fc.eval()
    before, digest = copy.deepcopy(classifier.state_dict()), classifier_hash(classifier)
    modes = [module.training for module in classifier.modules()]
    images, labels = grey_images()
    state = torch.get_rng_state()
    search(classifier, images, labels, SearchSettings(canvas="random", search_epochs=1))
    assert torch.equal(torch.get_rng_state(), state)
    assert classifier_hash(classifier) == digest
    assert all(torch.equal(before[k], v) for k, v in classifier.state_dict().items())
    assert [module.training for module in classifier.modules()] == modes
    assert all(p.requires_grad and p.grad is None for p in classifier.parameters())


def test_a_network_that_cannot_be_traced_is_searched_as_it_is():
    class Branching(Linear):
        def forward(self, images):
            return super().forward(images if images.sum() > 0 else images * 2)

    images, labels = grey_images()
    maps = planted_trigger()[0].maps.detach()
    plain, branching = (search(kind(maps, 4.0), images, labels) for kind in (Linear, Branching))
    assert torch.equal(plain.masks, branching.masks)


def test_problems_with_fewer_images_idle_at_the_end_of_a_pass():
    images, labels = grey_images(14)
    labels[:] = torch.tensor([0] * 9 + [1] * 5)
    settings = SearchSettings(canvas="white", search_epochs=1)
    found = search(Linear(torch.zeros(2, 8, 8)), images, labels, settings, search_fraction=1.0)
    steps = torch.tensor([2, 3])  # ceil(5 / 4) images of class 1 for target 0, ceil(9 / 4)
    expected = 0.5 - 0.02 * steps
    torch.testing.assert_close(found.masks.mean((1, 2)), expected)
    means = torch.tensor([(0.48 + 0.46) / 2, (0.48 + 0.46 + 0.44) / 3])
    torch.testing.assert_close(found.mask_means.mean((1, 2)), means)


def test_a_canvas_is_left_out_of_its_own_search_images():
    images, labels = grey_images(12)
    settings = SearchSettings(canvas="random", canvases_per_class=12, seed=0)
    subject = Subject(
        Linear(torch.zeros(2, 8, 8)), MemoryImages(images, labels), "ab", torch.arange(12)
    )
    searched = run_search(subject, settings, [0, 1])
    found = searched.gathered()
    for row, (target, index) in enumerate(zip(found.targets, found.canvas_indices, strict=True)):
        used = set(searched.order.of_pass(0)[row].tolist()) - {-1}
        assert used == {i for i in range(12) if labels[i] != target and i != index}


@pytest.mark.parametrize("shape", [(1, 8, 8), (3, 6, 10)], ids=["grey", "not square"])
def test_any_image_shape(shape):
    images = torch.rand(20, *shape)
    classifier = nn.Sequential(nn.Flatten(), nn.Linear(images[0].numel(), 2))
    labels = torch.arange(20) % 2
    found = search(classifier, images, labels, SearchSettings(canvas="random"))
    assert found.masks.shape == (len(found), *shape[1:])
    power = found.predictive_power(classifier, images, labels, pattern_sizes=[0.1])
    assert power.predictive_power.shape == (len(found), 1)


def test_a_thousand_classes():
    labels = torch.arange(40) % 20
    images = torch.randint(0, 255, (40, 3, 4, 4), dtype=torch.uint8)
    classifier = nn.Sequential(nn.Flatten(), nn.Linear(48, 1000))
    names = [f"class {k}" for k in range(1000)]
    settings = SearchSettings(canvas="white", search_epochs=1, micro_batch_size=2000)
    found = search(classifier, images, labels, settings, class_names=names, search_fraction=0.5)
    assert found.masks.shape == (1000, 4, 4)
    assert found.winners.tolist() == list(range(1000))


def test_classes_by_index_and_name():
    images, labels = grey_images(classes=4)
    classifier = Linear(torch.zeros(4, 8, 8))
    names = ["a", "b", "c", "d"]
    found = search(classifier, images, labels, classes=["c", 0], class_names=names)
    assert found.targets.tolist() == [2, 0]
    assert found.class_names == ("a", "b", "c", "d")


def test_nan_while_mixing_names_the_class():
    class Fragile(Linear):
        def forward(self, images):
            mixed = images.amax((1, 2, 3)) > 0.6  # only with the white canvas mixed in
            return torch.where(mixed.unsqueeze(1), torch.nan, super().forward(images))

    images, labels = grey_images()
    with pytest.raises(ValueError, match="class 1 met NaN"):
        search(Fragile(torch.ones(2, 8, 8)), images, labels, classes=[1])


def test_a_test_set_that_is_too_small_is_named():
    images, labels = grey_images(4)
    with pytest.raises(ValueError, match="`search_fraction`"):
        search(Linear(torch.zeros(2, 8, 8)), images, labels, search_fraction=0.1)


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_canvases_compete_by_the_loss_of_their_pasted_patterns(
    trained: Classifier, shapes, precision
):
    """The masks stay what they are; each canvas's number is computed from nothing but its stamp."""
    images, labels = shapes
    usual = SearchSettings(**FAST, precision=precision)
    other = replace(usual, winner_size=0.05, micro_batch_size=32)
    masks, found = (search(trained, images, labels, each) for each in (usual, other))
    if precision == "fp32":
        assert torch.equal(masks.masks, found.masks)
    seen = found.search_indices
    for row, target in enumerate(found.targets):
        kept = seen[(labels[seen] != target) & (seen != found.canvas_indices[row])]
        mask = found.selected(0.05)[row].float()
        mixed = mask * to_float(found.canvases[row]) + (1 - mask) * to_float(images[kept])
        with torch.no_grad():
            loss = F.cross_entropy(trained.eval()(mixed), target.expand(len(kept)))
        torch.testing.assert_close(found.objectives[row], loss)
    assert not torch.equal(found.winners, masks.winners)


def test_the_size_that_canvases_compete_at_must_select_a_pixel():
    images, labels = grey_images()
    with pytest.raises(ValueError, match=r"`winner_size` must .* at least one of 8 x 8"):
        search(planted_trigger()[0], images, labels, replace(WHITE, winner_size=0.001))


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("variant", "TriggerInversion"),
        ("winner_size", 0),
        ("winner_size", 1.1),
        ("search_epochs", 0),
        ("search_batch_size", 0),
        ("canvases_per_class", 0),
        ("micro_batch_size", 0),
        ("micro_batch_size", 3),  # fewer than `search_batch_size`
        ("sparsity", -0.1),
        ("sparsity", []),
        ("step_size", 0.0),
        ("step_size", 1.5),
        ("final_step_size", 0.0),
        ("seed", -1),
        ("canvas", "black"),
        ("precision", "fp16"),
        ("schedule", "slow"),
    ],
)
def test_settings_out_of_range_are_named(name, value):
    with pytest.raises(ValueError, match=f"`{name}`"):
        SearchSettings(**{name: value})


def test_float_images_and_image_sets_are_equal_inputs():
    images, labels = grey_images()
    classifier = planted_trigger()[0]
    as_bytes = search(classifier, images, labels)
    as_floats = search(classifier, to_float(images), labels)
    as_set = search_patterns(
        classifier, MemoryImages(images, labels), settings=WHITE, progress=False
    )
    assert torch.equal(as_bytes.masks, as_floats.masks)
    assert torch.equal(as_bytes.masks, as_set.masks)
    with warnings.catch_warnings(), pytest.raises(ValueError, match="`labels`"):
        search_patterns(classifier, images)


class Viewing(torch.nn.Module):
    """A network of the older style, whose `view` refuses channels-last features."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = torch.nn.Conv2d(3, 4, 3)
        self.bn = torch.nn.BatchNorm2d(4)
        self.linear = torch.nn.Linear(4 * 6 * 6, 3)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        features = self.bn(self.conv(images)).relu()
        return self.linear(features.view(features.size(0), -1))


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_a_network_that_views_its_features_is_searched_and_measured(precision):
    torch.manual_seed(0)
    network, images, labels = Viewing(), torch.rand(30, 3, 8, 8), torch.arange(30) % 3
    settings = SearchSettings(canvas="white", search_epochs=1, precision=precision)
    found = search_patterns(network, images, labels, settings, progress=False)
    assert (found.masks != 0.5).any()
    power = found.predictive_power(network, images, labels, pattern_sizes=[0.1])
    assert power.predictive_power.shape == (3, 1)


def test_a_network_that_views_its_features_is_trained(data, tmp_path):
    network = torch.nn.Sequential(torch.nn.AvgPool2d(2), Viewing())
    network[1].linear = torch.nn.Linear(4 * 6 * 6, 10)
    quiet_trainer(tmp_path, max_epochs=1).fit(NaturalModule(network), datamodule=data)


def searched_on(count: int, settings: SearchSettings, problems: int = 1) -> PatternSearch:
    """Problems of class 1 on white canvases, with `count` dark images of class 0."""
    images = MemoryImages(torch.zeros(count, 3, 4, 4, dtype=torch.uint8), torch.zeros(count))
    subject = Subject(Linear(torch.zeros(2, 4, 4)), images, "ab", torch.arange(count))
    ones = torch.ones(problems).long()
    return PatternSearch(subject, Canvases("white", ones, -ones), settings)


def test_a_loss_is_the_mean_over_the_images_that_there_are():
    """Six images in batches of four: the second batch has two."""
    searched = searched_on(6, SearchSettings(sparsity=0.0))
    losses = [searched.step() for _ in range(2)]
    torch.testing.assert_close(torch.cat(losses), torch.full((2,), 2.0).log())


def test_the_objective_is_the_mean_over_images_not_over_batches():
    images, labels = grey_images(20)
    classifier, _ = planted_trigger()
    objectives = []
    for size in (4, 128):  # ten images each: 4 + 4 + 2, and all at once
        settings = SearchSettings(canvas="white", search_epochs=1, micro_batch_size=size)
        found = search(classifier, images, labels, settings, search_fraction=1.0)
        objectives.append(found.objectives)
    torch.testing.assert_close(objectives[0], objectives[1])
    assert objectives[0].unique().numel() == 2


@pytest.mark.parametrize(
    ("micro_batch_size", "search_batch_size", "problems", "expected"),
    [(8, 4, 5, 2), (128, 4, 5, 5), (12, 4, 4, 2), (4, 4, 3, 1), (11, 3, 6, 3)],
)
def test_forward_passes_hold_no_more_images_than_allowed(
    micro_batch_size, search_batch_size, problems, expected
):
    settings = SearchSettings(
        search_batch_size=search_batch_size, micro_batch_size=micro_batch_size
    )
    searched = searched_on(8, settings, problems)
    assert searched.problems_per_forward == expected
    assert expected * search_batch_size <= micro_batch_size


def test_the_seed_chooses_the_search_images():
    images, labels = grey_images(40)
    classifier = Linear(torch.zeros(2, 8, 8))
    chosen = [
        search(classifier, images, labels, SearchSettings(canvas="white", seed=seed)).search_indices
        for seed in (0, 1, 1)
    ]
    assert torch.equal(chosen[1], chosen[2])
    assert not torch.equal(chosen[0], chosen[1])


def test_the_step_size_falls_to_its_last_value():
    """Sparsity alone drives the mask down, by every step's size: 0.02, 0.01 and 0."""
    settings = SearchSettings(
        sparsity=1.0, search_epochs=1, step_size=0.02, final_step_size=0.0000001
    )
    searched = searched_on(12, settings)
    means = []
    for _ in range(3):
        searched.step()
        means.append(searched.variables["mask"].mean().item())
    assert means == pytest.approx([0.48, 0.47, 0.47], abs=1e-4)
    assert searched.progress == 1


def test_what_is_given_changes_the_named_schedule():
    assert SearchSettings().course == (5, 4, 0.02, None)
    quick = SearchSettings(schedule="quick")
    assert quick.course.search_epochs == 2
    assert quick.course.final_step_size < quick.course.step_size
    longer = SearchSettings(schedule="quick", search_epochs=3)
    assert longer.course == quick.course._replace(search_epochs=3)
    assert longer.plain()["search_batch_size"] == quick.course.search_batch_size
    assert SearchSettings(precision="bf16").images_per_forward == 256
    assert SearchSettings(precision="bf16", micro_batch_size=8).plain()["micro_batch_size"] == 8


def test_a_falling_step_size_does_not_depend_on_the_other_classes():
    torch.manual_seed(0)
    classifier = nn.Sequential(nn.Flatten(), nn.Linear(192, 3))
    images, _ = grey_images(60)
    labels = torch.tensor([0] * 40 + [1] * 15 + [2] * 5)  # the passes of a class differ in length
    settings = SearchSettings(canvas="random", schedule="quick", canvases_per_class=1)
    alone = search(classifier, images, labels, settings, classes=[0])
    together = search(classifier, images, labels, settings)
    assert torch.equal(alone.masks, together.masks[:1])


def test_a_search_goes_on_from_its_state(trained: Classifier, shapes):
    images, labels = shapes
    settings = SearchSettings(**FAST, seed=0)

    def begin() -> PatternSearch:
        subject = Subject(trained, MemoryImages(images, labels), range(10), torch.arange(24))
        canvases = Canvases("random", torch.tensor([0, 0, 1]), torch.tensor([5, 6, 7]))
        return PatternSearch(subject, canvases, settings)

    whole = require_resumable(begin, after=8)  # within the second pass
    means = whole.patterns().mask_means.clone()
    whole.restore(begin().state())  # from the start again: nothing of the first time is left
    for _ in range(whole.total_steps):
        whole.step()
    assert torch.equal(whole.patterns().mask_means, means)


def test_canvases_for_a_variant_without_are_refused():
    model, _ = planted_trigger()
    images, labels = grey_images()
    settings = SearchSettings(variant=TriggerInversion())
    with pytest.raises(ValueError, match="`canvases` cannot be given: TriggerInversion needs none"):
        search_patterns(model, images, labels, settings, canvases=[0], progress=False)
