"""Tests of other noise, on a generator that lays it in one pixel."""

import pytest
import torch
from small import examined_colours

from iscp_lightning.inversion.analyses import NoiseResampling


def _records(found):
    return {r.measure: r for r in found.records}


def test_noise_in_one_pixel_varies_as_it_was_drawn():
    examined = examined_colours()
    found = _records(NoiseResampling(4)(examined))
    noise = torch.stack([examined.inverter.noise(30, draw)[:, 0] for draw in (1, 2, 3, 4)])
    expected = noise.sigmoid().var(0).mean().item() / (3 * 16 * 16)
    assert found["noise_variance"].value == pytest.approx(expected, rel=1e-3)
    low, high = found["noise_variance"].interval
    assert low < expected < high
    of_images = examined.images.var(0).mean().item()
    assert found["noise_share"].value == pytest.approx(expected / of_images, rel=1e-3)
    assert found["class_agreement"].value == found["judge_agreement"].value == 1


def test_an_agreement_is_over_all_draws(monkeypatch):
    examined = examined_colours()
    painted = type(examined.inverter).images
    shown = {1: 0, 2: 1}  # the second draw turns red to green, and so on
    monkeypatch.setattr(
        type(examined.inverter),
        "images",
        lambda self, vectors, draw=0: painted(self, vectors, draw).roll(shown[draw], 1),
    )
    found = _records(NoiseResampling(2)(examined))
    assert found["class_agreement"].value == found["judge_agreement"].value == 0.5


def test_the_sheet_has_a_column_for_each_draw():
    found = NoiseResampling(3)(examined_colours(judge=False))
    assert found.sheets[""].images.shape == (8, 4, 3, 16, 16)
    assert found.sheets[""].columns == ["original", "noise 1", "noise 2", "noise 3"]
    assert set(_records(found)) == {"noise_variance", "noise_share", "class_agreement"}
    # a judge knows other classes than this one
    found = NoiseResampling(2)(examined_colours(same_classes=False))
    assert "judge_agreement" not in _records(found)


def test_one_draw_is_too_few():
    with pytest.raises(ValueError, match="`samples` must be 2 or more, got 1"):
        NoiseResampling(1)
