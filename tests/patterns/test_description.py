"""Tests of a description: records and tables from measures, Grad-CAM beside patterns, figures."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from iscp_lightning.classifiers.subject import Subject
from iscp_lightning.data import MemoryImages
from iscp_lightning.patterns import PatternSet
from iscp_lightning.patterns.anatomy import Compared
from iscp_lightning.patterns.description import (
    Description,
    attention_measures,
    describe_patterns,
)
from iscp_lightning.patterns.pasting import scattered
from iscp_lightning.patterns.portraits import attention_figure, attention_pixels, measure_figures

NAN = math.nan
SIZES = (0.05, 0.1)
NAMES = ("dark", "light")


def described() -> Description:
    values = torch.tensor([[0.1, 0.2], [0.4, NAN], [NAN, NAN]]).double()
    chance = torch.tensor([[0.05, 0.1]]).double().expand(3, 2)
    return Description(["ant", "bee", "cat"], SIZES, {"corner_share": Compared(values, chance)})


def test_records_have_means_classes_and_chance():
    records = described().records
    by_name = {record.name: record for record in records}
    assert len(by_name) == len(records) == 2 * 2 * (1 + 3)
    assert by_name["mean_corner_share/0.05"].value == pytest.approx(0.25)
    assert by_name["mean_corner_share/0.05"].interval == pytest.approx((0.1, 0.4))
    assert by_name["mean_corner_share/0.1"].value == pytest.approx(0.2)
    assert by_name["mean_chance_corner_share/0.1"].value == pytest.approx(0.1)
    assert by_name["corner_share/0.05/bee"].value == pytest.approx(0.4)
    assert math.isnan(by_name["corner_share/0.1/bee"].value)
    assert by_name["corner_share/0.05/bee"].interval is None  # of pixels alone
    assert by_name["chance_corner_share/0.05/cat"].value == pytest.approx(0.05)
    assert ["class" in record.about for record in records] == [False] * 4 + [True] * 12


def test_classes_have_the_intervals_over_images():
    values, ends = torch.tensor([[0.5], [NAN]]).double(), torch.tensor([[[0.4, 0.6]], [[NAN, NAN]]])
    compared = Compared(values, torch.full_like(values, 0.25), ends.double())
    found = Description(["ant", "bee"], (0.1,), {"predictive_power": compared}).records
    assert [record.interval for record in found[2:]] == [
        pytest.approx((0.4, 0.6)),
        pytest.approx((NAN, NAN), nan_ok=True),
        *(None, None),
    ]


def test_tables_name_the_lowest_and_the_highest_class():
    _, first, _, second = described().lines
    head, rule, row = first.splitlines()
    assert head == "patterns of 5 %   mean  by chance  lowest     highest"
    assert row == "corner share     0.250      0.050  0.100 ant  0.400 bee"
    assert rule == "-" * len(row)
    assert second.splitlines()[2] == "corner share      0.200      0.100  0.200 ant  0.200 ant"


class Light(nn.Module):
    """Says `light` where an image is bright on average, `dark` elsewhere."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 1, 1, bias=False)
        self.conv.weight.data.fill_(1 / 3)

    def forward(self, images: Tensor) -> Tensor:
        brightness = self.conv(images).mean((2, 3))
        return torch.cat([0.5 - brightness, brightness - 0.5], 1)


def toy() -> tuple[Subject, PatternSet]:
    """Dark and light images; for `light` the first 25 or 50 of 100 pixels of a canvas.

    The canvas is brightest where the second pattern is: it covers what is attended to.
    """
    images = torch.full((20, 3, 10, 10), 102, dtype=torch.uint8)  # 0.4
    images[10:] = 204
    labels = torch.tensor([0] * 10 + [1] * 10)
    canvas = torch.full((3, 10, 10), 51, dtype=torch.uint8)
    canvas[:, :5] = 255
    canvas[:, 5, 0] = 254
    mask = torch.linspace(1, 0, 100).view(1, 10, 10)
    patterns = PatternSet(
        targets=torch.tensor([1]),
        canvas_indices=torch.tensor([-2]),
        canvases=canvas[None],
        variables={"mask": mask},
        means={"mask": mask},
        objectives=torch.zeros(1),
        search_indices=torch.tensor([0, 10]),
        class_names=NAMES,
        settings={"canvas": "given"},
        provenance={},
    )
    return Subject(Light(), MemoryImages(images, labels), NAMES), patterns


def test_attention_beside_patterns_by_hand():
    subject, patterns = toy()
    measures = attention_measures(subject, patterns, [0.25, 0.5], torch.arange(20))
    # the upper half is attended to alike: ties go to the smaller index, as those of the pattern
    assert measures["attention_overlap"].values.tolist() == [[1, 1]]
    assert measures["attention_overlap"].chance.tolist() == [[0.25 / 1.75, 0.5 / 1.5]]
    # 0.4 + 0.6 * q on average: a pattern of 25 % makes an image light
    assert measures["predictive_power_of_attention"].values.tolist() == [[1, 1]]
    # what is dark on average has negative evidence for `dark` only where it is bright: none at all
    assert measures["attention_before"].values.isnan().all()
    after = [q / (q + 0.4 * (1 - q)) for q in (0.25, 0.5)]
    assert measures["attention_after"].values.tolist() == [pytest.approx(after)]
    # as of all images: alike, so that no draw differs
    ends = [pytest.approx((value, value)) for value in after]
    assert measures["attention_after"].interval.tolist() == [ends]
    assert measures["attention_before"].interval.isnan().all()
    assert measures["attention_overlap"].interval is None


