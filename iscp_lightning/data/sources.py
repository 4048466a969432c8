"""Where images come from: torchvision's small sets, image folders, and what drawn ones share."""

from __future__ import annotations

import os
from abc import ABC, abstractmethod
from pathlib import Path
from typing import Any, ClassVar

import torch

from iscp_lightning.data.images import FileImages, ImageSet, MemoryImages, check_crop_fraction
from iscp_lightning.data.workers import available_cores, share_of_cores


class ImageSource(ABC):
    """A data set: training and test images of one size with named classes.

    Attributes:
        num_classes: Number of classes, known before any image is read.
        image_size: (height, width) of every image.
    """

    num_classes: int
    image_size: tuple[int, int]

    @property
    @abstractmethod
    def class_names(self) -> tuple[str, ...]:
        """Names of the classes in the order of the labels."""

    @abstractmethod
    def train(self) -> ImageSet | None:
        """Return the training images, or None if there are none."""

    @abstractmethod
    def test(self) -> ImageSet | None:
        """Return the test images, or None if there are none."""

    def prepare(self) -> None:
        """Download or decode once; in a multi-process run only one process calls it."""

    def shifted_tests(self) -> dict[str, ImageSet]:
        """Return further test sets by name, whose accuracy is reported beside the test set's."""
        return {}

    def seeded(self, root_seed: int) -> ImageSource:
        """Return the source with the root seed, if it draws images and has no seed of its own."""
        del root_seed
        return self


class TorchvisionSource(ImageSource):
    """A small data set that torchvision downloads and reads.

    Args:
        root: Folder of the downloaded files.
        download: Whether a missing set is downloaded.
    """

    dataset: ClassVar[str]
    split_argument: ClassVar[tuple[str, Any, Any]] = ("train", True, False)

    def __init__(self, root: str = "data", download: bool = True) -> None:
        self.root = root
        self.download = download
        self._names: tuple[str, ...] = ()

    @property
    def class_names(self) -> tuple[str, ...]:
        """Names as torchvision gives them; the digits of SVHN are numbered."""
        if not self._names:
            classes = getattr(self._read(False), "classes", range(self.num_classes))
            self._names = tuple(str(name) for name in classes)
        return self._names

    def prepare(self) -> None:
        """Download what is missing.

        Raises:
            ValueError: if the server cannot be reached.
        """
        for train in (True, False):
            try:
                self._read(train, self.download)
            except OSError as error:
                raise ValueError(
                    f"{self.dataset} is not in `root`={self.root} and cannot be downloaded: {error}"
                ) from error

    def train(self) -> ImageSet:
        """Return the training images; grey ones become RGB."""
        return self._images(True)

    def test(self) -> ImageSet:
        """Return the test images; grey ones become RGB."""
        return self._images(False)

    def _read(self, train: bool, download: bool = False) -> Any:  # noqa: ANN401
        from torchvision import datasets

        name, for_train, for_test = self.split_argument
        split = {name: for_train if train else for_test}
        return getattr(datasets, self.dataset)(self.root, download=download, **split)

    def _images(self, train: bool) -> ImageSet:
        data = self._read(train)
        images = torch.as_tensor(data.data)
        if images.ndim == 3:  # grey: (N, H, W)
            images = images.unsqueeze(1).repeat(1, 3, 1, 1)
        elif images.shape[3] == 3:  # (N, H, W, 3)
            images = images.permute(0, 3, 1, 2).contiguous()
        labels = data.targets if hasattr(data, "targets") else data.labels
        return MemoryImages(images, torch.as_tensor(labels))


class CIFAR10(TorchvisionSource):
    """CIFAR-10 (Krizhevsky 2009): 50,000 + 10,000 images of 32 x 32."""

    dataset = "CIFAR10"
    num_classes = 10
    image_size = (32, 32)


class CIFAR100(TorchvisionSource):
    """CIFAR-100 (Krizhevsky 2009): 100 classes, 50,000 + 10,000 images of 32 x 32."""

    dataset = "CIFAR100"
    num_classes = 100
    image_size = (32, 32)


class SVHN(TorchvisionSource):
    """SVHN (Netzer et al. 2011): house-number digits, 32 x 32."""

    dataset = "SVHN"
    split_argument = ("split", "train", "test")
    num_classes = 10
    image_size = (32, 32)


class MNIST(TorchvisionSource):
    """MNIST (LeCun et al. 1998): handwritten digits, 28 x 28, grey made RGB."""

    dataset = "MNIST"
    num_classes = 10
    image_size = (28, 28)


class FashionMNIST(TorchvisionSource):
    """Fashion-MNIST (Xiao et al. 2017): clothes, 28 x 28, grey made RGB."""

    dataset = "FashionMNIST"
    num_classes = 10
    image_size = (28, 28)


