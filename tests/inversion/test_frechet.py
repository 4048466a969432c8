"""Tests of the Frechet distance: closed forms, torchmetrics, and what its interval covers."""

import math

import pytest
import torch
from torch import Tensor
from torchmetrics.image.fid import FrechetInceptionDistance

from iscp_lightning.inversion.frechet import frechet_distance, frechet_interval


def drawn(seed: int, rows: int = 400, width: int = 6) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(rows, width, generator=generator, dtype=torch.float64)


def white(rows: Tensor) -> Tensor:
    """The rows with mean 0 and covariance 1, up to rounding."""
    centred = rows - rows.mean(0)
    return centred @ torch.linalg.inv(torch.linalg.cholesky(centred.T.cov())).T


def test_gaussians_that_differ_along_their_axes():
    scale, shift = torch.tensor([1, 2, 0.5, 3, 1, 0]), torch.tensor([0, 1, -2, 0, 0.5, 0])
    first, second = white(drawn(0)), white(drawn(1)) * scale + shift
    expected = shift.square().sum() + (scale - 1).square().sum()  # 5.25 + 6.25
    assert frechet_distance(first, second) == pytest.approx(float(expected), abs=1e-9)
    assert frechet_distance(first, second) == pytest.approx(11.5, abs=1e-9)


def test_gaussians_in_turned_axes():
    turn = torch.linalg.qr(drawn(5, 6))[0]
    one = white(drawn(0)) @ torch.diag(torch.tensor([1.0, 2, 3, 4, 5, 6]).double())
    other = white(drawn(1)) @ torch.diag(torch.tensor([6.0, 5, 4, 3, 2, 1]).double())
    expected = sum((2 * i - 7) ** 2 for i in range(1, 7))  # the same axes for both
    assert frechet_distance(one @ turn, other @ turn) == pytest.approx(expected, abs=1e-8)


class Values(torch.nn.Module):
    num_features = 6

    def forward(self, images: Tensor) -> Tensor:
        return images.flatten(1)


def test_torchmetrics_finds_the_same():
    mixing = drawn(7, 6)
    first, second = drawn(0) @ mixing, drawn(1) @ mixing.T + 0.3
    metric = FrechetInceptionDistance(Values(), normalize=True, input_img_size=(1, 2, 3))
    metric.set_dtype(torch.float64)
    for features, real in ((first, True), (second, False)):
        metric.update(features.view(-1, 1, 2, 3), real=real)
    assert frechet_distance(first, second) == pytest.approx(float(metric.compute()), rel=1e-6)


def test_equal_sets_and_few_rows():
    few = drawn(0, 3)  # fewer rows than features: a covariance of low rank
    assert frechet_distance(few, few) == pytest.approx(0, abs=1e-6)
    assert frechet_distance(few, few + 2) == pytest.approx(24, abs=1e-6)
    assert math.isnan(frechet_distance(few[:1], few))
    assert frechet_interval(few[:1], few[:1]) is None
    assert frechet_interval(drawn(0, 3, 257), drawn(1, 3, 257)) is None


def test_a_single_feature():
    line = torch.tensor([[-1.0], [1.0]])  # variance 2
    assert frechet_distance(line, 3 * line + 1) == pytest.approx(1 + 2 * (3 - 1) ** 2)


def test_interval_covers_what_other_pairs_give():
    def pair(seed: int) -> tuple[Tensor, Tensor]:
        images = drawn(seed, 100)
        return images, images + 0.5 * drawn(10_000 + seed, 100) + 0.1

    usual = sum(frechet_distance(*pair(1000 + seed)) for seed in range(200)) / 200
    ends = [frechet_interval(*pair(seed)) for seed in range(30)]
    assert sum(low <= usual <= high for low, high in ends) >= 25
    assert all(
        low <= frechet_distance(*pair(seed)) <= high for seed, (low, high) in enumerate(ends)
    )
    assert frechet_interval(*pair(0)) == ends[0]
