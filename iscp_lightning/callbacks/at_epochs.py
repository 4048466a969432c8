"""AtEpochs: any measurement at chosen epochs of any training."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import lightning as L
import torch
from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.pytorch.utilities.seed import isolate_rng

from iscp_lightning.callbacks.history import read_history, write_history
from iscp_lightning.callbacks.logged import log_findings
from iscp_lightning.classifiers.subject import Subject
from iscp_lightning.data.datamodule import ImageDataModule, planned_epochs
from iscp_lightning.data.testset import require_names
from iscp_lightning.internals import optimizer_steps, state_key_of
from iscp_lightning.measurement import Measurement
from iscp_lightning.ranks import same_on_all_ranks
from iscp_lightning.records import Findings
from iscp_lightning.runs import is_dry, may_write, save_figure
from iscp_lightning.work import Work


class AtEpochs(L.Callback):
    """Measures the classifier as it is after chosen epochs; logs, draws and keeps what is found.

    The training trajectory stays the same to the bit. Needs a module with a `classifier` and an
    `ImageDataModule`. The numbers of all epochs are kept in `measurements/TITLE.json`.

    Args:
        measurement: What is measured.
        epochs: After how many completed epochs; the default is that of Figure 4 of the paper.
        last: Whether to measure also when the training ends.
        name: Distinguishes several measurements of one title: begins the title and the names of
            files.

    Raises:
        ValueError: if an epoch is below 1, or `name` has other than letters, digits, _ and -.
    """

    def __init__(
        self,
        measurement: Measurement,
        epochs: Sequence[int] = (3, 5, 10, 50, 100),
        last: bool = True,
        name: str = "",
    ) -> None:
        if any(epoch < 1 for epoch in epochs):
            raise ValueError(f"`epochs` counts completed epochs from 1, got {list(epochs)}")
        if not re.fullmatch(r"[\w-]*", name):
            raise ValueError(f"`name` must be letters, digits, _ and -, got {name!r}")
        self.measurement = measurement
        self.epochs = set(epochs)
        self.last = last
        self.name = name
        self._taken: list[float] = []
        self._past: list[Findings] = []  # records and provenance of the epochs taken
        self._latest: Findings | None = None

    @property
    def title(self) -> str:
        """What the findings are called in logs, files and results."""
        return f"{self._prefix}{self.measurement.title}"

    @property
    def findings(self) -> dict[str, Findings]:
        """What was found last, under the title; of an earlier process, numbers alone."""
        latest = self._latest or (self._past[-1] if self._past else None)
        return {} if latest is None else {self.title: latest}

    @property
    def state_key(self) -> str:
        """Key of the state in a checkpoint, which holds one for each title."""
        return state_key_of(self, title=self.title)

    def work(self, data: ImageDataModule, trainer: L.Trainer) -> list[Work]:
        """Return what all its measurements take, for `--estimate`."""
        end = planned_epochs(trainer, data)
        epochs = {epoch for epoch in self.epochs if epoch <= end} | ({end} if self.last else set())
        works = self.measurement.work(data, trainer.world_size, len(epochs), self.last)
        return [replace(work, stage=f"{self.title}: {work.stage}") for work in works]

    # not `state_dict`: a Trainer refuses two of one key before `setup` can say what to do

    def on_save_checkpoint(
        self, trainer: L.Trainer, pl_module: L.LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        """Keep which epochs' measurements belong to this training."""
        checkpoint["callbacks"][self.state_key] = {"taken": self._taken}

    def on_load_checkpoint(
        self, trainer: L.Trainer, pl_module: L.LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        """Go on with the measurements of a checkpoint, where a training does."""
        if trainer.state.fn == "fit":
            self._taken = list(checkpoint["callbacks"].get(self.state_key, {"taken": []})["taken"])
            past = read_history(self._history(trainer))
            self._past = [each for each in past if each.provenance["epoch"] in self._taken]
            self._latest = None
            self.measurement.go_on(Path(trainer.default_root_dir), self._past)

    def setup(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: str) -> None:
        """Refuse trainings that cannot be measured, before they start.

        Raises:
            MisconfigurationException: for another one of the same title, a module without
                `classifier`, or other data than an `ImageDataModule`.
            ValueError: if a label has no name, or the measurement refuses the data.
        """
        if stage != "fit":
            return
        callbacks = trainer.callbacks  # type: ignore[attr-defined]
        others = [c.title for c in callbacks if isinstance(c, AtEpochs) and c is not self]
        if self.title in others:
            raise MisconfigurationException(
                f"two AtEpochs have the title {self.title!r}, so that one would replace the "
                "other's files: give each a `name` of its own"
            )
        data = getattr(trainer, "datamodule", None)
        if not isinstance(data, ImageDataModule):
            raise MisconfigurationException("AtEpochs needs an ImageDataModule")
        if not isinstance(getattr(pl_module, "classifier", None), torch.nn.Module):
            raise MisconfigurationException(
                f"AtEpochs needs a module with a `classifier`, got {type(pl_module)}"
            )
        require_names(data.test_images.labels, data.class_names)
        self._taken, self._past, self._latest = [], [], None  # a checkpoint is loaded later
        self.measurement.check(data)

    def on_train_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Measure if an epoch has been completed and is one of the chosen."""
        epoch = trainer.current_epoch + 1
        ends = epoch == trainer.max_epochs or 0 < trainer.max_steps <= trainer.global_step
        ends |= trainer.should_stop
        if trainer.is_last_batch and (epoch in self.epochs or (self.last and ends)):
            self._measure(trainer, pl_module, epoch, ends)

    def on_train_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Measure at the end of a training that ended early, be it within an epoch."""
        epoch = completed_epochs(trainer)
        if self.last and epoch > 0 and epoch not in self._taken:
            self._measure(trainer, pl_module, epoch, True)

    def _measure(
        self, trainer: L.Trainer, module: L.LightningModule, epoch: float, last: bool
    ) -> None:
        self._taken.append(epoch)
        data: ImageDataModule = trainer.datamodule  # type: ignore[attr-defined]
        measurement = self.measurement
        if is_dry(trainer):
            measurement = measurement.small()
            measurement.check(data)
        with isolate_rng():
            show = trainer.progress_bar_callback is not None
            classifier = same_on_all_ranks(module.classifier)
            subject = Subject.of(classifier, data, module.device, show, small=is_dry(trainer))
            found = measurement.measure(subject, last=last)
            if found is None:
                return
            saved_as = f"{self._prefix}{epoch_name(epoch)}"
            facts = {"epoch": epoch, "classifier_hash": subject.hash, "saved_as": saved_as}
            self._keep(found, facts)
            if may_write(trainer):
                self._write(trainer)
        trainer.strategy.barrier("measurement")

    def _keep(self, found: Findings, facts: dict[str, Any]) -> None:
        self._latest = replace(found, provenance={**found.provenance, **facts})
        past = [each for each in self._past if each.provenance["epoch"] != facts["epoch"]]
        past.append(Findings(found.records, provenance=self._latest.provenance))
        self._past = sorted(past, key=lambda each: float(each.provenance["epoch"]))

    def _write(self, trainer: L.Trainer) -> None:
        assert self._latest is not None
        folder = Path(trainer.default_root_dir)
        self._latest.save(folder, self._latest.provenance["saved_as"])
        write_history(self._history(trainer), self._past)
        for file_name, figure in self.measurement.history(folder, self._past).items():
            save_figure(folder / "figures" / f"{self._prefix}{file_name}.png", figure)
        step = optimizer_steps(trainer) - 1  # as `self.log` counts
        for logger in trainer.loggers:
            log_findings(logger, self.title, self._latest, self._past, step)

    def _history(self, trainer: L.Trainer) -> Path:
        return Path(trainer.default_root_dir) / "measurements" / f"{self.title}.json"

    @property
    def _prefix(self) -> str:
        return f"{self.name}-" if self.name else ""


def completed_epochs(trainer: L.Trainer) -> float:
    """Return after how many epochs a training has ended: whole ones, or such as 2.5 within one."""
    if trainer.is_last_batch:
        return trainer.current_epoch
    done = trainer.fit_loop.epoch_loop.batch_progress.current.completed
    share = round(done / trainer.num_training_batches, 2)
    # Lightning counts an epoch that was cut short as one
    return trainer.current_epoch - 1 + min(max(share, 0.01), 0.99)


def epoch_name(epoch: float) -> str:
    """Return what names of files say of an epoch, such as `epoch003` or `epoch002.50`."""
    return f"epoch{epoch:03d}" if isinstance(epoch, int) else f"epoch{epoch:06.2f}"
