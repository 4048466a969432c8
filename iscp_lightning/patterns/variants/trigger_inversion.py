"""TriggerInversion: few pixels of any colour at any place, as a backdoor's trigger may have."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from iscp_lightning.data.images import as_eight_bits
from iscp_lightning.data.stamps import Stamp
from iscp_lightning.patterns.pixels import pixel_count, top_pixels
from iscp_lightning.patterns.variants.base import Problems, Variables, Variant

DECAY, MOMENTUM = 0.99, 0.9
START_SIZE = 0.5
TEMPERATURES = 0.33, 0.03  # in units of the scores, at the beginning and at the end


class TriggerInversion(Variant):
    """Minimises -log f_y(m * x_c + (1 - m) * x_n) over mask and canvas, for masks of a given size.

    The mask is sigmoid((s - t) / temperature), s a score for each pixel and t the threshold that
    the k largest scores pass. k falls geometrically from half of the pixels to `pattern_size` of
    them in the first half of the search, the temperature from 0.33 to 0.03 all along. The canvas is
    sigmoid(c), from grey on. There is one problem for each class and no canvas to choose;
    `sparsity` is not used.

    Pasted are the pixels of the largest scores with the learned canvas in 8 bits.

    Args:
        pattern_size: Share of the pixels, in (0, 1).
        learning_rate: Of RMSprop with momentum on the scores.
        canvas_learning_rate: Likewise, on the canvas's logits.

    Raises:
        ValueError: if a number is out of its range.
    """

    needs_canvas = False

    def __init__(
        self,
        pattern_size: float = 0.01,
        learning_rate: float = 0.01,
        canvas_learning_rate: float = 0.02,
    ) -> None:
        if not 0 < pattern_size < 1:
            raise ValueError(f"`pattern_size` must lie in (0, 1), got {pattern_size}")
        for name, rate in (
            ("learning_rate", learning_rate),
            ("canvas_learning_rate", canvas_learning_rate),
        ):
            if not 0 < rate < math.inf:
                raise ValueError(f"`{name}` must be finite and above 0, got {rate}")
        self.pattern_size = pattern_size
        self.searched_sizes = (pattern_size,)
        self.learning_rate = learning_rate
        self.canvas_learning_rate = canvas_learning_rate

    def variables(self, canvases: Tensor) -> dict[str, Tensor]:
        """Return scores (P, H, W) and canvas logits (P, C, H, W), all zero."""
        scores = canvases.new_zeros(len(canvases), *canvases.shape[2:])
        return {"scores": scores, "canvas": torch.zeros_like(canvases)}

    def stamps(self, variables: Variables, problems: Problems) -> Stamp:
        """Return the soft mask with the canvas; at the end what is pasted."""
        scores, logits = variables["scores"], variables["canvas"]
        if problems.progress == 1:
            return self.pasted(variables, {}, problems.canvases, [self.pattern_size])
        pixels = scores.shape[1:].numel()
        final = pixel_count(self.pattern_size, scores.shape[1:])
        fall = min(1.0, 2 * problems.progress)
        count = round((START_SIZE * pixels) ** (1 - fall) * final**fall)
        first, last = TEMPERATURES
        temperature = first * (last / first) ** problems.progress
        best = scores.flatten(1).topk(min(count + 1, pixels), dim=1).values
        threshold = best[:, -2:].mean(1)[:, None, None]
        mask = ((scores - threshold) / temperature).sigmoid()
        return Stamp(mask[:, None, None], logits.sigmoid().unsqueeze(1))

    def optimizer(self, variables: Variables, step_size: float) -> torch.optim.Optimizer:
        """Return RMSprop: unlike Adam it counts no steps that depend on what else is searched."""
        groups = [
            {"params": [variables["scores"]], "lr": self.learning_rate},
            {"params": [variables["canvas"]], "lr": self.canvas_learning_rate},
        ]
        return torch.optim.RMSprop(groups, alpha=DECAY, momentum=MOMENTUM)

    def pasted(
        self, variables: Variables, means: Variables, canvases: Tensor, sizes: Sequence[float]
    ) -> Stamp:
        """Return hard masks of the largest scores with the learned canvas."""
        scores = variables["scores"].detach()
        learned = as_eight_bits(variables["canvas"].detach().sigmoid(), "canvas")
        return Stamp(top_pixels(scores, scores, sizes).unsqueeze(2), learned.unsqueeze(1))
