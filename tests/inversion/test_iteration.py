"""Tests of reconstructions of reconstructions, on a generator that repeats or mixes colours."""

import pytest
import torch
from small import examined_colours

from iscp_lightning.inversion.analyses import Iteration


def _values(found, measure):
    return {r.about["strength"]: r.value for r in found.records if r.measure == measure}


def test_a_painted_colour_stays():
    examined = examined_colours()
    found = Iteration(3)(examined)
    mse, steps = _values(found, "mse"), _values(found, "step_change")
    assert list(mse) == [1, 2, 3]
    assert mse[1] == steps[1]
    lost = (examined.images - examined.reconstructions).square().mean().item()
    assert mse[1] == pytest.approx(lost)
    assert steps[2] < steps[1] / 100
    assert set(_values(found, "class_agreement").values()) == {1}
    assert set(_values(found, "judge_agreement").values()) == {1}


def test_drift_is_from_the_original_and_from_the_pass_before(monkeypatch):
    examined = examined_colours()
    painted = type(examined.inverter).images
    monkeypatch.setattr(  # every pass turns red to green, green to blue, blue to red
        type(examined.inverter), "images", lambda self, vectors: painted(self, vectors).roll(1, 1)
    )
    found = Iteration(3)(examined)
    assert _values(found, "class_agreement") == {1: 0, 2: 0, 3: 1}
    assert _values(found, "judge_agreement") == {1: 0, 2: 0, 3: 1}
    mse, steps = _values(found, "mse"), _values(found, "step_change")
    assert mse[3] < mse[1] / 2
    assert steps[3] > 2 * mse[3]


def test_the_sheet_has_a_column_for_each_pass():
    found = Iteration(2)(examined_colours(judge=False))
    sheet = found.sheets[""]
    assert sheet.images.shape == (8, 3, 3, 16, 16)
    assert sheet.columns == ["original", "1", "2"]
    assert torch.allclose(sheet.images[:, 1, :, 8, 8], sheet.images[:, 2, :, 8, 8], atol=0.01)
    assert {r.measure for r in found.records} == {"mse", "step_change", "class_agreement"}
    with pytest.raises(ValueError, match="`times` must be 1 or more, got 0"):
        Iteration(0)
