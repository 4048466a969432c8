"""Overlap of sets of pixels, and what chance alone would give."""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

PIXELS_AT_ONCE = 4096  # bounds the memory of thousands of patterns


class Overlaps(NamedTuple):
    """How much the patterns of K classes have in common; NaN where there is no pair.

    Attributes:
        within: (K,) float64, mean overlap of two patterns of the class.
        between: (K,) float64, mean overlap of one of the class with one of another class.
    """

    within: Tensor
    between: Tensor


def overlap(selected: Tensor, other: Tensor) -> Tensor:
    """Return the intersection over union (P,) of two sets of patterns, bool (P, H, W) each."""
    intersection = (selected & other).flatten(1).sum(1)
    return intersection / (selected | other).flatten(1).sum(1)


def shifted_overlap(selected: Tensor, other: Tensor) -> Tensor:
    """Return the largest overlap (P,) of sets of pixels with one set at any place of the plane.

    Args:
        selected: bool (P, H, W).
        other: bool (H, W), at least one pixel; what is shifted, none of it being lost.
    """
    rows, columns = (other.any(side).nonzero().flatten() for side in (1, 0))
    box = other[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
    common = F.conv2d(selected[:, None].float(), box[None, None].float(), padding=box.shape)
    best = common.flatten(1).amax(1)
    return best / (selected.flatten(1).sum(1) + other.sum() - best)


def chance_overlap(share: float) -> float:
    """Return the intersection over union of random pixel sets, expected to first order.

    Two sets of a share q of the pixels, drawn independently, have q^2 in common on average and
    2q - q^2 together.

    Args:
        share: q, in (0, 1].
    """
    return share / (2 - share)


def overlaps_by_class(selected: Tensor, targets: Tensor) -> Overlaps:
    """Return the mean intersection over union of patterns of one class and of different ones.

    Args:
        selected: bool (P, H, W), at least one pixel each.
        targets: (P,) int64 classes; the K different ones are ordered.
    """
    flat = selected.flatten(1)
    common = torch.zeros(len(flat), len(flat), device=flat.device)
    for part in flat.split(PIXELS_AT_ONCE, dim=1):
        common += part.float() @ part.float().T
    sizes = flat.sum(1)
    pairs = common.double() / (sizes[:, None] + sizes - common)
    pairs.fill_diagonal_(torch.nan)
    same = targets[:, None] == targets
    within, between = (torch.where(kind, pairs, torch.nan) for kind in (same, ~same))
    rows = [targets == target for target in targets.unique()]
    return Overlaps(
        *(torch.stack([kind[row].nanmean() for row in rows]) for kind in (within, between))
    )
