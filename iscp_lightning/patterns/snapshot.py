"""PatternSnapshot: class-wise patterns at chosen epochs of any training."""

from __future__ import annotations

import re
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

from iscp_lightning.data.datamodule import ImageDataModule
from iscp_lightning.data.images import ChosenImages
from iscp_lightning.data.splits import class_indices
from iscp_lightning.data.testset import require_drawable, require_names
from iscp_lightning.patterns.api import run_search
from iscp_lightning.patterns.pattern import PATTERN_SIZES, PatternSet
from iscp_lightning.patterns.power import measure_shared
from iscp_lightning.patterns.results import SHOWN_SIZE, pattern_pixels, summarize, write_dynamics
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
        name: Distinguishes several snapshots of one training: begins the names of files, logged
            values and tables.

    Raises:
        ValueError: if an epoch is below 1, or `name` has other than letters, digits, _ and -.
    """

    def __init__(
        self,
        epochs: Sequence[int] = (3, 5, 10, 50, 100),
        last: bool = True,
        search: SearchSettings = SearchSettings(),
        classes: Sequence[int | str] | None = None,
        pattern_sizes: Sequence[float] = PATTERN_SIZES,
        name: str = "",
    ) -> None:
        if any(epoch < 1 for epoch in epochs):
            raise ValueError(f"`epochs` counts completed epochs from 1, got {list(epochs)}")
        if not re.fullmatch(r"[\w-]*", name):
            raise ValueError(f"`name` must be letters, digits, _ and -, got {name!r}")
        self.epochs = set(epochs)
        self.last = last
        self.search = search
        self.classes = classes
        self.pattern_sizes = tuple(sorted({*pattern_sizes, SHOWN_SIZE}))
        self.name = name
        self._taken: list[float] = []

    @property
    def state_key(self) -> str:
        """Key of this snapshot's state in a checkpoint, which holds one for each name."""
        return self._generate_state_key(name=self.name) if self.name else super().state_key

    # not `state_dict`: a Trainer refuses two of one key before `setup` can say what to do

    def on_save_checkpoint(
        self, trainer: L.Trainer, pl_module: L.LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        """Keep which epochs' snapshots belong to this training."""
        checkpoint["callbacks"][self.state_key] = {"taken": self._taken}

    def on_load_checkpoint(
        self, trainer: L.Trainer, pl_module: L.LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        """Go on with the snapshots of a checkpoint."""
        self._taken = list(checkpoint["callbacks"].get(self.state_key, {"taken": []})["taken"])

    def setup(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: str) -> None:
        """Refuse trainings that cannot be searched, before they start.

        Raises:
            MisconfigurationException: for another snapshot of the same name, a module without
                `classifier`, or data without search images.
            ValueError: if a class is unknown, a label has no name, or images cannot be drawn.
        """
        if stage != "fit":
            return
        others = [c for c in trainer.callbacks if isinstance(c, PatternSnapshot) and c is not self]  # type: ignore[attr-defined]
        if self.name in [other.name for other in others]:
            raise MisconfigurationException(
                f"two PatternSnapshots have the `name` {self.name!r}, so that one would replace "
                "the other's files: give each a name of its own"
            )
        if not isinstance(getattr(trainer, "datamodule", None), ImageDataModule):
            raise MisconfigurationException("PatternSnapshot needs an ImageDataModule")
        if not isinstance(getattr(pl_module, "classifier", None), torch.nn.Module):
            raise MisconfigurationException(
                f"PatternSnapshot needs a module with a `classifier`, got {type(pl_module)}"
            )
        data = self._data(trainer)
        class_indices(self.classes, data.class_names)
        require_names(data.test_images.labels, data.class_names)
        require_drawable(data.test_images)
        if len(data.search_indices) == 0:
            raise MisconfigurationException(
                f"PatternSnapshot has no search image: `search_fraction`={data.search_fraction} "
                f"of {len(data.test_images)} test images is none of any class"
            )

    def on_train_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Take a snapshot if an epoch has been completed and is one of the chosen."""
        epoch = trainer.current_epoch + 1
        chosen = epoch in self.epochs or (self.last and epoch == trainer.max_epochs)
        if chosen and trainer.is_last_batch:
            self._snapshot(trainer, pl_module, epoch)

    def on_train_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Take the last snapshot of a training that ended early, be it within an epoch."""
        epoch = completed_epochs(trainer)
        if self.last and epoch > 0 and epoch not in self._taken:
            self._snapshot(trainer, pl_module, epoch)

    def _snapshot(self, trainer: L.Trainer, module: L.LightningModule, epoch: float) -> None:
        self._taken.append(epoch)
        data = self._data(trainer)
        settings = self.search.seeded(data.seed)
        images, indices = data.test_images, data.search_indices
        if is_dry(trainer):
            settings = replace(settings, search_epochs=1, canvases_per_class=1)
            images = ChosenImages(images, torch.arange(0, len(images), max(1, len(images) // 100)))
            indices = torch.arange(0, len(images), 5)
        classifier = same_on_all_ranks(module.classifier)
        show = trainer.is_global_zero and trainer.progress_bar_callback is not None
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
            found.save(folder / "patterns" / file_name(epoch, self.name))
            saved = read_snapshots(folder, self.name)
            history = [s for s in saved if s.provenance["epoch"] in self._taken]
            write_dynamics(folder, history, data.class_names, _prefix(self.name))
            step = trainer.fit_loop.epoch_loop._batches_that_stepped - 1  # as `self.log` counts
            for logger in trainer.loggers:
                self._log(logger, found[found.winners], history, epoch, step)
        trainer.strategy.barrier("pattern snapshot")

    def _log(
        self,
        logger: Logger,
        winners: PatternSet,
        history: Sequence[PatternSet],
        epoch: float,
        step: int,
    ) -> None:
        results, prefix = winners.results, _prefix(self.name)
        metrics = {
            f"mean_predictive_power/{size}": value
            for size, value in results["mean_predictive_power"].items()
        }
        metrics |= {"patterns/clean_accuracy": results["clean_accuracy"], "patterns/epoch": epoch}
        for entry in results["classes"]:
            for size, value in entry["predictive_power"].items():
                metrics[f"predictive_power/{size}/{entry['name']}"] = value
        metrics = {f"{prefix}{key}": v for key, v in metrics.items() if v == v}
        logger.log_metrics(metrics, step=step)
        for row, entry in enumerate(results["classes"]):
            image = enlarged(pattern_pixels(winners, row, SHOWN_SIZE))
            power = entry["predictive_power"][f"{SHOWN_SIZE:g}"]
            key = f"{prefix}pattern/{entry['name']}"
            if isinstance(logger, WandbLogger):
                caption = f"{entry['name']}, epoch {epoch}, PW {power:.3f}"
                logger.log_image(key, [image], caption=[caption])
            elif isinstance(logger, TensorBoardLogger):
                logger.experiment.add_image(key, image, step, dataformats="HWC")
        if isinstance(logger, WandbLogger):
            logger.log_table(f"{prefix}patterns", columns=COLUMNS, data=table_rows(history))

    @staticmethod
    def _data(trainer: L.Trainer) -> ImageDataModule:
        data: ImageDataModule = trainer.datamodule  # type: ignore[attr-defined]
        return data


def completed_epochs(trainer: L.Trainer) -> float:
    """Return after how many epochs a training has ended: whole ones, or such as 2.5 within one."""
    if trainer.is_last_batch:
        return trainer.current_epoch
    done = trainer.fit_loop.epoch_loop.batch_progress.current.completed
    share = round(done / trainer.num_training_batches, 2)
    # Lightning counts an epoch that was cut short as one
    return trainer.current_epoch - 1 + min(max(share, 0.01), 0.99)


def file_name(epoch: float, name: str) -> str:
    """Return the name of a snapshot's file, such as `epoch003.safetensors`."""
    number = f"{epoch:03d}" if isinstance(epoch, int) else f"{epoch:06.2f}"
    return f"{_prefix(name)}epoch{number}.safetensors"


def read_snapshots(folder: Path, name: str = "") -> list[PatternSet]:
    """Return the snapshots of one name in a run folder in the order of their epochs."""
    pattern = re.compile(rf"{_prefix(name)}epoch\d+(\.\d+)?\.safetensors")
    files = [path for path in (folder / "patterns").glob("*") if pattern.fullmatch(path.name)]
    return sorted(map(PatternSet.load, files), key=lambda s: float(s.provenance["epoch"]))


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


def _prefix(name: str) -> str:
    return f"{name}-" if name else ""
