"""Augmentation of a whole batch on its device, with parameters of its own for every image."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Generator, Tensor


@dataclass(frozen=True)
class Augmentation:
    """Random crop, shift and flip of float images (N, C, H, W).

    Attributes:
        crop_padding: Black pixels added on each side before a random crop back to size.
        shift: Largest random translation in pixels; the edge pixels fill what comes into view.
        horizontal_flip: Whether each image is mirrored with probability one half.

    Raises:
        ValueError: if `crop_padding` or `shift` is negative.
    """

    crop_padding: int = 0
    shift: int = 0
    horizontal_flip: bool = False

    def __post_init__(self) -> None:
        for name in ("crop_padding", "shift"):
            if getattr(self, name) < 0:
                raise ValueError(f"`{name}` must be 0 or more pixels, got {getattr(self, name)}")

    def __call__(self, images: Tensor, generator: Generator) -> Tensor:
        """Return augmented images, same shape, dtype and device.

        Args:
            images: float (N, C, H, W).
            generator: CPU generator that all draws are taken from.
        """
        if self.crop_padding:
            images = translate(images, self.crop_padding, "constant", generator)
        if self.shift:
            images = translate(images, self.shift, "replicate", generator)
        if self.horizontal_flip:
            flip = torch.rand(len(images), generator=generator) < 0.5
            flip = flip.to(images.device, non_blocking=True).view(-1, 1, 1, 1)
            images = torch.where(flip, images.flip(3), images)
        return images


def translate(images: Tensor, pixels: int, padding: str, generator: Generator) -> Tensor:
    """Return images (N, C, H, W), each shifted by up to so many pixels along both sides.

    Args:
        images: float (N, C, H, W).
        pixels: The most that one is shifted.
        padding: What comes into view: `constant`, black, or `replicate`, the edge pixels.
        generator: CPU generator that all draws are taken from.
    """
    height, width = images.shape[2:]
    padded = F.pad(images, (pixels,) * 4, mode=padding)
    windows = padded.unfold(2, height, 1).unfold(3, width, 1)  # (N, C, 2p+1, 2p+1, H, W), a view
    offsets = torch.randint(2 * pixels + 1, (2, len(images)), generator=generator)
    rows, columns = offsets.to(images.device, non_blocking=True)
    return windows[torch.arange(len(images), device=images.device), :, rows, columns]
