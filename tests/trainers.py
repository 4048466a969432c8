"""A Trainer that only trains: no logger, no bars, on the CPU."""

from pathlib import Path
from typing import Any

import lightning as L


def quiet_trainer(folder: Path | None = None, **settings: Any) -> L.Trainer:
    return L.Trainer(
        accelerator="cpu",
        default_root_dir=folder,
        logger=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        **settings,
    )


class Crash(L.Callback):
    """Fails in a batch, or where the training starts.

    Args:
        epoch: In which epoch, counted from 0; -1 is the start.
        batch: In which batch.
    """

    armed = True

    def __init__(self, epoch: int = 0, batch: int = 0) -> None:
        self.at = (epoch, batch)

    def on_fit_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        if self.at[0] == -1:
            raise RuntimeError("out of memory")

    def on_train_batch_start(self, trainer: L.Trainer, pl_module: Any, batch: Any, at: int) -> None:
        if self.armed and (trainer.current_epoch, at) == self.at:
            for logger in trainer.loggers:
                logger.save()
            raise RuntimeError("out of memory")
