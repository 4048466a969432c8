"""JointCanvases: one mask for all canvases of a class, which the paper leaves to later work."""

from __future__ import annotations

import torch
from torch import Tensor

from iscp_lightning.data.stamps import Stamp
from iscp_lightning.patterns.variants.algorithm1 import Algorithm1
from iscp_lightning.patterns.variants.base import Problems, Variables
from iscp_lightning.patterns.variants.descent import SignDescent


class JointCanvases(Algorithm1):
    """Minimises Eq. (2), averaged over the `canvases_per_class` canvases of a class, over one mask.

    The mask has to be where all of them are predictive. A step mixes its images with every canvas,
    so that a class takes as many evaluations as with a mask for each canvas.

    Pasted are the pixels of the first canvas, the most confident one, where the final mask is
    largest. The canvases are kept in `variables["canvases"]`, those of a class along the channels.
    """

    joint = True

    def variables(self, canvases: Tensor) -> dict[str, Tensor]:
        """Return masks (P, H, W) of 0.5 and the n canvases of each problem, (P, n * C, H, W)."""
        return super().variables(canvases) | {"canvases": canvases.clone()}

    def stamps(self, variables: Variables, problems: Problems) -> Stamp:
        """Return the mask with each canvas."""
        channels = problems.canvases.shape[1]
        canvases = variables["canvases"].detach().unflatten(1, (-1, channels))
        return Stamp(variables["mask"][:, None, None], canvases)

    def optimizer(self, variables: Variables, step_size: float) -> torch.optim.Optimizer:
        """Return the sign descent of the mask alone."""
        return SignDescent([variables["mask"]], step_size)
