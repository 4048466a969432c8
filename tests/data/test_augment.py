"""Tests of the batched augmentation against an enumeration of all its possible results."""

from typing import Any

import numpy as np
import pytest
import torch
from torch import Generator, Tensor

from iscp_lightning.data import Augmentation


def _images(count: int) -> Tensor:
    """`count` copies of one image without any symmetry."""
    image = torch.rand(3, 5, 6, generator=Generator().manual_seed(1)) + 0.1
    return image.expand(count, -1, -1, -1)


def _augment(images: Tensor, seed: int = 0, **settings: Any) -> Tensor:
    return Augmentation(**settings)(images, Generator().manual_seed(seed))


@pytest.mark.parametrize(
    ("settings", "mode"),
    [({"crop_padding": 2}, "constant"), ({"shift": 2}, "edge"), ({"shift": 7}, "edge")],
)
def test_every_image_is_translated_on_its_own(settings: dict[str, int], mode: Any):
    (pixels,) = settings.values()
    images = _images(20 * (2 * pixels + 1) ** 2)
    padded = np.pad(images[0].numpy(), ((0, 0), (pixels,) * 2, (pixels,) * 2), mode)
    height, width = images.shape[2:]
    offsets = range(2 * pixels + 1)
    windows = [padded[:, i : i + height, j : j + width] for i in offsets for j in offsets]
    shifts = torch.from_numpy(np.stack(windows)).flatten(1)

    outputs = _augment(images, **settings)

    assert outputs.shape == images.shape
    unique, counts = outputs.flatten(1).unique(dim=0, return_counts=True)
    assert torch.equal(unique, shifts.unique(dim=0))  # all of the shifts, and nothing else
    if mode == "constant":  # where all shifts differ they are equally likely: 20 each
        assert counts.min() >= 5
        assert counts.max() <= 40


def test_about_half_of_the_images_are_mirrored():
    images = _images(400)
    outputs = _augment(images, horizontal_flip=True)
    mirrored = (outputs == images.flip(3)).flatten(1).all(1)
    kept = (outputs == images).flatten(1).all(1)
    assert (mirrored ^ kept).all()
    assert 160 < mirrored.sum() < 240


ALL = {"crop_padding": 1, "shift": 2, "horizontal_flip": True}


def test_same_generator_state_gives_same_images():
    images = torch.rand(30, 1, 8, 8)
    first, again, other = (_augment(images, seed, **ALL) for seed in (1, 1, 2))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


def test_images_are_matched_to_themselves():
    """Image i comes out at place i, whatever its neighbours are."""
    images = torch.arange(1, 31).view(-1, 1, 1, 1).expand(-1, 3, 8, 8).float()
    outputs = _augment(images, **ALL)
    assert torch.equal(outputs.amax((1, 2, 3)), images[:, 0, 0, 0])


def test_nothing_is_drawn_without_settings():
    images, generator = torch.rand(4, 3, 8, 8), Generator().manual_seed(0)
    before = generator.get_state()
    assert torch.equal(Augmentation()(images, generator), images)
    assert torch.equal(generator.get_state(), before)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_input_and_global_random_state_are_untouched(dtype: torch.dtype):
    images = torch.rand(10, 3, 8, 8, dtype=dtype)
    copy, state = images.clone(), torch.get_rng_state()
    assert _augment(images, **ALL).dtype == dtype
    assert torch.equal(images, copy)
    assert torch.equal(torch.get_rng_state(), state)


@pytest.mark.parametrize("name", ["crop_padding", "shift"])
def test_negative_pixels_are_refused(name: str):
    with pytest.raises(ValueError, match=f"`{name}` must be 0 or more pixels, got -1"):
        Augmentation(**{name: -1})
