"""Tests of explained variance and of ridge regression, by hand and on noise."""

import math

import numpy as np
import pytest
import torch

from iscp_lightning.inversion.regression import (
    FOLDS,
    PENALTY,
    explained,
    predicted_by_lines,
    predicted_by_ridge,
)


def _normal(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def test_what_is_linear_in_the_inputs_is_predicted():
    inputs = _normal(200, 3) * torch.tensor([1.0, 100.0, 0.01]) + 5
    values = inputs @ torch.tensor([[1.0], [0.02], [30.0]])
    share, (low, high) = explained(values, predicted_by_ridge(inputs, values))
    assert share > 0.999
    assert low <= share <= high


def test_noise_predicts_nothing():
    inputs, values = _normal(300, 5), _normal(300, 2, seed=1)
    share, interval = explained(values, predicted_by_ridge(inputs, values))
    assert -0.1 < share < 0.02
    assert interval[0] < share < interval[1]


def test_a_part_is_predicted_from_the_others_alone():
    inputs, values = _normal(23, 4), _normal(23, 1, seed=1)
    predicted = predicted_by_ridge(inputs, values)
    part = torch.arange(23) % FOLDS == 2
    others = values.clone()
    others[part] = 100.0
    assert torch.equal(predicted_by_ridge(inputs, others)[part], predicted[part])
    x, y = inputs[~part].double().numpy(), values[~part].double().numpy()
    standard = (x - x.mean(0)) / x.std(0, ddof=1)
    stacked = np.vstack([standard, math.sqrt(PENALTY * len(x)) * np.eye(4)])  # as least squares
    weights = np.linalg.lstsq(stacked, np.vstack([y - y.mean(), np.zeros((4, 1))]))[0]
    mine = (inputs[part].double().numpy() - x.mean(0)) / x.std(0, ddof=1) @ weights + y.mean()
    assert predicted[part].numpy() == pytest.approx(mine)


def test_constant_inputs_predict_the_mean_of_the_others():
    values = torch.arange(6.0).unsqueeze(1)
    predicted = predicted_by_ridge(torch.ones(6, 2), values)
    assert predicted[1, 0] == pytest.approx((0 + 2 + 3 + 4 + 5) / 5)
    with pytest.raises(ValueError, match="`inputs` must be of 3 cases or more, got 2"):
        predicted_by_ridge(torch.ones(2, 2), torch.ones(2, 1))


def test_lines_explain_the_squared_correlation():
    inputs, noise = _normal(50, 1), _normal(50, 1, seed=1)
    values = 3 * inputs + 2 * noise
    expected = np.corrcoef(inputs[:, 0], values[:, 0])[0, 1] ** 2
    assert explained(values, predicted_by_lines(inputs, values))[0] == pytest.approx(expected)
    flat = predicted_by_lines(torch.ones(50, 1), values)
    assert explained(values, flat)[0] == pytest.approx(0)


def test_columns_are_pooled_and_intervals_are_over_cases():
    values = torch.tensor([[0.0, 0.0], [2.0, 0.0], [0.0, 4.0], [2.0, 4.0]])
    predicted = values.clone()
    predicted[:, 0] = 1  # its mean: 4 of 4 + 16 are left
    share, (low, high) = explained(values, predicted)
    assert share == pytest.approx(0.8)
    assert (low, high) == pytest.approx((0.8, 0.8))  # every case errs by 1 of 5
    predicted[0, 1] = 2
    share, (low, high) = explained(values, predicted)
    assert share == pytest.approx(0.6)
    assert low == pytest.approx(0.2)  # thrice the first case, which errs by 1 + 4 of 5
    assert high == pytest.approx(0.8)


def test_what_does_not_vary_has_no_share():
    share, interval = explained(torch.ones(4, 2), torch.zeros(4, 2))
    assert math.isnan(share)
    assert interval is None
