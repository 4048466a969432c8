"""Distortions that turn, shift and hide parts of images: where the object is, and how much of it.

What is drawn for an image does not depend on the strength: a stronger distortion goes further in
the same direction.
"""

from __future__ import annotations

import math
from typing import Literal, TypeAlias

import torch
import torch.nn.functional as F
from torch import Generator, Tensor

from iscp_lightning.classifiers.subject import Subject
from iscp_lightning.data.images import Batch
from iscp_lightning.probes.distortion import Distortion
from iscp_lightning.seeds import derived_seed

Mode: TypeAlias = Literal["bilinear", "nearest"]  # how pixels are read from between others

DIRECTIONS = torch.tensor([[0, 1], [0, -1], [1, 0], [-1, 0]])  # (down, right)


class Rotation(Distortion):
    """Turns images around their centre, half of them to the left; outermost pixels go on outside.

    Args:
        degrees: How far.

    Raises:
        ValueError: if `degrees` is not in (0, 180].
    """

    name = "rotation"

    def __init__(self, degrees: float = 30.0) -> None:
        if not 0 < degrees <= 180:
            raise ValueError(f"`degrees` must lie in (0, 180], got {degrees}")
        self.degrees = self.strength = degrees

    def __call__(self, subject: Subject, batch: Batch) -> Tensor:
        """Return turned images, interpolated bilinearly."""
        return self._turned(subject, batch, "bilinear").clamp_(0, 1)

    def moved(self, subject: Subject, batch: Batch) -> Tensor:
        """Return turned maps, whose values are not mixed."""
        return self._turned(subject, batch, "nearest")

    def _turned(self, subject: Subject, batch: Batch, mode: Mode) -> Tensor:
        drawn = draw(subject.seed, self.name, batch.index, 1)[:, 0] < 0.5
        signs = torch.where(drawn, 1, -1)
        return rotate(batch.image, signs * self.degrees, mode)


class Translation(Distortion):
    """Shifts images up, down, left or right by whole pixels; outermost pixels go on outside.

    Args:
        share: How far, as a share of the side that it goes along; at least a pixel.

    Raises:
        ValueError: if `share` is not in (0, 1).
    """

    name = "translation"

    def __init__(self, share: float = 0.125) -> None:
        require_share(share)
        self.share = self.strength = share

    def __call__(self, subject: Subject, batch: Batch) -> Tensor:
        """Return shifted images."""
        sides = torch.tensor(batch.image.shape[2:])
        pixels = (self.share * sides).round().clamp(min=1).long()
        drawn = draw(subject.seed, self.name, batch.index, 1)[:, 0]
        return shift(batch.image, DIRECTIONS[(4 * drawn).long()] * pixels)

    def moved(self, subject: Subject, batch: Batch) -> Tensor:
        """Return shifted maps."""
        return self(subject, batch)


class Occlusion(Distortion):
    """Hides a part of each image behind grey: a rectangle of the image's proportions.

    Args:
        share: Of the pixels that are hidden, up to whole rows and columns; at least a pixel.

    Raises:
        ValueError: if `share` is not in (0, 1).
    """

    name = "occlusion"

    def __init__(self, share: float = 0.1) -> None:
        require_share(share)
        self.share = self.strength = share

    def __call__(self, subject: Subject, batch: Batch) -> Tensor:
        """Return images with a grey part, of values 0.5, anywhere in them."""
        height, width = batch.image.shape[2:]
        drawn = draw(subject.seed, self.name, batch.index, 2).to(batch.image.device)
        rows, columns = (
            self._hidden(size, position)
            for size, position in zip((height, width), drawn.T, strict=True)
        )
        hidden = rows.unsqueeze(2) & columns.unsqueeze(1)
        return batch.image.masked_fill(hidden.unsqueeze(1), 0.5)

    def _hidden(self, size: int, position: Tensor) -> Tensor:
        """Return which of the pixels along a side are hidden, bool (n, size)."""
        length = max(1, round(size * math.sqrt(self.share)))
        first = (position * (size - length + 1)).long().unsqueeze(1)
        places = torch.arange(size, device=first.device)
        return (places >= first) & (places < first + length)


def draw(seed: int, name: str, indices: Tensor, numbers: int) -> Tensor:
    """Return numbers for each image, float (n, numbers) uniform in [0, 1), on the CPU.

    Args:
        seed: Root seed.
        name: What is drawn.
        indices: (n,) int64, which images.
        numbers: How many for each.
    """
    generator = Generator()
    drawn = [
        torch.rand(numbers, generator=generator.manual_seed(derived_seed(seed, name, index)))
        for index in indices.tolist()
    ]
    return torch.stack(drawn) if drawn else torch.zeros(0, numbers)


def rotate(images: Tensor, degrees: Tensor, mode: Mode = "bilinear") -> Tensor:
    """Return images turned to the left around their centre; outermost pixels go on outside.

    Args:
        images: float (N, C, H, W).
        degrees: (N,).
        mode: How pixels are read from between others.
    """
    height, width = images.shape[2:]
    angles = degrees.to(images).deg2rad()
    cosine, sine, none = angles.cos(), angles.sin(), torch.zeros_like(angles)
    across = torch.stack([cosine, -sine * height / width, none], 1)
    down = torch.stack([sine * width / height, cosine, none], 1)
    grid = F.affine_grid(torch.stack([across, down], 1), list(images.shape), align_corners=False)
    return F.grid_sample(images, grid, mode, padding_mode="border", align_corners=False)


def shift(images: Tensor, pixels: Tensor) -> Tensor:
    """Return shifted images; outermost pixels go on outside.

    Args:
        images: (N, C, H, W).
        pixels: (N, 2) int64, how far down and to the right.
    """
    height, width = images.shape[2:]
    down, right = pixels.to(images.device).T.unsqueeze(2)
    rows = (torch.arange(height, device=images.device) - down).clamp(0, height - 1)
    columns = (torch.arange(width, device=images.device) - right).clamp(0, width - 1)
    number = torch.arange(len(images), device=images.device).view(-1, 1, 1)
    read = images.permute(0, 2, 3, 1)[number, rows.unsqueeze(2), columns.unsqueeze(1)]
    return read.permute(0, 3, 1, 2).contiguous()


def require_share(share: float) -> None:
    """Raise a ValueError unless the share lies in (0, 1)."""
    if not 0 < share < 1:
        raise ValueError(f"`share` must lie in (0, 1), got {share}")
