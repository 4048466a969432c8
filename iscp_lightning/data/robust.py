"""RobustData: training images that were made from another set's, D_R or D_NR."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import safe_open
from torch import Tensor

from iscp_lightning.data.images import ImageSet, MemoryImages
from iscp_lightning.data.sources import ImageSource


class BuiltImages(ImageSet):
    """Images in a file that `RobustDataWriter` wrote; only those asked for are ever in memory.

    Args:
        path: The file `train.safetensors`.

    Raises:
        ValueError: if it is something else.
    """

    def __init__(self, path: Path) -> None:
        try:
            # reads what it is asked for; by default the library maps the file as if it would write
            # there, which Linux refuses for one that is larger than the memory
            with safe_open(path, "pt", backend="pread") as file:
                names, labels = file.offset_keys(), file.get_tensor("labels")
                images = file.get_slice("images")
                kind, self.shape = images.get_dtype(), tuple(images.get_shape())
        except Exception as error:  # a garbled file makes the reader raise anything
            raise ValueError(f"{path} cannot be read: {error}") from error
        fit = len(self.shape) == 4 and len(labels) == self.shape[0]
        if kind != "U8" or not fit or names[-1] != "images":
            raise ValueError(
                f"{path} holds {kind} {list(self.shape)} and {len(labels)} labels, no built images"
            )
        super().__init__(labels)
        self.path = path.resolve()
        self.offset = path.stat().st_size - math.prod(self.shape)  # they come last in the file

    def pixels(self, indices: Sequence[int] | Tensor) -> Tensor:
        """Return the chosen images, uint8 (len(indices), C, H, W)."""
        images = np.memmap(self.path, np.uint8, "r", self.offset, self.shape)
        return torch.from_numpy(images[torch.as_tensor(indices).long().numpy()])


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
        images = self._read()
        size, labels = tuple(images.pixels([0]).shape[2:]), images.labels
        if size != self.image_size or not 0 <= labels.max() < self.num_classes:
            raise ValueError(
                f"{self.root} has images of {size} and labels up to {int(labels.max())}; its "
                f"`origin` has {self.image_size} and {self.num_classes} classes"
            )
        return images

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

    def _read(self) -> ImageSet:
        path = self.root / "train.safetensors"
        if path.is_file():
            return BuiltImages(path)
        images, labels = (_published(self.root / name) for name in ("CIFAR_ims", "CIFAR_lab"))
        return MemoryImages(images, labels)


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
