import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor
from toys import Linear, grey_images

from iscp_lightning.classifiers.subject import Subject
from iscp_lightning.data import MemoryImages
from iscp_lightning.patterns import PatternSet, SearchSettings, search_patterns
from iscp_lightning.patterns.pasting import measured_indices

LABELS = torch.tensor([0, 0, 0, 0, 1, 1, 1, 1])


def corner_pattern(canvas_index: int = -1) -> PatternSet:
    """One pattern: the first pixel of a white canvas, for class 1."""
    mask = torch.zeros(1, 2, 2)
    mask[0, 0, 0] = 1
    return PatternSet(
        targets=torch.tensor([1]),
        canvas_indices=torch.tensor([canvas_index]),
        canvases=torch.full((1, 1, 2, 2), 255, dtype=torch.uint8),
        variables={"mask": mask},
        means={"mask": mask.clone()},
        objectives=torch.zeros(1),
        search_indices=torch.tensor([0, 4]),
        class_names=("off", "on"),
        settings={"canvas": "white"},
    )


def bright_corner() -> tuple[Linear, torch.Tensor]:
    """A model that says 1 when pixel (0, 0) beats pixel (1, 1), and eight images."""
    maps = torch.zeros(2, 2, 2)
    maps[1, 0, 0], maps[0, 1, 1] = 1, 1
    images = torch.zeros(8, 1, 2, 2, dtype=torch.uint8)
    images[:, 0, 1, 1] = torch.tensor([255, 100, 100, 100, 100, 100, 10, 10])  # 0 cannot be turned
    images[:, 0, 0, 0] = torch.tensor([0, 0, 0, 0, 0, 0, 200, 200])
    return Linear(maps), images


@pytest.mark.parametrize(
    ("measure_on", "power", "accuracy"),
    [
        # full: 3 of 4 class-0 images turn, 2 of 4 class-1 images are right: 0.75 / 0.5
        ("full", 1.5, [1.0, 0.5]),
        # held out: images 0 and 4 are gone: 3 / 3 turn, 2 / 3 right
        ("held_out", 1.5, [1.0, 2 / 3]),
    ],
)
def test_definition_by_hand(measure_on, power, accuracy):
    classifier, images = bright_corner()
    measured = corner_pattern().predictive_power(
        classifier, images, LABELS, pattern_sizes=[0.25], measure_on=measure_on
    )
    assert measured.predictive_power.tolist() == [[pytest.approx(power)]]
    assert measured.clean_accuracy.tolist() == pytest.approx(accuracy)
    images = [4, 4] if measure_on == "full" else [3, 3]
    assert measured.images.tolist() == images
    right = sum(a * n for a, n in zip(accuracy, images, strict=True))
    assert measured.overall_clean_accuracy == pytest.approx(right / sum(images))
    assert (measured.mean.item(), measured.std.item(), measured.defined.item()) == (
        pytest.approx(power),
        0,
        1,
    )


def test_a_canvas_is_left_out_of_its_own_measurement():
    classifier, images = bright_corner()
    without = corner_pattern(canvas_index=0)
    measured = without.predictive_power(
        classifier, images, LABELS, pattern_sizes=[0.25], measure_on="full"
    )
    assert measured.predictive_power.item() == pytest.approx(1.0 / 0.5)  # 3 of 3 others turn


def test_undefined_power_is_nan_and_left_out_of_the_mean():
    classifier, images = bright_corner()
    images[:, 0, 0, 0] = 0
    measured = corner_pattern().predictive_power(
        classifier, images, LABELS, pattern_sizes=[0.25], measure_on="full"
    )
    assert measured.predictive_power.isnan().all()
    assert measured.mean.isnan().all()
    assert measured.defined.tolist() == [0]


class NoEmptyBatch(Linear):
    """Fails like networks that `view` their batch."""

    def forward(self, images: Tensor) -> Tensor:
        assert len(images) > 0, "an empty batch"
        return super().forward(images)


def test_no_empty_batch_reaches_the_classifier():
    """Batches of one image show the target class alone, or the canvas alone."""
    linear, images = bright_corner()
    strict = NoEmptyBatch(linear.maps.data)
    for canvas_index in (-1, 3):
        whole, single = (
            corner_pattern(canvas_index).predictive_power(
                classifier, images, LABELS, pattern_sizes=[0.25, 0.5], measure_on="full"
            )
            for classifier in (linear, strict)
        )
        assert torch.equal(whole.attack_success_rate, single.attack_success_rate)


