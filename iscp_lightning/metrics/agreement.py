"""What answers on distorted images say: generalisation, shape bias, consistency, with intervals.

Each statistic takes answers, one per image, and optionally how often each image counts. With those
counts, intervals draw images anew without keeping any: images with equal answers are one row.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from iscp_lightning.metrics.intervals import DRAWS, LEVELS
from iscp_lightning.seeds import named_generator


def accuracy(right: Tensor, counts: Tensor | None = None) -> Tensor:
    """Return the share of images that are right; NaN without images.

    Args:
        right: bool (N,).
        counts: float64 (..., N), how often each image counts; None is once.

    Returns:
        float64 (...), likewise of the other statistics.
    """
    return _count(right, counts) / _count(torch.ones_like(right), counts)


def generalisation(
    distorted_right: Tensor, clean_right: Tensor, counts: Tensor | None = None
) -> Tensor:
    """Return the share of images still right when distorted, of those right as they are.

    It is that of Zhang & Zhu 2019, over all images at once; NaN where none is right.

    Args:
        distorted_right: bool (N,), whether the distorted image is classified right.
        clean_right: bool (N,), whether the image itself is.
        counts: As for `accuracy`.
    """
    return _count(distorted_right & clean_right, counts) / _count(clean_right, counts)


def shape_bias(
    decisions: Tensor, shapes: Tensor, textures: Tensor, counts: Tensor | None = None
) -> Tensor:
    """Return the share of shapes among decisions for shape or texture (Geirhos et al. 2019).

    Images whose shape and texture are of one class are left out. NaN where no decision is either.

    Args:
        decisions: int64 (N,), the class that each image is taken for.
        shapes: int64 (N,), the class of its shape.
        textures: int64 (N,), the class of its texture.
        counts: As for `accuracy`.
    """
    conflict = shapes != textures
    for_shape = _count(conflict & (decisions == shapes), counts)
    return for_shape / (for_shape + _count(conflict & (decisions == textures), counts))


def cue_share(
    decisions: Tensor, shapes: Tensor, textures: Tensor, counts: Tensor | None = None
) -> Tensor:
    """Return the share of images taken for their shape's or their texture's class.

    Arguments, and the images left out, are those of `shape_bias`.
    """
    conflict = shapes != textures
    either = (decisions == shapes) | (decisions == textures)
    return _count(conflict & either, counts) / _count(conflict, counts)


def error_consistency(right_a: Tensor, right_b: Tensor, counts: Tensor | None = None) -> Tensor:
    """Return Cohen's kappa of who is right on which image (Geirhos et al. 2020).

    1 means errors on the same images, 0 as many shared ones as two independent classifiers of the
    same accuracies have; NaN where both are always right or both always wrong.

    Args:
        right_a: bool (N,), whether the one classifier is right.
        right_b: bool (N,), whether the other is, on the same images.
        counts: As for `accuracy`.
    """
    observed = accuracy(right_a == right_b, counts)
    a, b = accuracy(right_a, counts), accuracy(right_b, counts)
    expected = a * b + (1 - a) * (1 - b)
    return (observed - expected) / (1 - expected)


def interval(statistic: Callable[..., Tensor], *answers: Tensor) -> Tensor:
    """Return the 95 % percentile interval of a statistic over images, which are drawn anew.

    How often the images of a row are drawn is multinomial, which is the bootstrap itself (Efron and
    Tibshirani 1993, chapter 6). Draws in which the statistic is NaN are left out.

    Args:
        statistic: Takes the answers and `counts`, as those above.
        answers: bool or int64 (N,) each, on the CPU.

    Returns:
        float64 (2,), lower and upper end; NaN where the statistic is.

    Raises:
        ValueError: if the answers are not for the same number of images.
    """
    if len({answer.shape for answer in answers}) != 1 or answers[0].ndim != 1:
        shapes = [tuple(answer.shape) for answer in answers]
        raise ValueError(f"`answers` must all be (N,), one for each image, got {shapes}")
    table = torch.stack([answer.long() for answer in answers], 1)
    rows, counts = table.unique(dim=0, return_counts=True)
    columns = [rows[:, i].to(answer.dtype) for i, answer in enumerate(answers)]
    draws = statistic(*columns, counts=_drawn(counts))
    return draws.nanquantile(torch.tensor(LEVELS, dtype=torch.float64))


def difference_interval(
    statistic: Callable[..., Tensor], first: Sequence[Tensor], second: Sequence[Tensor]
) -> Tensor:
    """Return the 95 % percentile interval of the statistic of `first` minus that of `second`.

    Both are of the same images, which are drawn together: what is hard for both cancels out.

    Args:
        statistic: As for `interval`.
        first: Its answers by one classifier, (N,) each.
        second: Likewise by the other.

    Returns:
        float64 (2,), lower and upper end; NaN where the difference is.
    """

    def difference(*answers: Tensor, counts: Tensor) -> Tensor:
        ours, theirs = answers[: len(first)], answers[len(first) :]
        return statistic(*ours, counts=counts) - statistic(*theirs, counts=counts)

    return interval(difference, *first, *second)


def category_decisions(logits: Tensor, categories: Sequence[Sequence[int]]) -> Tensor:
    """Return the category with the largest mean softmax probability over its classes.

    That is how Geirhos et al. map the 1,000 classes of ImageNet to 16 categories.

    Args:
        logits: float (N, K).
        categories: Class indices of each category; classes may be missing.

    Returns:
        int64 (N,), positions in `categories`.

    Raises:
        ValueError: if a category is empty, a class is out of range or in two categories.
    """
    classes = logits.shape[1]
    listed: set[int] = set()
    for position, category in enumerate(categories):
        if not category:
            raise ValueError(f"`categories`: category {position} has no class")
        for index in category:
            if not 0 <= index < classes:
                raise ValueError(
                    f"`categories`: class {index} of category {position} must lie in "
                    f"[0, {classes - 1}], since there are {classes} logits"
                )
            if index in listed:
                raise ValueError(f"`categories`: class {index} is listed twice")
            listed.add(index)
    if not categories:
        raise ValueError("`categories` is empty")
    # logarithms of the means, but for one constant of each image: small ones do not vanish
    means = [logits[:, list(c)].double().logsumexp(1) - math.log(len(c)) for c in categories]
    return torch.stack(means, 1).argmax(1)


def _count(flags: Tensor, counts: Tensor | None) -> Tensor:
    return flags.double().sum() if counts is None else counts @ flags.double()


def _drawn(counts: Tensor) -> Tensor:
    """Return (DRAWS, P) float64, how often the images of each of P rows are drawn."""
    generator = named_generator(0, "intervals over the same images")
    total = int(counts.sum())
    left = torch.full((DRAWS,), float(total), dtype=torch.float64)
    drawn = torch.empty(DRAWS, len(counts), dtype=torch.float64)
    for row, count in enumerate(counts.tolist()):
        share = torch.full_like(left, count / total)
        drawn[:, row] = torch.binomial(left, share, generator)
        left, total = left - drawn[:, row], total - count
    return drawn
