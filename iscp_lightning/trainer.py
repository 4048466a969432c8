"""The Trainer of the command line: one more verb, atomic checkpoints, the start of a run."""

from __future__ import annotations

import os
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import lightning as L
import torch
import yaml
from jsonargparse import Namespace
from lightning.pytorch.accelerators import AcceleratorRegistry
from lightning.pytorch.loggers import CSVLogger, Logger
from lightning.pytorch.plugins.io import TorchCheckpointIO
from torch import Tensor

from iscp_lightning.internals import TrainEpochCheckpoint, optimizer_steps
from iscp_lightning.loggers import RunCSVLogger
from iscp_lightning.messages import first_lines
from iscp_lightning.patterns.module import PatternSearchModule
from iscp_lightning.runs import Run, atomic_path, is_dry

# Python caches Optional[Union[float, int]] under the first order it meets, which is not Trainer's:
# without this, `--trainer.limit_train_batches 1` is read as 1.0, all batches.
L.Trainer.__init__.__annotations__ |= {
    f"limit_{stage}_batches": int | float | None for stage in ("train", "val", "test", "predict")
}


class Trainer(L.Trainer):
    """Lightning's Trainer with one more verb."""

    def search(
        self,
        model: PatternSearchModule,
        datamodule: L.LightningDataModule | None = None,
        ckpt_path: str | None = None,
    ) -> None:
        """Search class-wise patterns, measure them, and write patterns, figures and results.

        Args:
            model: The search.
            datamodule: The images.
            ckpt_path: Checkpoint of an interrupted search to go on from.
        """
        self.fit_loop.max_epochs = (
            model.search.course.search_epochs
        )  # else Lightning warns of 1,000
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "You passed in a `val_dataloader`")
            self.fit(model, datamodule=datamodule, ckpt_path=ckpt_path)
        self.test(model, datamodule=datamodule, verbose=False)


