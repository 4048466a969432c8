"""Linear regression: how much of some values others explain, with an interval over the cases."""

from __future__ import annotations

import torch
from torch import Tensor

from iscp_lightning.metrics.intervals import DRAWS, LEVELS
from iscp_lightning.seeds import named_generator

FOLDS = 5
PENALTY = 0.01  # as a share of the variance of a standardised input, which is 1
SMALLEST = 1e-6  # standard deviation of an input that says nothing


def predicted_by_ridge(inputs: Tensor, values: Tensor) -> Tensor:
    """Return what ridge regression predicts for cases that it was not fitted to, float64 (N, C).

    Of `FOLDS` parts, each a case and every fifth after it, each is predicted from the others. The
    inputs are standardised and the values centred by the statistics of those others.

    Args:
        inputs: (N, D).
        values: (N, C).

    Raises:
        ValueError: if there are fewer than 3 cases.
    """
    if len(inputs) < 3:
        raise ValueError(f"`inputs` must be of 3 cases or more, got {len(inputs)}")
    inputs, values = inputs.double(), values.double()
    predicted = torch.empty_like(values)
    fold = torch.arange(len(inputs)) % FOLDS
    for part in fold.unique():
        rest = fold != part
        deviation = inputs[rest].std(0)
        scale = torch.where(deviation > SMALLEST, deviation, 1)
        standard = (inputs - inputs[rest].mean(0)) / scale
        known, mean = standard[rest], values[rest].mean(0)
        covariance = known.T @ known / len(known) + PENALTY * torch.eye(known.shape[1]).double()
        weights = torch.linalg.solve(covariance, known.T @ (values[rest] - mean) / len(known))
        predicted[~rest] = standard[~rest] @ weights + mean
    return predicted


def predicted_by_lines(inputs: Tensor, values: Tensor) -> Tensor:
    """Return the least-squares line of each column of values on the same of inputs, float64 (N, C).

    What it explains of a column is its squared correlation with the input.

    Args:
        inputs: (N, C); a column that is constant predicts the mean.
        values: (N, C).
    """
    inputs, values = inputs.double(), values.double()
    centred, mean = inputs - inputs.mean(0), values.mean(0)
    power = centred.square().sum(0)
    slope = (centred * (values - mean)).sum(0) / torch.where(power > 0, power, 1)
    return slope * centred + mean


def explained(values: Tensor, predicted: Tensor) -> tuple[float, tuple[float, float] | None]:
    """Return the share of variance that predictions explain, R^2, and its 95 % interval.

    Columns are pooled: errors and variances are summed over them. 1 is all; what predicts worse
    than the mean is below 0. The cases are drawn anew 2000 times; the predictions stay.

    Args:
        values: (N, C).
        predicted: (N, C).

    Returns:
        NaN and None where the values do not vary.
    """
    values = values.double()
    errors = (values - predicted).square().sum(1)
    spreads = (values - values.mean(0)).square().sum(1)
    if not spreads.any():
        return float("nan"), None
    generator = named_generator(0, "intervals of explained variance")
    drawn = torch.randint(len(errors), (DRAWS, len(errors)), generator=generator)
    shares = 1 - errors[drawn].sum(1) / spreads[drawn].sum(1)
    low, high = shares.quantile(torch.tensor(LEVELS).double(), interpolation="nearest").tolist()
    return float(1 - errors.sum() / spreads.sum()), (low, high)
