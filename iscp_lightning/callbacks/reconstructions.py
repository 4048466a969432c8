"""Reconstructions: what an inversion makes of some test images, in the course of its training."""

from __future__ import annotations

from pathlib import Path

import lightning as L
import numpy as np
from lightning.fabric.utilities.exceptions import MisconfigurationException

from iscp_lightning.callbacks.logged import log_findings
from iscp_lightning.internals import optimizer_steps
from iscp_lightning.inversion.analysis import Sheet
from iscp_lightning.inversion.drawings import pixels_of, sheet_figure
from iscp_lightning.inversion.examined import columns_of_noise
from iscp_lightning.inversion.module import FeedforwardInversionModule
from iscp_lightning.records import Findings, Picture
from iscp_lightning.runs import may_write, save_figure


class Reconstructions(L.Callback):
    """Shows test images, their reconstructions and those of two other noises, to all loggers.

    Drawn to `figures/reconstructions_epoch003.png` as well. The training stays the same to the bit.

    Args:
        every: After every how many epochs, at least 1.
        images: How many test images, at least 1.

    Raises:
        ValueError: if a number is below 1.
    """

    def __init__(self, every: int = 10, images: int = 8) -> None:
        for name, value in (("every", every), ("images", images)):
            if value < 1:
                raise ValueError(f"`{name}` must be 1 or more, got {value}")
        self.every = every
        self.images = images

    def setup(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: str) -> None:
        """Refuse other modules.

        Raises:
            MisconfigurationException: if the module is no inversion.
        """
        if not isinstance(pl_module, FeedforwardInversionModule):
            raise MisconfigurationException(
                "Reconstructions needs a FeedforwardInversionModule as `model`, "
                f"got {type(pl_module).__name__}"
            )

    def on_train_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Draw if it is time."""
        epoch = trainer.current_epoch + 1
        if epoch % self.every or not may_write(trainer):
            return
        assert isinstance(pl_module, FeedforwardInversionModule)
        data = trainer.datamodule  # type: ignore[attr-defined]
        examined = pl_module.examined(data, self.images)
        images, columns = columns_of_noise(examined)
        names = [data.class_names[label] for label in examined.labels.tolist()]
        figure = sheet_figure(Sheet(images, names, columns), f"after epoch {epoch}")
        name = f"reconstructions_epoch{epoch:03d}.png"
        save_figure(Path(trainer.default_root_dir) / "figures" / name, figure)
        rows = [np.concatenate([pixels_of(image) for image in row], 1) for row in images]
        picture = Picture(np.concatenate(rows), " | ".join(columns))
        found = Findings(pictures={"reconstructions": picture}, provenance={"epoch": epoch})
        for logger in trainer.loggers:
            log_findings(logger, "inversion", found, [], optimizer_steps(trainer) - 1)
