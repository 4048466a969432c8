"""Conditioning: what of a frozen classifier's answer an image is made from."""

from __future__ import annotations

from typing import Literal, NamedTuple, get_args

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from iscp_lightning.classifiers.features import features_of
from iscp_lightning.classifiers.frozen import full_fp32, module_device
from iscp_lightning.data.images import ImageSet, to_float

Condition = Literal["logits", "features", "one_hot"]
CHUNK = 128  # images; what is said of one never depends on which are asked for together
SMALLEST = 1e-6  # standard deviation; what varies less says nothing


class Answers(NamedTuple):
    """What a classifier says of images.

    Attributes:
        logits: float32 (N, K).
        vectors: float32 (N, D), what images are made from: the logits, the penultimate features, or
            one-hot vectors of the predicted classes.
    """

    logits: Tensor
    vectors: Tensor


def require_condition(condition: str) -> None:
    """Raise a ValueError unless it is one of `logits`, `features` and `one_hot`."""
    if condition not in get_args(Condition):
        known = ", ".join(get_args(Condition))
        raise ValueError(f"`condition` must be one of {known}, got {condition}")


def answers_of(classifier: nn.Module, images: Tensor, condition: Condition = "logits") -> Answers:
    """Return what a classifier says of images; gradients flow, where they are enabled.

    Args:
        classifier: Maps float images (N, C, H, W) in [0, 1] to logits (N, K); in eval mode.
        images: float (N, C, H, W) in [0, 1].
        condition: Which vectors.

    Raises:
        ValueError: if penultimate features are asked for and not known.
    """
    if condition == "features":
        with features_of(classifier) as features:
            vectors, logits = features(images)
        return Answers(logits.float(), vectors.float())
    logits = classifier(images).float()
    if condition == "one_hot":
        return Answers(logits, F.one_hot(logits.argmax(1), logits.shape[1]).float())
    return Answers(logits, logits)


@torch.no_grad()
@full_fp32()
def answers_to(classifier: nn.Module, images: Tensor, condition: Condition = "logits") -> Answers:
    """Return what a frozen classifier says of any number of images, in fp32, on its device.

    What is said of one does not depend on how many others are asked for, and nothing of it on the
    precision around.

    Args:
        classifier: As for `answers_of`.
        images: float (N, C, H, W) in [0, 1], at least one.
        condition: Which vectors.
    """
    device = module_device(classifier)
    with torch.autocast(device.type, enabled=False):
        parts = [answers_of(classifier, part.to(device), condition) for part in images.split(CHUNK)]
    return Answers(*(torch.cat(each) for each in zip(*parts, strict=True)))


def answers_about(
    classifier: nn.Module, images: ImageSet, indices: Tensor, condition: Condition = "logits"
) -> Answers:
    """Return what a classifier says of some images of a set, on the CPU.

    Args:
        classifier: As for `answers_of`.
        images: The set.
        indices: (n,) int64, which of its images, at least one.
        condition: Which vectors.

    Raises:
        ValueError: if a logit is NaN or infinite; names the first such image.
    """
    device = module_device(classifier)
    parts = []
    for batch in images.batches(indices.split(CHUNK)):
        found = answers_to(classifier, to_float(batch.image.to(device)), condition)
        if not (finite := found.logits.isfinite()).all():
            first = int(batch.index[~finite.all(1).cpu()][0])
            raise ValueError(
                f"the classifier's logits are NaN or infinite, first for the image of index "
                f"{first}: its weights or normalisation are broken"
            )
        parts.append([each.cpu() for each in found])
    return Answers(*(torch.cat(each) for each in zip(*parts, strict=True)))


class Standardisation(nn.Module):
    """Brings entries of vectors to mean 0 and standard deviation 1, as noise has them.

    That makes classifiers comparable, whatever the scale of their logits. The statistics are fixed
    once: shifted or scaled vectors stay shifted or scaled.

    Args:
        size: Length of the vectors.
    """

    mean: Tensor
    deviation: Tensor

    def __init__(self, size: int) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(size))
        self.register_buffer("deviation", torch.ones(size))

    def fit(self, vectors: Tensor) -> None:
        """Take the statistics of vectors (N, size), of two images or more.

        An entry that is the same for all of them stays what it is, minus its mean.
        """
        found = vectors.double().std(0).to(self.deviation)
        self.mean.copy_(vectors.double().mean(0))
        self.deviation.copy_(torch.where(found > SMALLEST, found, torch.ones_like(found)))

    def forward(self, vectors: Tensor) -> Tensor:
        """Return standardised vectors (N, size)."""
        standard: Tensor = (vectors - self.mean) / self.deviation
        return standard
