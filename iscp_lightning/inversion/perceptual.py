"""Measures that need networks of ImageNet: LPIPS, and FID in the features of Inception.

torchmetrics has both. It downloads the weights once, and takes Inception from `torch-fidelity`.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor
from torchmetrics import Metric

SMALLEST = 32  # pixels a side that AlexNet leaves something of
CHUNK = 64  # images at once, which bounds memory


def lpips(originals: Tensor, reconstructions: Tensor) -> Tensor:
    """Return the perceptual distance of each image pair (Zhang et al. 2018), float (N,).

    It is version 0.1 with AlexNet; 0 is equal.

    Args:
        originals: float (N, 3, H, W) in [0, 1], at least 32 x 32 pixels.
        reconstructions: Likewise, image by image.

    Raises:
        ValueError: if shapes do not fit, or the weights of AlexNet are neither there nor can be
            downloaded.
    """
    _check(originals, reconstructions)
    metric = _lpips().to(originals.device)
    with torch.no_grad():
        for pair in zip(originals.split(CHUNK), reconstructions.split(CHUNK), strict=True):
            metric.update(*pair)
        found: Tensor = metric.compute()
    return found.flatten()


def inception_fid(originals: Tensor, reconstructions: Tensor) -> float:
    """Return the FID of two sets of images in the 2,048 features of Inception (Heusel et al. 2017).

    Sets of fewer than 2,048 images have distances that are far too large.

    Args:
        originals: float (N, 3, H, W) in [0, 1].
        reconstructions: Likewise.

    Raises:
        ValueError: if shapes do not fit, or package or weights are missing.
    """
    _check(originals, reconstructions)
    metric = _inception_fid().to(originals.device)
    for images, real in ((originals, True), (reconstructions, False)):
        for part in images.split(CHUNK):
            metric.update(part, real=real)
    return float(metric.compute())


def require_weights() -> None:
    """Raise a ValueError unless packages and weights of both are there or can be downloaded."""
    _lpips()
    _inception_fid()


def _lpips() -> Metric:
    from torchmetrics.image.lpip import LearnedPerceptualImagePatchSimilarity

    with _installed("LPIPS"):
        return LearnedPerceptualImagePatchSimilarity("alex", normalize=True, reduction="none")


def _inception_fid() -> Metric:
    from torchmetrics.image.fid import FrechetInceptionDistance

    with _installed("FID in the features of Inception"):
        return FrechetInceptionDistance(normalize=True)


@contextmanager
def _installed(what: str) -> Iterator[None]:
    """Turn missing packages and weights into one line; leave the global random state as it was."""
    try:
        with torch.random.fork_rng(devices=[]):
            yield
    except (ImportError, OSError) as error:  # OSError: no file, no network, no permission
        raise ValueError(
            f"{what} needs pip install 'iscp-lightning[images]' and, once, a network to download "
            f"weights into {torch.hub.get_dir()}/checkpoints: {error}"
        ) from error


def _check(originals: Tensor, reconstructions: Tensor) -> None:
    if originals.ndim != 4 or originals.shape[1] != 3 or min(originals.shape[2:]) < SMALLEST:
        raise ValueError(
            f"`originals` must be (N, 3, H, W) of {SMALLEST} x {SMALLEST} pixels or more, got "
            f"{tuple(originals.shape)}"
        )
    if reconstructions.shape != originals.shape:
        raise ValueError(
            f"`reconstructions` must be {tuple(originals.shape)}, got "
            f"{tuple(reconstructions.shape)}"
        )
