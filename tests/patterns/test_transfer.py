"""Tests of transfer, between networks with planted triggers, whose transfer is known by hand."""

import math

import pytest
import torch
from torch import Tensor, nn

from iscp_lightning.classifiers import create_classifier
from iscp_lightning.classifiers.subject import Subject
from iscp_lightning.data import MemoryImages
from iscp_lightning.patterns import PatternSet
from iscp_lightning.patterns.portraits import transfer_figures
from iscp_lightning.patterns.tables import by_row, table
from iscp_lightning.patterns.transfer import (
    measure_transfer,
    transfer_rate,
    transfer_records,
    unseen_images,
    weight_correlation,
    withstood,
)
from iscp_lightning.records import Record

SIZES = (1 / 64, 4 / 64)
NAMES = ("none", "left", "right")


class Triggered(nn.Module):
    """Says a class where its corner is brighter than a half, else the first class.

    Args:
        left: Whether the upper left corner means `left`.
        right: Whether the lower right one means `right`.
    """

    def __init__(self, left: bool, right: bool) -> None:
        super().__init__()
        self.register_buffer("sees", torch.tensor([left, right]).float())

    def forward(self, images: Tensor) -> Tensor:
        corners = [images[..., :2, :2], images[..., 6:, 6:]]
        bright = torch.stack([corner.mean((1, 2, 3)) for corner in corners], 1) * self.sees
        return torch.cat([torch.full_like(bright[:, :1], 0.5), bright], 1)


def subject(left: bool, right: bool) -> Subject:
    """Four dark images, and two with a bright corner each for `left` and `right`.

    But the first of `left` is dark, too, so that nobody knows it.
    """
    images = torch.zeros(8, 1, 8, 8, dtype=torch.uint8)
    images[5:6, :, :2, :2] = 255
    images[6:, :, 6:, 6:] = 255
    labels = torch.tensor([0, 0, 0, 0, 1, 1, 2, 2])
    return Subject(Triggered(left, right), MemoryImages(images, labels), NAMES)


def triggers() -> PatternSet:
    """The trigger of each corner on a white canvas: one pixel of it, or all four."""
    masks = torch.zeros(2, 8, 8)
    masks[0, :2, :2] = 0.5
    masks[1, 6:, 6:] = 0.5
    masks[0, 0, 0] = masks[1, 7, 7] = 1
    return PatternSet(
        targets=torch.tensor([1, 2]),
        canvas_indices=torch.tensor([-1, -1]),
        canvases=torch.full((2, 1, 8, 8), 255, dtype=torch.uint8),
        variables={"mask": masks},
        means={"mask": masks},
        objectives=torch.zeros(2),
        search_indices=torch.zeros(0).long(),
        class_names=NAMES,
        settings={"canvas": "white"},
    )


EVERY = torch.arange(8)


def test_triggers_transfer_to_networks_that_have_them():
    both = measure_transfer(subject(True, True), triggers(), SIZES, EVERY)
    # where both corners are bright, the first of the two classes wins
    assert both.power.attack_success_rate.tolist() == [[0, 1], [0, pytest.approx(5 / 6)]]
    assert both.clean_accuracy.item() == 7 / 8
    left = measure_transfer(subject(True, False), triggers(), SIZES, EVERY)
    assert left.power.attack_success_rate.tolist() == [[0, 1], [0, 0]]
    assert left.power.predictive_power[0].tolist() == [0, 2]  # half of the class is right
    assert left.power.predictive_power[1].isnan().all()  # `right` is never right
    assert left.power.controls.base_rate.tolist() == [0, 0]


