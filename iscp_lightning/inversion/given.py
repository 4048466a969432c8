"""What an inversion is given: classifiers that must fit, and the training images."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from iscp_lightning.classifiers import load_trained, require_image_size
from iscp_lightning.data.augment import Augmentation
from iscp_lightning.data.images import to_float
from iscp_lightning.data.splits import stratified_choice
from iscp_lightning.inversion.conditioning import (
    CHUNK,
    Answers,
    Condition,
    answers_about,
    answers_of,
)

if TYPE_CHECKING:
    from iscp_lightning.data.datamodule import ImageDataModule

FEW = 20_000  # training images that statistics are of, at most
KEPT_BYTES = 2**30  # of vectors that are read once and kept


def answers_to_grey(
    name: str, classifier: nn.Module, image_size: int | tuple[int, int], condition: Condition
) -> Answers:
    """Return what a classifier says of one grey image.

    Args:
        name: What it is called in a message.
        classifier: In eval mode.
        image_size: (height, width) of the image, or both.
        condition: As for `answers_of`.

    Raises:
        ValueError: if it is made for images of another size or takes none of that size, or has no
            penultimate features.
    """
    height, width = (image_size, image_size) if isinstance(image_size, int) else image_size
    require_image_size(f"`{name}`", classifier, (height, width))
    try:
        with torch.no_grad():
            return answers_of(classifier, torch.full((1, 3, height, width), 0.5), condition)
    except RuntimeError as error:
        raise ValueError(
            f"`{name}` takes no images of {height} x {width} pixels: {error}"
        ) from error


def load_judge(
    judge: str | nn.Module, num_classes: int, image_size: int | tuple[int, int]
) -> nn.Module:
    """Return what `load_trained` does; its messages say that the judge is meant."""
    try:
        return load_trained(judge, None, num_classes, image_size)
    except ValueError as error:
        raise ValueError(f"`judge`={judge}: {error}") from error


def require_batches(data: ImageDataModule, processes: int) -> None:
    """Raise a ValueError if a batch of one training image came about."""
    if data.batch_size < 2:
        raise ValueError(
            "`data.batch_size` must be 2 or more: batch normalisation sees the images together"
        )
    count = math.ceil(len(data.train_images[1]) / processes)
    if count % data.batch_size == 1:
        raise ValueError(
            f"`data.batch_size`={data.batch_size} leaves one of {count} training images for the "
            "last batch, and batch normalisation needs two"
        )


def training_vectors(
    classifier: nn.Module, data: ImageDataModule, condition: Condition
) -> tuple[Tensor, Tensor]:
    """Return what a classifier says of training images, as they are.

    Args:
        classifier: As for `answers_of`, on its device.
        data: The images.
        condition: Which vectors.

    Returns:
        float32 (n, D), of as many images of each class, 20,000 together at most; and (N, D), of
        every image of the set by its index, empty where training augments images or a GiB does not
        hold them.

    Raises:
        ValueError: as `answers_about`.
    """
    images, indices = data.train_images
    chosen = indices[stratified_choice(images.labels[indices], FEW, data.seed)]
    vectors = answers_about(classifier, images, chosen, condition).vectors
    size = len(images) * vectors.shape[1] * vectors.element_size()
    if data.augmentation != Augmentation() or size > KEPT_BYTES:
        return vectors, torch.zeros(0)
    kept = torch.zeros(len(images), vectors.shape[1])
    kept[chosen] = vectors
    others = indices[~torch.isin(indices, chosen)]
    if len(others):
        kept[others] = answers_about(classifier, images, others, condition).vectors
    return vectors, kept


def class_means(data: ImageDataModule) -> Tensor | None:
    """Return the mean training image of each class, float32 (K, C, H, W) in [0, 1].

    As many images of each class are read, 20,000 together at most. None where there is a class
    without training images.
    """
    if not data.has_training_images:
        return None
    images, indices = data.train_images
    chosen = indices[stratified_choice(images.labels[indices], FEW, data.seed)]
    counts = images.labels[chosen].bincount(minlength=data.num_classes)
    if not counts.all():
        return None
    sums = torch.zeros(data.num_classes, *images.pixels([0]).shape[1:])
    for batch in images.batches(chosen.split(CHUNK)):
        sums.index_add_(0, batch.label, to_float(batch.image))
    return sums / counts.view(-1, 1, 1, 1)
