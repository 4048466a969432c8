"""Which pixels a pattern keeps: the largest values of a mask, every one ranked once."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

SORTED_AT_ONCE = 256  # masks; bounds the memory of a thousand classes


def top_pixels(masks: Tensor, mask_means: Tensor, pattern_sizes: Sequence[float]) -> Tensor:
    """Return which pixels belong to the patterns: bool (P, S, H, W), round(q * H * W) true in each.

    The largest mask values win; ties, common since masks saturate at 1, go to the larger mean over
    the last pass and then to the smaller pixel index.

    Args:
        masks: float (P, H, W), final masks.
        mask_means: float (P, H, W), their mean over the last pass.
        pattern_sizes: S sizes q, shares of the pixels, in (0, 1].

    Raises:
        ValueError: if a size is out of range or selects no pixel.
    """
    shape = masks.shape[1:]
    counts = [pixel_count(size, shape) for size in pattern_sizes]
    selected = masks.new_zeros(len(masks), len(counts), *shape, dtype=torch.bool)
    for rows in torch.arange(len(masks)).split(SORTED_AT_ONCE):
        by_mean = mask_means[rows].flatten(1).argsort(dim=1, descending=True, stable=True)
        values = masks[rows].flatten(1).gather(1, by_mean)
        by_value = values.argsort(dim=1, descending=True, stable=True)
        ranked = by_mean.gather(1, by_value)  # (r, H * W) pixels, the largest value first
        for column, count in enumerate(counts):
            flat = torch.zeros_like(ranked, dtype=torch.bool)
            flat.scatter_(1, ranked[:, :count], True)
            selected[rows, column] = flat.view(-1, *shape)
    return selected


def pixel_count(pattern_size: float, shape: Sequence[int], name: str = "pattern_size") -> int:
    """Return how many of the H x W pixels a pattern of size q has: round(q * H * W).

    Args:
        pattern_size: q.
        shape: (H, W).
        name: What the size is called in a message.

    Raises:
        ValueError: if the size is outside (0, 1] or rounds to no pixel.
    """
    height, width = shape
    count = round(pattern_size * height * width)
    if not 0 < pattern_size <= 1 or count == 0:
        raise ValueError(
            f"`{name}` must lie in (0, 1] and give at least one of {height} x {width} pixels, "
            f"got {pattern_size}"
        )
    return count
