"""AreaConstrained: the best pattern of each given size, instead of one mask that is cut later."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from iscp_lightning.data.stamps import Stamp
from iscp_lightning.patterns.pixels import pixel_count, top_pixels
from iscp_lightning.patterns.variants.base import Problems, Variables, Variant
from iscp_lightning.patterns.variants.descent import Descent

SOFT_TURNS = 2
SOFT_SIZE = 0.1  # what the soft mask is cut to


class AreaConstrained(Variant):
    """Searches hard patterns of several sizes over a fixed canvas, from the largest size down.

    A score s for each pixel ranks them. The search has turns of equal length, two for a soft mask
    and then one for each size. The soft mask is (1 + s) / 2 within [0, 1], with
    the objective and the sign steps of Algorithm 1. In the other turns the mask is hard, the k
    pixels of the largest scores, and 1 - p_y is minimised, p_y being the probability of the target:
    close to what predictive power counts. The gradient with respect to the mask is taken for all
    pixels, as if the mask were not hard (straight through; Bengio et al. 2013). In the first half
    of a turn k falls geometrically from the size before, first from a tenth of the pixels.

    Gradients of single batches are heavy-tailed, and their signs say nothing of how many pixels are
    wanted. So a step of these turns looks at their ranks r = 1, ..., n, 1 being the pixel that
    would lower the loss most: s <- s - eta * (log(r / n) + 1), Savage's exponential scores, whose
    mean is zero.

    Pasted are the pixels of the largest scores at the end of the turn of the nearest size; where a
    tenth has no turn and is nearer, those of the largest mean score in the second half of the soft
    turns.
    `sparsity` weighs the soft mask's mean. The objective is the mean of 1 - p_y over all sizes.

    Args:
        pattern_sizes: Shares of the pixels that have a turn, in (0, 1).

    Raises:
        ValueError: if there is no size, or one is outside (0, 1).
    """

    def __init__(self, pattern_sizes: Sequence[float] = (0.01, 0.02, 0.03, 0.05, 0.1)) -> None:
        if not pattern_sizes or not all(0 < size < 1 for size in pattern_sizes):
            raise ValueError(f"`pattern_sizes` must list shares in (0, 1), got {pattern_sizes}")
        self.pattern_sizes = sorted(set(pattern_sizes), reverse=True)
        self.searched_sizes = (*self.pattern_sizes, SOFT_SIZE)

    def variables(self, canvases: Tensor) -> dict[str, Tensor]:
        """Return scores (P, H, W), what each turn ended with (P, 1 + S, H, W), all zero.

        `hard` (P,) says who has begun the second turn.
        """
        shape = canvases.shape[2:]
        return {
            "scores": canvases.new_zeros(len(canvases), *shape),
            "hard": canvases.new_zeros(len(canvases)),
            "kept": canvases.new_zeros(len(canvases), 1 + len(self.pattern_sizes), *shape),
        }

    def stamps(self, variables: Variables, problems: Problems) -> Stamp:
        """Return the mask of the size that is searched, at the end the masks of all sizes."""
        scores, shape = variables["scores"], variables["scores"].shape[1:]
        counts = [pixel_count(size, shape) for size in self.pattern_sizes]
        counts.insert(0, max(1, round(SOFT_SIZE * shape.numel())))
        if problems.progress == 1:
            kept = {"kept": variables["kept"].detach()}
            return self.pasted(kept, {}, problems.canvases, self.pattern_sizes)
        if self._soft(problems.progress):
            mask = (1 + scores) / 2
        else:
            turn, within = self._turn(problems.progress)
            fall = min(1.0, 2 * within)
            count = round(counts[turn - 1] ** (1 - fall) * counts[turn] ** fall)
            mask = largest(scores.detach(), count) + (scores - scores.detach())
        return Stamp(mask[:, None, None], problems.canvases.unsqueeze(1))

    def penalty(self, variables: Variables, problems: Problems) -> Tensor:
        """Return alpha * mean(m) as long as the mask is soft."""
        if self._soft(problems.progress):
            return problems.sparsity * (1 + variables["scores"]).mean((1, 2)) / 2
        return super().penalty(variables, problems)

    def loss(self, logits: Tensor, targets: Tensor, progress: float) -> Tensor:
        """Return the cross-entropy as long as the mask is soft, then 1 - p_y."""
        if self._soft(progress):
            return super().loss(logits, targets, progress)
        return 1 - F.softmax(logits, 1).gather(1, targets.unsqueeze(1)).squeeze(1)

    def optimizer(self, variables: Variables, step_size: float) -> torch.optim.Optimizer:
        """Return the descent by signs, then by ranks."""
        return RankDescent(variables["scores"], variables["hard"], step_size)

    def after_step(self, variables: Variables, progress: float) -> None:
        """Keep the scores for the size whose turn it is; those of a soft mask stay in range."""
        scores, kept = variables["scores"], variables["kept"]
        turn, within = self._turn(progress)
        if turn == 0:
            scores.clamp_(-1, 1)
            kept[:, 0] = scores + (kept[:, 0] if within >= 0.5 else 0)
        variables["hard"].fill_(float(turn > 0))
        # of later sizes, too: a class with fewer images may skip the end of a pass, and so a turn
        kept[:, max(1, turn) :] = scores.unsqueeze(1)

    def pasted(
        self, variables: Variables, means: Variables, canvases: Tensor, sizes: Sequence[float]
    ) -> Stamp:
        """Return hard masks of the largest scores with the canvas."""
        masks = []
        for size in sizes:
            ratios = [max(size / each, each / size) for each in self.searched_sizes]
            turn = (1 + ratios.index(min(ratios))) % len(ratios)
            scores = variables["kept"][:, turn]
            masks.append(top_pixels(scores, scores, [size]))
        return Stamp(torch.cat(masks, 1).unsqueeze(2), canvases.unsqueeze(1))

    def _turn(self, progress: float) -> tuple[int, float]:
        """Return whose turn it is, 0 being the soft mask's, and the share of it that is over."""
        share = progress * (SOFT_TURNS + len(self.pattern_sizes)) - SOFT_TURNS
        if share < 0:
            return 0, 1 + share / SOFT_TURNS
        return 1 + int(share), share % 1

    def _soft(self, progress: float) -> bool:
        return self._turn(progress)[0] == 0


