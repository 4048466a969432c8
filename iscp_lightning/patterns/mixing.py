"""Masks over images: soft mixing while searching, hard pasting of the largest mask values after."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

SORTED_AT_ONCE = 256  # masks; bounds the memory of a thousand classes


def mix(mask: Tensor, canvas: Tensor, images: Tensor) -> Tensor:
    """Return m * x_c + (1 - m) * x_n, Eq. (1) of the paper.

    Args:
        mask: float (..., H, W) in [0, 1], shared by the channels.
        canvas: float (..., C, H, W) in [0, 1].
        images: float (..., C, H, W) in [0, 1], broadcast against the others.
    """
    return torch.lerp(images, canvas, mask.unsqueeze(-3))


def paste(selected: Tensor, canvas: Tensor, images: Tensor) -> Tensor:
    """Return the images with the selected canvas pixels on them, unchanged elsewhere.

    Args:
        selected: bool (H, W).
        canvas: (C, H, W), dtype of the images.
        images: (N, C, H, W).
    """
    return torch.where(selected, canvas, images)


def top_pixels(masks: Tensor, mask_means: Tensor, pattern_size: float) -> Tensor:
    """Return which pixels belong to the pattern: bool (P, H, W) with round(q * H * W) true each.

    The largest mask values win; ties, common since masks saturate at 1, go to the larger mean over
    the last pass and then to the smaller pixel index.

    Args:
        masks: float (P, H, W), final masks.
        mask_means: float (P, H, W), their mean over the last pass.
        pattern_size: q, share of the pixels, in (0, 1].

    Raises:
        ValueError: if `pattern_size` is out of range or selects no pixel.
    """
    count = pixel_count(pattern_size, masks.shape[-2:])
    selected = torch.zeros_like(masks, dtype=torch.bool).flatten(1)
    for rows in torch.arange(len(masks)).split(SORTED_AT_ONCE):
        by_mean = mask_means[rows].flatten(1).argsort(dim=1, descending=True, stable=True)
        values = masks[rows].flatten(1).gather(1, by_mean)
        by_value = values.argsort(dim=1, descending=True, stable=True)
        winners = by_mean.gather(1, by_value[:, :count])
        selected[rows] = selected[rows].scatter(1, winners, True)
    return selected.view_as(masks)


def pixel_count(pattern_size: float, shape: Sequence[int]) -> int:
    """Return how many of the H x W pixels a pattern of size q has: round(q * H * W).

    Raises:
        ValueError: if `pattern_size` is outside (0, 1] or rounds to no pixel.
    """
    height, width = shape
    count = round(pattern_size * height * width)
    if not 0 < pattern_size <= 1 or count == 0:
        raise ValueError(
            f"`pattern_size` must lie in (0, 1] and give at least one of {height} x {width} "
            f"pixels, got {pattern_size}"
        )
    return count


def overlap(selected: Tensor, other: Tensor) -> Tensor:
    """Return the intersection over union (P,) of two sets of patterns, bool (P, H, W) each."""
    intersection = (selected & other).flatten(1).sum(1)
    return intersection / (selected | other).flatten(1).sum(1)
