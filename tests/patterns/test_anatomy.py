"""Tests of what is said of patterns in numbers, on patterns whose numbers are known by hand."""

import math

import pytest
import torch
from torch import Tensor, nn

from iscp_lightning.classifiers.subject import Subject
from iscp_lightning.data import MemoryImages
from iscp_lightning.data.stamps import Stamp
from iscp_lightning.patterns import PatternSet
from iscp_lightning.patterns.anatomy import in_grey, pixel_measures, power_on, success_measures

SIZE = 4 / 64
RED = torch.tensor([255, 0, 0], dtype=torch.uint8)
CORNER, MIDDLE, SCATTERED = (
    torch.tensor([[(row, column) in places for column in range(8)] for row in range(8)])
    for places in (
        [(6, 6), (6, 7), (7, 6), (7, 7)],
        [(3, 3), (3, 4), (4, 3), (4, 4)],
        [(0, 3), (3, 0), (3, 7), (7, 3)],
    )
)


def pattern_set(pixels: list[Tensor], targets: list[int], **facts) -> PatternSet:
    """Patterns of four pixels on red canvases that are no test images."""
    masks = torch.stack(pixels).float()
    count = len(pixels)
    given = {
        "targets": torch.tensor(targets),
        "canvas_indices": torch.tensor([-2 - i for i in range(count)]),
        "canvases": RED[:, None, None].expand(count, 3, 8, 8).clone(),
        "variables": {"mask": masks},
        "means": {"mask": masks},
        "objectives": torch.arange(count).float(),
        "search_indices": torch.zeros(0).long(),
        "class_names": ("off", "on"),
        "settings": {"canvas": "given"},
    }
    return PatternSet(**(given | facts))


def values(measures, name: str) -> tuple[list[float], list[float]]:
    found, chance, _ = measures[name]
    assert found.dtype == chance.dtype == torch.float64
    assert found.shape == chance.shape
    return found[:, 0].tolist(), chance[:, 0].tolist()


def test_pixels_of_the_winners_by_hand():
    patterns = pattern_set([CORNER, SCATTERED, MIDDLE], [0, 1, 1])
    measures = pixel_measures(patterns, [SIZE])
    squares = (3 / 3 + 2 * 3 / 5 + 3 / 8) / 4
    assert values(measures, "connectedness")[0] == pytest.approx([squares, 0.0])
    assert values(measures, "connectedness")[1] == pytest.approx([3 / 63] * 2)
    assert values(measures, "components")[0] == [1, 4]
    assert values(measures, "largest_component")[0] == [1, 0.25]
    assert 3 < values(measures, "components")[1][0] < 4  # four pixels seldom touch
    assert 0.25 < values(measures, "largest_component")[1][0] < 0.5
    assert values(measures, "corner_share") == ([1, 0], [0.25, 0.25])
    assert "object_share" not in measures


def test_the_mass_of_a_mask_is_that_of_all_its_pixels():
    mask = CORNER + 0.25 * MIDDLE.float()
    patterns = pattern_set([mask], [0])
    mass = pixel_measures(patterns, [SIZE, 0.5])["corner_mass"]
    assert mass.values.tolist() == [pytest.approx(4 / 5)]
    assert mass.chance.tolist() == [0.25]
    assert mass.at(1).values.tolist() == mass.values.tolist()
    kept = {"kept": torch.stack([mask]).expand(1, 5, 8, 8)}
    of_area = {"name": "AreaConstrained"}
    areas = pattern_set([mask], [0], variables=kept, means={}, settings={"variant": of_area})
    assert "corner_mass" not in pixel_measures(areas, [SIZE])


def test_overlaps_are_those_of_all_canvases():
    patterns = pattern_set([CORNER, CORNER, MIDDLE, SCATTERED], [0, 1, 1, 1])
    found, chance = values(pixel_measures(patterns, [SIZE]), "overlap_within_class")
    assert found == pytest.approx([math.nan, 0], nan_ok=True)
    assert chance == pytest.approx([SIZE / (2 - SIZE)] * 2)
    between = values(pixel_measures(patterns, [SIZE]), "overlap_between_classes")[0]
    assert between == pytest.approx([1 / 3, 1 / 3])
    dropped = torch.tensor([0.0, 1, math.inf, math.inf])  # as a search variant may do
    measures = pixel_measures(
        pattern_set([*patterns.masks], [0, 1, 1, 1], objectives=dropped), [SIZE]
    )
    assert values(measures, "overlap_between_classes")[0] == [1, 1]