class ImageFolder(ImageSource):
    """A folder with `train/<class>/*` and `test/<class>/*` (or `val/`), or only one of the two.

    Sets that fit into `memory_gib` are decoded once into one tensor, cached on disk under a key
    made of every file's path, size and time; larger ones are decoded whenever they are needed.
    Files may be grey, of 8 or 16 bits, or in colour; white shows behind transparent pixels, and
    images that their Exif data call rotated are turned upright.

    Args:
        root: The folder.
        image_size: Height and width of the images, an int for square ones. None takes the size of
            the first file and demands it of all.
        crop_fraction: Central share of each side kept before resizing (ImageNet: 0.875).
        memory_gib: Largest decoded size in GiB of train and test together that is held in memory.
        cache_dir: Folder of the decoded tensors; None means `iscp_lightning` in the user's cache.
        num_workers: Processes that decode, 0 for none but this one; None means one per CPU core
            that this process may use, shared out among the processes of this machine, at most 16
            each.

    Raises:
        ValueError: if a number is out of range, `root` holds neither part, or the parts' classes
            differ.
    """

    def __init__(
        self,
        root: str,
        image_size: int | tuple[int, int] | None = None,
        crop_fraction: float = 1.0,
        memory_gib: float = 4.0,
        cache_dir: str | None = None,
        num_workers: int | None = None,
    ) -> None:
        self.resize = (image_size, image_size) if isinstance(image_size, int) else image_size
        if self.resize and min(self.resize) < 1:
            raise ValueError(f"`image_size` must be 1 or more pixels, got {image_size}")
        check_crop_fraction(crop_fraction)
        if not memory_gib >= 0:
            raise ValueError(f"`memory_gib` must be 0 or more, got {memory_gib}")
        if num_workers is not None and num_workers < 0:
            raise ValueError(f"`num_workers` must be 0 or more, got {num_workers}")
        parts = {name: Path(root) / name for name in ("train", "test", "val")}
        self.parts = {name: folder for name, folder in parts.items() if folder.is_dir()}
        if not self.parts:
            raise ValueError(f"`root`={root} must hold a folder `train`, `test` or `val`")
        found = {
            name: tuple(sorted(p.name for p in folder.iterdir() if p.is_dir()))
            for name, folder in self.parts.items()
        }
        self._class_names = next(iter(found.values()))
        if not self._class_names:
            raise ValueError(f"`root`={root}: no class folder in {next(iter(self.parts.values()))}")
        for name, names in found.items():
            if names != self._class_names:
                odd = sorted(set(names) ^ set(self._class_names))
                raise ValueError(f"`root`={root}: classes of `{name}` differ from the rest: {odd}")
        self.num_classes = len(self._class_names)
        self.crop_fraction = crop_fraction
        self.memory_gib = memory_gib
        cache = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "iscp_lightning"
        self.cache_dir = Path(cache_dir) if cache_dir else cache
        self.num_workers = num_workers
        self._files: dict[str, FileImages] = {}
        self.image_size = self.resize or self._list(next(iter(self.parts))).size

    @property
    def class_names(self) -> tuple[str, ...]:
        """Names of the class folders, sorted."""
        return self._class_names

    def prepare(self) -> None:
        """Decode what is not in the cache yet, on all cores: other processes wait for this one."""
        for part in ("train", self._test_part):
            self._images(part, available_cores())

    def train(self) -> ImageSet | None:
        """Return the images of `train/`, or None."""
        return self._images("train", share_of_cores())

    def test(self) -> ImageSet | None:
        """Return the images of `test/`, else of `val/`, else None."""
        return self._images(self._test_part, share_of_cores())

    @property
    def _test_part(self) -> str:
        return "test" if "test" in self.parts else "val"

    def _images(self, part: str, cores: int) -> ImageSet | None:
        if part not in self.parts:
            return None
        files = self._list(part)
        count = sum(len(self._list(name)) for name in self.parts)
        height, width = files.size
        if count * 3 * height * width > self.memory_gib * 2**30:
            return files
        workers = cores if self.num_workers is None else self.num_workers
        return files.in_memory(self.cache_dir, workers)

    def _list(self, part: str) -> FileImages:
        if part not in self._files:
            from torchvision.datasets.folder import IMG_EXTENSIONS, make_dataset

            classes = {name: label for label, name in enumerate(self._class_names)}
            try:
                files = make_dataset(str(self.parts[part]), classes, IMG_EXTENSIONS)
            except FileNotFoundError as error:
                raise ValueError(f"{self.parts[part]}: {error}") from error
            paths, labels = zip(*files, strict=True)
            images = FileImages(paths, torch.tensor(labels), self.resize, self.crop_fraction)
            images.num_workers = self.num_workers
            self._files[part] = images
        return self._files[part]
