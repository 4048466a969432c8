"""Tests of ways from one image to another, on a generator that paints mixed colours."""

import pytest
import torch
from small import examined_colours

from iscp_lightning.inversion.analyses import Interpolation
from iscp_lightning.inversion.analyses.interpolation import of_the_ends, pairs_of


def _values(found, measure):
    return {r.about["strength"]: r.value for r in found.records if r.measure == measure}


def test_pairs_are_neighbours_of_different_classes():
    examined = examined_colours(7)
    assert pairs_of(examined).tolist() == [0, 1, 2, 3, 4, 5]
    examined.subject.images.labels[1] = 0  # as image 0
    assert pairs_of(examined).tolist() == [1, 2, 3, 4, 5]
    examined.answers.logits[4] = examined.answers.logits[3]  # said to be the same
    assert pairs_of(examined).tolist() == [1, 2, 4, 5]


def test_a_class_of_the_one_or_the_other_end_counts():
    originals = torch.eye(3)
    logits = torch.eye(3)[[0, 1, 2]]
    start = torch.tensor([0, 0, 0])  # red to green
    assert of_the_ends(logits, originals, start).tolist() == [True, True, False]


def test_equal_steps_change_a_painting_equally():
    examined = examined_colours(6)
    analysis = Interpolation(4)
    assert analysis.applies(examined)
    found = analysis(examined)
    ends = examined.answers.vectors / 2  # painted so, but for the pixel of noise
    step = ((ends[1:] - ends[:-1]) / 4).square().mean(1) * 255 / 256
    changes = _values(found, "step_change")
    assert list(changes) == [0.25, 0.5, 0.75, 1]
    changed = list(changes.values())
    assert changed == pytest.approx([step.mean().item()] * 4, rel=0.01)
    assert set(_values(found, "end_class").values()) == {1}
    assert set(_values(found, "judge_end_class").values()) == {1}


def test_the_sheet_runs_from_original_to_original():
    examined = examined_colours(6, judge=False)
    found = Interpolation(2)(examined)
    sheet = found.sheets[""]
    assert sheet.images.shape == (5, 5, 3, 16, 16)
    assert sheet.rows[0] == "red\nto green"
    assert sheet.columns == ["original", "0", "0.5", "1", "original"]
    assert sheet.images[0, 0].equal(examined.images[0])
    assert sheet.images[0, 4].equal(examined.images[1])
    assert torch.allclose(sheet.images[0, 1], examined.reconstructions[0], atol=1e-6)
    assert {r.measure for r in found.records} == {"end_class", "step_change"}


def test_without_a_pair_it_is_not_asked():
    assert not Interpolation().applies(examined_colours(1))
    with pytest.raises(ValueError, match="`steps` must be 1 or more, got 0"):
        Interpolation(0)
