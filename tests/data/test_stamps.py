"""Tests of stamps: soft, hard and additive, on floats and on 8 bits, of many shapes."""

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from iscp_lightning.data.stamps import Stamp


def random(*shape: int, seed: int = 0) -> Tensor:
    return torch.rand(shape, generator=torch.Generator().manual_seed(seed))


def as_bytes(images: Tensor) -> Tensor:
    return (images * 255).round().to(torch.uint8)


def test_a_soft_stamp_by_hand():
    mask = torch.tensor([[[0.0, 0.25, 1.0]]])
    pixels = torch.tensor([[[1.0, 1.0, 0.0]], [[0.0, 0.0, 0.5]]])
    images = torch.tensor([[[[0.5, 0.2, 0.9]], [[0.1, 0.4, 0.9]]]])
    expected = torch.tensor([[[[0.5, 0.4, 0.0]], [[0.1, 0.3, 0.5]]]])
    torch.testing.assert_close(Stamp(mask, pixels)(images), expected)


@pytest.mark.parametrize("dtype", [torch.bool, torch.float32])
def test_a_hard_stamp_replaces_to_the_bit(dtype):
    mask = random(1, 8, 8, seed=1) < 0.3
    pixels, images = (random(*shape).sqrt() for shape in ((3, 8, 8), (50, 3, 8, 8)))
    before = images.clone()
    stamped = Stamp(mask.to(dtype), pixels)(images)
    assert torch.equal(stamped, torch.where(mask, pixels, images))
    assert torch.equal(images, before)
    eight = as_bytes(images)
    for given in (pixels, as_bytes(pixels)):
        expected = torch.where(mask, as_bytes(pixels), eight)
        assert torch.equal(Stamp(mask.to(dtype), given)(eight), expected)


def test_stored_pixels_are_those_of_the_set():
    """A pattern of 8 bits on float images: what the network would see of the canvas itself."""
    canvas = torch.arange(256).to(torch.uint8).view(1, 16, 16)
    stamp = Stamp(torch.ones(1, 16, 16).bool(), canvas)
    assert torch.equal(stamp(torch.zeros(1, 16, 16)), canvas.float() / 255)
    assert torch.equal(stamp(torch.zeros(1, 16, 16, dtype=torch.uint8)), canvas)


def test_an_additive_stamp_by_hand():
    mask = torch.tensor([[[1.0, 1.0, 0.5, 0.0]]])
    pixels = torch.tensor([[[0.5, -0.5, 0.4, 1.0]]])
    images = torch.full((1, 1, 1, 4), 0.4)
    stamp = Stamp(mask, pixels, additive=True)
    torch.testing.assert_close(stamp(images), torch.tensor([[[[0.9, 0.0, 0.6, 0.4]]]]))
    torch.testing.assert_close(stamp(images + 0.4), torch.tensor([[[[1.0, 0.3, 1.0, 0.8]]]]))
    assert stamp(as_bytes(images)).tolist() == [[[[230, 0, 153, 102]]]]  # 102 + 127.5 is even
    assert stamp(as_bytes(images + 0.4)).tolist() == [[[[255, 76, 255, 204]]]]  # 204 - 127.5, too


def test_eight_bits_are_rounded_and_stay_in_their_range():
    mask, pixels = random(1, 8, 8, seed=1), random(3, 8, 8, seed=2)
    images = as_bytes(random(20, 3, 8, 8))
    stamped = Stamp(mask, pixels)(images)
    assert stamped.dtype == torch.uint8
    exact = mask.double() * pixels.double() * 255 + (1 - mask.double()) * images.double()
    assert (stamped.double() - exact).abs().max() <= 0.5 + 1e-4
    white = Stamp(torch.ones(1, 8, 8), torch.ones(3, 8, 8), additive=True)(images)
    assert (white == 255).all()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
def test_float_images_keep_their_type(dtype):
    images = random(2, 3, 8, 8).to(dtype)
    stamped = Stamp(torch.zeros(1, 8, 8), torch.ones(3, 8, 8))(images)
    assert stamped.dtype == dtype
    assert torch.equal(stamped, images)


@pytest.mark.parametrize("additive", [True, False])
@pytest.mark.parametrize("eight", [True, False])
def test_many_stamps_on_many_images(additive, eight):
    """Masks (P, S, 1, 1, H, W) and pixels (P, 1, 1, C, H, W) on images (N, C, H, W)."""
    masks, pixels = random(2, 4, 1, 1, 6, 5, seed=1), random(2, 1, 1, 3, 6, 5, seed=2)
    images = random(7, 3, 6, 5)
    images = as_bytes(images) if eight else images
    stamped = Stamp(masks, pixels, additive)(images)
    assert stamped.shape == (2, 4, 7, 3, 6, 5)
    for p, s, n in np.ndindex(2, 4, 7):
        single = Stamp(masks[p, s, 0], pixels[p, 0, 0], additive)
        assert torch.equal(stamped[p, s, n], single(images[n]))


@pytest.mark.parametrize("channels", [1, 3])
def test_a_saved_stamp_is_its_pixels_under_its_mask(channels, tmp_path):
    mask = torch.tensor([[[0.0, 1.0, 0.2]]])
    pixels = torch.tensor([[[1.0, 0.6, 0.0]]]).expand(channels, -1, -1)
    Stamp(mask, pixels).save(tmp_path / "new" / "stamp.png")
    with Image.open(tmp_path / "new" / "stamp.png") as image:
        assert image.mode == "RGBA"
        assert [image.getpixel((x, 0)) for x in range(3)] == [
            *((255, 255, 255, 0), (153, 153, 153, 255), (0, 0, 0, 51))
        ]
