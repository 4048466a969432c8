"""Image sets: uint8 images with labels, either in one tensor or decoded from files on the fly.

Every set answers the same two questions, `pixels(indices)` and `labels`, so that training, the
pattern search and the measurements never ask where the images live.
"""

from __future__ import annotations

import hashlib
import os
import warnings
import zlib
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from PIL import Image, ImageOps
from torch import Tensor
from torch.utils.data import DataLoader, Dataset
from tqdm.auto import tqdm

from iscp_lightning.data.decoding import read_image
from iscp_lightning.data.workers import affordable_workers, share_of_cores
from iscp_lightning.runs import atomic_path

CACHED_TOGETHER = 500  # images that a worker decodes at a time, and that share a checksum


class Batch(NamedTuple):
    """One batch: the unit that data loaders yield and every step of a module receives.

    Attributes:
        image: (N, C, H, W), uint8 as stored, float32 in [0, 1] once on the device.
        label: (N,) int64 class index.
        index: (N,) int64 position in the image set the batch was taken from.
        texture: (N,) int64 texture index, for sets whose textures are labelled.
        poisoned: (N,) bool, whether the image has or shall get a trigger, in poisoned sets.
        original_label: (N,) int64 label before poisoning, likewise.
    """

    image: Tensor
    label: Tensor
    index: Tensor  # type: ignore[assignment]  # hides tuple.index, which nobody calls
    texture: Tensor | None = None
    poisoned: Tensor | None = None
    original_label: Tensor | None = None


class ImageSet(Dataset[Batch], ABC):
    """Labelled uint8 images of one size.

    Args:
        labels: (N,) int64 class indices.
        textures: (N,) int64 texture indices, or None where textures are not labelled.
    """

    num_workers: int | None = 0  # that `batches` reads with; None: a share of the cores, at most 16
    processes = 1  # of this machine which read at the same time

    def __init__(self, labels: Tensor, textures: Tensor | None = None) -> None:
        self.labels = labels
        self.textures = textures

    def __len__(self) -> int:
        return len(self.labels)

    @abstractmethod
    def pixels(self, indices: Sequence[int] | Tensor) -> Tensor:
        """Return the chosen images, uint8 (len(indices), C, H, W)."""

    def batches(self, chunks: Sequence[Tensor]) -> Iterator[Batch]:
        """Yield one uint8 batch for each chunk of indices, in order, read by the set's workers."""
        if chunks:
            workers = self.workers(max(map(len, chunks)), len(chunks))
            yield from _chunk_loader(self, chunks, workers)

    def workers(self, batch_size: int, batches: int | None = None) -> int:
        """Return how many worker processes are to read batches of this size.

        Args:
            batch_size: Number of images.
            batches: How many batches there are, if known: more workers would idle.
        """
        wanted = share_of_cores(self.processes) if self.num_workers is None else self.num_workers
        wanted = wanted if batches is None else min(wanted, batches)
        if 0 in (wanted, batch_size, len(self)):
            return 0
        return affordable_workers(wanted, batch_size * self.pixels([0]).nbytes, self.processes)

    def read(self, indices: Tensor, progress: str | None = None) -> Tensor:
        """Return many images, uint8 (len(indices), C, H, W), read by the set's workers.

        Args:
            indices: (n,) int64, at least one.
            progress: Title of a progress bar, or None for no bar.
        """
        with tqdm(total=len(indices), desc=progress, unit="image", disable=not progress) as bar:
            parts = []
            for batch in self.batches(indices.split(256)):
                parts.append(batch.image)
                bar.update(len(batch.image))
        return torch.cat(parts)

    def __getitems__(self, indices: Sequence[int]) -> Batch:
        index = torch.as_tensor(indices)
        textures = None if self.textures is None else self.textures[index]
        return Batch(self.pixels(index), self.labels[index], index, textures)


class MemoryImages(ImageSet):
    """Images held in one uint8 tensor.

    Args:
        images: uint8 (N, C, H, W), or float in [0, 1], which is rounded to 8 bits.
        labels: (N,) class indices.
        textures: (N,) texture indices, if known.

    Raises:
        ValueError: if the shapes do not fit together or float images leave [0, 1].
    """

    def __init__(self, images: Tensor, labels: Tensor, textures: Tensor | None = None) -> None:
        super().__init__(labels.long().cpu(), textures)
        if images.ndim != 4 or len(images) != len(labels):
            raise ValueError(
                f"`images` must be (N, C, H, W) with one of the {len(labels)} labels each, "
                f"got shape {tuple(images.shape)}"
            )
        images = as_eight_bits(images, "images")
        self.images = images.cpu()

    def pixels(self, indices: Sequence[int] | Tensor) -> Tensor:
        """Return the chosen images, uint8 (len(indices), C, H, W)."""
        return self.images[torch.as_tensor(indices)]