def test_full_is_all_that_is_left_when_everything_was_searched():
    images, labels = grey_images()
    classifier = Linear(torch.zeros(2, 8, 8))
    settings = SearchSettings(canvas="white", search_epochs=1)
    found = search_patterns(
        classifier, images, labels, settings, search_fraction=1.0, progress=False
    )
    with pytest.raises(ValueError, match=r"`search_fraction` 1.*`full`"):
        found.predictive_power(classifier, images, labels)
    found.predictive_power(classifier, images, labels, measure_on="full")
    with pytest.raises(ValueError, match="`measure_on` must be"):
        found.predictive_power(classifier, images, labels, measure_on="train")


def test_searched_is_the_other_part():
    labels = torch.zeros(4).long()
    assert measured_indices(labels, torch.tensor([3, 1]), "searched").tolist() == [1, 3]
    assert measured_indices(labels, torch.tensor([3, 1]), "held_out").tolist() == [0, 2]
    with pytest.raises(ValueError, match="has used no test image"):
        measured_indices(labels, torch.zeros(0).long(), "searched")


def test_fewer_images_are_as_many_of_each_class():
    labels = torch.arange(90) % 3
    searched = torch.arange(0, 90, 2)
    chosen = measured_indices(labels, searched, "held_out", 12, seed=1)
    assert (chosen % 2).all()
    assert chosen.equal(chosen.unique())
    assert labels[chosen].bincount().tolist() == [4, 4, 4]
    assert not chosen.equal(measured_indices(labels, searched, "held_out", 12, seed=2))
    assert len(measured_indices(labels, searched, "held_out", 1000)) == 45
    with pytest.raises(ValueError, match="`measure_images` must be 1 or more, got 0"):
        measured_indices(labels, searched, "held_out", 0)


def measured(pattern: PatternSet) -> PatternSet:
    classifier, images = bright_corner()
    subject = Subject(classifier, MemoryImages(images, LABELS), pattern.class_names)
    return pattern.measured(subject, [0.5, 0.25], "full")


def test_pattern_files_round_trip(tmp_path):
    pattern = measured(replace(corner_pattern(), provenance={"epoch": 3}))
    path = tmp_path / "deep" / "pattern.safetensors"
    pattern.save(path)
    back = PatternSet.load(path)
    assert torch.equal(back.masks, pattern.masks)
    assert torch.equal(back.mask_means, pattern.mask_means)
    assert (back.class_names, back.provenance) == (("off", "on"), {"epoch": 3})
    assert (back.power.pattern_sizes, back.power.measured_on) == ((0.25, 0.5), "full")
    for name in ("targets", "attack_success_rate", "shown", "clean_accuracy", "images"):
        assert torch.equal(getattr(back.power, name), getattr(pattern.power, name)), name
    assert [p.name for p in path.parent.iterdir()] == ["pattern.safetensors"]
    corner_pattern().save(path)
    assert PatternSet.load(path).power is None


def test_a_subset_has_its_own_measurements():
    three = corner_pattern()[torch.tensor([0, 0, 0])]
    three.masks[1] = three.masks[1].roll(1, 1)  # another pixel turns nobody
    found = measured(three)
    assert found[torch.tensor([1])].power.attack_success_rate[0, 0] == 0
    parts = [(rows, found[rows]) for rows in (torch.tensor([2]), torch.tensor([1, 0]))]
    rates = PatternSet.joined(parts).power.attack_success_rate
    assert torch.equal(rates, found.power.attack_success_rate)
    some = three.measured(
        Subject(bright_corner()[0], MemoryImages(bright_corner()[1], LABELS), ("off", "on")),
        [0.25],
        "full",
        torch.tensor([1]),
    )
    assert some.power.attack_success_rate.isnan().flatten().tolist() == [True, False, True]
    assert some.power.shown.tolist() == [0, 4, 0]


