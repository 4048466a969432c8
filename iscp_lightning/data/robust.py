"""RobustData: training images that were made from another set's, D_R or D_NR."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor

from iscp_lightning.data.images import ImageSet, MemoryImages
from iscp_lightning.data.sources import ImageSource


class RobustData(ImageSource):
    """Training images of a built or published set; test images and class names of its origin.

    Validation images are split off the training images, so validation measures on the built set.

    Args:
        root: Folder of a set that was built here (`train.safetensors`), or in the published format
            of Ilyas et al. 2019 (`CIFAR_ims` and `CIFAR_lab`).
        origin: The set it was made from.

    Raises:
        ValueError: if the folder holds neither, or its images do not fit the origin.
    """

    def __init__(self, root: str, origin: ImageSource) -> None:
        self.root = Path(root)
        self.origin = origin
        self.num_classes = origin.num_classes
        self.image_size = origin.image_size
        if not any((self.root / name).is_file() for name in ("train.safetensors", "CIFAR_ims")):
            raise ValueError(
                f"`root`={root} holds neither train.safetensors nor CIFAR_ims: build it first"
            )

    @property
    def class_names(self) -> tuple[str, ...]:
        """Names of the origin's classes."""
        return self.origin.class_names

    def prepare(self) -> None:
        """Download or decode the origin."""
        self.origin.prepare()

    def train(self) -> ImageSet:
        """Return the built images."""
        images, labels = self._read()
        if tuple(images.shape[2:]) != self.image_size or not 0 <= labels.max() < self.num_classes:
            raise ValueError(
                f"{self.root} has images of {tuple(images.shape[2:])} and labels up to "
                f"{int(labels.max())}; its `origin` has {self.image_size} and "
                f"{self.num_classes} classes"
            )
        return MemoryImages(images, labels)

    def test(self) -> ImageSet:
        """Return the origin's test images.

        Raises:
            ValueError: if it has none: nothing here could stand in for them.
        """
        images = self.origin.test()
        if images is None:
            raise ValueError("`origin` has no test images, and built ones cannot replace them")
        return images

    def shifted_tests(self) -> dict[str, ImageSet]:
        """Return the origin's further test sets."""
        return self.origin.shifted_tests()

    def _read(self) -> tuple[Tensor, Tensor]:
        path = self.root / "train.safetensors"
        if path.is_file():
            content = load_file(path)
            return content["images"], content["labels"]
        return _published(self.root / "CIFAR_ims"), _published(self.root / "CIFAR_lab").long()


def _published(path: Path) -> Tensor:
    """Return a list of tensors that torch.save wrote, joined; nothing in it is executed."""
    try:
        content: Any = torch.load(path, map_location="cpu", weights_only=True)
        if isinstance(content, list) and isinstance(content[0], Tensor):
            # images with or without a batch dimension, labels with one or none
            join = torch.cat if content[0].ndim in (1, 4) else torch.stack
            return join(content)
        return torch.as_tensor(content)
    except Exception as error:  # a garbled file makes the reader raise anything
        raise ValueError(
            f"{path} cannot be read as tensors (nothing in a file is executed): {error}"
        ) from error
