"""MadryModule: adversarial training, a classifier trained on the adversarial images of itself."""

from __future__ import annotations

import math
import warnings
from pathlib import Path
from typing import Any

import torch
from lightning.fabric.utilities.exceptions import MisconfigurationException
from torch import Generator, Tensor, nn

from iscp_lightning.attacks.pgd import PGD, Attack
from iscp_lightning.attacks.spatial import StAdv
from iscp_lightning.classifiers.frozen import frozen_weights, full_fp32
from iscp_lightning.classifiers.outputs import eval_mode, outputs_in_eval_mode, require_logits
from iscp_lightning.data import Batch
from iscp_lightning.data.datamodule import ImageDataModule
from iscp_lightning.runs import is_dry
from iscp_lightning.seeds import named_generator
from iscp_lightning.training.natural import NaturalModule


class MadryModule(NaturalModule):
    """Adversarial training (Madry et al. 2018): cross-entropy on an attack's images of every batch.

    PGD of one step of 1.25 epsilon makes it fast adversarial training (Wong et al. 2020);
    such a run stops when the classifier has learned to defeat that one step alone (catastrophic
    overfitting: the accuracy under `evaluation_attack` falls below half of its best).

    `checkpoints/robust.ckpt` holds the weights of the epoch with the best robust accuracy on the
    validation images, since the last one is often worse (robust overfitting, Rice et al. 2020).

    Args:
        classifier: As for NaturalModule.
        attack: Makes the training images: PGD, or StAdv, which moves pixels.
        evaluation_attack: Makes the images of `robust_accuracy` in validation and test; None is PGD
            in the ball of `attack` with 10 steps of a quarter of the radius, or a StAdv itself.
        attack_in_eval_mode: Whether training attacks see batch normalisation's running statistics
            (and leave them alone), or those of the batch, as Madry et al. did.
        alternate: Whether every second batch, from the first on, is trained on as it is (Zhang and
            Zhu 2019) instead of on its adversarial images.
        kwargs: As for NaturalModule.
    """

    precisions = ("32-true", "bf16-mixed")  # in 16-mixed, an attack's gradients vanish
    best_robust_accuracy: Tensor

    def __init__(
        self,
        classifier: str | nn.Module = "resnet50",
        *,
        attack: Attack = PGD(),
        evaluation_attack: PGD | None = None,
        attack_in_eval_mode: bool = True,
        alternate: bool = False,
        **kwargs: Any,  # noqa: ANN401
    ) -> None:
        super().__init__(classifier, **kwargs)
        if not isinstance(attack, PGD | StAdv):
            raise ValueError(f"`attack` must be PGD or StAdv, got {type(attack).__name__}")
        self.attack = attack
        self.evaluation_attack = evaluation_attack or attack
        if evaluation_attack is None and isinstance(attack, PGD):
            self.evaluation_attack = PGD(attack.epsilon, attack.epsilon / 4, 10, attack.norm)
        self.attack_in_eval_mode = attack_in_eval_mode
        self.alternate = alternate
        self.val_robust = self._metrics("val", "robust_accuracy")
        self.test_robust = self._metrics("test", "robust_accuracy")
        self.register_buffer("best_robust_accuracy", torch.tensor(-1.0))

    @property
    def best_checkpoint(self) -> Path:
        """Path of the weights with the best robust accuracy so far."""
        return Path(self.trainer.default_root_dir) / "checkpoints" / "robust.ckpt"

    @property
    def passes(self) -> tuple[int, int, int]:
        """Updates and attack steps of a training image, and attack steps of a tested one."""
        return 1, math.ceil(self.attack.steps / (1 + self.alternate)), self.evaluation_attack.steps

    def on_fit_start(self) -> None:
        """Check what can be checked before the first step.

        Raises:
            MisconfigurationException: if there is no validation image to measure robustness on.
        """
        super().on_fit_start()
        data = self._trainer_data()
        if self.trainer.limit_val_batches == 0:
            raise MisconfigurationException(
                "adversarial training keeps its most robust epoch: `limit_val_batches` must be "
                "above 0"
            )
        if isinstance(data, ImageDataModule) and not data.val_dataloader():
            raise MisconfigurationException(
                "adversarial training keeps its most robust epoch: it needs validation images, "
                f"and `val_fraction`={data.val_fraction} leaves none of "
                f"{len(data.train_images[1])} training images"
            )

    def on_train_batch_start(self, batch: Batch, batch_idx: int) -> None:
        """Check on the first images that the classifier returns logits."""
        if batch_idx == 0:
            require_logits(outputs_in_eval_mode(self.classifier, batch.image[:8]))

    def on_train_epoch_start(self) -> None:
        """Start the epoch's noise, a function of seed, epoch and rank alone."""
        self._noise = self._generator("training noise", self.current_epoch, self.global_rank)

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """Return the cross-entropy of the adversarial images of one augmented batch."""
        if self.alternate and batch_idx % 2 == 0:
            return super().training_step(batch, batch_idx)
        mode = eval_mode(self.classifier, self.attack_in_eval_mode)
        with mode, frozen_weights(self.classifier):
            images = self.attack(self.classifier, batch.image, batch.label, self._noise)
        return super().training_step(batch._replace(image=images), batch_idx)

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        """Count correct predictions on clean and on adversarial images."""
        super().validation_step(batch, batch_idx)
        self._count(self.val_robust, batch, batch_idx)

    def on_validation_epoch_end(self) -> None:
        """Log both accuracies, keep the best, stop if single-step training has overfitted."""
        super().on_validation_epoch_end()
        robust = self._log_accuracy(self.val_robust)
        if self.trainer.state.fn != "fit" or self.trainer.sanity_checking or is_dry(self.trainer):
            return
        best = self.best_robust_accuracy
        if robust > best:
            best.copy_(robust)
            self.trainer.save_checkpoint(self.best_checkpoint, weights_only=True)
        elif self.attack.steps == 1 and robust < best / 2:
            warnings.warn(
                f"catastrophic overfitting: robust accuracy fell from {best:.3f} to {robust:.3f}; "
                f"training stops, {self.best_checkpoint} holds the best epoch",
                stacklevel=2,
            )
            self.trainer.should_stop = True

    def test_step(self, batch: Batch, batch_idx: int, dataloader_idx: int = 0) -> None:
        """Count correct predictions; on the test set proper also on adversarial images."""
        super().test_step(batch, batch_idx, dataloader_idx)
        if dataloader_idx == 0:
            self._count(self.test_robust, batch, batch_idx)

    def on_test_epoch_end(self) -> None:
        """Log both accuracies."""
        super().on_test_epoch_end()
        self._log_accuracy(self.test_robust)

    def _count(self, metrics: Any, batch: Batch, batch_idx: int) -> None:  # noqa: ANN401
        if batch_idx == 0:
            require_logits(outputs_in_eval_mode(self.classifier, batch.image[:8]))
            # the same in every epoch
            self._evaluation_noise = self._generator("evaluation noise", self.global_rank)
        # robustness is measured in fp32
        with full_fp32(), torch.autocast(self.device.type, enabled=False):
            with frozen_weights(self.classifier):
                images = self.evaluation_attack(
                    self.classifier, batch.image, batch.label, self._evaluation_noise
                )
            metrics.update(self(images), batch.label)

    def _generator(self, *name: str | int) -> Generator:
        seed = getattr(self._trainer_data(), "seed", 0)
        return named_generator(seed, *name, device=self.device)
