"""Collapse: when a generator and its discriminator have stopped to learn from each other.

Diversity is that of whole batches: a generator that makes one image of all vectors is seen, one
that leaves its noise unused, or makes a few images alone, is not.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from iscp_lightning.ranks import sum_over_ranks

SATURATED = 0.99  # share of scores beyond the hinge, where the discriminator's loss is flat
LEAST_DIVERSITY = 0.01  # of what the images themselves have
PATIENCE = 2  # epochs on end


class CollapseWatch(nn.Module):
    """Counts over an epoch whether the discriminator saturates, or images lose diversity or break.

    How many epochs on end they did is a buffer, so that a run that is resumed goes on with it.
    """

    epochs: Tensor

    def __init__(self) -> None:
        super().__init__()
        # scores beyond the hinge, scores, variance of the generated images, of the real ones; no
        # buffer, since ranks have counts of their own
        self.sums = torch.zeros(4, dtype=torch.float64)
        self.register_buffer("epochs", torch.zeros(2, dtype=torch.int64))

    @torch.no_grad()
    def update(self, real: Tensor, fake: Tensor, images: Tensor, generated: Tensor) -> None:
        """Take one batch.

        Args:
            real: (N,), the discriminator's scores of images; none without a discriminator.
            fake: (N,), of generated ones.
            images: (N, C, H, W).
            generated: (N, C, H, W), images of their vectors.
        """
        beyond = ((real > 1).sum() + (fake < -1).sum()).double()
        spread = [each.float().var(0).mean().double() for each in (generated, images)]
        counts = torch.stack([beyond, beyond.new_tensor(2.0 * len(real)), *spread])
        self.sums = self.sums.to(counts.device) + counts

    def verdict(self) -> str:
        """Return why the training should stop, "" if it should go on; begins a new epoch.

        Every rank enters and gets the same.
        """
        beyond, scores, generated, real = sum_over_ranks(self.sums).tolist()
        self.sums = torch.zeros_like(self.sums)
        if not math.isfinite(generated):
            return "generated images are not numbers any more: lower the learning rates"
        share = beyond / max(scores, 1)
        diversity = generated / real if real and scores else 1.0
        seen = torch.tensor([share > SATURATED, diversity < LEAST_DIVERSITY])
        self.epochs.copy_(torch.where(seen.to(self.epochs.device), self.epochs + 1, 0))
        if self.epochs[0] >= PATIENCE:
            return (
                f"the discriminator is saturated: {share:.1%} of its scores are beyond the hinge, "
                "so that the generator learns nothing from it; lower its learning rate or width, "
                "or augment (`augmentation`)"
            )
        if self.epochs[1] >= PATIENCE:
            return (
                f"generated images have lost diversity: their variance is {diversity:.2f} of that "
                "of the images; lower the generator's learning rate, or add a pixel term"
            )
        return ""
