"""RobustDataWriter: building D_R or D_NR as a Lightning `predict`, shared out over devices."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import lightning as L
import torch
from lightning.fabric.utilities.exceptions import MisconfigurationException
from torch import nn

from iscp_lightning.attacks.robust_data import RobustDataBuilder, RobustDataSettings
from iscp_lightning.classifiers.checkpoints import classifier_hash, load_trained
from iscp_lightning.classifiers.frozen import frozen_copy
from iscp_lightning.classifiers.rates import Rates, measure_rates
from iscp_lightning.classifiers.subject import Subject
from iscp_lightning.data.datamodule import ImageDataModule
from iscp_lightning.data.splits import stratified_split
from iscp_lightning.internals import take_loader_from
from iscp_lightning.ranks import share
from iscp_lightning.records import Findings, Record
from iscp_lightning.runs import is_dry, may_write
from iscp_lightning.seeds import derived_seed
from iscp_lightning.work import Work


class RobustDataWriter(L.LightningModule):
    """Builds the robust or non-robust version of a data module's training images.

    Args:
        classifier: Whose features are kept: a robust one makes D_R, a standard one D_NR.
        folder: Where the set is written; a build that was interrupted goes on. None is
            `robust_data` in the run folder, which another run does not go on with.
        settings: Steps, step size and ball.
        fraction: Class-stratified share of the training images that is made, in (0, 1].
        weights: Weights file for a classifier given as a module.
        compile: Whether the frozen network is compiled.
        num_classes: Number of classes; the command line takes it from the data.
        image_size: Image size of a network given by name, likewise.
    """

    def __init__(
        self,
        classifier: str | nn.Module,
        folder: str | None = None,
        settings: RobustDataSettings = RobustDataSettings(),
        fraction: float = 1.0,
        weights: str | None = None,
        compile: bool = False,  # noqa: A002
        num_classes: int = 10,
        image_size: int | tuple[int, int] = 32,
    ) -> None:
        super().__init__()
        given = load_trained(classifier, weights, num_classes, image_size)
        if not 0 < fraction <= 1:
            raise ValueError(f"`fraction` must lie in (0, 1], got {fraction}")
        self._given = (given,)  # a tuple hides it: nothing here is trained
        self.folder = folder
        self.settings = settings
        self.fraction = fraction
        self.compile_network = compile

    @property
    def findings(self) -> dict[str, Findings]:
        """How many images were made and where they lie, once the set is whole."""
        builder = self.builder
        if not builder.path.is_file():
            return {}
        records = [Record("images", len(builder.indices))]
        return {"": Findings(records, lines=[str(builder.path)], provenance=builder.facts)}

    def work(self, data: ImageDataModule, trainer: L.Trainer) -> list[Work]:
        """Return what the build takes, for `--estimate`."""
        del trainer
        images = round(self.fraction * data.count("train"))
        return [Work("building", forwards=images, gradients=images * self.settings.steps)]

    def rates(self, data: ImageDataModule, device: torch.device) -> Rates:
        """Return how many images a second the classifier takes, for `--estimate`."""
        return measure_rates(Subject.of(self._given[0], data, device))

    def setup(self, stage: str) -> None:
        """Choose the images.

        Raises:
            MisconfigurationException: without an ImageDataModule, or with a poisoned one.
        """
        del stage
        data = getattr(self.trainer, "datamodule", None)
        if not isinstance(data, ImageDataModule):
            raise MisconfigurationException(
                "RobustDataWriter needs an ImageDataModule as `datamodule`, "
                f"got {type(data).__name__}"
            )
        if data.poison is not None:
            raise MisconfigurationException(
                "RobustDataWriter builds from clean images: leave `data.poison` out"
            )
        images, indices = data.train_images
        seed = derived_seed(data.seed, "split", "robust data")
        chosen, _ = stratified_split(images.labels, indices, self.fraction, seed)
        if len(chosen) == 0:
            raise ValueError(
                f"`fraction`={self.fraction} of {len(indices)} images leaves none of any class"
            )
        take_loader_from(self.trainer.predict_loop, self)
        frozen = frozen_copy(self._given[0], self.trainer.strategy.root_device)
        if self.compile_network:
            frozen.compile()
        self.builder = RobustDataBuilder(
            frozen,
            images,
            chosen,
            replace(self.settings, seed=data.seed) if self.settings.seed is None else self.settings,
            Path(self.folder or Path(self.trainer.default_root_dir) / "robust_data"),
            classifier_hash=classifier_hash(self._given[0]),
            seed_of_the_data=data.seed,
            precision=self.trainer.precision,
        )

    def on_predict_start(self) -> None:
        """Look for what an earlier build has left, once the run has its folder.

        Raises:
            ValueError: if that is of another build.
        """
        if may_write(self.trainer):
            self.builder.begin()
        self.trainer.strategy.barrier("every rank finds the folder of this build")

    def predict_dataloader(self) -> Sequence[int]:
        """Return the numbers of this rank's chunks."""
        return share(range(len(self.builder.chunks)))

    def predict_step(self, batch: int, batch_idx: int) -> int:
        """Make one chunk, unless it is there; return its number."""
        del batch_idx
        make = self.builder.compute if is_dry(self.trainer) else self.builder.make
        make(batch, self.trainer.strategy.root_device)
        return batch

    def teardown(self, stage: str) -> None:
        """Join the chunks once every rank has made its own."""
        self.trainer.strategy.barrier()
        if may_write(self.trainer):
            self.builder.finish()