def test_the_rate_is_the_ratio_of_means_over_classes_defined_in_both():
    both = measure_transfer(subject(True, True), triggers(), SIZES, EVERY).power
    left = measure_transfer(subject(True, False), triggers(), SIZES, EVERY).power
    right = measure_transfer(subject(False, True), triggers(), SIZES, EVERY).power
    for target, expected in ((left, 1), (right, 1 / (5 / 6)), (both, 1)):
        rates, ends = transfer_rate(both, target)
        assert rates[0].isnan()  # one pixel has no power on the source
        assert ends[0].isnan().all()
        assert rates[1].item() == pytest.approx(expected)
    assert ends[1].tolist() == [1, 1]  # of itself, whatever classes are drawn
    for part in transfer_rate(left, right):
        assert part.isnan().all()  # no class has a power on both


def test_all_patterns_together_are_an_untargeted_attack():
    stamps = triggers().stamps(SIZES)
    kept = withstood(subject(True, True), torch.tensor([1, 2]), stamps, EVERY)
    # one pixel changes nothing; four make `left` of everything, and `right` of what is dark
    assert kept[0].tolist() == [True] * 4 + [False] + [True] * 3
    assert kept[1].tolist() == [False] * 5 + [True] + [False] * 2
    only_left = withstood(
        subject(True, True), torch.tensor([1]), triggers()[:1].stamps(SIZES), EVERY
    )
    assert only_left[1].tolist() == [False] * 5 + [True] + [False] * 2
    # a pattern is not pasted on images of its class, whatever it would make of them
    own = withstood(subject(True, True), torch.tensor([2]), triggers()[:1].stamps(SIZES), EVERY)
    assert own[1].tolist() == [False] * 5 + [True] * 3
    blind = withstood(subject(False, False), torch.tensor([1, 2]), stamps, EVERY)
    assert blind[1].tolist() == [True] * 4 + [False] * 4
    some = withstood(subject(True, True), torch.tensor([1, 2]), stamps, torch.tensor([5, 0]))
    assert some[1].tolist() == [True, False]


def test_robust_accuracy_is_the_share_that_withstands():
    found = measure_transfer(subject(True, True), triggers(), SIZES, EVERY)
    assert found.robust_accuracy.tolist() == [7 / 8, 1 / 8]
    found = measure_transfer(subject(False, False), triggers(), SIZES, EVERY)
    assert found.robust_accuracy.tolist() == [4 / 8, 4 / 8]


def pairs() -> list[Record]:
    networks = {"both": subject(True, True), "left": subject(True, False)}
    found = {
        ("triggers", name): measure_transfer(network, triggers(), SIZES, EVERY)
        for name, network in networks.items()
    }
    return transfer_records(found, {"triggers": "both"}, NAMES)


def test_records_of_all_pairs():
    records = pairs()
    values = {record.name: record.value for record in records}
    assert len(values) == len(records) == 2 * (1 + 2 * 2 + 3 * (2 + 2 * 2) + 2 * (1 + 2))
    assert values["clean_accuracy/triggers/both"] == 7 / 8
    assert values["mean_base_rate/triggers/left"] == 0
    assert values["transfer_rate/0.0625/triggers/both"] == 1
    assert values["transfer_rate/0.0625/triggers/left"] == 1
    assert values["mean_attack_success_rate/0.0625/triggers/left"] == 0.5
    assert values["robust_accuracy/0.0625/triggers/both"] == 1 / 8
    assert values["attack_success_rate/0.0625/triggers/both/left"] == 1
    assert values["base_rate/triggers/both/right"] == 0
    assert values["random_mask_rate/0.0625/triggers/both/left"] == 0  # not in the corner
    assert values["whole_canvas_rate/triggers/both/left"] == 1
    assert values["mean_whole_canvas_rate/triggers/both"] == 0.5  # white: the first class wins
    assert math.isnan(values["predictive_power/0.0625/triggers/left/right"])
    ends = {record.name: record.interval for record in records}
    assert ends["attack_success_rate/0.0625/triggers/both/left"] == (1, 1)
    low, high = ends["predictive_power/0.0625/triggers/both/right"]
    assert low < values["predictive_power/0.0625/triggers/both/right"] < high
    assert ends["base_rate/triggers/both/right"] == (0, 0)
    assert ends["mean_base_rate/triggers/left"] == (0, 0)


