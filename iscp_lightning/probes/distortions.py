"""Distortions that need nothing but the test images, or the classifier itself."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from torch import Tensor

from iscp_lightning.attacks.pgd import PGD
from iscp_lightning.classifiers.frozen import full_fp32
from iscp_lightning.classifiers.subject import Subject
from iscp_lightning.data.images import Batch, ChosenImages
from iscp_lightning.data.objects import objects_of
from iscp_lightning.probes import filters
from iscp_lightning.probes.distortion import Distortion

if TYPE_CHECKING:
    from iscp_lightning.data.datamodule import ImageDataModule


class Clean(Distortion):
    """Leaves images as they are: what others are compared with."""

    name = "clean"

    def __call__(self, subject: Subject, batch: Batch) -> Tensor:
        """Return the images."""
        del subject
        return batch.image


class Saturation(Distortion):
    """Drives values to 0 and 1, which flattens faint textures and leaves shapes.

    Textures of high contrast become stronger (Zhang & Zhu 2019).

    Args:
        p: 2 leaves images as they are; the larger, the more saturated; below 2 contrast is lost.

    Raises:
        ValueError: if `p` is not above 0.
    """

    name = "saturation"

    def __init__(self, p: float = 8.0) -> None:
        filters.require_positive("p", p)
        self.p = self.strength = p

    def __call__(self, subject: Subject, batch: Batch) -> Tensor:
        """Return saturated images."""
        del subject
        return filters.saturate(batch.image, self.p)


class PatchShuffle(Distortion):
    """Shuffles k x k tiles, which breaks shapes and leaves textures (Zhang & Zhu 2019).

    Every image has a permutation of its own, drawn uniformly from all but the identity. Where k
    does not divide a side, the border around the largest area that it divides stays as it is.

    Args:
        k: Tiles a side, 2 or more.

    Raises:
        ValueError: if `k` is below 2.
    """

    name = "patch shuffle"

    def __init__(self, k: int = 4) -> None:
        if k < 2:
            raise ValueError(f"`k` must be 2 or more, got {k}")
        self.k = self.strength = k

    def check(self, data: ImageDataModule) -> None:
        """Refuse images with fewer than k pixels a side."""
        filters.require_tiles(self.k, data.image_size)

    def __call__(self, subject: Subject, batch: Batch) -> Tensor:
        """Return shuffled images."""
        permutations = filters.draw_permutations(subject.seed, batch.index, self.k)
        return filters.shuffle_patches(batch.image, permutations.to(batch.image.device))

    def moved(self, subject: Subject, batch: Batch) -> Tensor:
        """Return shuffled maps."""
        return self(subject, batch)


class LowPass(Distortion):
    """Keeps low frequencies: an ideal disc of the centred spectrum.

    Args:
        radius: Of the disc, in cycles per image.

    Raises:
        ValueError: if `radius` is not above 0.
    """

    name = "low-pass"

    def __init__(self, radius: float = 8.0) -> None:
        filters.require_positive("radius", radius)
        self.radius = self.strength = radius

    def __call__(self, subject: Subject, batch: Batch) -> Tensor:
        """Return blurred images."""
        del subject
        return filters.low_pass(batch.image, self.radius)


class HighPass(Distortion):
    """Keeps high frequencies and the mean: all but an ideal disc of the centred spectrum.

    Args:
        radius: Of the disc, in cycles per image.

    Raises:
        ValueError: if `radius` is not above 0.
    """

    name = "high-pass"

    def __init__(self, radius: float = 4.0) -> None:
        filters.require_positive("radius", radius)
        self.radius = self.strength = radius

    def __call__(self, subject: Subject, batch: Batch) -> Tensor:
        """Return images around their mean."""
        del subject
        return filters.high_pass(batch.image, self.radius)


class Greyscale(Distortion):
    """Takes the colour away: luma of ITU-R BT.601."""

    name = "greyscale"

    def __call__(self, subject: Subject, batch: Batch) -> Tensor:
        """Return grey images."""
        del subject
        return filters.greyscale(batch.image)


class Edges(Distortion):
    """Leaves edges alone, dark on white: the Sobel gradient of the luma."""

    name = "edges"

    def __call__(self, subject: Subject, batch: Batch) -> Tensor:
        """Return the edges; images without any are white."""
        del subject
        return filters.edges(batch.image)


class Silhouette(Distortion):
    """Leaves the outline alone: the object black, the rest white. Only for `Shapes`."""

    name = "silhouette"

    def __init__(self) -> None:
        self._objects: Tensor | None = None

    def check(self, data: ImageDataModule) -> None:
        """Keep where the objects are; refuse data that do not say."""
        self._objects = objects_of(data)
        if self._objects is None:
            raise ValueError(
                "silhouettes need masks of the objects: `source` must be Shapes, got "
                f"{type(data.source).__name__}"
            )

    def __call__(self, subject: Subject, batch: Batch) -> Tensor:
        """Return silhouettes of the images that `check` has seen."""
        if self._objects is None:
            raise ValueError("silhouettes need masks of the objects: call `check` first")
        index, images = batch.index.cpu(), subject.images
        if isinstance(images, ChosenImages):
            index = images.rows[index]
        outside = ~self._objects[index].to(batch.image.device)
        return outside.unsqueeze(1).expand_as(batch.image).to(batch.image.dtype)


class Adversarial(Distortion):
    """Attacks the classifier itself at the true label: `adversarial linf` or `adversarial l2`.

    Args:
        attack: Without a random start, whose draws would differ from one batch size to another.

    Raises:
        ValueError: if the attack has a random start, or its steps do not reach its radius.
    """

    name: ClassVar[str] = "adversarial"

    def __init__(self, attack: PGD = PGD(steps=20, random_start=False)) -> None:
        if attack.random_start:
            raise ValueError(f"`attack` must have random_start=False, got {attack}")
        if attack.steps * attack.step_size < attack.epsilon:
            raise ValueError(
                f"`attack` must reach its epsilon: {attack.steps} steps of "
                f"{float(attack.step_size):g} stay within {float(attack.epsilon):g}"
            )
        self.attack = attack
        self.strength, self.gradients = float(attack.epsilon), attack.steps
        self.name = f"adversarial {attack.norm}"  # type: ignore[misc]  # its unit is the norm's

    def __call__(self, subject: Subject, batch: Batch) -> Tensor:
        """Return adversarial images of the subject."""
        with full_fp32():
            return self.attack(subject.frozen, batch.image, batch.label)
