"""The Frechet distance of two sets of features (Heusel et al. 2017), with an interval."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from iscp_lightning.metrics.intervals import LEVELS
from iscp_lightning.seeds import named_generator

DRAWS = 200
WIDEST = 256  # features for which that many draws take seconds


def frechet_distance(features: Tensor, others: Tensor) -> float:
    """Return the distance of the Gaussians with the means and covariances of two sets.

    It is |m1 - m2|^2 + tr(C1 + C2 - 2 (C1 C2)^(1/2)) with unbiased covariances, 0 or more. Sets of
    fewer images than features have covariances of too low a rank, and distances that are too large.

    Args:
        features: float (N, D).
        others: float (M, D).

    Returns:
        NaN where a set has fewer than two rows.
    """
    if min(len(features), len(others)) < 2:
        return math.nan
    first, second = (each.double() for each in (features, others))
    apart = (first.mean(0) - second.mean(0)).square().sum()
    one, two = (torch.atleast_2d(each.T.cov()) for each in (first, second))
    root = _root(one)
    # the eigenvalues of C1 C2 are those of this symmetric matrix
    shared = torch.linalg.eigvalsh(root @ two @ root).clamp(min=0).sqrt().sum()
    return max(0.0, float(apart + one.trace() + two.trace() - 2 * shared))


def frechet_interval(features: Tensor, others: Tensor) -> tuple[float, float] | None:
    """Return the 95 % interval of the distance of N image pairs, which are drawn anew.

    Drawn images repeat, which makes distances too large. So the interval is as wide as the draws
    are, but lies around the distance itself: it says where that of N other pairs would be.

    Args:
        features: float (N, D), of the originals.
        others: float (N, D), of the reconstructions, row by row.

    Returns:
        Lower end, 0 or more, and upper end; None with fewer than two rows, or more than 256
        features, which would take minutes.
    """
    count, width = features.shape
    if count < 2 or width > WIDEST:
        return None
    generator = named_generator(0, "intervals of Frechet distances")
    draws = torch.empty(DRAWS, dtype=torch.float64)
    for i in range(DRAWS):
        rows = torch.randint(count, (count,), generator=generator)
        draws[i] = frechet_distance(features[rows], others[rows])
    draws += frechet_distance(features, others) - draws.mean()
    low, high = draws.clamp(min=0).quantile(torch.tensor(LEVELS, dtype=torch.float64)).tolist()
    return low, high


def _root(covariance: Tensor) -> Tensor:
    """Return the symmetric square root of a positive semidefinite matrix (D, D)."""
    values, vectors = torch.linalg.eigh(covariance)
    root: Tensor = (vectors * values.clamp(min=0).sqrt()) @ vectors.T
    return root
