import pytest
import torch
import torch.nn.functional as F
from toys import Linear, grey_images

from iscp_lightning.classifiers.subject import Subject
from iscp_lightning.data import MemoryImages
from iscp_lightning.patterns import SearchSettings
from iscp_lightning.patterns.canvas import Canvases
from iscp_lightning.patterns.engine import PatternSearch
from iscp_lightning.patterns.search import run_search
from iscp_lightning.patterns.variants import Algorithm1, TotalVariation
from iscp_lightning.patterns.variants.base import Problems
from iscp_lightning.patterns.variants.total_variation import mean_squared_variation


def one_pixel(row: int, column: int) -> torch.Tensor:
    mask = torch.zeros(4, 5)
    mask[row, column] = 1
    return mask


@pytest.mark.parametrize(
    ("mask", "variation"),
    [
        (torch.full((4, 5), 0.7), 0),
        (one_pixel(1, 2), 4),  # a neighbour on each side
        (one_pixel(0, 2), 3),  # nothing beyond the border, and no other border next to it
        (one_pixel(3, 4), 2),
        (torch.arange(20).view(4, 5) % 2 / 1.0, 4 * 4 + 3 * 5),  # a checkerboard
        (torch.arange(4).view(4, 1).expand(4, 5) / 10, 3 * 5 * 0.01),  # squares of 0.1
    ],
    ids=["constant", "inside", "border", "corner", "checkerboard", "ramp"],
)
def test_variation_of_known_masks(mask, variation):
    torch.testing.assert_close(
        mean_squared_variation(torch.stack([mask, torch.zeros(4, 5)])),
        torch.tensor([variation / 20, 0.0]),
    )


def test_it_is_added_to_the_sparsity():
    masks = {"mask": torch.stack([one_pixel(1, 2), one_pixel(3, 4)])}
    problems = Problems(torch.zeros(2, 3, 4, 5), torch.zeros(2), torch.tensor([0.2, 8.0]), 0.0)
    expected = torch.tensor([0.2 / 20 + 0.5 * 4 / 20, 8 / 20 + 0.5 * 2 / 20])
    torch.testing.assert_close(TotalVariation(0.5).penalty(masks, problems), expected)


def search_of(classifier, **settings) -> PatternSearch:
    subject = Subject(classifier, MemoryImages(*grey_images()), "ab", torch.arange(20))
    canvases = Canvases("white", torch.tensor([0, 1]), torch.tensor([-1, -1]))
    return PatternSearch(subject, canvases, SearchSettings(seed=0, **settings))


def test_a_spike_is_levelled_by_one_step():
    """It goes down, its neighbours go up, and nothing else moves."""
    flat = Linear(torch.zeros(2, 8, 8))
    search = search_of(flat, sparsity=0.0, step_size=0.05, variant=TotalVariation())
    with torch.no_grad():
        search.variables["mask"][0, 3, 4] = 0.9
    search.step()
    expected = torch.full((8, 8), 0.5)
    expected[2, 4] = expected[4, 4] = expected[3, 3] = expected[3, 5] = 0.55
    expected[3, 4] = 0.85
    torch.testing.assert_close(search.variables["mask"][0].detach(), expected)
    assert (search.variables["mask"][1] == 0.5).all()


def test_smoothness_zero_is_algorithm_1_and_more_is_smoother():
    torch.manual_seed(0)
    noise = Linear(torch.randn(2, 8, 8), 0.2)
    subject = Subject(noise, MemoryImages(*grey_images()), "ab", torch.arange(20))
    masks = [
        run_search(subject, SearchSettings(seed=0, canvas="white", variant=variant), [0, 1])
        .gathered()
        .masks
        for variant in (Algorithm1(), TotalVariation(0.0), TotalVariation(0.2), TotalVariation(50))
    ]
    assert torch.equal(masks[0], masks[1])
    rough, some, smooth = (mean_squared_variation(each).mean() for each in masks[1:])
    assert smooth < 0.5 * rough
    assert smooth < some <= rough


def test_the_objective_is_the_equation():
    """Of a search's final mask, written plainly."""
    torch.manual_seed(0)
    classifier = Linear(torch.randn(2, 8, 8), 0.2)
    images, labels = grey_images()
    subject = Subject(classifier, MemoryImages(images, labels), "ab", torch.arange(20))
    settings = SearchSettings(0.3, seed=0, canvas="white", variant=TotalVariation(2.0))
    found = run_search(subject, settings, [1]).gathered()
    (mask,) = found.masks
    mixed = mask + (1 - mask) * images[:20][labels[:20] != 1] / 255
    loss = F.cross_entropy(classifier(mixed), torch.ones(len(mixed)).long())
    differences = [
        (mask[1:] - mask[:-1]).square().sum(),
        (mask[:, 1:] - mask[:, :-1]).square().sum(),
    ]
    expected = loss + 0.3 * mask.mean() + 2.0 * sum(differences) / 64
    torch.testing.assert_close(found.objectives[0], expected.detach())


@pytest.mark.parametrize("smoothness", [-0.1, float("nan"), float("inf")])
def test_what_is_no_smoothness_is_refused(smoothness):
    with pytest.raises(ValueError, match="`smoothness` must be 0 or more, got"):
        TotalVariation(smoothness)
