"""Tests of distorted inputs, on a classifier of colours and a painter of what it says."""

import pytest
import torch
from small import examined_colours

from iscp_lightning.inversion.analyses import DistortedInputs
from iscp_lightning.inversion.examined import Examined
from iscp_lightning.probes import Distortion, Rotation, Saturation


class Swapped(Distortion):
    """Gives each colour's place to the next: every class becomes another."""

    name = "swapped"

    def __call__(self, subject, batch):
        return batch.image.roll(1, 1)


def _values(found, **about):
    return {
        r.measure: r.value
        for r in found.records
        if {k: v for k, v in r.about.items() if k != "analysis"} == about
    }


def test_a_painter_paints_the_distorted_image_not_the_original():
    whole = examined_colours()
    examined = Examined(whole.inverter, whole.subject, whole.indices.flip(0)[:20], whole.judge)
    found = DistortedInputs([Swapped()])(examined)
    images = examined.images
    within = (images - images.mean((2, 3), keepdim=True)).square().mean().item()
    between = (images.roll(1, 1) - images).square().mean().item()
    means = images.mean((2, 3), keepdim=True).roll(1, 1)
    clean, swapped = _values(found, distortion="clean"), _values(found, distortion="swapped")
    assert clean["mse_of_distortion"] == 0
    assert clean["mse_to_distorted"] == clean["mse_to_original"] == pytest.approx(within, rel=0.05)
    assert swapped["mse_of_distortion"] == pytest.approx(between)
    assert swapped["mse_to_distorted"] == pytest.approx(within, rel=0.05)
    painted = (means - images).square().mean().item()
    assert swapped["mse_to_original"] == pytest.approx(painted, rel=0.05)
    for pictures in ("distorted", "reconstruction"):
        both = {"class_agreement", "judge_agreement"}
        agreed = _values(found, distortion="clean", pictures=pictures)
        assert agreed == dict.fromkeys(both, 1)
        agreed = _values(found, distortion="swapped", pictures=pictures)
        assert agreed == dict.fromkeys(both, 0)
    sheet = found.sheets[""]
    assert sheet.columns == ["clean", "reconstruction", "swapped", "reconstruction"]
    assert torch.equal(sheet.images[:, 2], images[:8].roll(1, 1))


def test_levels_are_no_strengths_which_would_be_drawn_as_one_curve():
    found = DistortedInputs([Saturation(2), Saturation(8)])(examined_colours(judge=False))
    levels = {r.about.get("level") for r in found.records}
    assert levels == {None, 2.0, 8.0}
    assert not any("strength" in r.about for r in found.records)
    assert _values(found, distortion="saturation", level=2.0)["mse_of_distortion"] == pytest.approx(
        0, abs=1e-12
    )
    measures = {r.measure for r in found.records}
    assert "class_agreement" in measures
    assert "judge_agreement" not in measures
    assert found.sheets[""].columns[2::2] == ["saturation 2", "saturation 8"]


def test_a_distortion_is_asked_once():
    with pytest.raises(ValueError, match="must differ from each other, got clean, rotation 30, ro"):
        DistortedInputs([Rotation(30), Rotation(30)])