class EpochCheckpoint(TrainEpochCheckpoint):
    """ModelCheckpoint whose file names count completed epochs, like everything else here.

    It saves when an epoch is complete, and once before the first step, so that a run can be resumed
    whenever it is interrupted. Files saved in the middle of an epoch (`every_n_train_steps`) say
    the step too.
    """

    _completes_epoch = False  # whether what is saved now has seen all batches of its epoch
    _at_epoch_end = False

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Save where the run starts, unless it goes on from its own checkpoint."""
        super().on_train_start(trainer, pl_module)
        if not trainer.strategy.broadcast(self._last.exists()):
            self._save_last(trainer)

    def on_train_batch_end(self, trainer: L.Trainer, *args: Any, **kwargs: Any) -> None:  # noqa: ANN401
        """Save after a batch, if `every_n_train_steps` says so."""
        self._completes_epoch, self._at_epoch_end = trainer.is_last_batch, False
        super().on_train_batch_end(trainer, *args, **kwargs)

    def on_train_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Save, unless the training ended within the epoch."""
        self._completes_epoch = self._at_epoch_end = trainer.is_last_batch
        if self._at_epoch_end:
            super().on_train_epoch_end(trainer, pl_module)

    def format_checkpoint_name(
        self,
        metrics: dict[str, Tensor],
        filename: str | None = None,
        ver: int | None = None,
        prefix: str | None = None,
    ) -> str:
        """Return the file path for the metrics, with the number of completed epochs."""
        if self._completes_epoch:
            metrics = metrics | {"epoch": metrics["epoch"] + 1}
        if filename is None and not self._at_epoch_end:
            filename = f"{self.filename}-step{{step:06d}}"
        return super().format_checkpoint_name(metrics, filename, ver, prefix)

    def on_train_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Save the last weights, also of a training that ended within an epoch."""
        if not self._at_epoch_end or not self.has_saved:
            self._save_last(trainer)

    @property
    def _last(self) -> Path:
        return Path(str(self.dirpath)) / f"{self.CHECKPOINT_NAME_LAST}{self.FILE_EXTENSION}"

    def _save_last(self, trainer: L.Trainer) -> None:
        if self.save_last and not is_dry(trainer):  # in a dry run, Lightning forgets to ask
            trainer.save_checkpoint(self._last)


class AtomicCheckpointIO(TorchCheckpointIO):
    """Writes checkpoints beside their final name: Lightning moves them there from /tmp.

    Args:
        run: The run whose artefacts they are.
    """

    def __init__(self, run: Run) -> None:
        super().__init__()
        self.run = run

    def save_checkpoint(
        self,
        checkpoint: dict[str, Any],
        path: str | os.PathLike[str],
        storage_options: Any = None,  # noqa: ANN401
    ) -> None:
        """Write the checkpoint, so that the path never holds half of one."""
        del storage_options
        with atomic_path(Path(path)) as temporary:
            torch.save(checkpoint, temporary)
        self.run.keep()


class RunStart(L.Callback):
    """Starts the run folder, its configuration and its loggers when everything has been checked.

    Args:
        run: The run.
        config: The configuration that defines the run, as YAML.
        loggers: Loggers, which the Trainer gets only now: W&B must not start for a mistake.
    """

    def __init__(self, run: Run, config: str, loggers: Sequence[Logger]) -> None:
        self.run = run
        self.config = config
        self.loggers = loggers

    def on_fit_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Start before a training."""
        self._start(trainer)

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Forget what a resumed training will log again, and log the configuration."""
        loop = trainer.fit_loop.epoch_loop
        # a checkpoint within an epoch is written before its batch counts as stepped
        steps = loop.batch_progress.total.ready // trainer.accumulate_grad_batches
        for logger in trainer.loggers:
            if self.run.resumes and isinstance(logger, RunCSVLogger) and trainer.is_global_zero:
                logger.drop_from(max(steps, optimizer_steps(trainer)))
        self._log_config(trainer)

    def on_validation_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Start before a validation that is not part of a training."""
        if trainer.state.fn == "validate":
            self._start(trainer)

    def on_test_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Start before a test."""
        self._start(trainer)

    def on_predict_batch_end(self, trainer: L.Trainer, *args: Any, **kwargs: Any) -> None:  # noqa: ANN401
        """Keep the run: what its module has made is an artefact."""
        self.run.keep()

    def on_predict_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Start before a prediction."""
        self._start(trainer)

    def _start(self, trainer: L.Trainer) -> None:
        if trainer.loggers or is_dry(trainer):  # fit has started it for its test
            return
        trainer.strategy.barrier("every rank has read what the run may replace")
        self.run.start()
        path = self.run.folder / "config.yaml"
        if trainer.is_global_zero and not self.run.resumes:
            with atomic_path(path) as temporary:
                temporary.write_text(self.config)
        trainer.loggers = list(self.loggers)
        if not trainer.training:
            self._log_config(trainer)

    def _log_config(self, trainer: L.Trainer) -> None:
        for logger in trainer.loggers:
            if not isinstance(logger, CSVLogger):  # its folder holds config.yaml already
                logger.log_hyperparams({"config": yaml.safe_load(self.config)})


def processes(trainer: Namespace) -> int:
    """Return how many processes Lightning will start for this configuration."""
    probe = L.Trainer(
        accelerator=trainer.accelerator,
        devices=trainer.devices,
        num_nodes=trainer.num_nodes,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    return int(probe.world_size)


def refused(trainer: Namespace, reason: Exception) -> str:
    """Return which options were given, why Lightning refuses them, and what there is here."""
    defaults = {"accelerator": "auto", "devices": "auto", "strategy": "auto", "num_nodes": 1}
    given = [
        f"`--trainer.{name} {trainer[name]}`"
        for name, default in defaults.items()
        if trainer[name] != default and isinstance(trainer[name], (str, int))
    ]
    here = [
        name for name, entry in AcceleratorRegistry.items() if entry["accelerator"].is_available()
    ]
    text = first_lines(str(reason)).split(" Find a complete")[0].rstrip(".!")
    return f"{' '.join(given) or 'its options'}: {text}; accelerators here: {', '.join(here)}"
