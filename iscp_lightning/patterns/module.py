"""PatternSearchModule: the search as a Lightning `fit`, its measurement as a `test`."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import lightning as L
import torch
from lightning.fabric.utilities.exceptions import MisconfigurationException
from torch import Tensor, nn

from iscp_lightning.classifiers import Classifier, load_trained
from iscp_lightning.classifiers.frozen import frozen_copy
from iscp_lightning.data import Batch
from iscp_lightning.data.datamodule import ImageDataModule
from iscp_lightning.data.splits import class_indices
from iscp_lightning.data.testset import require_drawable, require_names
from iscp_lightning.patterns.api import collect, random_classes
from iscp_lightning.patterns.canvas import Canvases, choose_canvases, predict
from iscp_lightning.patterns.descent import SignDescent
from iscp_lightning.patterns.limits import require_search_trainer
from iscp_lightning.patterns.mixing import pixel_count
from iscp_lightning.patterns.origin import require_origin, search_origin
from iscp_lightning.patterns.pattern import PATTERN_SIZES, PatternSet
from iscp_lightning.patterns.pool import SearchPool
from iscp_lightning.patterns.power import PredictivePower, measured_indices
from iscp_lightning.patterns.recovery import recover_trigger
from iscp_lightning.patterns.results import write_search
from iscp_lightning.patterns.search import PatternSearch, SearchSettings
from iscp_lightning.ranks import share, sum_rows
from iscp_lightning.runs import is_dry, may_write

CHECKPOINT_KEY = "pattern_search"


class PatternSearchModule(L.LightningModule):
    """Searches class-wise patterns of a frozen classifier; the masks are all that is trained.

    One epoch is one pass over the search images; `search_epochs` alone says how many there are.
    Checkpoints hold masks and canvases, not the classifier, and resume on any number of processes.

    Args:
        classifier: A weights file, the name of a timm network with trained weights
            (`resnet50.a1_in1k`), or any module from images in [0, 1] to logits.
        weights: Weights file for a classifier given as a module.
        search: Settings of the algorithm.
        classes: Target classes by index or name; None means all.
        random_classes: Instead of `classes`: how many classes to draw, fixed by the search's seed.
        pattern_sizes: Sizes at which predictive power is measured, as shares of the pixels.
        measure_on: The test images that the search has not seen, or all of them.
        measure_canvases: Whether predictive power is measured for every canvas or the winners only.
        num_classes: Number of classes; the command line takes it from the data.
        image_size: Image size of a network given by name, likewise.
    """

    searches_in_parallel = True
    mask_sums: Tensor
    objectives: Tensor

    def __init__(
        self,
        classifier: str | nn.Module,
        weights: str | None = None,
        search: SearchSettings = SearchSettings(),
        classes: Sequence[int | str] | None = None,
        random_classes: int | None = None,
        pattern_sizes: list[float] = list(PATTERN_SIZES),  # noqa: B006
        measure_on: Literal["held_out", "full"] = "held_out",
        measure_canvases: Literal["all", "winners"] = "all",
        num_classes: int = 10,
        image_size: int | tuple[int, int] = 32,
    ) -> None:
        super().__init__()
        if classes is not None and random_classes is not None:
            raise ValueError("give `classes` or `random_classes`, not both")
        given = load_trained(classifier, weights, num_classes, image_size)
        self._recorded_poison = None
        if isinstance(classifier, str):
            record = Path(classifier).parent.parent / "poison" / "poisoned.json"
            if record.is_file():
                self._recorded_poison = json.loads(record.read_text())["settings"]
        self._given = (given,)  # a tuple hides it: neither parameters nor checkpoint hold it
        self.search = search
        self.classes = classes
        self.random_classes = random_classes
        self.pattern_sizes = tuple(sorted(set(pattern_sizes)))
        self.measure_on = measure_on
        self.measure_canvases = measure_canvases
        self.engine: PatternSearch | None = None
        self._searched: dict[str, Any] = {}  # the origin of the masks
        self.automatic_optimization = False
        self.results: dict[str, Any] = {}

    @property
    def patterns(self) -> PatternSet:
        """The patterns found so far; a collective on several processes."""
        return collect(
            self._engine,
            self.mask,
            self.mask_sums,
            self.objectives,
            self._data.search_indices,
            self._data.class_names,
            classifier_hash=self._searched["classifier"],
            test_set=self._searched["test_set"],
        )

    def setup(self, stage: str) -> None:
        """Rank the canvases on the device, shared out over ranks, and make the masks.

        A fit always begins a search anew; a test measures the patterns that the module holds.

        Raises:
            MisconfigurationException: for several processes without `class_parallel`, a Trainer
                precision other than fp32, or Trainer options that would leave steps or images out.
            ValueError: if the classifier or the arguments do not fit the data, or the data of a
                test are not those of the search.
        """
        require_search_trainer(self.trainer, stage, self.search.search_epochs)
        self._check_data()
        if stage == "fit":
            self.trainer.fit_loop.max_epochs = self.search.search_epochs
            # a data module's own training loader would otherwise win over the one below
            self.trainer.fit_loop._data_source.instance = self
        elif self.engine is not None:
            require_origin(self._origin, self._searched, "the patterns were searched")
            return
        data, device = self._data, self.trainer.strategy.root_device
        self._frozen = (frozen_copy(self._given[0], device),)
        names, settings = data.class_names, self._settings
        predictions = predict(
            self._frozen[0], data.test_images, device, len(names), self._shows_bars
        )
        canvases = choose_canvases(
            predictions,
            data.test_images,
            self._chosen,
            settings.canvas,
            settings.canvases_per_class,
            settings.seed or 0,
            names,
            progress=self._shows_bars,
        )
        self._build(canvases, None)

    def train_dataloader(self) -> range:
        """Return one item per step of a pass."""
        return range(self._engine.steps_per_epoch)

    def configure_optimizers(self) -> torch.optim.Optimizer:
        """Return the sign descent over the masks."""
        return SignDescent([self.mask], self.search.step_size)

    def training_step(self, batch: int, batch_idx: int) -> None:
        """Make one step of all problems of this rank."""
        del batch
        optimizer = self.optimizers()
        assert isinstance(optimizer, torch.optim.Optimizer)
        at = (self.current_epoch, batch_idx)
        losses = self._engine.step(self.mask, self.mask_sums, optimizer, at)
        if len(losses):
            self.log("objective", losses.mean(), prog_bar=True, on_step=True, on_epoch=False)
        self.log("problems", float(len(self.mask)), prog_bar=True, logger=False)

    def on_train_epoch_end(self) -> None:
        """Compute the objectives of the final masks."""
        if self.current_epoch == self.search.search_epochs - 1:
            self.objectives.copy_(self._engine.objectives(self.mask, self._shows_bars))

    def on_train_end(self) -> None:
        """Gather all ranks' rows: a test begins by spreading rank 0's masks."""
        with torch.no_grad():
            for name, rows in self._gathered().items():
                getattr(self, name).copy_(rows)

    def on_test_epoch_start(self) -> None:
        """Choose what is measured.

        Raises:
            MisconfigurationException: if the search has not come to its end.
        """
        found = self.patterns
        if found.objectives.isnan().any() and not is_dry(self.trainer):
            raise MisconfigurationException(
                "the search is not finished: go on with it to its last pass before measuring"
            )
        self._found = found
        self._allowed = measured_indices(
            found, torch.arange(len(self._data.test_images)), self.measure_on
        )
        self._measured = (
            torch.arange(len(found)) if self.measure_canvases == "all" else found.winners
        )
        self.power = PredictivePower(found[self._measured], self.pattern_sizes).to(self.device)

    def test_step(self, batch: Batch, batch_idx: int, dataloader_idx: int = 0) -> None:
        """Measure predictive power on the images of the test set proper."""
        del batch_idx
        if dataloader_idx > 0:
            return
        keep = torch.isin(batch.index, self._allowed.to(batch.index.device))
        self.power.update(
            self._frozen[0], Batch(batch.image[keep], batch.label[keep], batch.index[keep])
        )

    def on_test_epoch_end(self) -> None:
        """Log the mean predictive power of the winners and write patterns, figures and results."""
        power = self.power.result()
        if may_write(self.trainer):
            folder, data = Path(self.trainer.default_root_dir), self._data
            further = recover_trigger(
                folder,
                self._found,
                data.poison,
                data.stamp,
                self.pattern_sizes[0],
                self._recorded_poison,
            )
            self.results = write_search(
                folder,
                self._found,
                self._measured,
                power,
                self.pattern_sizes,
                self.measure_on,
                **further,
            )
        winners = torch.isin(self._measured, self._found.winners)
        values = power.predictive_power.cpu()[winners].nanmean(0)
        for size, value in zip(self.pattern_sizes, values.tolist(), strict=True):
            self.log(f"mean_predictive_power/{size:g}", value, sync_dist=True)

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Gather all ranks' rows and keep what they depend on; every rank enters."""
        engine = self._engine
        checkpoint["state_dict"] |= self._gathered()
        checkpoint[CHECKPOINT_KEY] = {
            "canvases": list(engine.canvases),
            "problems_per_forward": engine.problems_per_forward,
            "origin": self._searched,
        }

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Search on the checkpoint's canvases.

        Raises:
            ValueError: if it is of another classifier, other settings, classes or images.
        """
        stored = checkpoint[CHECKPOINT_KEY]
        require_origin(self._origin, stored["origin"], "the checkpoint was made")
        self._build(Canvases(*stored["canvases"]), stored["problems_per_forward"])

    def _build(self, canvases: Canvases, problems_per_forward: int | None) -> None:
        data, device = self._data, self.trainer.strategy.root_device
        self._searched = self._origin
        self.engine = PatternSearch(
            self._frozen[0],
            canvases,
            SearchPool.take(data.test_images, data.search_indices, device, self._shows_bars),
            self._settings,
            len(data.class_names),
            share(range(len(canvases.targets))),
            problems_per_forward,
        )
        masks = self.engine.initial_masks
        self.mask = nn.Parameter(masks)
        self.register_buffer("mask_sums", torch.zeros_like(masks))
        objectives = torch.full((len(masks),), torch.nan, device=device)
        self.register_buffer("objectives", objectives)

    def _gathered(self) -> dict[str, Tensor]:
        owned = self._engine.owned.tolist()
        names = ("mask", "mask_sums", "objectives")
        return {name: sum_rows(getattr(self, name).detach(), owned) for name in names}

    def _check_data(self) -> None:
        data, given = self._data, self._given[0]
        _ = self._chosen  # raises, before anything is ranked
        require_names(data.test_images.labels, data.class_names)
        require_drawable(data.test_images)
        if isinstance(given, Classifier) and given.spec.num_classes != data.num_classes:
            raise ValueError(
                f"`classifier` knows {given.spec.num_classes} classes, the data have "
                f"{data.num_classes}"
            )
        for size in self.pattern_sizes:
            pixel_count(size, data.image_size)
        if self.measure_on == "held_out" and len(data.held_out_indices) == 0:
            raise ValueError(
                "`measure_on` must be full when `search_fraction` is 1: no image is held out"
            )

    @property
    def _settings(self) -> SearchSettings:
        return self.search.seeded(self._data.seed)

    @property
    def _chosen(self) -> list[int]:
        names = self._data.class_names
        if self.random_classes is not None:
            return random_classes(self.random_classes, len(names), self._settings.seed or 0)
        return class_indices(self.classes, names)

    @property
    def _origin(self) -> dict[str, Any]:
        data = self._data
        return search_origin(
            self._given[0], data.test_images, data.search_indices, self._settings, self._chosen
        )

    @property
    def _shows_bars(self) -> bool:
        return self.trainer.is_global_zero and self.trainer.progress_bar_callback is not None

    @property
    def _engine(self) -> PatternSearch:
        if self.engine is None:
            raise RuntimeError("the search has no canvases before `setup`")
        return self.engine

    @property
    def _data(self) -> ImageDataModule:
        data = getattr(self.trainer, "datamodule", None)
        if not isinstance(data, ImageDataModule):
            raise MisconfigurationException(
                "PatternSearchModule needs an ImageDataModule as `datamodule`, "
                f"got {type(data).__name__}"
            )
        return data
