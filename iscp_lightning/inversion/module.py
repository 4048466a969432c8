"""FeedforwardInversionModule: trains a generator to turn what a classifier says into images."""

from __future__ import annotations

import math
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import lightning as L
import torch
import torch.nn.functional as F
from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.pytorch.cli import OptimizerCallable
from torch import Generator as Draws
from torch import Tensor, nn

from iscp_lightning.classifiers import classifier_hash, load_trained, require_class_names
from iscp_lightning.classifiers.frozen import (
    frozen_copy,
    frozen_weights,
    module_device,
    use_fast_layout,
)
from iscp_lightning.classifiers.subject import Subject
from iscp_lightning.data import Batch
from iscp_lightning.data.datamodule import ImageDataModule
from iscp_lightning.data.objects import factors_of
from iscp_lightning.data.splits import stratified_choice
from iscp_lightning.internals import take_loader_from
from iscp_lightning.inversion.analyses.reconstruction import Reconstruction
from iscp_lightning.inversion.architecture import Architecture
from iscp_lightning.inversion.augmentation import Policy, augment, require_policies
from iscp_lightning.inversion.averaging import Average
from iscp_lightning.inversion.collapse import CollapseWatch
from iscp_lightning.inversion.conditioning import (
    Condition,
    Standardisation,
    answers_of,
    answers_to,
    require_condition,
)
from iscp_lightning.inversion.discriminator import Discriminator
from iscp_lightning.inversion.drawings import sheet_figure
from iscp_lightning.inversion.examined import Examined
from iscp_lightning.inversion.generator import Generator
from iscp_lightning.inversion.given import (
    answers_to_grey,
    class_means,
    load_judge,
    require_batches,
    training_vectors,
)
from iscp_lightning.inversion.inverter import Inverter
from iscp_lightning.inversion.losses import Weights, discriminator_hinge
from iscp_lightning.inversion.processes import require_processes
from iscp_lightning.records import Findings
from iscp_lightning.runs import is_dry, may_write, provenance, save_figure
from iscp_lightning.seeds import named_generator

DRY_IMAGES = 20
CLASSIFIER_KEY = "inverted_classifier"


def adam(parameters: Any) -> torch.optim.Optimizer:  # noqa: ANN401
    """Return Adam as BigGAN has it for CIFAR-10."""
    return torch.optim.Adam(parameters, lr=2e-4, betas=(0.0, 0.999))


