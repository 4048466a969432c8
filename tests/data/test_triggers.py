"""Tests of triggers: where they are, what they show, and which do not fit."""

import numpy as np
import pytest
import torch
from PIL import Image

from iscp_lightning.data import Trigger
from iscp_lightning.data.triggers import TRIGGERS, WHOLE_IMAGE

GREY = torch.full((2, 3, 8, 10), 0.5)


def test_the_default_is_the_white_square_of_badnets():
    stamp = Trigger().draw((8, 10))
    expected = torch.zeros(8, 10)
    expected[5:, 7:] = 1
    assert torch.equal(stamp.mask[0], expected)
    stamped = stamp(GREY)
    assert torch.equal(stamped[:, :, 5:, 7:], torch.ones(2, 3, 3, 3))
    assert torch.equal(stamped[:, :, :5], GREY[:, :, :5])


@pytest.mark.parametrize("name", TRIGGERS)
def test_every_trigger_blends_by_its_mask(name):
    stamp = Trigger(name, opacity=0.5).draw((8, 10))
    assert stamp.mask.shape == (1, 8, 10)
    assert stamp.pixels.shape == (3, 8, 10)
    assert 0 <= stamp.pixels.min() <= stamp.pixels.max() <= 1
    assert stamp.mask.unique().tolist() == ([0.5] if name in WHOLE_IMAGE else [0, 0.5])
    expected = stamp.mask * stamp.pixels + (1 - stamp.mask) * GREY
    torch.testing.assert_close(stamp(GREY), expected)
    stored = stamp((GREY * 255).round().to(torch.uint8))
    assert stored.dtype == torch.uint8
    torch.testing.assert_close(stored / 255, expected, rtol=0, atol=1.01 / 255)


def test_what_the_patches_show():
    def pixels(name: str, size: int = 4) -> torch.Tensor:
        stamp = Trigger(name, size, "top_left").draw((8, 10))
        return (stamp.mask * stamp.pixels)[:, :size, :size]

    assert pixels("checkerboard")[0].tolist() == [[1, 0, 1, 0], [0, 1, 0, 1]] * 2
    assert pixels("l_shape")[0].tolist() == [[1, 0, 0, 0]] * 3 + [[1, 1, 1, 1]]
    dark = Trigger("dark_l_shape", 4, "top_left").draw((8, 10))
    assert torch.equal(dark.mask, Trigger("l_shape", 4, "top_left").draw((8, 10)).mask)
    assert (dark.mask * dark.pixels).sum() == 0
    assert pixels("single_pixel")[0].sum() == 1
    corners = pixels("color_patch")[:, ::3, ::3].permute(1, 2, 0).flatten(0, 1)
    assert corners.tolist() == [[1, 0, 0], [0, 1, 0], [0, 0, 1], [1, 1, 0]]
    wave = Trigger("sinusoid").draw((8, 12))
    assert wave.mask.unique().item() == pytest.approx(40 / 255)
    torch.testing.assert_close(wave.pixels, torch.full_like(wave.pixels, 0.5))  # sin(pi j)
    assert Trigger("blended").draw((8, 10)).mask.unique().item() == pytest.approx(0.2)


def test_black_pixels_of_a_trigger_are_stamped():
    stamped = Trigger("checkerboard", 2, (0, 0)).draw((8, 10))(GREY)
    assert stamped[0, 0, :2, :2].tolist() == [[1, 0], [0, 1]]


def test_random_colours_follow_the_seed():
    first, again, other = (Trigger("random_patch", seed=s).draw((8, 8)).pixels for s in (1, 1, 2))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


@pytest.mark.parametrize(
    ("place", "corner"),
    [
        ("top_left", (0, 0)),
        ("top_right", (0, 8)),
        ("bottom_left", (6, 0)),
        ("bottom_right", (6, 8)),
        ("center", (3, 4)),
        ((1, 2), (1, 2)),
    ],
)
def test_places(place, corner):
    mask = Trigger(size=2, place=place).draw((8, 10)).mask[0]
    assert mask.nonzero()[0].tolist() == list(corner)
    assert mask.sum() == 4


def test_a_png_file_with_alpha_survives_saving(tmp_path):
    rgba = np.zeros((2, 3, 4), np.uint8)
    rgba[0, :] = [255, 0, 0, 255]
    rgba[1, 0] = [0, 0, 0, 128]
    Image.fromarray(rgba, "RGBA").save(tmp_path / "t.png")
    stamp = Trigger(str(tmp_path / "t.png"), place="top_left").draw((8, 10))
    stamped = stamp(GREY)[0]
    assert stamped[:, 0, 1].tolist() == [1, 0, 0]
    assert stamped[0, 1, 0].item() == pytest.approx(0.5 * (1 - 128 / 255))
    assert stamped[0, 1, 1].item() == 0.5
    stamp.save(tmp_path / "poison" / "again.png")
    again = Trigger(str(tmp_path / "poison" / "again.png"), place="top_left").draw((8, 10))
    torch.testing.assert_close(again.mask, stamp.mask)
    torch.testing.assert_close(again(GREY), stamp(GREY))


def test_a_grey_png_of_sixteen_bits_keeps_its_grey(tmp_path):
    Image.new("I;16", (2, 2), 51 * 257).save(tmp_path / "t.png")
    stamp = Trigger(str(tmp_path / "t.png")).draw((8, 10))
    assert stamp.pixels[:, -2:, -2:].unique().tolist() == [pytest.approx(0.2)]
    assert stamp.mask.sum() == 4


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"name": "white_squar"}, "neither an existing PNG file nor one of white_square"),
        ({"size": 0}, "`trigger.size`"),
        ({"place": "middle"}, "`trigger.place`.*top_left"),
        ({"opacity": 0.0}, "`trigger.opacity`"),
        ({"opacity": 1.5}, "`trigger.opacity`"),
    ],
)
def test_wrong_triggers_are_named(arguments, message):
    with pytest.raises(ValueError, match=message):
        Trigger(**arguments)


@pytest.mark.parametrize("arguments", [{"size": 9}, {"place": (6, 0)}, {"place": (-1, 0)}])
def test_a_trigger_must_fit_the_image(arguments):
    with pytest.raises(ValueError, match="does not fit into images of 8 x 10"):
        Trigger(**arguments).draw((8, 10))


def test_a_file_that_is_no_image_is_named(tmp_path):
    (tmp_path / "t.png").write_text("<html>")
    with pytest.raises(ValueError, match="cannot be read as a PNG"):
        Trigger(str(tmp_path / "t.png")).draw((8, 8))


def test_the_sinusoid_has_six_periods():
    rows = Trigger("sinusoid", opacity=1.0).draw((2, 24)).pixels[0]
    quarter = torch.tensor([0.5, 1.0, 0.5, 0.0])
    torch.testing.assert_close(rows, quarter.repeat(6).expand(2, -1), atol=1e-5, rtol=0)
