"""Tests of analyses that change logits, on a generator whose images are known by hand."""

import pytest
import torch
from small import examined_colours

from iscp_lightning.inversion.analyses import LogitNoise, LogitScale, LogitShift

ALL = [LogitNoise, LogitScale, LogitShift]


def _values(found, measure):
    return {r.about["strength"]: r.value for r in found.records if r.measure == measure}


def test_scaled_logits_scale_the_brightness():
    examined = examined_colours()
    found = _values(LogitScale([0, 0.5, 1])(examined), "brightness")
    whole = examined.reconstructions.mean().item()
    assert found[1] == pytest.approx(whole)
    assert found[0.5] == pytest.approx(whole / 2, abs=1e-3)  # but for the pixel of noise
    assert found[0] == pytest.approx(0, abs=1e-3)


def test_a_shift_is_in_standard_deviations_and_changes_no_class():
    examined = examined_colours()
    examined.inverter.standardise.deviation.fill_(0.1)
    shift = LogitShift([0, 1])
    assert torch.allclose(
        shift.changed(examined, 1) - examined.answers.vectors, torch.full((30, 3), 0.1)
    )
    found = _values(LogitShift([0])(examined_colours()), "class_agreement")
    assert found == {0: 1}


def test_noise_is_the_same_for_every_strength():
    examined = examined_colours()
    noise = LogitNoise([0, 1, 2])
    added = [noise.changed(examined, s) - examined.answers.vectors for s in (0, 1, 2)]
    assert not added[0].any()
    assert torch.allclose(added[2], 2 * added[1], atol=1e-5)
    assert added[1].std().item() == pytest.approx(1, abs=0.2)
    change = _values(noise(examined), "change")
    assert change[0] == 0 < change[1] < change[2]


@pytest.mark.parametrize("kind", ALL)
def test_a_sheet_has_a_column_for_each_strength(kind):
    analysis = kind()
    found = analysis(examined_colours(judge=False))
    sheet = found.sheets[""]
    assert sheet.images.shape == (8, 1 + len(analysis.strengths), 3, 16, 16)
    assert sheet.rows[0] == "red"
    assert {r.measure for r in found.records} == {
        *("change", "brightness", "contrast", "class_agreement")
    }
    assert {r.about["analysis"] for r in found.records} == {analysis.name}
    judged = {r.measure for r in analysis(examined_colours()).records}
    assert "judge_agreement" in judged