def test_random_pixels_of_the_canvas_draw_attention_too():
    subject, patterns = toy()
    canvas = torch.full((3, 10, 10), 153, dtype=torch.uint8)
    canvas[:, :5] = 255
    patterns = replace(patterns, canvases=canvas[None])
    measures = attention_measures(subject, patterns, [0.5], torch.arange(20))
    mask = scattered(patterns.stamps([0.5]).mask[0, 0], 1, -2, 0.5)[0]
    assert mask.sum() == 50
    pasted = (canvas[0] / 255).where(mask, torch.full((10, 10), 0.4))
    assert pasted.mean() > 0.5  # all of it speaks for `light`
    by_chance = float(pasted[mask].sum() / pasted.sum())
    assert measures["attention_after"].chance.tolist() == [[pytest.approx(by_chance)]]
    assert measures["attention_after"].values.tolist() == [[pytest.approx(0.5 / 0.7)]]


def test_a_white_canvas_shows_nothing_to_attend_to():
    subject, patterns = toy()
    canvas = patterns.canvases[0]
    patterns = patterns[torch.tensor([0, 0])]
    patterns.targets[:] = torch.tensor([0, 1])
    patterns = replace(patterns, canvases=torch.stack([torch.full_like(canvas, 255), canvas]))
    measures = attention_measures(subject, patterns, [0.5], torch.arange(20))
    for name in ("attention_overlap", "predictive_power_of_attention"):
        found, chance, _ = measures[name]
        assert found.isnan().tolist() == chance.isnan().tolist() == [[True], [False]]
    assert not measures["attention_after"].chance[0].isnan().any()
    alone = attention_measures(subject, patterns[torch.tensor([0])], [0.5], torch.arange(20))
    assert alone["attention_overlap"].values.isnan().all()


def test_everything_together():
    subject, patterns = toy()
    found = describe_patterns(subject, patterns, [0.5], torch.arange(1, 20))
    without = describe_patterns(subject, patterns, [0.5], torch.arange(1, 20), attention=False)
    assert found.class_names == ["light"]
    assert [name for name in found.measures if name not in without.measures] == [
        *("predictive_power_of_attention", "attention_overlap"),
        *("attention_before", "attention_after"),
    ]
    assert found.measures["predictive_power"].values.tolist() == [[1]]
    assert found.measures["corner_share"].values.tolist() == [[8 / 50]]
    both = describe_patterns(subject, patterns, [0.25, 0.5], torch.arange(1, 20), attention=False)
    named = [record.about for record in both.records if record.measure == "corner_mass"]
    assert named == [{"class": "light"}]  # whatever the size


def test_a_network_without_convolution_is_refused_before_anything_is_measured(monkeypatch):
    _, patterns = toy()
    network = nn.Sequential(nn.Flatten(), nn.Linear(300, 2))
    images = MemoryImages(torch.zeros(4, 3, 10, 10, dtype=torch.uint8), torch.tensor([0, 0, 1, 1]))
    subject = Subject(network, images, NAMES)
    monkeypatch.setattr("iscp_lightning.patterns.description.pixel_measures", None)
    with pytest.raises(ValueError, match="Grad-CAM needs a convolution"):
        describe_patterns(subject, patterns, [0.5], torch.arange(4))


def test_the_figures():
    drawn = measure_figures(described())
    assert list(drawn) == ["description_5", "description_10"]
    axes = drawn["description_5"].axes[0]
    assert [label.get_text() for label in axes.get_yticklabels()] == [
        *("by chance", "ant", "bee", "cat")
    ]
    assert [text.get_text() for text in axes.texts] == ["0.05", "0.10", "0.40", ""]
    subject, patterns = toy()
    cells = attention_figure(subject, patterns, 0.25, torch.arange(20)).axes
    assert [cell.get_title() for cell in cells] == [
        *("canvas", "attention", "attended 25 %", "pattern 25 %"),
        *("image", "attention", "with pattern", "attention"),
    ]
    assert cells[4].get_xlabel() == "taken for dark"
    assert cells[6].get_xlabel() == "taken for light"
    attended, pattern = (cells[i].images[0].get_array() for i in (2, 3))
    assert np.array_equal(attended, pattern)
    assert (np.asarray(attended).any(2).sum(), attended.max()) == (25, 255)


def test_attention_is_shown_from_blue_to_red():
    image = torch.tensor([[[0, 30], [60, 90]]], dtype=torch.uint8)
    shown = attention_pixels(image, torch.tensor([[-1.0, 0], [1, 2]]))
    assert shown.tolist() == [
        [[0, 0, 128], [15, 15, 142]],
        [[94, 158, 94], [172, 45, 45]],
    ]
    assert attention_pixels(image, None)[..., 2].tolist() == image[0].tolist()
    assert attention_pixels(image, torch.zeros(2, 2))[0, 0].tolist() == [0, 0, 128]