def test_edges_and_objects_of_the_canvas():
    canvases = torch.zeros(2, 3, 8, 8, dtype=torch.uint8)
    canvases[0, :, :, 4:] = 255  # its edge: columns 3 and 4, 16 pixels
    objects = torch.zeros(9, 8, 8, dtype=torch.bool)
    objects[5, :4] = True
    patterns = pattern_set(
        [MIDDLE, CORNER], [0, 1], canvases=canvases, canvas_indices=torch.tensor([5, -1])
    )
    measures = pixel_measures(patterns, [SIZE], objects)
    assert values(measures, "edge_share")[1] == pytest.approx([4 / 64, math.nan], nan_ok=True)
    assert math.isnan(values(measures, "edge_share")[0][1])
    assert values(measures, "object_share")[0] == pytest.approx([0.5, math.nan], nan_ok=True)
    # of no other canvas the object is known
    assert values(measures, "object_share")[1] == pytest.approx([math.nan] * 2, nan_ok=True)
    learned = torch.tensor([-1])  # from white
    bars = pattern_set([canvases[0, 0] > 0], [0], canvases=canvases[:1], canvas_indices=learned)
    edges = pixel_measures(bars, [0.5])["edge_share"]
    assert edges.chance.tolist() == [[16 / 64]]
    assert edges.values.tolist() == [[8 / 32]]


class RedCorner(nn.Module):
    """Says `on` where the red of the lower right corner is above a half."""

    def forward(self, images: Tensor) -> Tensor:
        red = images[:, 0, 6:, 6:].mean((1, 2))
        return torch.stack([torch.full_like(red, 0.5), red], 1)


def subject() -> Subject:
    """Six dark images and four with a red corner, one of which is dark by mistake."""
    images = torch.zeros(10, 3, 8, 8, dtype=torch.uint8)
    images[7:, 0, 6:, 6:] = 255
    labels = torch.tensor([0] * 6 + [1] * 4)
    return Subject(RedCorner(), MemoryImages(images, labels), ["off", "on"])


def test_patterns_lie_on_other_objects_by_chance():
    objects = torch.zeros(3, 8, 8, dtype=torch.bool)
    objects[0, :4], objects[1, 3:], objects[2, 2:6, 2:6] = True, True, True
    indices = torch.tensor([0, 1, 2])
    patterns = pattern_set([MIDDLE, CORNER, MIDDLE], [0, 1, 2], canvas_indices=indices)
    found, chance = values(pixel_measures(patterns, [SIZE], objects), "object_share")
    assert found == [0.5, 1, 1]
    assert chance == [1, 0, 0.75]
    same = pattern_set([MIDDLE, CORNER], [0, 1], canvas_indices=torch.tensor([0, 0]))
    assert pixel_measures(same, [SIZE], objects)["object_share"].chance.isnan().all()


def test_a_pattern_whose_colour_counts():
    patterns = pattern_set([MIDDLE, CORNER], [0, 1])
    measures = success_measures(subject(), patterns, [SIZE], torch.arange(10))
    # of the class `off` all images are right, of `on` three of four
    assert values(measures, "predictive_power")[0] == pytest.approx([1 / 4, 1 / 0.75])
    assert values(measures, "predictive_power_in_grey")[0] == pytest.approx([1 / 4, 0])
    assert values(measures, "predictive_power")[1] == [0.25, 0]  # four random pixels miss it
    whole = success_measures(subject(), patterns, [1.0], torch.arange(10))["predictive_power"]
    assert whole.chance[1].tolist() == whole.values[1].tolist() == [pytest.approx(1 / 0.75)]


def test_images_without_colours_have_no_grey():
    images = MemoryImages(torch.zeros(4, 1, 8, 8, dtype=torch.uint8), torch.tensor([0, 0, 1, 1]))
    patterns = pattern_set([CORNER], [1], canvases=torch.full((1, 1, 8, 8), 255, dtype=torch.uint8))
    measures = success_measures(
        Subject(RedCorner(), images, ["off", "on"]), patterns, [SIZE], torch.arange(4)
    )
    assert set(measures) == {"predictive_power"}


def test_only_the_chosen_images_are_pasted_on():
    patterns = pattern_set([CORNER], [1])
    stamps = patterns.stamps([SIZE])
    power = power_on(subject(), patterns, stamps, [SIZE], torch.tensor([0, 3, 6, 7]))
    assert power.shown.tolist() == [2]
    assert power.images.tolist() == [2, 2]
    assert power.clean_accuracy.tolist() == [1, 0.5]
    assert power.controls.random_mask_rate.tolist() == [[0]]


@pytest.mark.parametrize("sizes", [1, 2])
def test_grey_is_the_luminance(sizes):
    pixels = torch.tensor([[255, 0, 0], [10, 20, 30]], dtype=torch.uint8)[:, None, :, None, None]
    shared = pixels.expand(2, sizes, 3, 2, 2)
    grey = in_grey(Stamp(torch.ones(2, sizes, 1, 2, 2), shared))
    expected = torch.tensor([0.299, (2.99 + 11.74 + 3.42) / 255])
    assert grey.pixels.shape == shared.shape
    torch.testing.assert_close(
        grey.pixels, expected[:, None, None, None, None].expand(2, sizes, 3, 2, 2)
    )
    own = in_grey(Stamp(torch.ones(2, sizes, 1, 2, 2), shared.contiguous() / 255, additive=True))
    torch.testing.assert_close(own.pixels, grey.pixels)
    assert own.additive