class ChosenImages(ImageSet):
    """Some images of another set, renumbered from 0.

    Args:
        images: The other set.
        rows: (n,) int64, which of its images.
    """

    def __init__(self, images: ImageSet, rows: Tensor) -> None:
        textures = None if images.textures is None else images.textures[rows]
        super().__init__(images.labels[rows], textures)
        self.images = images
        self.rows = rows
        self.num_workers = images.num_workers

    def pixels(self, indices: Sequence[int] | Tensor) -> Tensor:
        """Return the chosen images, uint8 (len(indices), C, H, W)."""
        return self.images.pixels(self.rows[torch.as_tensor(indices)])


class FileImages(ImageSet):
    """Images decoded from files whenever they are asked for, as `to_eight_bits` does.

    Args:
        paths: One image file per label.
        labels: (N,) int64 class indices.
        size: (height, width) of what comes out. Other sizes are cropped to its aspect around the
            centre and resized, bicubic; None takes the first file's size and demands it of all.
        crop_fraction: The central share of each side that is kept before resizing; 0.875 is the
            usual choice for ImageNet.

    Raises:
        ValueError: if `crop_fraction` is not in (0, 1], or the first file gives no size.
    """

    def __init__(
        self,
        paths: Sequence[str],
        labels: Tensor,
        size: tuple[int, int] | None = None,
        crop_fraction: float = 1.0,
    ) -> None:
        super().__init__(labels)
        check_crop_fraction(crop_fraction)
        self.paths = np.array(paths)  # one block of memory: forked workers never copy it
        self.must_fit = size is None
        self.size = size or read_image(paths[0]).size[::-1]
        self.crop_fraction = crop_fraction

    def pixels(self, indices: Sequence[int] | Tensor) -> Tensor:
        """Return the chosen images, uint8 (len(indices), 3, H, W)."""
        paths = self.paths[np.asarray(indices)].tolist()
        pixels = np.stack([self.decode(path) for path in paths])
        return torch.from_numpy(pixels).permute(0, 3, 1, 2).contiguous()

    def in_memory(self, cache_dir: Path, num_workers: int) -> MemoryImages:
        """Return the whole set, from the cache if the files have not changed.

        The cache file is mapped into memory, so that all processes of a machine share one copy.
        It ends with checksums of what was decoded; a file that does not fit them is decoded anew,
        with a warning.

        Args:
            cache_dir: Folder of the cached tensors, created if need be.
            num_workers: Processes that decode.

        Raises:
            ValueError: if an image cannot be read, or the file written is damaged at once.
        """
        path = cache_dir / f"{self._fingerprint()}.npy"
        if path.exists():
            try:
                return MemoryImages(self._map(path), self.labels)
            except OSError as error:
                text = f"{path} is no sound cache ({error}): its images are decoded anew"
                warnings.warn(text, stacklevel=2)
        with atomic_path(path) as temporary:
            self._decode_all(temporary, num_workers)
            try:
                return MemoryImages(self._map(temporary), self.labels)
            except OSError as error:
                raise ValueError(
                    f"`cache_dir`={cache_dir} does not keep what is written: {error}"
                ) from error

    def decode(self, path: str) -> np.ndarray[tuple[int, ...], np.dtype[np.uint8]]:
        """Return one file's pixels, uint8 (H, W, 3)."""
        height, width = self.size
        picture = read_image(path)
        if picture.size == (width, height) and self.crop_fraction == 1:
            return np.asarray(picture)
        if self.must_fit and picture.size != (width, height):
            raise ValueError(
                f"{path} is {picture.height} x {picture.width} pixels, the first image "
                f"{height} x {width}: give `image_size` to resize them all"
            )
        bleed = (1 - self.crop_fraction) / 2
        return np.asarray(ImageOps.fit(picture, (width, height), Image.Resampling.BICUBIC, bleed))

    def _decode_all(self, path: Path, num_workers: int) -> None:
        shape = (len(self), 3, *self.size)
        array = np.lib.format.open_memmap(path, mode="w+", dtype=np.uint8, shape=shape)
        chunks = torch.arange(len(self)).split(CACHED_TOGETHER)
        loader = _chunk_loader(_Decoder(self, path, array.offset), chunks, num_workers)
        checksums = []
        with tqdm(total=len(self), desc="decoding images", unit="image") as bar:
            for chunk, checksum in zip(chunks, loader, strict=True):
                checksums.append(checksum)
                bar.update(len(chunk))
        with path.open("ab") as file:
            np.lib.format.write_array(file, np.array(checksums, dtype=np.uint32))

    def _map(self, path: Path) -> Tensor:
        """Return the images in a cache file, uint8 (N, 3, H, W), mapped into memory.

        Raises:
            OSError: if they are not what was decoded.
        """
        shape = (len(self), 3, *self.size)
        try:
            array = np.lib.format.open_memmap(path, mode="c")
            with path.open("rb") as file:
                file.seek(array.offset + array.nbytes)
                checksums = np.lib.format.read_array(file)
                rest = len(file.read(1))
        except Exception as error:  # a garbled file makes the reader raise anything
            raise OSError(f"it has no images with checksums: {error}") from error
        starts = range(0, len(self), CACHED_TOGETHER)
        whole = array.shape == shape and array.dtype == np.uint8 and array.flags.c_contiguous
        if not whole or checksums.shape != (len(starts),) or rest:
            raise OSError(f"it holds {array.dtype} of {array.shape} instead of {shape}")
        for start, checksum in zip(starts, checksums, strict=True):
            run = array[start : start + CACHED_TOGETHER]
            if zlib.crc32(run.data) != checksum:
                raise OSError(f"images {start} to {start + len(run) - 1} fail their checksum")
        return torch.from_numpy(array)

    def _fingerprint(self) -> str:
        stats = [(stat.st_size, stat.st_mtime_ns) for stat in map(os.stat, self.paths.tolist())]
        digest = hashlib.sha256(self.paths.tobytes())
        digest.update(np.array(stats).tobytes())
        digest.update(repr((self.paths.dtype, self.size, self.crop_fraction)).encode())
        return digest.hexdigest()[:32]


