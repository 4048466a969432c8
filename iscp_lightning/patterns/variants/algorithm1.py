"""Algorithm 1 of Zhao et al. 2021: a mask over a fixed canvas, sign steps, the mask's mean."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from iscp_lightning.data.stamps import Stamp
from iscp_lightning.patterns.pixels import top_pixels
from iscp_lightning.patterns.variants.base import Problems, Variables, Variant
from iscp_lightning.patterns.variants.descent import SignDescent


class Algorithm1(Variant):
    """Minimises -log f_y(m * x_c + (1 - m) * x_n) + alpha * mean(m) over the mask m, Eq. (2).

    Pasted are the canvas's pixels where the final mask is largest.
    """

    averaged = ("mask",)

    def variables(self, canvases: Tensor) -> dict[str, Tensor]:
        """Return masks (P, H, W) of 0.5."""
        return {"mask": canvases.new_full((len(canvases), *canvases.shape[2:]), 0.5)}

    def stamps(self, variables: Variables, problems: Problems) -> Stamp:
        """Return the mask with the canvas, Eq. (1)."""
        return Stamp(variables["mask"][:, None, None], problems.canvases[:, None])

    def penalty(self, variables: Variables, problems: Problems) -> Tensor:
        """Return alpha * mean(m)."""
        return problems.sparsity * variables["mask"].mean((1, 2))

    def optimizer(self, variables: Variables, step_size: float) -> torch.optim.Optimizer:
        """Return the sign descent of lines 6 to 8."""
        return SignDescent(variables.values(), step_size)

    def pasted(
        self, variables: Variables, means: Variables, canvases: Tensor, sizes: Sequence[float]
    ) -> Stamp:
        """Return hard masks of the largest values with the canvas; see `top_pixels`."""
        selected = top_pixels(variables["mask"], means["mask"], sizes)
        return Stamp(selected.unsqueeze(2), canvases.unsqueeze(1))
