"""PatternSearchModule: the search as a Lightning `fit`, its measurement as a `test`."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import lightning as L
import torch
from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.pytorch.utilities import rank_zero_warn
from torch import Tensor, nn

from iscp_lightning.classifiers import Classifier, load_trained
from iscp_lightning.classifiers.checkpoints import require_class_names
from iscp_lightning.classifiers.rates import Rates, measure_rates
from iscp_lightning.classifiers.subject import Subject
from iscp_lightning.data.datamodule import ImageDataModule
from iscp_lightning.data.splits import class_indices
from iscp_lightning.data.testset import require_drawable, require_names
from iscp_lightning.internals import take_loader_from
from iscp_lightning.patterns.canvas import Canvases, require_single_canvases
from iscp_lightning.patterns.drawings import recovery_figure, search_figures
from iscp_lightning.patterns.engine import PatternSearch
from iscp_lightning.patterns.findings import search_findings
from iscp_lightning.patterns.limits import require_search_trainer
from iscp_lightning.patterns.origin import require_origin, search_origin
from iscp_lightning.patterns.pasting import measured_indices
from iscp_lightning.patterns.pattern import PATTERN_SIZES, PatternSet
from iscp_lightning.patterns.power import MeasuredCanvases, MeasuredOn
from iscp_lightning.patterns.recovery import recover_trigger
from iscp_lightning.patterns.search import (
    MOST_CLASSES,
    measure_search,
    measured_canvases,
    problems_of,
    random_classes,
    require_applicable,
    require_canvas_free,
)
from iscp_lightning.patterns.settings import SearchSettings
from iscp_lightning.patterns.work import search_work
from iscp_lightning.records import Findings
from iscp_lightning.runs import is_dry, may_write, save_figure
from iscp_lightning.work import Work

CHECKPOINT_KEY = "pattern_search"


class PatternSearchModule(L.LightningModule):
    """Searches class-wise patterns of a frozen classifier; nothing else is trained.

    One epoch is one pass over the search images; `search_epochs` alone says how many there are.
    Checkpoints hold what the search goes on from, not the classifier, and resume on any number of
    processes.

    Args:
        classifier: A weights file, the name of a timm network with trained weights
            (`resnet50.a1_in1k`), or any module from images in [0, 1] to logits.
        weights: Weights file for a classifier given as a module.
        search: Settings of the search.
        classes: Target classes by index or name; None means all.
        random_classes: Instead of `classes`: how many classes to draw, fixed by the search's seed.
        canvases: Instead of `search.canvas`: positions in the test set, which every class gets, or
            a pattern file whose canvases are used again.
        pattern_sizes: Sizes at which predictive power is measured, as shares of the pixels.
        measure_on: The test images that the search has not seen, those that it has, or all.
        measure_canvases: Whether predictive power is measured for every canvas or the winners only;
            None is every canvas of up to 50 classes.
        measure_images: On how many images it is measured, as many of each class; None means all.
        num_classes: Number of classes; the command line takes it from the data.
        image_size: Image size of a network given by name, likewise.
    """

    searches_in_parallel = True

    def __init__(
        self,
        classifier: str | nn.Module,
        weights: str | None = None,
        search: SearchSettings = SearchSettings(),
        classes: Sequence[int | str] | None = None,
        random_classes: int | None = None,
        canvases: str | list[int] | None = None,
        pattern_sizes: list[float] = list(PATTERN_SIZES),  # noqa: B006
        measure_on: MeasuredOn = "held_out",
        measure_canvases: MeasuredCanvases | None = None,
        measure_images: int | None = None,
        num_classes: int = 10,
        image_size: int | tuple[int, int] = 32,
    ) -> None:
        super().__init__()
        if classes is not None and random_classes is not None:
            raise ValueError("give `classes` or `random_classes`, not both")
        given = load_trained(classifier, weights, num_classes, image_size)
        self._file = weights or (classifier if isinstance(classifier, str) else None)
        self._recorded_poison = None
        if isinstance(classifier, str):
            record = Path(classifier).parent.parent / "poison" / "poisoned.json"
            if record.is_file():
                self._recorded_poison = json.loads(record.read_text())["settings"]
        self._given = (given,)  # tuples hide: neither parameters nor checkpoint hold it
        self._engine: tuple[PatternSearch, ...] = ()  # ranks hold rows of their own
        self.search = search
        self.classes = classes
        self.random_classes = random_classes
        self.canvases = canvases
        self.pattern_sizes = tuple(sorted(set(pattern_sizes)))
        self.measure_on = measure_on
        self.measure_canvases = measure_canvases
        self.measure_images = measure_images
        self._searched: dict[str, Any] = {}  # the origin of the masks
        self.automatic_optimization = False
        self.findings: dict[str, Findings] = {}

    @property
    def engine(self) -> PatternSearch:
        """The search.

        Raises:
            RuntimeError: before `setup`.
        """
        if not self._engine:
            raise RuntimeError("the search has no canvases before `setup`")
        return self._engine[0]

    @property
    def patterns(self) -> PatternSet:
        """The patterns found so far; a collective on several processes."""
        return self.engine.gathered()

    def setup(self, stage: str) -> None:
        """Rank the canvases on the device, shared out over ranks, and make the variables.

        A fit always begins a search anew; a test measures the patterns that the module holds.

        Raises:
            MisconfigurationException: for several processes without `class_parallel`, a Trainer
                precision other than fp32, or Trainer options that would leave steps or images out.
            ValueError: if the classifier or the arguments do not fit the data, or the data of a
                test are not those of the search.
        """
        require_search_trainer(self.trainer, stage, self.search.course.search_epochs)
        self._check_data()
        self._tell_cost()
        if stage == "fit":
            self.trainer.fit_loop.max_epochs = self.search.course.search_epochs
            take_loader_from(self.trainer.fit_loop, self)
        else:
            take_loader_from(self.trainer.test_loop, self)
            if self._engine:
                require_origin(self._origin, self._searched, "the patterns were searched")
                return
        device = self.trainer.strategy.root_device
        show = self.trainer.progress_bar_callback is not None
        small = is_dry(self.trainer)
        self.subject = Subject.of(self._given[0], self._data, device, show, small)
        given = None if small else self.canvases
        canvases = problems_of(self.subject, self._settings, self._chosen, given, small)
        self._build(canvases, None)

    def work(self, data: ImageDataModule, trainer: L.Trainer) -> list[Work]:
        """Return what the search and its measurement take, for `--estimate`."""
        chosen = self._classes_of(data)
        canvases = self.search.canvases_expected
        if isinstance(self.canvases, str):
            given = PatternSet.load(self.canvases, classes=chosen)
            canvases = math.ceil(len(given) / len(chosen))
        elif self.canvases is not None:
            canvases = len(self.canvases)
        everything = measured_canvases(self.measure_canvases, len(chosen)) == "all"
        return search_work(
            data.test_images.labels,
            (3, *data.image_size),
            chosen,
            self.search,
            search_labels=data.search_labels,
            canvases=canvases,
            sizes=len(self.pattern_sizes),
            measured=canvases if everything else 1,
            measured_images=self._measured(data),
            processes=trainer.world_size,
        )

    def rates(self, data: ImageDataModule, device: torch.device) -> Rates:
        """Return how many images a second the classifier takes, for `--estimate`."""
        return measure_rates(Subject.of(self._given[0], data, device), self.search.precision)

    def train_dataloader(self) -> range:
        """Return one item per step of a pass."""
        return range(self.engine.order.steps_per_epoch)

    def configure_optimizers(self) -> torch.optim.Optimizer:
        """Return the search's optimiser."""
        return self.engine.optimizer

    def training_step(self, batch: int, batch_idx: int) -> None:
        """Make one step of all problems of this rank."""
        losses = self.engine.step(self.optimizers())
        if len(losses):
            self.log("objective", losses.mean(), prog_bar=True, on_step=True, on_epoch=False)
        self.log("problems", float(self.engine.active.sum()), prog_bar=True, logger=False)

    def on_train_epoch_end(self) -> None:
        """Compute the objectives at the end of the search."""
        if self.current_epoch == self.search.course.search_epochs - 1:
            self.engine.finish()

    def test_dataloader(self) -> range:
        """Return one step, which measures everything."""
        return range(1)

    def test_step(self, batch: int, batch_idx: int) -> None:
        """Measure predictive power; write patterns and figures, log the mean over the winners.

        Raises:
            MisconfigurationException: if the search has not come to its end.
        """
        if self.engine.done < self.engine.total_steps and not is_dry(self.trainer):
            raise MisconfigurationException(
                "the search is not finished: go on with it to its last pass before measuring"
            )
        found = measure_search(
            self.engine,
            self.pattern_sizes,
            self.measure_on,
            self.measure_canvases,
            self.measure_images,
        )
        means: list[float] = []
        if found is not None and found.power is not None:
            means = found.power[found.winners].mean.tolist()
            self._report(found)
        means = self.trainer.strategy.broadcast(means)
        for size, value in zip(self.pattern_sizes, means, strict=True):
            self.log(f"mean_predictive_power/{size:g}", value, batch_size=1, rank_zero_only=True)

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Keep what the search goes on from, of all ranks; every rank enters."""
        checkpoint["optimizer_states"] = []  # of rank 0 alone; the search keeps them all
        checkpoint[CHECKPOINT_KEY] = self.engine.state() | {"origin": self._searched}

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Go on with the checkpoint's search, on its canvases.

        Raises:
            ValueError: if it is of an earlier version, another classifier, other settings, classes
                or images.
        """
        stored = checkpoint[CHECKPOINT_KEY]
        if "rows" not in stored:
            raise ValueError("the checkpoint is of an earlier version: search anew")
        require_origin(self._origin, stored["origin"], "the checkpoint was made")
        self._build(Canvases(*stored["canvases"]), stored["problems_per_forward"])
        self.engine.restore(stored)

    def _build(self, canvases: Canvases, problems_per_forward: int | None) -> None:
        self._searched, self._engine = self._origin, ()
        engine = PatternSearch(self.subject, canvases, self._settings, problems_per_forward)
        self._engine = (engine,)

    def _report(self, found: PatternSet) -> None:
        data = self._data
        recovery = recover_trigger(
            found, data.poison, data.stamp, self.pattern_sizes[0], self._recorded_poison
        )
        findings = search_findings(found, recovery)
        self.findings = {"": findings}
        if not may_write(self.trainer):
            return
        folder = Path(self.trainer.default_root_dir)
        findings.save(folder, found.settings["canvas"])
        drawn = search_figures(found)
        if recovery is not None and data.stamp is not None:
            drawn["trigger_recovery"] = recovery_figure(found, data.stamp, recovery)
        for name, figure in drawn.items():
            save_figure(folder / "figures" / f"{name}.png", figure)

    def _tell_cost(self) -> None:
        """Say what it costs to measure every canvas of many classes, before anything starts."""
        if self.measure_canvases != "all" or len(self._chosen) <= MOST_CLASSES:
            return
        forwards = self.work(self._data, self.trainer)[-1].forwards
        rank_zero_warn(
            f"`measure_canvases`=all of {len(self._chosen)} classes means {forwards:,} images to "
            "classify; `winners` is one canvas a class, and `--estimate` says how long either takes"
        )

    def _check_data(self) -> None:
        data, given = self._data, self._given[0]
        _ = self._chosen  # raises, before anything is ranked
        require_names(data.test_images.labels, data.class_names)
        require_drawable(data.test_images)
        if self._file is not None:
            require_class_names("classifier", self._file, data.class_names)
        if isinstance(given, Classifier) and given.spec.num_classes != data.num_classes:
            raise ValueError(
                f"`classifier` knows {given.spec.num_classes} classes, the data have "
                f"{data.num_classes}"
            )
        require_canvas_free(self.search.method, self.canvases)
        if isinstance(self.canvases, str):
            require_single_canvases(PatternSet.load(self.canvases, winners=True))
        require_applicable(self.search, data.test_images, self.pattern_sizes)
        self._measured(data)

    def _measured(self, data: ImageDataModule) -> Tensor:
        labels = data.test_images.labels
        return measured_indices(
            labels, data.search_indices, self.measure_on, self.measure_images, data.seed
        )

    @property
    def _settings(self) -> SearchSettings:
        return self.search.seeded(self._data.seed)

    def _classes_of(self, data: ImageDataModule) -> list[int]:
        names, seed = data.class_names, self.search.seeded(data.seed).seed or 0
        if self.random_classes is not None:
            return random_classes(self.random_classes, len(names), seed)
        return class_indices(self.classes, names)

    @property
    def _chosen(self) -> list[int]:
        return self._classes_of(self._data)

    @property
    def _origin(self) -> dict[str, Any]:
        data = self._data
        origin = search_origin(
            self._given[0],
            data.test_images,
            data.search_indices,
            self._settings,
            self._chosen,
            data.search_images,
        )
        return origin | {"canvases": self.canvases}

    @property
    def _data(self) -> ImageDataModule:
        data = getattr(self.trainer, "datamodule", None)
        if not isinstance(data, ImageDataModule):
            raise MisconfigurationException(
                "PatternSearchModule needs an ImageDataModule as `datamodule`, "
                f"got {type(data).__name__}"
            )
        return data
