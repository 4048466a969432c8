"""Overlap of sets of pixels, and what chance alone would give."""

from __future__ import annotations

from torch import Tensor


def overlap(selected: Tensor, other: Tensor) -> Tensor:
    """Return the intersection over union (P,) of two sets of patterns, bool (P, H, W) each."""
    intersection = (selected & other).flatten(1).sum(1)
    return intersection / (selected | other).flatten(1).sum(1)


def chance_overlap(share: float) -> float:
    """Return the intersection over union of random pixel sets, expected to first order.

    Two sets of a share q of the pixels, drawn independently, have q^2 in common on average and
    2q - q^2 together.

    Args:
        share: q, in (0, 1].
    """
    return share / (2 - share)
