import pytest
import torch
from toys import Linear

from iscp_lightning.classifiers.subject import Subject
from iscp_lightning.data import MemoryImages
from iscp_lightning.data.images import to_float
from iscp_lightning.patterns import PatternSet, SearchSettings
from iscp_lightning.patterns.engine import PatternSearch
from iscp_lightning.patterns.search import problems_of, run_search
from iscp_lightning.patterns.variants import UniversalPerturbation

LABELS = torch.arange(30) % 2


def mid_grey() -> torch.Tensor:
    """Images that no small perturbation clips."""
    generator = torch.Generator().manual_seed(0)
    return torch.randint(80, 170, (30, 3, 6, 6), generator=generator).to(torch.uint8)


def linear(scale: float = 0.05) -> Linear:
    return Linear(torch.randn(2, 6, 6, generator=torch.Generator().manual_seed(3)), scale)


def subject(classifier=None, images=None) -> Subject:
    images = mid_grey() if images is None else images
    return Subject(classifier or linear(), MemoryImages(images, LABELS), "ab", torch.arange(20))


def begin(variant, classes=(0, 1), **settings) -> PatternSearch:
    settings = SearchSettings(seed=0, variant=variant, **settings)
    return PatternSearch(subject(), problems_of(subject(), settings, list(classes)), settings)


def test_a_linear_classifiers_perturbation_is_the_sign_of_its_weights():
    """Every value goes to the edge of the ball, where the logits' difference is largest."""
    maps = linear().maps.detach()
    settings = SearchSettings(seed=0, search_batch_size=2, variant=UniversalPerturbation("16/255"))
    found = run_search(subject(), settings, [0, 1]).gathered()
    signs = (maps - maps.flip(0)).sign().unsqueeze(1).expand(-1, 3, -1, -1)
    torch.testing.assert_close(found.variables["perturbation"], 16 / 255 * signs)
    assert found.canvas_indices.tolist() == [-1, -1]  # one for each class, and no canvas


def test_sparsity_is_not_used_and_zero_gradients_stay():
    flat = Linear(torch.zeros(2, 6, 6))
    settings = SearchSettings(8.0, seed=0, variant=UniversalPerturbation())
    search = run_search(subject(flat), settings, [0, 1])
    assert not search.variables["perturbation"].any()
    torch.testing.assert_close(search.objectives, torch.full((2,), 2.0).log())


@pytest.mark.parametrize(
    ("variant", "course", "sizes"),
    [
        (UniversalPerturbation(0.1), {"step_size": 0.02}, [0.004] * 4),  # 2 * 0.1 * 0.02
        (UniversalPerturbation(0.1), {"step_size": 0.3}, [0.06, 0.04, 0, 0]),  # the ball ends
        (UniversalPerturbation(0.5, "2/255"), {"step_size": 0.3}, [2 / 255] * 4),
        (
            UniversalPerturbation(0.5, 0.03),
            {"step_size": 0.3, "final_step_size": 0.15},
            [0.03, 0.025, 0.02, 0.015],
        ),
    ],
    ids=["share of the ball", "projected", "its own", "falling"],
)
def test_steps_from_zero(variant, course, sizes):
    search = begin(variant, [1], search_epochs=1, search_batch_size=3, **course)
    assert search.total_steps == 4
    assert not search.variables["perturbation"].any()
    reached = 0.0
    for size in sizes:
        search.step()
        reached += size
        moved = search.variables["perturbation"].detach().abs()
        torch.testing.assert_close(moved, torch.full_like(moved, reached))


def test_the_objective_is_the_cross_entropy_of_clipped_images():
    images = torch.randint(0, 256, (30, 3, 6, 6), dtype=torch.uint8)
    settings = SearchSettings(seed=0, variant=UniversalPerturbation("32/255"))
    found = run_search(subject(images=images), settings, [1]).gathered()
    moved = to_float(images[:20][LABELS[:20] != 1]) + found.variables["perturbation"]
    assert (moved > 1).any()
    loss = torch.nn.functional.cross_entropy(
        linear()(moved.clamp(0, 1)), torch.ones(len(moved)).long()
    )
    torch.testing.assert_close(found.objectives[0], loss.detach())


def test_it_covers_all_pixels_and_has_no_other_size(tmp_path):
    settings = SearchSettings(seed=0, search_epochs=1, variant=UniversalPerturbation("4/255", 0.01))
    found = run_search(subject(), settings, [0, 1]).gathered()
    stamp = found.stamps([1.0])
    assert (stamp.mask.shape, stamp.pixels.shape) == ((2, 1, 1, 6, 6), (2, 1, 3, 6, 6))
    assert stamp.mask.all()
    assert stamp.additive
    assert found.selected(1.0).all()
    assert torch.equal(found.cut_from, found.canvases)
    black = torch.zeros(3, 6, 6)
    on_black = stamp._replace(mask=stamp.mask[0, 0], pixels=stamp.pixels[0, 0])(black)
    assert torch.equal(on_black, found.variables["perturbation"][0].clamp(min=0))
    for size in (0.0, 0.1, 1.5):
        with pytest.raises(ValueError, match=rf"`pattern_sizes` \[1.0\] alone, .*; got {size}"):
            found.stamps([1.0, size])
    measured = found.measured(subject(), [1.0])
    measured.save(tmp_path / "p.safetensors")
    back = PatternSet.load(tmp_path / "p.safetensors")
    assert back.variant.describe() == UniversalPerturbation("4/255", 0.01).describe()
    assert torch.equal(back.power.attack_success_rate, measured.power.attack_success_rate)


def test_a_larger_ball_is_stronger():
    """As far as to the other class's images all being taken for the target."""
    found = [
        run_search(subject(linear(0.01)), SearchSettings(seed=0, variant=variant), [1]).gathered()
        for variant in map(UniversalPerturbation, ("1/255", "8/255", "64/255"))
    ]
    weak, middle, strong = (patterns.objectives.item() for patterns in found)
    assert weak > middle > strong
    rates = [each.measured(subject(), [1.0]).power.attack_success_rate.item() for each in found]
    assert rates[0] < rates[2] == 1


@pytest.mark.parametrize("name", ["epsilon", "step_size"])
@pytest.mark.parametrize("value", [0, 8, "300/255"])
def test_what_is_out_of_range_is_named(name, value):
    with pytest.raises(ValueError, match=rf"`{name}` must lie in \(0, 1\], .* got {value}"):
        UniversalPerturbation(**{name: value})
