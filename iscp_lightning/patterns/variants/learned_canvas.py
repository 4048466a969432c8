"""LearnedCanvas: mask and canvas are optimised in turn, Eq. (4)."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from iscp_lightning.attacks.epsilon import Epsilon
from iscp_lightning.data.images import as_eight_bits
from iscp_lightning.data.stamps import Stamp
from iscp_lightning.patterns.variants.algorithm1 import Algorithm1
from iscp_lightning.patterns.variants.base import Problems, Variables
from iscp_lightning.patterns.variants.descent import Descent


class LearnedCanvas(Algorithm1):
    """Minimises -log f_y(m * x_c + (1 - m) * x_n) + alpha * mean(m) over mask and canvas, Eq. (4).

    The canvas starts as the given one. Each problem makes `steps_each` sign steps of its mask, then
    as many of its canvas, and so on; both stay in [0, 1]. The paper does not say whether its five
    steps are minibatches or passes: here they are minibatches. A search makes as many evaluations
    as Algorithm 1, so that the mask gets half of its steps.

    Pasted are the learned canvas's pixels, rounded to 8 bits, where the final mask is largest.
    `PatternSet.canvases` holds what the search started with, `variables["canvas"]` what it learned.

    Args:
        canvas_step_size: What a canvas value moves per step, in pixel units of [0, 1]. A schedule
            whose step size falls lowers it by the same factor. The paper says "the mask and the
            canvas ... with step size 2/255 and 0.02 respectively", the other way round; but 0.02
            is the mask's step everywhere else.
        steps_each: Steps of the mask before the canvas's turn, and of the canvas.

    Raises:
        ValueError: if `canvas_step_size` is outside (0, 1], or `steps_each` below 1.
    """

    def __init__(
        self, canvas_step_size: Epsilon | float = Epsilon("2/255"), steps_each: int = 5
    ) -> None:
        self.canvas_step_size = float(Epsilon(canvas_step_size))
        if not 0 < self.canvas_step_size <= 1:
            raise ValueError(f"`canvas_step_size` must lie in (0, 1], got {canvas_step_size}")
        if steps_each < 1:
            raise ValueError(f"`steps_each` must be 1 or more, got {steps_each}")
        self.steps_each = steps_each

    def variables(self, canvases: Tensor) -> dict[str, Tensor]:
        """Return masks of 0.5, the canvases (P, C, H, W), and (P,) how many steps are made."""
        started = {"canvas": canvases.clone(), "steps": canvases.new_zeros(len(canvases))}
        return super().variables(canvases) | started

    def stamps(self, variables: Variables, problems: Problems) -> Stamp:
        """Return the mask with the learned canvas."""
        return Stamp(variables["mask"][:, None, None], variables["canvas"][:, None])

    def optimizer(self, variables: Variables, step_size: float) -> torch.optim.Optimizer:
        """Return sign descent of mask and canvas in turn."""
        return DescentInTurn(
            [(variables["mask"], step_size), (variables["canvas"], self.canvas_step_size)],
            variables["steps"],
            self.steps_each,
        )

    def pasted(
        self, variables: Variables, means: Variables, canvases: Tensor, sizes: Sequence[float]
    ) -> Stamp:
        """Return hard masks of the largest values with the learned canvas in 8 bits."""
        learned = as_eight_bits(variables["canvas"], "canvas")
        return super().pasted(variables, means, learned, sizes)


class DescentInTurn(Descent):
    """Sign descent within [0, 1] of several variables, some steps of each in turn.

    Whose turn it is depends on a problem's own steps. A count of all steps would not do: problems
    idle at the end of a pass, for a time that depends on what else is searched. The engine puts the
    variables of those that idle back, and so their counts.

    Args:
        turns: Variables (P, ...) and their step sizes, in the order of their turns.
        steps: (P,) float, how many steps each problem has made; is counted up.
        steps_each: Steps of a turn.
    """

    def __init__(
        self, turns: Sequence[tuple[Tensor, float]], steps: Tensor, steps_each: int
    ) -> None:
        groups = [{"params": [variable], "lr": step_size} for variable, step_size in turns]
        super().__init__(groups, {})
        self.steps = steps
        self.steps_each = steps_each

    def move(self) -> None:
        """Move the values of the variable whose turn it is."""
        turn = self.steps // self.steps_each % len(self.param_groups)  # (P,)
        for number, group in enumerate(self.param_groups):
            for variable in group["params"]:
                if variable.grad is not None:
                    moves = (turn == number).view(len(turn), *[1] * (variable.ndim - 1))
                    signs = variable.grad.sign_().mul_(moves)
                    variable.sub_(signs, alpha=group["lr"]).clamp_(0, 1)
        self.steps += 1
