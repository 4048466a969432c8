"""Reconstructions beside what simpler methods make of the same answers."""

from __future__ import annotations

from typing import TYPE_CHECKING

from iscp_lightning.inversion.analysis import SHOWN, Analysis, Answer, Sheet, rows_of, side_by_side
from iscp_lightning.inversion.examined import Examined, columns_of_noise
from iscp_lightning.inversion.optimisation import invert_by_optimisation
from iscp_lightning.inversion.perceptual import inception_fid, lpips, require_weights
from iscp_lightning.records import Record

if TYPE_CHECKING:
    from iscp_lightning.data.datamodule import ImageDataModule

OPTIMISED = 100  # images, since each takes hundreds of passes


class Reconstruction(Analysis):
    """How well images are kept: see `fidelity`; three draws of the noise are shown.

    Args:
        perceptual: Whether also by `lpips` and `inception_fid`, which need weights of ImageNet and
            `pip install 'iscp-lightning[images]'`.
    """

    name = "reconstruction"

    def __init__(self, perceptual: bool = False) -> None:
        self.perceptual = perceptual

    def check(self, data: ImageDataModule) -> None:
        """Refuse `perceptual` without its packages and weights."""
        del data
        if self.perceptual:
            require_weights()

    def __call__(self, examined: Examined) -> Answer:
        """Return all measures by split.

        Raises:
            ValueError: if images are too small for `perceptual`.
        """
        found = examined.records_of(examined.reconstructions, {"analysis": self.name})
        if self.perceptual:
            pair = examined.images, examined.reconstructions
            distance = inception_fid(*pair)
            about = {"analysis": self.name, "split": "all"}
            found.append(self.mean("lpips", lpips(*pair), split="all"))
            found.append(Record("inception_fid", distance, about))
        few = examined.first(SHOWN)
        images, columns = columns_of_noise(few)
        return Answer(found, {"": Sheet(images, rows_of(few), columns)})


class ClassMean(Analysis):
    """The mean training image of the predicted class: what a class alone can give."""

    name = "class mean"
    needs = "training images of the classifier's own classes"

    def applies(self, examined: Examined) -> bool:
        """Return whether mean images are known, of the classifier's own classes."""
        return examined.class_means is not None and examined.same_classes

    def __call__(self, examined: Examined) -> Answer:
        """Return all measures by split."""
        assert examined.class_means is not None
        images = examined.class_means[examined.answers.logits.argmax(1)]
        sheet = Sheet(
            side_by_side(examined.images, images), rows_of(examined), ["original", "class mean"]
        )
        return Answer(examined.records_of(images, {"analysis": self.name}), {"": sheet})


class Optimisation(Analysis):
    """Gradient descent on the pixels until the vectors fit (Mahendran & Vedaldi 2015).

    Args:
        steps: Steps of it.
        smoothness: Weight of the total variation.
        images: On how many images, the first ones.

    Raises:
        ValueError: if a number is out of range.
    """

    name = "optimisation"
    needs = "`condition` logits or features"

    def __init__(self, steps: int = 300, smoothness: float = 0.5, images: int = OPTIMISED) -> None:
        for option, given in (("steps", steps), ("images", images)):
            if given < 1:
                raise ValueError(f"`{option}` must be 1 or more, got {given}")
        if smoothness < 0:
            raise ValueError(f"`smoothness` must be 0 or more, got {smoothness}")
        self.steps = steps
        self.smoothness = smoothness
        self.images = images

    def applies(self, examined: Examined) -> bool:
        """Return whether vectors have a gradient: the predicted class alone has none."""
        return examined.inverter.condition != "one_hot"

    def __call__(self, examined: Examined) -> Answer:
        """Return all measures by split, of the same images also for the generator."""
        few = examined.first(self.images)
        inverter = few.inverter
        channels, height, width = few.images.shape[1:]
        made = invert_by_optimisation(
            inverter.standardised_vectors,
            inverter.standardise(few.answers.vectors.to(inverter.device)),
            (channels, height, width),
            steps=self.steps,
            smoothness=self.smoothness,
            seed=inverter.seed,
        ).cpu()
        images = side_by_side(few.images, few.reconstructions, made)
        columns = ["original", "generator", "optimisation"]
        found = few.records_of(made, {"analysis": self.name, "method": "optimisation"})
        found += few.records_of(few.reconstructions, {"analysis": self.name, "method": "generator"})
        return Answer(found, {"": Sheet(images, rows_of(few), columns)})
