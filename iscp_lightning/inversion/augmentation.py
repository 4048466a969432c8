"""Differentiable augmentation (Zhao et al. 2020): what the discriminator sees of few images."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Literal, get_args

import torch
from torch import Generator, Tensor

from iscp_lightning.data.augment import translate

Policy = Literal["color", "translation", "cutout"]
LARGEST_SHIFT = 1 / 8  # of a side
CUTOUT = 1 / 2  # of a side


def augment(images: Tensor, policies: Sequence[Policy], generator: Generator) -> Tensor:
    """Return augmented images of the same shape, through which gradients flow.

    Every image has draws of its own; the same policies act on real and generated images, within
    [-1, 1], as theirs do.

    Args:
        images: float (N, C, H, W) in [0, 1], square; what comes out may leave it.
        policies: `color` changes brightness by up to a quarter of the range, saturation and
            contrast, `translation` shifts by up to an eighth of a side with grey behind, `cutout`
            greys a square of half a side.
        generator: CPU generator that all draws are taken from.
    """
    if not policies:
        return images
    images = 2 * images - 1
    for policy in policies:
        images = POLICIES[policy](images, generator)
    return (images + 1) / 2


def require_policies(policies: Sequence[str]) -> None:
    """Raise a ValueError unless all policies are known."""
    for policy in policies:
        if policy not in POLICIES:
            known = ", ".join(get_args(Policy))
            raise ValueError(f"`augmentation` must be of {known}, got {policy}")


def _uniform(images: Tensor, generator: Generator) -> Tensor:
    """Return one number in [0, 1) an image, (N, 1, 1, 1)."""
    return torch.rand(len(images), 1, 1, 1, generator=generator).to(images.device)


def _color(images: Tensor, generator: Generator) -> Tensor:
    images = images + (_uniform(images, generator) - 0.5)
    grey = images.mean(1, keepdim=True)
    images = grey + (images - grey) * 2 * _uniform(images, generator)
    mean = images.mean((1, 2, 3), keepdim=True)
    return mean + (images - mean) * (0.5 + _uniform(images, generator))


def _translation(images: Tensor, generator: Generator) -> Tensor:
    return translate(images, round(images.shape[2] * LARGEST_SHIFT), "constant", generator)


def _cutout(images: Tensor, generator: Generator) -> Tensor:
    kept = torch.ones_like(images[:, :1])
    hidden = []
    for axis in (2, 3):
        side = images.shape[axis]
        centre = torch.randint(side + 1, (len(images), 1), generator=generator).to(images.device)
        offset = torch.arange(side, device=images.device) - centre
        half = round(side * CUTOUT) // 2
        hidden.append((offset >= -half) & (offset < half))
    return images * kept.masked_fill(hidden[0][:, None, :, None] & hidden[1][:, None, None], 0)


POLICIES: dict[str, Callable[[Tensor, Generator], Tensor]] = {
    "color": _color,
    "translation": _translation,
    "cutout": _cutout,
}
