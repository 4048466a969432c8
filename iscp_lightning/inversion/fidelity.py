"""How well reconstructions keep originals: pixels, structure, what classifiers say, retrieval."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor
from torchmetrics.functional.image import (
    peak_signal_noise_ratio,
    structural_similarity_index_measure,
)

from iscp_lightning.inversion.frechet import frechet_distance, frechet_interval
from iscp_lightning.metrics.intervals import mean_interval
from iscp_lightning.records import Record

SMALLEST = 11  # pixels a side of the window of SSIM
CHUNK = 256  # images at once, which bounds memory
LEVEL = 1e-12  # of the largest squared length: by how much equal distances differ when rounded


class Judgement(NamedTuple):
    """What a judge, a classifier that no generator was trained against, says of N image pairs.

    Attributes:
        logits: Of the reconstructions, float (N, K).
        features: Its penultimate features of the originals, float (N, D).
        reconstructed: Those of the reconstructions, float (N, D).
    """

    logits: Tensor
    features: Tensor
    reconstructed: Tensor


def fidelity(
    originals: Tensor,
    reconstructions: Tensor,
    logits: Tensor,
    reconstructed_logits: Tensor,
    labels: Tensor,
    judge: Judgement | None = None,
) -> dict[str, Tensor]:
    """Return measures of each of N reconstructions, float32 (N,) each, by name.

    - `mse`, `psnr` (in dB; infinite without an error) and `ssim` (Wang et al. 2004, its Gaussian
      window of 11 x 11 pixels) compare pixels.
    - `pixel_retrieval_rank`: the rank of its own original among all N, by Euclidean distance of
      pixels; 1 is the nearest, (N + 1) / 2 is chance. Ties share their mean rank.
    - `class_agreement`: 1 where the inverted classifier says the same class of both, else 0.
    - `logit_cosine`: the cosine between its logits of both.

    With a judge also:

    - `judge_agreement`: 1 where the judge says of the reconstruction the class that the inverted
      classifier says of the original, else 0.
    - `judge_accuracy`: 1 where it says the true class, else 0.
    - `retrieval_rank`: as `pixel_retrieval_rank`, by its features.

    Args:
        originals: float (N, C, H, W) in [0, 1], at least 11 x 11 pixels.
        reconstructions: Likewise, image by image.
        logits: Of the originals by the inverted classifier, float (N, K).
        reconstructed_logits: Of the reconstructions, likewise.
        labels: True classes, int64 (N,).
        judge: What another classifier says.

    Raises:
        ValueError: if shapes do not fit, a value is not finite, or images leave [0, 1].
    """
    _check(originals, reconstructions, logits, reconstructed_logits, labels, judge)
    said = logits.argmax(1)
    found = {
        **_compare_pixels(originals, reconstructions),
        "pixel_retrieval_rank": retrieval_rank(originals.flatten(1), reconstructions.flatten(1)),
        "class_agreement": reconstructed_logits.argmax(1) == said,
        "logit_cosine": F.cosine_similarity(logits, reconstructed_logits),
    }
    if judge is not None:
        seen = judge.logits.argmax(1)
        found["judge_agreement"] = seen == said
        found["judge_accuracy"] = seen == labels
        found["retrieval_rank"] = retrieval_rank(judge.features, judge.reconstructed)
    return {name: values.float() for name, values in found.items()}


def retrieval_rank(originals: Tensor, reconstructions: Tensor) -> Tensor:
    """Return the rank of each reconstruction's own original among all originals, float32 (N,).

    1 is the nearest by Euclidean distance. Of m originals at the same distance each has their mean
    rank, so that a reconstruction that tells nothing has (N + 1) / 2.

    Args:
        originals: float (N, D).
        reconstructions: float (N, D), row by row.
    """
    originals, reconstructions = originals.double(), reconstructions.double()
    lengths, ranks = originals.square().sum(1), []
    for start in range(0, len(originals), CHUNK):
        # squared distances, without the reconstruction's own length, which all have
        distances = lengths - 2 * reconstructions[start : start + CHUNK] @ originals.T
        beyond = distances - distances.diagonal(start).unsqueeze(1)
        level = beyond.abs() <= LEVEL * lengths.max()
        ranks.append(((beyond < 0) & ~level).sum(1) + (level.sum(1) + 1) / 2)
    return torch.cat(ranks).float()


def noise_variance(samples: Tensor) -> Tensor:
    """Return how much images of one vector differ by their noise, float (N,).

    It is the variance over the samples, unbiased, as the mean over an image's values.

    Args:
        samples: float (S, N, C, H, W), S images of each of N vectors, each with other noise.

    Raises:
        ValueError: if there are fewer than two samples, or a dimension is missing.
    """
    if samples.ndim != 5 or len(samples) < 2:
        raise ValueError(
            f"`samples` must be (S, N, C, H, W) with S of 2 or more, got {tuple(samples.shape)}"
        )
    return samples.var(0).flatten(1).mean(1)


def records(
    measures: Mapping[str, Tensor],
    right: Tensor,
    judge: Judgement | None = None,
    about: Mapping[str, str | int | float] | None = None,
) -> list[Record]:
    """Return means over images with 95 % bootstrap intervals, for each split of the images.

    Splits are `all` and, by whether the inverted classifier is right on the original, `right` and
    `wrong`. `images` says how many there are. With a judge, `fid` is the Frechet distance in its
    features; it grows as images become fewer, so that only sets of equal size compare. What cannot
    be computed from so few images is NaN, or has no interval.

    Args:
        measures: Of each image, float (N,), by name, as `fidelity` returns.
        right: bool (N,).
        judge: What another classifier says.
        about: What all of them are about besides, such as the classifier.
    """
    found = []
    right = right.cpu()
    for split, rows in (("all", torch.ones_like(right)), ("right", right), ("wrong", ~right)):
        of = {**(about or {}), "split": split}
        found.append(Record("images", int(rows.sum()), of))
        table = torch.stack([values.cpu().double()[rows] for values in measures.values()], 1)
        means, ends = table.mean(0).tolist(), mean_interval(table).tolist()
        for name, mean, (low, high) in zip(measures, means, ends, strict=True):
            found.append(Record(name, mean, of, None if low != low else (low, high)))
        if judge is not None:
            pair = [each.cpu()[rows] for each in (judge.features, judge.reconstructed)]
            found.append(Record("fid", frechet_distance(*pair), of, frechet_interval(*pair)))
    return found


def _compare_pixels(originals: Tensor, reconstructions: Tensor) -> dict[str, Tensor]:
    parts = [
        (
            structural_similarity_index_measure(made, given, reduction="none", data_range=1.0),
            peak_signal_noise_ratio(made, given, 1.0, reduction="none", dim=(1, 2, 3)),
            (made - given).square().flatten(1).mean(1),
        )
        for given, made in zip(originals.split(CHUNK), reconstructions.split(CHUNK), strict=True)
    ]
    columns = (torch.cat(each) for each in zip(*parts, strict=True))
    return dict(zip(("ssim", "psnr", "mse"), columns, strict=True))


def _check(
    originals: Tensor,
    reconstructions: Tensor,
    logits: Tensor,
    reconstructed_logits: Tensor,
    labels: Tensor,
    judge: Judgement | None,
) -> None:
    """Refuse what does not fit together."""
    count = len(originals)
    if originals.ndim != 4 or not count or min(originals.shape[2:]) < SMALLEST:
        raise ValueError(
            f"`originals` must be (N, C, H, W) of {SMALLEST} x {SMALLEST} pixels or more, got "
            f"{tuple(originals.shape)}"
        )
    fitting = {
        "reconstructions": (reconstructions, tuple(originals.shape)),
        "logits": (logits, (count, logits.shape[-1])),
        "reconstructed_logits": (reconstructed_logits, tuple(logits.shape)),
        "labels": (labels, (count,)),
    }
    if judge is not None:
        fitting["judge.logits"] = (judge.logits, (count, judge.logits.shape[-1]))
        fitting["judge.features"] = (judge.features, (count, judge.features.shape[-1]))
        fitting["judge.reconstructed"] = (judge.reconstructed, tuple(judge.features.shape))
    for name, (values, shape) in fitting.items():
        if values.shape != shape:
            raise ValueError(f"`{name}` must be {shape}, got {tuple(values.shape)}")
        if not values.isfinite().all():
            raise ValueError(f"`{name}` must be finite")
    for name, images in (("originals", originals), ("reconstructions", reconstructions)):
        if not (images.is_floating_point() and images.min() >= 0 and images.max() <= 1):
            raise ValueError(
                f"`{name}` must be floats in [0, 1], got {images.dtype} in "
                f"[{images.min():g}, {images.max():g}]"
            )
