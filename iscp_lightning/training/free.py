"""FreeModule: free adversarial training, every gradient used for weights and images at once."""

from __future__ import annotations

import math
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from iscp_lightning.attacks.pgd import PGD, ascend, project
from iscp_lightning.data import Batch
from iscp_lightning.ranks import broadcast_buffers
from iscp_lightning.training.madry import MadryModule


class FreeModule(MadryModule):
    """Free adversarial training (Shafahi et al. 2019).

    Every batch is replayed: each replay updates the weights and, with the same backward pass, the
    perturbation, which goes on from batch to batch. A run of E epochs costs E x `replays` passes.

    Args:
        classifier: As for NaturalModule.
        replays: Updates per batch.
        kwargs: As for MadryModule; `attack` must be PGD, and only its `epsilon` and `norm` count
            for the images. There is no batch to leave clean (`alternate`), and the classifier is in
            train mode, whatever `attack_in_eval_mode` says: its update and the images' are one.

    Raises:
        ValueError: if `replays` is below 1, `attack` is not PGD, or `alternate` is asked for.
    """

    attack: PGD

    def __init__(
        self,
        classifier: str | nn.Module = "resnet50",
        *,
        replays: int = 8,
        **kwargs: Any,  # noqa: ANN401
    ) -> None:
        super().__init__(classifier, **kwargs)
        if replays < 1:
            raise ValueError(f"`replays` must be 1 or more, got {replays}")
        if not isinstance(self.attack, PGD):
            raise ValueError(
                f"`attack` must be PGD, since free training steps in a ball, got {self.attack}"
            )
        if self.alternate:
            raise ValueError("`alternate` must be false for free training, got True")
        self.replays = replays
        self.automatic_optimization = False

    @property
    def passes(self) -> tuple[int, int, int]:
        """Updates and attack steps of a training image, and attack steps of a tested one."""
        return self.replays, 0, self.evaluation_attack.steps

    @property
    def total_steps(self) -> int:
        """Number of optimiser steps of the whole run."""
        batches = super().total_steps
        if self.trainer.max_steps != -1:  # every batch is replayed to its end
            batches = min(batches, math.ceil(self.trainer.max_steps / self.replays))
        return batches * self.replays

    def on_validation_start(self) -> None:
        """Validate one classifier: DDP leaves each rank its own buffers in manual optimisation."""
        super().on_validation_start()
        broadcast_buffers(self.classifier)

    def on_train_epoch_start(self) -> None:
        """Start the epoch without a perturbation, so that a resumed run goes the same way."""
        super().on_train_epoch_start()
        self._change: Tensor | None = None

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """Make `replays` updates on one augmented batch and return the last cross-entropy."""
        optimizer: Any = self.optimizers()
        scheduler: Any = self.lr_schedulers()
        epsilon, norm = self.attack.epsilon, self.attack.norm
        count = len(batch.image)
        change = torch.zeros_like(batch.image) if self._change is None else self._change[:count]
        for _ in range(self.replays):
            images = project(batch.image + change, batch.image, epsilon, norm).requires_grad_()
            loss = F.cross_entropy(self(images), batch.label, label_smoothing=self.label_smoothing)
            optimizer.zero_grad()
            self.manual_backward(loss)
            optimizer.step()
            torch.clear_autocast_cache()  # of weights as they were
            scheduler.step()
            assert images.grad is not None
            moved = ascend(images.detach(), images.grad, epsilon, norm)
            change = project(moved, batch.image, epsilon, norm) - batch.image
        self._change = change if self._change is None or count == len(self._change) else None
        self.log("train/loss", loss.detach(), prog_bar=True)
        return loss.detach()
