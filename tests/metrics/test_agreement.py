"""Statistics of answers on distorted images, and their bootstrap intervals."""

import math
from collections.abc import Callable

import numpy as np
import pytest
import torch
from scipy import stats
from torch import Tensor

from iscp_lightning.metrics.agreement import (
    accuracy,
    category_decisions,
    cue_share,
    difference_interval,
    error_consistency,
    generalisation,
    interval,
    shape_bias,
)


def flags(text: str) -> Tensor:
    return torch.tensor([letter == "1" for letter in text])


def many(count: int, share: float, seed: int) -> Tensor:
    return torch.rand(count, generator=torch.Generator().manual_seed(seed)) < share


def bootstrapped(statistic: Callable[..., Tensor], *answers: Tensor) -> list[float]:
    """scipy draws the images themselves, one resample at a time."""

    def drawn(*columns: np.ndarray) -> float:
        return float(statistic(*map(torch.from_numpy, columns)))

    found = stats.bootstrap(
        tuple(answer.numpy() for answer in answers), drawn, n_resamples=2000, vectorized=False,
        paired=True, method="percentile", rng=0,
    )  # fmt: skip
    return [found.confidence_interval.low, found.confidence_interval.high]


def test_accuracy_and_generalisation():
    clean, distorted = flags("11110000"), flags("10101100")
    assert accuracy(clean) == 0.5
    assert generalisation(distorted, clean) == 0.5  # 2 of 4; the two others right do not count
    assert generalisation(distorted, flags("0" * 8)).isnan()
    assert accuracy(flags("")).isnan()


def test_shape_bias_leaves_out_images_of_one_class():
    shapes, textures = torch.tensor([0, 0, 0, 1, 1, 2]), torch.tensor([1, 1, 2, 0, 1, 0])
    decisions = torch.tensor([0, 1, 2, 1, 1, 1])
    # shape, texture, texture, shape, left out, neither
    assert shape_bias(decisions, shapes, textures) == 0.5
    assert cue_share(decisions, shapes, textures) == 0.8
    assert shape_bias(torch.full((6,), 3), shapes, textures).isnan()
    assert cue_share(decisions, shapes, shapes).isnan()


def test_error_consistency_by_hand():
    # observed 6/8; accuracies 3/4 and 3/4: expected 5/8
    assert error_consistency(flags("11111100"), flags("11111001")) == pytest.approx(1 / 3)
    assert error_consistency(flags("1100"), flags("1100")) == 1
    assert error_consistency(flags("1100"), flags("0011")) == -1
    assert error_consistency(flags("1100"), flags("1010")) == 0
    assert error_consistency(flags("111"), flags("111")).isnan()
    assert error_consistency(flags("000"), flags("000")).isnan()
    assert error_consistency(flags("111"), flags("110")) == 0


def test_error_consistency_agrees_with_the_closed_form_of_kappa():
    """Of a 2 x 2 table: 2 (ad - bc) / ((a + b)(b + d) + (a + c)(c + d))."""
    first, second = many(500, 0.7, 0), many(500, 0.4, 1) | many(500, 0.2, 2)
    a, d = int((first & second).sum()), int((~first & ~second).sum())
    b, c = int((first & ~second).sum()), int((~first & second).sum())
    expected = 2 * (a * d - b * c) / ((a + b) * (b + d) + (a + c) * (c + d))
    assert error_consistency(first, second).item() == pytest.approx(expected)


def test_counts_weigh_images():
    clean, distorted, counts = flags("1101"), flags("1011"), torch.tensor([3.0, 0, 2, 1]).double()
    repeated = counts.long()
    for statistic in (generalisation, error_consistency):
        answers = (distorted.repeat_interleave(repeated), clean.repeat_interleave(repeated))
        assert statistic(distorted, clean, counts=counts) == statistic(*answers)
    assert accuracy(clean, torch.stack([counts, 2 * counts])).tolist() == pytest.approx([4 / 6] * 2)


def test_the_interval_of_an_accuracy_is_binomial():
    found = interval(accuracy, torch.arange(1000) < 300)
    expected = stats.binom.ppf([0.025, 0.975], 1000, 0.3) / 1000
    assert found.tolist() == pytest.approx(expected, abs=0.004)


@pytest.mark.parametrize("statistic", [generalisation, error_consistency])
def test_intervals_of_two_answers_agree_with_scipy(statistic: Callable[..., Tensor]):
    clean = many(300, 0.8, 0)
    distorted = (clean & many(300, 0.6, 1)) | many(300, 0.1, 2)
    found = interval(statistic, distorted, clean).tolist()
    assert found == pytest.approx(bootstrapped(statistic, distorted, clean), abs=0.015)