def test_winners_alone_are_read_from_a_file(tmp_path):
    generator = torch.Generator().manual_seed(0)
    five = corner_pattern()[torch.zeros(5).long()]
    five.masks.copy_(torch.rand(five.masks.shape, generator=generator))
    five = replace(
        five,
        targets=torch.tensor([0, 0, 1, 1, 1]),
        objectives=torch.tensor([2.0, 1.0, 3.0, 5.0, 0.5]),
    )
    found = measured(five)
    found.save(tmp_path / "five.safetensors")
    winners = PatternSet.load(tmp_path / "five.safetensors", winners=True)
    expected = found[torch.tensor([1, 4])]
    assert torch.equal(winners.masks, expected.masks)
    assert torch.equal(winners.targets, expected.targets)
    assert torch.equal(winners.search_indices, found.search_indices)
    assert torch.equal(winners.power.attack_success_rate, expected.power.attack_success_rate)
    assert torch.equal(winners.power.images, expected.power.images)
    of_class = PatternSet.load(tmp_path / "five.safetensors", classes=[1, 7])
    assert torch.equal(of_class.masks, found.masks[2:])
    best = PatternSet.load(tmp_path / "five.safetensors", winners=True, classes=[1])
    assert torch.equal(best.masks, found.masks[4:])
    assert len(PatternSet.load(tmp_path / "five.safetensors", classes=[])) == 0


GOLDEN = Path(__file__).parents[1] / "golden"


def test_a_file_of_format_1_says_what_it_said():
    stored = json.loads((GOLDEN / "format1.json").read_text())
    for winners in (False, True):
        found = PatternSet.load(GOLDEN / "format1.safetensors", winners=winners)
        assert len(found) == (2 if winners else 4)
        assert found.selected(0.05).sum((1, 2)).tolist() == [51] * len(found)
        for entry in stored["classes"]:
            (row,) = [w for w in found.winners.tolist() if found.targets[w] == entry["class"]]
            power = dict(
                zip(found.power.pattern_sizes, found.power.predictive_power[row], strict=True)
            )
            for size, value in entry["predictive_power"].items():
                assert power[float(size)] == pytest.approx(value)
            assert found.power.clean_accuracy[entry["class"]] == entry["clean_accuracy"]
        assert found.settings["canvas"] == "positive"
        assert "test_set" in found.provenance


def test_other_files_are_refused(tmp_path):
    garbage = tmp_path / "garbage.safetensors"
    garbage.write_bytes(b"not a file")
    with pytest.raises(ValueError, match="garbage"):
        PatternSet.load(garbage)
    newer = tmp_path / "newer.safetensors"
    from iscp_lightning.patterns import pattern

    old = pattern.FORMAT_VERSION
    pattern.FORMAT_VERSION = old + 1
    try:
        corner_pattern().save(newer)
    finally:
        pattern.FORMAT_VERSION = old
    with pytest.raises(ValueError, match=rf"format 1 to {old}: it says {old + 1}"):
        PatternSet.load(newer)


def test_winners_have_the_lowest_objective():
    two = corner_pattern()[torch.tensor([0, 0, 0])]
    two = replace(two, targets=torch.tensor([1, 0, 1]), objectives=torch.tensor([0.5, 3.0, 0.2]))
    assert two.winners.tolist() == [1, 2]


def test_controls_in_closed_form():
    """A network that sums the first row: whatever lights two of its pixels makes class 1."""

    class FirstRow(torch.nn.Module):
        def forward(self, images: Tensor) -> Tensor:
            lit = images[:, 0, 0].sum(1)
            return torch.stack([torch.full_like(lit, 1.5), lit], 1)

    images = torch.zeros(8, 3, 4, 4, dtype=torch.uint8)
    images[:2, :, 0] = 255  # two of class 0 are taken for class 1 as they are
    images[4:, :, 0] = 255
    mask = torch.zeros(1, 4, 4)
    mask[0, 3] = 1  # a pattern where nothing is seen
    patterns = replace(
        corner_pattern(),
        canvases=torch.full((1, 3, 4, 4), 255, dtype=torch.uint8),
        variables={"mask": mask},
        means={"mask": mask},
        search_indices=torch.zeros(0).long(),
    )
    subject = Subject(FirstRow(), MemoryImages(images, LABELS), "ab", torch.zeros(0).long())
    power = patterns.measured(subject, [1 / 4, 1.0]).power
    assert power.controls.base_rate.tolist() == [0.5]
    assert power.controls.whole_canvas_rate.tolist() == [1.0]
    assert power.attack_success_rate.tolist() == [[0.5, 1.0]]
    random_rates = power.controls.random_mask_rate[0].tolist()
    assert random_rates[0] in (0.5, 1.0)  # as two of its four pixels fall into the row, or not
    assert random_rates[1] == 1.0  # every pixel: nothing to scatter
    alone = patterns.measured(subject, [1 / 4, 1.0], controlled=torch.zeros(0).long()).power
    assert alone.controls.random_mask_rate.isnan().all()
