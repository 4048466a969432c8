"""Descent: optimisers that are one line each, how a group of values moves."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor


class Descent(torch.optim.Optimizer):
    """An optimiser whose subclasses say how its values move."""

    @abstractmethod
    def move(self) -> None:
        """Move all values by their gradients, without recording it."""

    @torch.no_grad()
    def step(self, closure: Any = None) -> Any:  # noqa: ANN401
        """Move all values; return the closure's loss."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        self.move()
        return loss


class SignDescent(Descent):
    """m <- clip(m - eta * sign(dL/dm), low, high), lines 6 to 8 of Algorithm 1.

    Args:
        masks: The masks, or whatever else.
        step_size: eta.
        bounds: low and high.
    """

    def __init__(
        self,
        masks: Iterable[Tensor],
        step_size: float,
        bounds: tuple[float, float] = (0.0, 1.0),
    ) -> None:
        super().__init__(masks, {"lr": step_size, "bounds": bounds})

    def move(self) -> None:
        """Move every value by 0 or eta, within the bounds."""
        for group in self.param_groups:
            for mask in group["params"]:
                if mask.grad is not None:
                    mask.sub_(mask.grad.sign_(), alpha=group["lr"]).clamp_(*group["bounds"])
