import math

import numpy as np
import pytest
import torch
from scipy import stats

from iscp_lightning.metrics.intervals import (
    mean_interval,
    mean_ratio_interval,
    ratio_interval,
    share_interval,
)


def one(hits: int, shown: int, right: int, seen: int) -> list[float]:
    return ratio_interval(
        torch.tensor([[hits]]), torch.tensor([[shown]]), torch.tensor([right]), torch.tensor([seen])
    )[0, 0].tolist()


def test_a_share_over_certainty_has_the_binomial_interval():
    """Resampled 0/1 outcomes count a binomial number; scipy knows its quantiles."""
    low, high = one(300, 1000, 50, 50)
    expected = stats.binom.ppf([0.025, 0.975], 1000, 0.3) / 1000
    assert [low, high] == pytest.approx(expected, abs=0.004)


def test_the_denominator_has_a_spread_of_its_own():
    images = np.repeat([1.0, 0.0], [60, 40])
    resampled = stats.bootstrap((images,), lambda x, axis: 1 / x.mean(axis), method="percentile")
    expected = resampled.confidence_interval
    assert one(80, 80, 60, 100) == pytest.approx([expected.low, expected.high], rel=0.05)


def test_shares_without_spread_or_images():
    assert one(0, 50, 20, 20) == [0, 0]
    assert all(math.isnan(end) for end in one(3, 9, 0, 20))
    assert all(math.isnan(end) for end in one(0, 0, 20, 20))
    assert ratio_interval(*[torch.zeros(0, 2).long()] * 2, *[torch.zeros(0).long()] * 2).shape == (
        0,
        2,
        2,
    )


def test_a_mean_over_rows_agrees_with_scipy():
    values = torch.rand(12, 2, generator=torch.Generator().manual_seed(0)).double()
    values[3, 1] = torch.nan
    found = mean_interval(values)
    for column, kept in enumerate((values[:, 0], values[~values[:, 1].isnan(), 1])):
        expected = stats.bootstrap((kept.numpy(),), np.mean, method="percentile", rng=0)
        ends = expected.confidence_interval
        assert found[column].tolist() == pytest.approx([ends.low, ends.high], abs=0.02)
    assert mean_interval(values[:1]).isnan().all()


def test_a_ratio_of_means_over_rows_agrees_with_scipy():
    above, below = torch.rand(2, 12, 2, generator=torch.Generator().manual_seed(0)).double()
    above += below  # in pairs
    above[3, 1] = below[7, 1] = torch.nan
    found = mean_ratio_interval(above, below)
    for column, rows in enumerate((range(12), [row for row in range(12) if row not in (3, 7)])):
        pairs = [part[list(rows), column].numpy() for part in (above, below)]
        expected = stats.bootstrap(
            pairs,
            lambda a, b, axis: a.mean(axis) / b.mean(axis),
            paired=True,
            vectorized=True,
            method="percentile",
            rng=0,
        ).confidence_interval
        width = expected.high - expected.low
        ends = [expected.low, expected.high]
        assert found[column].tolist() == pytest.approx(ends, abs=0.1 * width)
    same = mean_ratio_interval(2 * below, below)
    assert same.flatten().tolist() == pytest.approx([2] * 4)
    rare = torch.tensor([[0.0], [0.0], [1.0]])
    assert mean_ratio_interval(torch.ones(3, 1), rare)[0, 1] == torch.inf
    assert mean_ratio_interval(above[:1], below[:1]).isnan().all()


def test_intervals_repeat_themselves():
    values = torch.rand(5, 3).double()
    assert torch.equal(mean_interval(values), mean_interval(values))


def test_an_interval_does_not_depend_on_the_rows_beside_it():
    counts = [torch.tensor([[90], [55]]), torch.tensor([[900], [900]])]
    counts += [torch.tensor([80, 70]), torch.tensor([100, 100])]
    alone = ratio_interval(*(part[1:] for part in counts))
    assert torch.equal(ratio_interval(*counts)[1:], alone)


def test_the_interval_of_a_share_is_binomial():
    (low, high), none = share_interval(torch.tensor([50, 0]), torch.tensor(100)).tolist()
    assert (low, high) == pytest.approx((0.4, 0.6), abs=0.011)  # 50 +- 1.96 * 5
    assert none == [0, 0]
