"""Search images that are not from the test set: what they must be like, and how they are known."""

from __future__ import annotations

import hashlib

import torch
from torch import Tensor

from iscp_lightning.data.images import ChosenImages, ImageSet, MemoryImages, as_eight_bits
from iscp_lightning.data.testset import LOOKED_AT

NO_CLASS = -1  # label of images that show none of the classes


def unlabelled(images: ImageSet) -> ImageSet:
    """Return the images as showing none of the classes."""
    shown = ChosenImages(images, torch.arange(len(images)))
    shown.labels = torch.full_like(images.labels, NO_CLASS)
    return shown


def as_pool(images: Tensor | ImageSet) -> ImageSet:
    """Return search images as a set; those of a tensor show none of the classes.

    Args:
        images: uint8 or float in [0, 1] (N, C, H, W), or an image set.

    Raises:
        ValueError: if a tensor has another number of dimensions, or floats leave [0, 1].
    """
    if isinstance(images, ImageSet):
        return images
    if images.ndim != 4:
        raise ValueError(f"`search_images` must be (N, C, H, W), got shape {tuple(images.shape)}")
    images = as_eight_bits(images, "search_images")
    return MemoryImages(images, torch.full((len(images),), NO_CLASS))


def require_pool(pool: ImageSet, images: ImageSet) -> None:
    """Check that search images fit the test images, and are others.

    Args:
        pool: The search images.
        images: The whole test set.

    Raises:
        ValueError: if there is none, they are of another size or number of channels, or they are
            the test images, of which none would be held out.
    """
    if len(pool) == 0:
        raise ValueError("`search_images` has no image")
    given, wanted = (tuple(each.pixels([0]).shape[1:]) for each in (pool, images))
    if given != wanted:
        raise ValueError(
            f"`search_images` are {given}, the test images {wanted}: "
            "(channels, height, width) must agree"
        )
    if pixels_hash(pool) == pixels_hash(images):
        raise ValueError(
            "`search_images` are the test images: leave it out, then `search_fraction` says how "
            "many of these are searched and the rest is held out"
        )


def pixels_hash(images: ImageSet) -> str:
    """Return the SHA-256 of the pixels of at most 64 evenly spaced images."""
    count = len(images)
    chosen = torch.linspace(0, count - 1, min(LOOKED_AT, count)).round().long()
    return hashlib.sha256(images.pixels(chosen).numpy().tobytes()).hexdigest()