class RankDescent(Descent):
    """s <- s - eta * (log(r / n) + 1), r the rank of a score's gradient among n of its problem.

    As long as the mask is soft, s <- s - 2 * eta * sign(dL/ds): the mask moves by eta.

    Args:
        scores: (P, ...).
        hard: (P,) float, 0 as long as a problem's mask is soft, then 1; whoever sets it does so
            after the first hard step.
        step_size: eta.
    """

    def __init__(self, scores: Tensor, hard: Tensor, step_size: float) -> None:
        super().__init__([scores], {"lr": step_size})
        self.hard = hard

    def move(self) -> None:
        """Move every score."""
        for group in self.param_groups:
            for scores in group["params"]:
                if scores.grad is not None:
                    flat = scores.grad.flatten(1)
                    ordered = flat.sort(dim=1).values  # equal gradients share their mean rank
                    ends = [
                        torch.searchsorted(ordered, flat, right=right) for right in (False, True)
                    ]
                    ranks = (ends[0] + ends[1] + 1) / 2
                    by_rank = (ranks / flat.shape[1]).log() + 1
                    moves = torch.where(self.hard.unsqueeze(1) > 0, by_rank, 2 * flat.sign())
                    scores.sub_(moves.view_as(scores), alpha=group["lr"])


def largest(values: Tensor, count: int) -> Tensor:
    """Return which values are the `count` largest of their row, ones and zeros, (P, H, W)."""
    flat = values.flatten(1)
    chosen = flat.topk(count, dim=1).indices
    return torch.zeros_like(flat).scatter_(1, chosen, 1).view_as(values)
