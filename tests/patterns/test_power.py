from dataclasses import replace

import pytest
import torch
from torch import Tensor
from toys import Linear, grey_images

from iscp_lightning.data import Batch, MemoryImages
from iscp_lightning.data.images import to_float
from iscp_lightning.patterns import (
    PatternSet,
    PredictivePower,
    SearchSettings,
    power,
    search_patterns,
)
from iscp_lightning.patterns.power import measure_power

LABELS = torch.tensor([0, 0, 0, 0, 1, 1, 1, 1])


def corner_pattern(canvas_index: int = -1) -> PatternSet:
    """One pattern: the first pixel of a white canvas, for class 1."""
    mask = torch.zeros(1, 2, 2)
    mask[0, 0, 0] = 1
    return PatternSet(
        targets=torch.tensor([1]),
        canvas_indices=torch.tensor([canvas_index]),
        canvases=torch.full((1, 1, 2, 2), 255, dtype=torch.uint8),
        masks=mask,
        mask_means=mask.clone(),
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


def test_batches_add_up_and_merge_like_ranks():
    classifier, images = bright_corner()
    batch = Batch(to_float(images), LABELS, torch.arange(8))
    whole = PredictivePower(corner_pattern(), [0.25, 0.5])
    whole.update(classifier, batch)
    parts = [PredictivePower(corner_pattern(), [0.25, 0.5]) for _ in range(2)]
    for part, rows in zip(parts, (slice(0, 3), slice(3, 8)), strict=True):
        part.update(classifier, Batch(batch.image[rows], batch.label[rows], batch.index[rows]))
    parts[0].merge_state(parts[1])
    for a, b in zip(whole.result(), parts[0].result(), strict=True):
        torch.testing.assert_close(a, b)


class NoEmptyBatch(Linear):
    """Fails like networks that `view` their batch."""

    def forward(self, images: Tensor) -> Tensor:
        assert len(images) > 0, "an empty batch"
        return super().forward(images)


def test_no_empty_batch_reaches_the_classifier():
    """Sorted by class, whole batches show the target class alone, or the canvas alone."""
    linear, images = bright_corner()
    strict = NoEmptyBatch(linear.maps.data)
    for canvas_index in (-1, 3):
        whole = PredictivePower(corner_pattern(canvas_index), [0.25, 0.5])
        whole.update(linear, Batch(to_float(images), LABELS, torch.arange(8)))
        sorted_by_class = PredictivePower(corner_pattern(canvas_index), [0.25, 0.5])
        for rows in ([0, 1, 2], [3], [], [4, 5, 6, 7]):
            index = torch.tensor(rows, dtype=torch.int64)
            batch = Batch(to_float(images[index]), LABELS[index], index)
            sorted_by_class.update(strict, batch)
        for a, b in zip(whole.result(), sorted_by_class.result(), strict=True):
            torch.testing.assert_close(a, b)


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


def test_pattern_files_round_trip(tmp_path):
    pattern = replace(corner_pattern(), provenance={"epoch": 3}, results={"x": float("nan")})
    path = tmp_path / "deep" / "pattern.safetensors"
    pattern.save(path)
    back = PatternSet.load(path)
    assert torch.equal(back.masks, pattern.masks)
    assert (back.class_names, back.provenance, back.results) == (
        ("off", "on"),
        {"epoch": 3},
        {"x": None},
    )
    assert [p.name for p in path.parent.iterdir()] == ["pattern.safetensors"]


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


def test_patterns_measured_by_several_ranks_keep_their_order(monkeypatch):
    classifier, images = bright_corner()
    three = corner_pattern()[torch.tensor([0, 0, 0])]
    three.masks[1] = three.masks[1].roll(1, 1)  # another pixel turns nobody
    arguments = {"pattern_sizes": [0.25], "measure_on": "full"}
    images = MemoryImages(images, LABELS)
    alone = measure_power(three, classifier, images, **arguments)
    assert len(set(alone.predictive_power.flatten().tolist())) == 2
    parts: list = []
    monkeypatch.setattr(power, "gather", lambda item: parts.append(item) or [item])
    for rank in (0, 1):
        monkeypatch.setattr(power, "share", lambda items, r=rank: items[r::2])
        power.measure_shared(three, classifier, images, **arguments)
    monkeypatch.setattr(power, "gather", lambda item: parts)
    shared = power.measure_shared(three, classifier, images, **arguments)
    assert torch.equal(shared.predictive_power, alone.predictive_power)
