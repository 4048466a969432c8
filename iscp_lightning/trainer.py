"""The Trainer of the command line: one more verb, atomic checkpoints, the kept configuration."""

from __future__ import annotations

import os
import warnings
from pathlib import Path
from typing import Any

import lightning as L
import torch
from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.cli import SaveConfigCallback
from lightning.pytorch.loggers import CSVLogger
from lightning.pytorch.plugins.io import TorchCheckpointIO
from torch import Tensor

from iscp_lightning.patterns.module import PatternSearchModule
from iscp_lightning.runs import atomic_path, is_dry

# Python caches Optional[Union[float, int]] under the first order it meets, which is not Trainer's:
# without this, `--trainer.limit_train_batches 1` is read as 1.0, all batches.
L.Trainer.__init__.__annotations__ |= {
    f"limit_{stage}_batches": int | float | None for stage in ("train", "val", "test", "predict")
}


class Trainer(L.Trainer):
    """Lightning's Trainer with one more verb."""

    def search(
        self,
        model: L.LightningModule,
        datamodule: L.LightningDataModule | None = None,
        ckpt_path: str | None = None,
    ) -> None:
        """Search class-wise patterns, measure them, and write patterns, figures and results.

        Args:
            model: A PatternSearchModule.
            datamodule: The images.
            ckpt_path: Checkpoint of an interrupted search to go on from.
        """
        if not isinstance(model, PatternSearchModule):
            raise MisconfigurationException(
                f"`search` needs a PatternSearchModule as `model`, got {type(model).__name__}"
            )
        self.fit_loop.max_epochs = model.search.search_epochs  # else Lightning warns of 1,000
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "You passed in a `val_dataloader`")
            self.fit(model, datamodule=datamodule, ckpt_path=ckpt_path)
        self.test(model, datamodule=datamodule, verbose=False)


class EpochCheckpoint(ModelCheckpoint):
    """ModelCheckpoint whose file names count completed epochs, like everything else here."""

    def format_checkpoint_name(
        self,
        metrics: dict[str, Tensor],
        filename: str | None = None,
        ver: int | None = None,
        prefix: str | None = None,
    ) -> str:
        """Return the file path for the metrics, with `epoch` one higher than Lightning's."""
        completed = metrics | {"epoch": metrics["epoch"] + 1}
        return super().format_checkpoint_name(completed, filename, ver, prefix)

    def on_train_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Save the last checkpoint, except in a dry run, where Lightning forgets to ask."""
        if not is_dry(trainer):
            super().on_train_end(trainer, pl_module)


class AtomicCheckpointIO(TorchCheckpointIO):
    """Writes checkpoints beside their final name: Lightning moves them there from /tmp."""

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


class SaveConfig(SaveConfigCallback):
    """Writes config.yaml into the run folder and the whole configuration to every logger."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:  # noqa: ANN401
        kwargs["save_to_log_dir"] = False
        super().__init__(*args, **kwargs)

    def save_config(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: str) -> None:
        """Write and log the configuration; called on rank 0 only."""
        del pl_module, stage
        text = self.parser.dump(self.config, skip_none=False)
        with atomic_path(Path(trainer.default_root_dir) / "config.yaml") as temporary:
            temporary.write_text(text)
        plain = self.config.as_dict()
        for logger in trainer.loggers:
            if not isinstance(logger, CSVLogger):  # its folder holds config.yaml already
                logger.log_hyperparams({"config": plain})
