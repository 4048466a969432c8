"""NaturalModule: standard training of a classifier on clean images."""

from __future__ import annotations

import warnings
from dataclasses import asdict
from pathlib import Path
from typing import Any, Literal

import lightning as L
import torch
import torch.nn.functional as F
from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.pytorch.cli import LRSchedulerCallable, OptimizerCallable
from torch import Tensor, nn
from torchmetrics import MetricCollection
from torchmetrics.classification import MulticlassStatScores

from iscp_lightning.classifiers.architectures import Classifier
from iscp_lightning.classifiers.checkpoints import NAMES_KEY, SPEC_KEY, load_classifier
from iscp_lightning.classifiers.frozen import uncompiled, use_fast_layout
from iscp_lightning.classifiers.rates import Rates, measure_rates
from iscp_lightning.classifiers.subject import Subject
from iscp_lightning.data import Batch
from iscp_lightning.data.datamodule import ImageDataModule, planned_epochs
from iscp_lightning.ranks import gather, rank_and_size
from iscp_lightning.runs import may_write
from iscp_lightning.seeds import generator_states, set_generator_states
from iscp_lightning.work import Work

GENERATORS_KEY = "generator_states"


class NaturalModule(L.LightningModule):
    """Trains a classifier with cross-entropy and reports its accuracy, also per class.

    Args:
        classifier: A network name, an existing weights file, or any module from images in [0, 1]
            to logits (`class_path` with `init_args`).
        optimizer: Made from the parameters.
        scheduler: Learning-rate schedule over the whole run, stepped after every batch: `cosine`
            to zero, `one_cycle` (Smith 2018) up to the optimiser's rate and down to zero, or a
            scheduler made from the optimiser.
        label_smoothing: Share of the target probability spread over all classes, in [0, 1).
        compile: Whether the network is compiled; its weights keep their names.
        num_classes: Number of classes; the command line takes it from the data.
        image_size: Image size of a network given by name, likewise.
    """

    measures_backdoor = False
    precisions: tuple[str, ...] = ("32-true", "bf16-mixed", "16-mixed")  # images are in fp32

    def __init__(
        self,
        classifier: str | nn.Module = "resnet50",
        optimizer: OptimizerCallable = lambda parameters: torch.optim.SGD(
            parameters, lr=0.1, momentum=0.9, weight_decay=5e-4
        ),
        scheduler: Literal["cosine", "one_cycle"] | LRSchedulerCallable = "cosine",
        label_smoothing: float = 0.0,
        compile: bool = False,  # noqa: A002
        num_classes: int = 10,
        image_size: int | tuple[int, int] = 32,
    ) -> None:
        super().__init__()
        if not 0 <= label_smoothing < 1:
            raise ValueError(f"`label_smoothing` must lie in [0, 1), got {label_smoothing}")
        given = load_classifier(classifier, num_classes=num_classes, image_size=image_size)
        self.classifier = uncompiled(given).train()
        use_fast_layout(self.classifier)
        if compile or given is not self.classifier:
            self.classifier.compile()
        self.optimizer = optimizer
        self.scheduler = scheduler
        self.label_smoothing = label_smoothing
        self.num_classes = num_classes
        self._generator_states: list[dict[str, Any]] = []
        self.val_accuracy = self._metrics("val")
        self.test_accuracy = nn.ModuleDict()

    def forward(self, images: Tensor) -> Tensor:
        """Return logits (N, K) of images (N, C, H, W) in [0, 1]."""
        logits: Tensor = self.classifier(images)
        return logits

    def setup(self, stage: str) -> None:
        """Make one set of metrics for each test set of the data module.

        Raises:
            MisconfigurationException: for a Trainer precision that is not among `precisions`.
        """
        if self.trainer.precision not in self.precisions:
            raise MisconfigurationException(
                f"`trainer.precision` must be {' or '.join(self.precisions)} for "
                f"{type(self).__name__}, got {self.trainer.precision}"
            )
        if getattr(self._trainer_data(), "poison", None) and not self.measures_backdoor:
            warnings.warn(
                f"`data.poison` is set, but {type(self).__name__} does not measure the backdoor: "
                "BadNetsModule does",
                stacklevel=2,
            )
        if stage == "test":
            names = getattr(self._trainer_data(), "test_names", ["test"])
            self.test_accuracy = nn.ModuleDict({name: self._metrics(name) for name in names})
            self.test_accuracy.to(self.device)

    def on_fit_start(self) -> None:
        """Keep with the run which training images are poisoned, and how."""
        data = self._trainer_data()
        if getattr(data, "poison", None) and may_write(self.trainer):
            data.poisoned_images.save(Path(self.trainer.default_root_dir) / "poison")

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """Return the cross-entropy of one augmented batch."""
        del batch_idx
        loss = F.cross_entropy(self(batch.image), batch.label, label_smoothing=self.label_smoothing)
        self.log("train/loss", loss, prog_bar=True)
        return loss

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        """Count correct predictions."""
        del batch_idx
        self.val_accuracy.update(self(batch.image), batch.label)

    def on_validation_epoch_end(self) -> None:
        """Log the clean accuracy, overall and per class."""
        self._log_accuracy(self.val_accuracy)

    def test_step(self, batch: Batch, batch_idx: int, dataloader_idx: int = 0) -> None:
        """Count correct predictions on one of the test sets."""
        del batch_idx
        metrics: Any = list(self.test_accuracy.values())[dataloader_idx]
        metrics.update(self(batch.image), batch.label)

    def on_test_epoch_end(self) -> None:
        """Log the clean accuracy of every test set, overall and per class."""
        for metrics in self.test_accuracy.values():
            self._log_accuracy(metrics)

    def configure_optimizers(self) -> Any:  # noqa: ANN401
        """Return the optimiser and its schedule, stepped after every batch."""
        optimizer = self.optimizer(self.classifier.parameters())
        steps = self.total_steps
        scheduler: Any
        if self.scheduler == "cosine":
            scheduler = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
        elif self.scheduler == "one_cycle":
            peak = optimizer.param_groups[0]["lr"]
            scheduler = torch.optim.lr_scheduler.OneCycleLR(
                optimizer, peak, total_steps=steps, cycle_momentum=False
            )
        else:
            scheduler = self.scheduler(optimizer)
        return {
            "optimizer": optimizer,
            "lr_scheduler": {"scheduler": scheduler, "interval": "step"},
        }

    def work(self, data: ImageDataModule, trainer: L.Trainer) -> list[Work]:
        """Return what training with its validations and the test take, for `--estimate`."""
        epochs = planned_epochs(trainer, data)
        trained = epochs * data.count("train")
        validated = epochs // (trainer.check_val_every_n_epoch or 1) * data.count("val")
        tested = sum(data.count(name) for name in data.test_names)
        updates, steps, steps_of_test = self.passes
        return [
            Work("training", updates=trained * updates, gradients=trained * steps),
            Work("validation", forwards=validated, gradients=validated * steps_of_test),
            Work("test", forwards=tested, gradients=data.count("test") * steps_of_test),
        ]

    def rates(self, data: ImageDataModule, device: torch.device) -> Rates:
        """Return how many images a second the classifier takes, for `--estimate`."""
        return measure_rates(Subject.of(self.classifier, data, device))

    @property
    def passes(self) -> tuple[int, int, int]:
        """Updates and attack steps of a training image, and attack steps of a tested one."""
        return 1, 0, 0

    @property
    def total_steps(self) -> int:
        """Number of optimiser steps of the whole run."""
        return int(self.trainer.estimated_stepping_batches)

    def on_train_start(self) -> None:
        """Go on with the random draws of a checkpoint, so that dropout is as without a break."""
        rank, size = rank_and_size()
        if len(self._generator_states) == size:
            set_generator_states(self._generator_states[rank])
        self._generator_states = []

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Take the states of every rank's random generators."""
        self._generator_states = checkpoint.get(GENERATORS_KEY, [])

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Keep architecture, names of classes and states of random generators; a collective."""
        checkpoint[GENERATORS_KEY] = gather(generator_states())
        if (data := self._trainer_data()) is not None:
            checkpoint[NAMES_KEY] = list(data.class_names)
        if isinstance(self.classifier, Classifier):
            checkpoint[SPEC_KEY] = asdict(self.classifier.spec)

    def _metrics(self, prefix: str, name: str = "clean_accuracy") -> MetricCollection:
        counts = MulticlassStatScores(self.num_classes, average="none")
        return MetricCollection({name: counts}, prefix=f"{prefix}/")

    def _log_accuracy(self, metrics: Any) -> Tensor:  # noqa: ANN401
        """Log the share of all images predicted right and of each class's, NaN without any."""
        ((name, counts),) = metrics.compute().items()
        metrics.reset()
        right, images = counts[:, 0], counts[:, -1]  # true positives, support
        accuracy: Tensor = right.sum() / images.sum()
        data = self._trainer_data()
        names = data.class_names if data is not None else range(self.num_classes)
        self.log(name, accuracy, prog_bar=True, sync_dist=True)
        values = {f"{name}/{c}": value for c, value in zip(names, right / images, strict=True)}
        self.log_dict(values, sync_dist=True)
        return accuracy

    def _trainer_data(self) -> Any:  # noqa: ANN401
        return getattr(self.trainer, "datamodule", None)
