"""Distortion: what takes some cues of the class out of test images and leaves others."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, ClassVar

from torch import Tensor

from iscp_lightning.classifiers.subject import Subject
from iscp_lightning.data.images import Batch

if TYPE_CHECKING:
    from iscp_lightning.data.datamodule import ImageDataModule


class Distortion(ABC):
    """Distorts test images. Constructor arguments are plain values kept in attributes.

    Random draws derive from the subject's seed and the position of the image in the test set, so
    that a distorted set is the same for every classifier, batch size, machine and number of
    devices.

    Attributes:
        name: The field's word for it, such as `saturation`, in records and figures.
        strength: How strong it is, in its own unit; None where there is no more and less.
        gradients: Passes forward and back through the classifier that it takes for an image.
    """

    name: ClassVar[str]
    strength: float | None = None
    gradients: int = 0

    @abstractmethod
    def __call__(self, subject: Subject, batch: Batch) -> Tensor:
        """Return distorted images: float32 in [0, 1], shape and device of the images.

        Args:
            subject: The classifier and the test images.
            batch: Some of the test images, float32 (n, C, H, W) in [0, 1] on the device, with
                their `label` and `index`, int64 (n,).
        """

    def moved(self, subject: Subject, batch: Batch) -> Tensor:
        """Return where the pixels of maps have gone: the maps, unless it moves pixels.

        Args:
            subject: As above.
            batch: Maps instead of images, (n, 1, H, W).
        """
        del subject
        return batch.image

    def check(self, data: ImageDataModule) -> None:
        """Refuse data that cannot be distorted so, before anything runs; keep what is needed.

        Raises:
            ValueError: if they cannot; says why.
        """

    @property
    def about(self) -> dict[str, str | float]:
        """What records of the distorted images are about."""
        about: dict[str, str | float] = {"distortion": self.name}
        return about if self.strength is None else {**about, "strength": float(self.strength)}
