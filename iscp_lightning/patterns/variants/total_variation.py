"""TotalVariation: Algorithm 1 with a penalty that makes masks smooth, Eq. (3)."""

from __future__ import annotations

import math

from torch import Tensor

from iscp_lightning.patterns.variants.algorithm1 import Algorithm1
from iscp_lightning.patterns.variants.base import Problems, Variables


class TotalVariation(Algorithm1):
    """Minimises -log f_y(m * x_c + (1 - m) * x_n) + alpha * mean(m) + beta * ||grad m||^2 / n.

    That is Eq. (3) of Zhao et al. 2021, with n = H * W and grad m the forward differences: the
    squared difference of every pair of neighbours, below and to the right, counts once, and nothing
    beyond the border does. Update and pasting are those of Algorithm 1.

    Args:
        smoothness: beta, 0 or more; 0 is Algorithm 1. The paper takes 0.2 and 1 (Table 5).

    Raises:
        ValueError: if `smoothness` is negative or not finite.
    """

    def __init__(self, smoothness: float = 0.2) -> None:
        if not 0 <= smoothness < math.inf:
            raise ValueError(f"`smoothness` must be 0 or more, got {smoothness}")
        self.smoothness = smoothness

    def penalty(self, variables: Variables, problems: Problems) -> Tensor:
        """Return alpha * mean(m) + beta * ||grad m||^2 / n."""
        variation = self.smoothness * mean_squared_variation(variables["mask"])
        return super().penalty(variables, problems) + variation


def mean_squared_variation(masks: Tensor) -> Tensor:
    """Return ||grad m||_2^2 / n of each mask, forward differences, (P,) of the masks' dtype.

    Args:
        masks: float (P, H, W).
    """
    below, right = masks.diff(dim=1), masks.diff(dim=2)  # (P, H - 1, W), (P, H, W - 1)
    squares: Tensor = below.square().sum((1, 2)) + right.square().sum((1, 2))
    return squares / math.prod(masks.shape[1:])