class FeedforwardInversionModule(L.LightningModule):
    """Trains a generator that turns a frozen classifier's logits back into images.

    Generator and discriminator play BigGAN's game (Brock et al. 2019) on what the classifier says
    of each training image instead of its label (Teterwak et al. 2021). Images are then made by an
    average of the generator over its steps. The training stops with a warning once the
    discriminator is saturated or the images have lost diversity.

    Args:
        classifier: A weights file, the name of a timm network with trained weights, or any module
            from images in [0, 1] to logits.
        weights: Weights file for a classifier given as a module.
        condition: What an image is made from: `logits`, the penultimate `features`, or `one_hot`,
            the predicted class alone.
        architecture: Sizes of generator and discriminator.
        loss: What counts how much for the generator.
        generator_optimizer: Made from the generator's parameters.
        discriminator_optimizer: Made from the discriminator's.
        discriminator_steps: Batches that the discriminator learns from for each that the generator
            does.
        averaging: Decay of the average of the generator, in [0, 1); it starts faster.
        augmentation: What the discriminator sees of images, for small data (Zhao et al. 2020):
            `color`, `translation`, `cutout`.
        other_classes: Whether the classifier knows other classes than the data.
        judge: A weights file, or any module, of a classifier of the data's classes that was trained
            apart from this one: `test` asks it what the reconstructions show.
        test_images: On how many test images `test` measures, as many of each class.
        num_classes: Number of classes; the command line takes it from the data.
        image_size: Size of the images, likewise.

    Attributes:
        inverted: SHA-256 of the inverted classifier.
        files: Those of `classifier` and `judge` whose classes must be the data's.

    Raises:
        ValueError: if an option is out of range, or no stages lead to the size of the images.
    """

    def __init__(
        self,
        classifier: str | nn.Module,
        weights: str | None = None,
        condition: Condition = "logits",
        architecture: Architecture = Architecture(),
        loss: Weights = Weights(),
        generator_optimizer: OptimizerCallable = adam,
        discriminator_optimizer: OptimizerCallable = adam,
        discriminator_steps: int = 1,
        averaging: float = 0.999,
        augmentation: Sequence[Policy] = (),
        other_classes: bool = False,
        judge: str | nn.Module | None = None,
        test_images: int = 1000,
        num_classes: int = 10,
        image_size: int | tuple[int, int] = 32,
    ) -> None:
        super().__init__()
        if discriminator_steps < 1:
            raise ValueError(f"`discriminator_steps` must be 1 or more, got {discriminator_steps}")
        if not 0 <= averaging < 1:
            raise ValueError(f"`averaging` must lie in [0, 1), got {averaging}")
        if test_images < 1:
            raise ValueError(f"`test_images` must be 1 or more, got {test_images}")
        require_condition(condition)
        require_policies(augmentation)
        if condition == "one_hot" and loss.feature:
            raise ValueError("`loss.feature` must be 0 for `condition`=one_hot: it has no gradient")
        given = load_trained(classifier, weights, num_classes, image_size)
        frozen = frozen_copy(given, torch.device("cpu"))
        logits, vectors = answers_to_grey("classifier", frozen, image_size, condition)
        if logits.shape[1] != num_classes and not other_classes:
            raise ValueError(
                f"`classifier` knows {logits.shape[1]} classes, the data have {num_classes}: "
                "`other_classes` allows that"
            )
        self._frozen = (frozen,)  # a tuple hides it: no checkpoint holds it
        files = {"judge": judge} | ({} if other_classes else {"classifier": weights or classifier})
        self.files = {name: file for name, file in files.items() if isinstance(file, str)}
        self._judge: tuple[nn.Module, ...] = ()
        self.num_classes = num_classes
        self.image_size = image_size
        self.same_classes = not other_classes
        self.test_images = test_images
        self.inverted = classifier_hash(frozen)
        self.condition = condition
        self.loss = loss
        self.generator_optimizer = generator_optimizer
        self.discriminator_optimizer = discriminator_optimizer
        self.discriminator_steps = discriminator_steps
        self.augmentation = tuple(augmentation)
        size = vectors.shape[1]
        self.standardise = Standardisation(size)
        self.generator = Generator(size, architecture, image_size)
        self.discriminator = Discriminator(size, architecture, image_size)
        for network in (self.generator, self.discriminator):
            use_fast_layout(network)
        self.average = Average(self.generator, averaging)
        self.watch = CollapseWatch()
        self._kept = torch.zeros(0)  # vectors of all images of the training set
        self.automatic_optimization = False
        if judge is not None:
            self.take_judge(load_judge(judge, num_classes, image_size))
        self.findings: dict[str, Findings] = {}

    def inverter(self, seed: int) -> Inverter:
        """Return the classifier and the averaged generator, as analyses take them.

        Args:
            seed: Root seed of the noise.
        """
        generator = self.average.module.eval()
        assert isinstance(generator, Generator)
        return Inverter(self._frozen[0], generator, self.standardise, self.condition, seed)

    def examined(
        self, data: ImageDataModule, count: int | None = None, means: bool = False
    ) -> Examined:
        """Return the inversion on some of the test images, as analyses take it.

        Args:
            data: The images.
            count: How many, as many of each class; None is `test_images`.
            means: Whether mean images of the classes are wanted: training images, where there are
                some, are read then.
        """
        device, labels = module_device(self.generator), data.test_images.labels
        chosen = stratified_choice(labels, count or self.test_images, data.seed)
        mixed = torch.randperm(len(chosen), generator=named_generator(data.seed, "examined"))
        return Examined(
            self.inverter(data.seed),
            Subject.of(self._frozen[0], data, device),
            chosen[mixed],
            self._judge[0].to(device) if self._judge else None,
            factors_of(data),
            class_means(data) if means else None,
            self.same_classes,
        )

    def take_judge(self, judge: nn.Module) -> None:
        """Judge by another classifier from now on.

        Args:
            judge: A classifier of the data's classes, that maps images in [0, 1] to logits.

        Raises:
            ValueError: if it is the inverted classifier itself, knows another number of classes, is
                made for images of another size, or has no penultimate features.
        """
        if classifier_hash(judge) == self.inverted:
            raise ValueError("`judge` must be another classifier than the inverted one")
        frozen = frozen_copy(judge, torch.device("cpu"))
        logits, _ = answers_to_grey("judge", frozen, self.image_size, "features")
        if logits.shape[1] != self.num_classes:
            raise ValueError(
                f"`judge` knows {logits.shape[1]} classes, the data have {self.num_classes}"
            )
        self._judge = (frozen,)

    def setup(self, stage: str) -> None:
        """Move the classifier to the device, and read what it says of the training images.

        Raises:
            MisconfigurationException: for other data than an ImageDataModule, a Trainer precision
                other than fp32 and bf16, or as `require_processes`.
            ValueError: if there is a batch of one image, a logit is NaN or infinite, or a file says
                that the classifier or the judge knows other classes than the data.
        """
        if self.trainer.precision not in ("32-true", "bf16-mixed"):
            raise MisconfigurationException(
                f"`trainer.precision` must be 32-true or bf16-mixed for {type(self).__name__}, "
                f"got {self.trainer.precision}"
            )
        if stage == "fit":
            require_processes(self.trainer)
        frozen = self._frozen[0].to(self.trainer.strategy.root_device)
        data = self._data
        for name, file in self.files.items():
            require_class_names(name, file, data.class_names)
        if stage == "test":
            take_loader_from(self.trainer.test_loop, self)
        if stage != "fit":
            return
        require_batches(data, self.trainer.world_size)
        some, self._kept = training_vectors(frozen, data, self.condition)
        self.standardise.fit(some)

    def training_step(self, batch: Batch, batch_idx: int) -> None:
        """Make a step of the discriminator, and of the generator where it is its turn."""
        vectors = self.standardise(self._vectors(batch))
        draws = named_generator(
            self._data.seed, "inversion", self.current_epoch, batch_idx, self.global_rank
        )
        noise = torch.randn(len(vectors), self.generator.noise_size, generator=draws)
        batches = self.current_epoch * int(self.trainer.num_training_batches) + batch_idx
        turn = (batches + 1) % self.discriminator_steps == 0
        with torch.set_grad_enabled(turn):
            fake = self.generator(vectors, noise.to(self.device))
        scores = (fake.new_zeros(0),) * 2
        if self.loss.adversarial:
            scores = self._discriminate(batch.image, fake.detach(), vectors, draws)
        self.watch.update(*scores, batch.image, fake.detach())
        if turn:
            self._generate(batch.image, fake, vectors, draws)

    def _discriminate(
        self, images: Tensor, fake: Tensor, vectors: Tensor, draws: Draws
    ) -> tuple[Tensor, Tensor]:
        optimizer = self._optimizers[1]
        both = augment(torch.cat([images, fake]), self.augmentation, draws)
        real_scores, fake_scores = self.discriminator(both, vectors.repeat(2, 1)).chunk(2)
        loss = discriminator_hinge(real_scores, fake_scores)
        optimizer.zero_grad()
        self.manual_backward(loss)
        optimizer.step()
        self.log("train/discriminator_loss", loss.detach(), prog_bar=True)
        return real_scores.detach(), fake_scores.detach()

    def _generate(self, images: Tensor, fake: Tensor, vectors: Tensor, draws: Draws) -> None:
        optimizer, terms = self._optimizers[0], {}
        with frozen_weights(self.discriminator):
            if self.loss.adversarial:
                terms["adversarial"] = -self.discriminator(
                    augment(fake, self.augmentation, draws), vectors
                ).mean()
            if self.loss.pixel:
                terms["pixel"] = F.mse_loss(fake, images)
            if self.loss.feature:
                found = answers_of(self._frozen[0], fake, self.condition).vectors
                terms["feature"] = (self.standardise(found) - vectors).square().mean()
            loss = torch.stack([getattr(self.loss, k) * term for k, term in terms.items()]).sum()
            optimizer.zero_grad()
            self.manual_backward(loss)
            optimizer.step()
        self.average.update(self.generator)
        self.log_dict({f"train/{k}": term.detach() for k, term in terms.items()}, prog_bar=True)

    def on_train_epoch_end(self) -> None:
        """Stop the training if it has collapsed; on every rank."""
        if said := self.watch.verdict():
            warnings.warn(f"{said}; the training stops", stacklevel=2)
            self.trainer.should_stop = True

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        """Log how far reconstructions are from the images, and how often the class stays."""
        del batch_idx
        inverter = self.inverter(self._data.seed)
        before = inverter.answers(batch.image)
        images = inverter.images(before.vectors)
        after = inverter.answers(images)
        same = after.logits.argmax(1) == before.logits.argmax(1)
        self.log_dict(
            {
                "val/mse": (images - batch.image.cpu()).square().mean(),
                "val/class_agreement": same.float().mean(),
            },
            prog_bar=True,
            sync_dist=True,
            batch_size=len(batch.image),
        )

    def test_dataloader(self) -> range:
        """Return one step, which measures everything."""
        return range(1)

    def test_step(self, batch: int, batch_idx: int) -> None:
        """Measure the reconstructions of test images, and draw some; every rank does the same."""
        del batch, batch_idx
        small = DRY_IMAGES if is_dry(self.trainer) else None
        answer = Reconstruction()(self.examined(self._data, small))
        facts = {"inverted_classifier": self.inverted, "condition": self.condition}
        self.findings = {"": Findings(answer.records, provenance=provenance(**facts))}
        for record in answer.records:
            if record.about["split"] == "all" and not math.isnan(record.value):
                self.log(f"test/{record.measure}", record.value, batch_size=1, rank_zero_only=True)
        if may_write(self.trainer):
            folder = Path(self.trainer.default_root_dir) / "figures"
            save_figure(folder / "reconstruction.png", sheet_figure(answer.sheets[""]))

    def configure_optimizers(self) -> list[torch.optim.Optimizer]:
        """Return the generator's and the discriminator's optimiser."""
        return [
            self.generator_optimizer(self.generator.parameters()),
            self.discriminator_optimizer(self.discriminator.parameters()),
        ]

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Say which classifier is inverted."""
        checkpoint[CLASSIFIER_KEY] = self.inverted

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Refuse a checkpoint of another classifier.

        Raises:
            ValueError: if it is.
        """
        if checkpoint.get(CLASSIFIER_KEY) != self.inverted:
            raise ValueError("the checkpoint inverts another classifier than `classifier`")

    def _vectors(self, batch: Batch) -> Tensor:
        if len(self._kept):
            return self._kept[batch.index.cpu()].to(self.device)
        return answers_to(self._frozen[0], batch.image, self.condition).vectors

    @property
    def _optimizers(self) -> Any:  # noqa: ANN401
        return self.optimizers()

    @property
    def _data(self) -> ImageDataModule:
        data = getattr(self.trainer, "datamodule", None)
        if not isinstance(data, ImageDataModule):
            raise MisconfigurationException(
                "FeedforwardInversionModule needs an ImageDataModule as `datamodule`, "
                f"got {type(data).__name__}"
            )
        return data