class _Decoder(Dataset[int]):
    """Decodes runs of images into an array file: workers write there, nothing travels back."""

    def __init__(self, files: FileImages, path: Path, offset: int) -> None:
        self.files = files
        self.path = path
        self.offset = offset

    def __getitems__(self, indices: list[int]) -> int:
        """Write the images and return the checksum of what should be in the file now."""
        pixels = self.files.pixels(indices).numpy()
        with self.path.open("r+b") as file:  # on a full disk, writing to a map would crash
            file.seek(self.offset + indices[0] * pixels[0].nbytes)
            pixels.tofile(file)
        return zlib.crc32(pixels.data)


def _chunk_loader(
    dataset: Dataset[Any], chunks: Sequence[Tensor], num_workers: int
) -> DataLoader[Any]:
    return DataLoader(
        dataset,
        batch_sampler=[chunk.tolist() for chunk in chunks],
        num_workers=num_workers,
        collate_fn=as_is,
        generator=torch.Generator(),  # the global one is not ours to draw from
    )


def as_is(batch: Any) -> Any:  # noqa: ANN401
    """Return the batch unchanged: image sets make whole batches, nothing is left to collate."""
    return batch


def as_eight_bits(images: Tensor, name: str) -> Tensor:
    """Return images as uint8: those are returned as they are, floats in [0, 1] are rounded.

    Args:
        images: Images of any shape.
        name: What they are called in a message.

    Raises:
        ValueError: if float images leave [0, 1].
    """
    if not images.is_floating_point():
        return images
    if not bool(((images >= 0) & (images <= 1)).all()):
        raise ValueError(
            f"float `{name}` must lie in [0, 1], "
            f"got [{images.min().item():g}, {images.max().item():g}]"
        )
    return (images * 255).round().to(torch.uint8)


def to_float(images: Tensor) -> Tensor:
    """Return uint8 images as float32 in [0, 1], same shape and device."""
    return images.float().div_(255)


def check_crop_fraction(crop_fraction: float) -> None:
    """Raise a ValueError unless `crop_fraction` lies in (0, 1]."""
    if not 0 < crop_fraction <= 1:
        hint = f" (did you mean {crop_fraction / 100:g}?)" if 10 <= crop_fraction <= 100 else ""
        raise ValueError(f"`crop_fraction` must lie in (0, 1], got {crop_fraction}{hint}")
