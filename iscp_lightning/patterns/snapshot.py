"""PatternSnapshot: class-wise patterns at chosen epochs of any training."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import lightning as L
import numpy as np
import torch
from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.pytorch.loggers import Logger, TensorBoardLogger, WandbLogger
from lightning.pytorch.utilities.seed import isolate_rng

from iscp_lightning.data import ImageDataModule
from iscp_lightning.data.images import ChosenImages
from iscp_lightning.data.splits import class_indices
from iscp_lightning.patterns.api import run_search
from iscp_lightning.patterns.pattern import PATTERN_SIZES, PatternSet
from iscp_lightning.patterns.power import measure_shared
from iscp_lightning.patterns.results import (
    SHOWN_SIZE,
    pattern_pixels,
    summarize,
    write_dynamics,
)
from iscp_lightning.patterns.search import SearchSettings
from iscp_lightning.ranks import same_on_all_ranks
from iscp_lightning.runs import is_dry, may_write

LOGGED_SIDE = 128  # small patterns are enlarged for loggers, which would blur them
COLUMNS = ["epoch", "class", "pattern_size", "predictive_power", "objective", "canvas"]


class PatternSnapshot(L.Callback):
    """Searches patterns of the model as it is after chosen epochs, and logs and draws them.

    The training trajectory stays the same to the bit. Classes without a canvas, common in early
    epochs, are left out with a warning. Needs a module with a `classifier` and an
    `ImageDataModule`. Under DDP the search problems are shared out over ranks.

    Args:
        epochs: After how many completed epochs to search; the default is Figure 4's.
        last: Whether to search also when the training ends.
        search: Settings of the algorithm.
        classes: Target classes by index or name; None means all.
        pattern_sizes: Sizes at which predictive power is measured; 0.05 is always among them.
    """

    def __init__(
        self,
        epochs: Sequence[int] = (3, 5, 10, 50, 100),
        last: bool = True,
        search: SearchSettings = SearchSettings(),
        classes: Sequence[int | str] | None = None,
        pattern_sizes: Sequence[float] = PATTERN_SIZES,
    ) -> None:
        if any(epoch < 1 for epoch in epochs):
            raise ValueError(f"`epochs` counts completed epochs from 1, got {list(epochs)}")
        self.epochs = set(epochs)
        self.last = last
        self.search = search
        self.classes = classes
        self.pattern_sizes = tuple(sorted({*pattern_sizes, SHOWN_SIZE}))
        self._taken: list[int] = []

    def state_dict(self) -> dict[str, Any]:
        """Return which epochs' snapshots belong to this training."""
        return {"taken": self._taken}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on with the snapshots of a checkpoint."""
        self._taken = list(state_dict["taken"])

    def setup(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: str) -> None:
        """Refuse trainings that have no images or classifier, before they start."""
        if stage != "fit":
            return
        if not isinstance(getattr(trainer, "datamodule", None), ImageDataModule):
            raise MisconfigurationException("PatternSnapshot needs an ImageDataModule")
        if not isinstance(getattr(pl_module, "classifier", None), torch.nn.Module):
            raise MisconfigurationException(
                f"PatternSnapshot needs a module with a `classifier`, got {type(pl_module)}"
            )
        data = self._data(trainer)
        class_indices(self.classes, data.class_names)
        if len(data.search_indices) == 0:
            raise MisconfigurationException(
                f"PatternSnapshot has no search image: `search_fraction`={data.search_fraction} "
                f"of {len(data.test_images)} test images is none of any class"
            )

    def on_train_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Take a snapshot if this epoch is one of the chosen."""
        epoch = trainer.current_epoch + 1
        if epoch in self.epochs or (self.last and epoch == trainer.max_epochs):
            self._snapshot(trainer, pl_module, epoch)

    def on_train_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Take the last snapshot of a training that ended early."""
        if self.last and trainer.current_epoch > 0 and trainer.current_epoch not in self._taken:
            self._snapshot(trainer, pl_module, trainer.current_epoch)

    def _snapshot(self, trainer: L.Trainer, module: L.LightningModule, epoch: int) -> None:
        self._taken.append(epoch)
        data, settings = self._data(trainer), self.search
        images, indices = data.test_images, data.search_indices
        if is_dry(trainer):
            settings = replace(settings, search_epochs=1, canvases_per_class=1)
            images = ChosenImages(images, torch.arange(0, len(images), max(1, len(images) // 100)))
            indices = torch.arange(0, len(images), 5)
        classifier = same_on_all_ranks(module.classifier)
        show = trainer.progress_bar_callback is not None
        with isolate_rng():
            found = run_search(
                classifier,
                images,
                indices,
                settings,
                classes=class_indices(self.classes, data.class_names),
                class_names=data.class_names,
                device=module.device,
                progress=show,
                skip_missing=True,
                facts={"epoch": epoch},
            )
            if len(found) == 0:  # no class has a canvas; the warnings say so
                return
            winners = found[found.winners]
            measure_on = "full" if data.search_fraction == 1 else "held_out"
            power = measure_shared(
                winners,
                classifier,
                images,
                pattern_sizes=self.pattern_sizes,
                measure_on=measure_on,
                device=module.device,
                progress=show,
            )
        results = summarize(found, found.winners, power, self.pattern_sizes, measure_on)
        found = replace(found, results=results)
        if may_write(trainer):
            folder = Path(trainer.default_root_dir)
            found.save(folder / "patterns" / f"epoch{epoch:03d}.safetensors")
            history = [s for s in read_snapshots(folder) if s.provenance["epoch"] in self._taken]
            write_dynamics(folder, history, data.class_names)
            step = trainer.fit_loop.epoch_loop._batches_that_stepped - 1  # as `self.log` counts
            for logger in trainer.loggers:
                self._log(logger, found[found.winners], history, epoch, step)
        trainer.strategy.barrier("pattern snapshot")

    def _log(
        self,
        logger: Logger,
        winners: PatternSet,
        history: Sequence[PatternSet],
        epoch: int,
        step: int,
    ) -> None:
        results = winners.results
        metrics = {
            f"mean_predictive_power/{size}": value
            for size, value in results["mean_predictive_power"].items()
        }
        metrics |= {"patterns/clean_accuracy": results["clean_accuracy"], "patterns/epoch": epoch}
        for entry in results["classes"]:
            for size, value in entry["predictive_power"].items():
                metrics[f"predictive_power/{size}/{entry['name']}"] = value
        metrics = {key: value for key, value in metrics.items() if value == value}
        logger.log_metrics(metrics, step=step)
        for row, entry in enumerate(results["classes"]):
            image = enlarged(pattern_pixels(winners, row, SHOWN_SIZE))
            power = entry["predictive_power"][f"{SHOWN_SIZE:g}"]
            key = f"pattern/{entry['name']}"
            if isinstance(logger, WandbLogger):
                caption = f"{entry['name']}, epoch {epoch}, PW {power:.3f}"
                logger.log_image(key, [image], caption=[caption])
            elif isinstance(logger, TensorBoardLogger):
                logger.experiment.add_image(key, image, step, dataformats="HWC")
        if isinstance(logger, WandbLogger):
            logger.log_table("patterns", columns=COLUMNS, data=table_rows(history))

    @staticmethod
    def _data(trainer: L.Trainer) -> ImageDataModule:
        data: ImageDataModule = trainer.datamodule  # type: ignore[attr-defined]
        return data


def read_snapshots(folder: Path) -> list[PatternSet]:
    """Return the snapshots in a run folder in the order of their epochs."""
    files = (folder / "patterns").glob("epoch*.safetensors")
    return sorted(map(PatternSet.load, files), key=lambda s: int(s.provenance["epoch"]))


def table_rows(snapshots: Sequence[PatternSet]) -> list[list[Any]]:
    """Return one row of `COLUMNS` per epoch, class and pattern size."""
    return [
        [
            snapshot.provenance["epoch"],
            entry["name"],
            float(size),
            power,
            entry["objective"],
            entry["canvas"]["index"],
        ]
        for snapshot in snapshots
        for entry in snapshot.results["classes"]
        for size, power in entry["predictive_power"].items()
    ]


def enlarged(pixels: np.ndarray[Any, np.dtype[np.uint8]]) -> np.ndarray[Any, np.dtype[np.uint8]]:
    """Return an image (H, W, 3) with every pixel repeated until a side has `LOGGED_SIDE`."""
    factor = max(1, LOGGED_SIDE // min(pixels.shape[:2]))
    return pixels.repeat(factor, 0).repeat(factor, 1)