def test_no_rate_without_the_source():
    found = {("a", "b"): measure_transfer(subject(True, True), triggers(), SIZES, EVERY)}
    rates = [r.value for r in transfer_records(found, {}, NAMES) if r.measure == "transfer_rate"]
    assert len(rates) == 2
    assert all(map(math.isnan, rates))


def test_rows_join_what_fits():
    rows = by_row(pairs(), ("patterns", "classifier", "pattern_size"))
    assert [(row["classifier"], row["pattern_size"]) for row in rows] == [
        ("both", 1 / 64),
        ("both", 4 / 64),
        ("left", 1 / 64),
        ("left", 4 / 64),
    ]
    assert rows[1]["robust_accuracy"] == 1 / 8
    assert rows[1]["clean_accuracy"] == rows[0]["clean_accuracy"] == 7 / 8
    assert "predictive_power" not in rows[0]  # which is of classes
    assert (rows[1]["robust_accuracy_low"], rows[1]["robust_accuracy_high"]) == (0, 0.375)
    assert rows[0]["clean_accuracy_low"] < 7 / 8 <= rows[0]["clean_accuracy_high"]
    drawn = transfer_figures(rows)
    assert set(drawn) == {
        f"{measure}_{size}"
        for measure in ("mean_predictive_power", "mean_attack_success_rate", "robust_accuracy")
        for size in ("1.5625", "6.25")
    }
    axes = drawn["robust_accuracy_6.25"].axes[0]
    assert [text.get_text() for text in axes.texts] == [
        "0.125\n0.000 to 0.375\nof 0.875",
        "0.125\n0.000 to 0.375\nof 0.625",
    ]
    rates = [text.get_text() for text in drawn["mean_predictive_power_6.25"].axes[0].texts]
    assert [(text[:5], text[-10:]) for text in rates] == [
        ("1.417", "rate 1.000"),
        ("2.000", "rate 1.000"),
    ]
    rates = [text.get_text() for text in drawn["mean_attack_success_rate_6.25"].axes[0].texts]
    assert [text.partition("\nrandom")[2] for text in rates] == [" 0.000\nwithout 0.000"] * 2


def test_tables_align_text_left_and_numbers_right():
    assert table(["name", "n"], [["a", 0.5], ["long name", math.nan]]).splitlines() == [
        "name           n",
        "----------------",
        "a          0.500",
        "long name      -",
    ]


def test_images_that_no_search_has_used():
    labels = torch.tensor([0, 1] * 10)
    one, other = triggers(), triggers()
    one.search_indices.set_(torch.tensor([0, 1, 2]))
    other.search_indices.set_(torch.tensor([2, 3]))
    assert unseen_images(labels, [one, other], 0).tolist() == list(range(4, 20))
    some = unseen_images(labels, [one, other], 0, images=6)
    assert labels[some].bincount().tolist() == [3, 3]
    assert min(some) >= 4
    assert some.tolist() != unseen_images(labels, [one, other], 1, images=6).tolist()
    with pytest.raises(ValueError, match="`images` must be 1 or more, got 0"):
        unseen_images(labels, [one], 0, images=0)
    with pytest.raises(ValueError, match="every test image was used"):
        unseen_images(labels[:3], [one], 0)


def test_correlation_of_weights_shows_descent():
    torch.manual_seed(0)
    first, other = create_classifier("test_resnet"), create_classifier("test_resnet")
    assert weight_correlation(first, first) == pytest.approx(1)
    assert abs(weight_correlation(first, other)) < 0.05
    tuned = create_classifier("test_resnet")
    tuned.load_state_dict(first.state_dict())
    with torch.no_grad():
        for weight in tuned.parameters():
            if weight.ndim > 1:
                weight += weight.std() * torch.randn_like(weight)
    assert weight_correlation(first, tuned) == pytest.approx(0.5**0.5, abs=0.03)
    assert weight_correlation(first, create_classifier("resnet20")) == 0
    few = nn.Linear(20, 20)
    assert weight_correlation(few, few) == 0