@pytest.mark.parametrize("statistic", [shape_bias, cue_share])
def test_intervals_of_decisions_agree_with_scipy(statistic: Callable[..., Tensor]):
    shapes = torch.arange(300) % 5
    textures = torch.arange(300) // 5 % 5
    decisions = torch.where(many(300, 0.5, 3), shapes, torch.arange(300) // 7 % 5)
    found = interval(statistic, decisions, shapes, textures).tolist()
    expected = bootstrapped(statistic, decisions, shapes, textures)
    assert found == pytest.approx(expected, abs=0.015)


def test_a_difference_is_paired():
    first = many(400, 0.7, 0)
    second = first & many(400, 0.9, 1)
    found = difference_interval(accuracy, [first], [second]).tolist()

    def difference(one: Tensor, other: Tensor) -> Tensor:
        return accuracy(one) - accuracy(other)

    assert found == pytest.approx(bootstrapped(difference, first, second), abs=0.01)
    # where only 1 image in 15 differs, the pairs are far closer than two sets would be
    low, high = interval(accuracy, first).tolist()
    assert found[1] - found[0] < 0.7 * (high - low)
    assert difference_interval(accuracy, [first], [first]).tolist() == [0, 0]


def test_a_difference_of_several_answers_keeps_them_apart():
    clean, distorted, other = (many(200, share, seed) for seed, share in enumerate((0.9, 0.5, 0.8)))
    found = difference_interval(generalisation, [distorted, clean], [other, clean])
    swapped = difference_interval(generalisation, [other, clean], [distorted, clean])
    value = generalisation(distorted, clean) - generalisation(other, clean)
    assert found[0] < value < found[1] < 0
    assert (-swapped.flip(0)).tolist() == pytest.approx(found.tolist(), abs=0.02)


def test_intervals_without_spread_or_images():
    assert interval(accuracy, flags("111")).tolist() == [1, 1]
    assert interval(accuracy, flags("")).isnan().all()
    assert interval(generalisation, flags("11"), flags("00")).isnan().all()
    assert interval(error_consistency, flags("11"), flags("11")).isnan().all()


def test_draws_without_a_value_are_left_out():
    """With one image right on clean of two, a quarter of the draws have none."""
    assert interval(generalisation, flags("10"), flags("10")).tolist() == [1, 1]


def test_a_statistic_gets_answers_of_the_type_they_had():
    right = torch.arange(50) < 10
    found = interval(lambda given, counts: accuracy(~given, counts), right)
    assert found.tolist() == pytest.approx(
        (1 - interval(accuracy, right).flip(0)).tolist(), abs=0.03
    )


def test_intervals_repeat_themselves():
    right = many(100, 0.5, 0)
    torch.manual_seed(0)
    state = torch.get_rng_state()
    assert torch.equal(interval(accuracy, right), interval(accuracy, right))
    assert torch.equal(torch.get_rng_state(), state)


def test_answers_for_other_numbers_of_images():
    with pytest.raises(ValueError, match=r"`answers` must all be \(N,\).*\[\(2,\), \(3,\)\]"):
        interval(generalisation, flags("11"), flags("111"))
    with pytest.raises(ValueError, match=r"`answers` must all be \(N,\)"):
        interval(accuracy, torch.ones(2, 2, dtype=torch.bool))


def test_a_category_has_the_mean_probability_of_its_classes():
    logits = torch.tensor([[0.5, 0.1, 0.1, 0.25, 0.05], [0.1, 0.1, 0.1, 0.1, 0.6]]).log()
    # (0.5 + 0.1) / 2 against 0.25, and by the sum against (0.1 + 0.25 + 0.05) / 3
    assert category_decisions(logits, [[3], [0, 1]]).tolist() == [1, 0]
    assert category_decisions(logits, [[0, 1, 2], [3]]).tolist() == [1, 0]
    assert category_decisions(logits + 7, [[1], [3, 4]]).tolist() == [1, 1]


def test_a_mean_probability_agrees_with_softmax():
    logits = 3 * torch.randn(200, 30, generator=torch.Generator().manual_seed(0))
    categories = [[0, 3, 5, 7], [1], [2, 29, 28, 27, 26, 25, 24], [4, 6]]
    means = [logits.softmax(1)[:, category].mean(1) for category in categories]
    decided = category_decisions(logits, categories)
    assert torch.equal(decided, torch.stack(means, 1).argmax(1))
    assert len(decided.unique()) == 4
    assert decided.dtype == torch.int64


def test_the_smallest_probabilities_still_decide():
    assert category_decisions(torch.tensor([[5000.0, -10.0, 0.0]]), [[1], [2]]).tolist() == [1]


@pytest.mark.parametrize(
    ("categories", "message"),
    [
        ([[0], []], "category 1 has no class"),
        ([[0], [5]], r"class 5 of category 1 must lie in \[0, 4\], since there are 5 logits"),
        ([[-1]], "class -1 of category 0"),
        ([[0, 1], [2, 1]], "class 1 is listed twice"),
        ([[0, 0]], "class 0 is listed twice"),
        ([], "`categories` is empty"),
    ],
)
def test_categories_that_cannot_be(categories: list[list[int]], message: str):
    with pytest.raises(ValueError, match=message):
        category_decisions(torch.zeros(2, 5), categories)


def test_coverage_of_an_interval():
    """Of 95 % intervals of a share of 0.3 among 200, about 95 % hold it."""
    held = 0
    for seed in range(200):
        low, high = interval(accuracy, many(200, 0.3, seed)).tolist()
        held += low <= 0.3 <= high
    assert held == pytest.approx(190, abs=4 * math.sqrt(200 * 0.95 * 0.05))
