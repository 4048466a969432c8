"""Private attributes of Lightning that are used here, each with its reason; nowhere else."""

from __future__ import annotations

from typing import Any

import lightning as L
from lightning.fabric.loggers.logger import rank_zero_experiment
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.loggers import CSVLogger, WandbLogger
from lightning.pytorch.loggers.csv_logs import ExperimentWriter


def take_loader_from(loop: Any, module: L.LightningModule) -> None:  # noqa: ANN401
    """Let a loop (fit, test or predict) take its loader from the module.

    A data module's loader wins otherwise, also over the module's own.
    """
    loop._data_source.instance = module


def expects_all_gradients(trainer: L.Trainer) -> bool:
    """Return whether several processes will wait for gradients of all parameters at every step."""
    given = getattr(trainer.strategy, "_ddp_kwargs", None)
    if given is None or trainer.world_size == 1:
        return False
    return not given.get("find_unused_parameters", False)


def syncs_batch_norm(trainer: L.Trainer) -> bool:
    """Return whether batch normalisation sees the batches of all processes."""
    return getattr(trainer.strategy, "_layer_sync", None) is not None


def optimizer_steps(trainer: L.Trainer) -> int:
    """Return how many optimiser steps have been made, as `self.log` counts them.

    `global_step` counts every optimiser, and a resumed run starts it elsewhere.
    """
    return int(trainer.fit_loop.epoch_loop._batches_that_stepped)


class TrainEpochCheckpoint(ModelCheckpoint):
    """ModelCheckpoint that never saves after a validation in the middle of an epoch.

    No argument says so where validations are more frequent than epochs.
    """

    def _should_save_on_train_epoch_end(self, trainer: L.Trainer) -> bool:
        del trainer
        return True

    @property
    def has_saved(self) -> bool:
        """Whether it has saved anything in this training, which Lightning keeps to itself."""
        return bool(self._last_checkpoint_saved)


class KeepingWriter(ExperimentWriter):
    """The writer of Lightning's CSV file, which would delete what it finds in its folder."""

    def _check_log_dir_exists(self) -> None:
        """Keep what is there."""


class KeepingCSVLogger(CSVLogger):
    """CSVLogger with a writer of one's own: Lightning's makes its writer itself."""

    def new_writer(self) -> ExperimentWriter:
        """Return a writer, made when something is first logged."""
        return KeepingWriter(self.log_dir)

    @property
    @rank_zero_experiment
    def experiment(self) -> Any:  # noqa: ANN401
        """The writer."""
        if self._experiment is None:
            self._experiment = self.new_writer()
        return self._experiment


class OpenWandbLogger(WandbLogger):
    """WandbLogger that says what it will start with: it keeps the arguments of `wandb.init`."""

    @property
    def started(self) -> bool:
        """Whether this logger has its W&B run."""
        return self._experiment is not None

    @property
    def arguments(self) -> dict[str, Any]:
        """Arguments of `wandb.init`, which may be changed until the run starts."""
        arguments: dict[str, Any] = self._wandb_init
        return arguments


def state_key_of(callback: L.Callback, **facts: str) -> str:
    """Return the key of a callback's state in a checkpoint, one for each of the facts.

    Lightning has no other way to tell two callbacks of one class apart.
    """
    return str(callback._generate_state_key(**facts))
