"""The update of Algorithm 1: sign steps within [0, 1]."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor


class SignDescent(torch.optim.Optimizer):
    """m <- clip(m - eta * sign(dL/dm), 0, 1), lines 6 to 8 of Algorithm 1.

    Args:
        masks: The masks.
        step_size: eta.
    """

    def __init__(self, masks: Sequence[Tensor], step_size: float) -> None:
        super().__init__(masks, {"lr": step_size})

    @torch.no_grad()
    def step(self, closure: Any = None) -> Any:  # noqa: ANN401
        """Move every mask value by 0 or eta, within [0, 1]; return the closure's loss."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            for mask in group["params"]:
                if mask.grad is not None:
                    mask.sub_(group["lr"] * mask.grad.sign()).clamp_(0, 1)
        return loss
