"""UniversalPerturbation: what can be added to any image to make it the target class."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from iscp_lightning.attacks.epsilon import Epsilon
from iscp_lightning.data.stamps import Stamp
from iscp_lightning.patterns.variants.base import Problems, Variables, Variant
from iscp_lightning.patterns.variants.descent import SignDescent


class UniversalPerturbation(Variant):
    """Minimises -log f_y(clip(x_n + v, 0, 1)) over v with |v| <= epsilon in every value.

    The targeted, class-wise form of universal perturbations (Moosavi-Dezfooli et al. 2017) that
    Zhao et al. 2021 compare patterns with (section 4.2, Table 5). There is one for each class, no
    mask and no canvas; nothing is added to the cross-entropy, so that `sparsity` is not used. It
    starts at zero and is projected onto the ball after every sign step.

    It touches all pixels: its only size is 1, so `pattern_sizes` must be [1.0].

    Args:
        epsilon: Radius of the ball in pixel units of [0, 1]; the paper takes 8/255, 16/255 and
            32/255.
        step_size: What a value moves per step, likewise. None is the search's `step_size` as a
            share of the ball's width, 2 * epsilon: a value crosses the ball in as many steps as a
            mask value crosses [0, 1], 50 in the paper's schedule, whatever the radius. A schedule
            whose step size falls lowers either by the same factor.

    Raises:
        ValueError: if `epsilon` or `step_size` is outside (0, 1].
    """

    needs_canvas = False

    def __init__(
        self,
        epsilon: Epsilon | float = Epsilon("8/255"),
        step_size: Epsilon | float | None = None,
    ) -> None:
        for name, value in (("epsilon", epsilon), ("step_size", step_size)):
            if value is not None and not 0 < Epsilon(value) <= 1:
                raise ValueError(f"`{name}` must lie in (0, 1], such as 8/255, got {value}")
        self.epsilon = float(Epsilon(epsilon))
        self.step_size = None if step_size is None else float(Epsilon(step_size))

    def variables(self, canvases: Tensor) -> dict[str, Tensor]:
        """Return perturbations (P, C, H, W) of zero."""
        return {"perturbation": torch.zeros_like(canvases)}

    def stamps(self, variables: Variables, problems: Problems) -> Stamp:
        """Return the perturbation, to be added."""
        perturbation = variables["perturbation"].unsqueeze(1)
        return Stamp(perturbation.new_ones(1, 1, 1, 1, 1), perturbation, additive=True)

    def optimizer(self, variables: Variables, step_size: float) -> torch.optim.Optimizer:
        """Return sign descent in the ball."""
        chosen = 2 * self.epsilon * step_size if self.step_size is None else self.step_size
        return SignDescent([variables["perturbation"]], chosen, (-self.epsilon, self.epsilon))

    def pasted(
        self, variables: Variables, means: Variables, canvases: Tensor, sizes: Sequence[float]
    ) -> Stamp:
        """Return the perturbation on all pixels.

        Raises:
            ValueError: if a size is not 1.
        """
        perturbation = variables["perturbation"].unsqueeze(1)
        if others := [size for size in sizes if size != 1]:
            raise ValueError(
                "UniversalPerturbation changes every pixel: `search` measures it with "
                "`pattern_sizes` [1.0] alone, and measurements at epochs, which draw patterns of "
                f"5 %, cannot; got {', '.join(map(str, others))}"
            )
        mask = torch.ones_like(perturbation[:, :, :1], dtype=torch.bool)
        return Stamp(mask, perturbation, additive=True)
