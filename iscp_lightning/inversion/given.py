"""What an inversion is given: its classifier, a judge, and the training images."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from iscp_lightning.classifiers import load_trained
from iscp_lightning.classifiers.frozen import frozen_copy
from iscp_lightning.data.images import ImageSet, to_float
from iscp_lightning.inversion.conditioning import CHUNK, Answers, Condition, answers_of


def answers_to_grey(
    classifier: nn.Module, image_size: int | tuple[int, int], condition: Condition
) -> Answers:
    """Return what a classifier says of one grey image."""
    height, width = (image_size, image_size) if isinstance(image_size, int) else image_size
    try:
        with torch.no_grad():
            return answers_of(classifier, torch.full((1, 3, height, width), 0.5), condition)
    except RuntimeError as error:
        raise ValueError(
            f"`classifier` takes no images of {height} x {width} pixels: {error}"
        ) from error


def judge_of(
    judge: str | nn.Module, num_classes: int, image_size: int | tuple[int, int]
) -> nn.Module:
    """Return a judge, which must know the classes of the data.

    Raises:
        ValueError: if it knows another number of them, or has no penultimate features.
    """
    given = load_trained(judge, None, num_classes, image_size)
    frozen = frozen_copy(given, torch.device("cpu"))
    logits, _ = answers_to_grey(frozen, image_size, "features")
    if logits.shape[1] != num_classes:
        raise ValueError(f"`judge` knows {logits.shape[1]} classes, the data have {num_classes}")
    return frozen


def mean_images(images: ImageSet, indices: Tensor, num_classes: int) -> Tensor:
    """Return the mean image of each class, float32 (K, C, H, W) in [0, 1]; NaN without any.

    Args:
        images: The set.
        indices: (n,) int64, which of its images, at least one.
        num_classes: K.
    """
    sums = torch.zeros(num_classes, *images.pixels([0]).shape[1:])
    counts = images.labels[indices].bincount(minlength=num_classes)
    for batch in images.batches(indices.split(CHUNK)):
        sums.index_add_(0, batch.label, to_float(batch.image))
    return sums / counts.view(-1, 1, 1, 1)
