"""Tests of distances written as fractions."""

import pickle
from decimal import Decimal
from fractions import Fraction

import numpy as np
import pytest
import torch

from iscp_lightning.attacks import PGD, Epsilon


@pytest.mark.parametrize(
    ("given", "value"),
    [("8/255", 8 / 255), ("0.5/255", 0.5 / 255), ("0.5", 0.5), (0.25, 0.25), ("1e-2", 0.01)],
)
def test_numbers_and_fractions_are_read(given, value):
    assert Epsilon(given) == value
    assert repr(Epsilon(given)) == str(given)


@pytest.mark.parametrize(
    ("given", "value", "text"),
    [
        (1, 1.0, "1"),
        (Fraction(8, 255), 8 / 255, "8/255"),
        (Decimal("0.25"), 0.25, "0.25"),
        (Epsilon("8/255"), 8 / 255, "8/255"),
        (np.float32(0.25), 0.25, "0.25"),
        (np.float64(0.25), 0.25, "0.25"),
        (np.float16(0.25), 0.25, "0.25"),
        (np.longdouble(0.25), 0.25, "0.25"),
        (np.int64(1), 1.0, "1"),
        (np.array(0.25), 0.25, "0.25"),
        (torch.tensor(0.25), 0.25, "0.25"),
        (torch.tensor(1), 1.0, "1"),
    ],
)
def test_every_real_number_is_read(given, value, text):
    assert Epsilon(given) == value
    assert repr(Epsilon(given)) == text  # which can be read back
    assert PGD(given).epsilon == value


TRUTH = [True, np.True_, torch.tensor(True)]
NOT_FINITE = [np.nan, np.float32("inf"), torch.tensor(float("nan"))]


@pytest.mark.parametrize(
    "given", [*TRUTH, *NOT_FINITE, 1j, None, [0.25], torch.zeros(2), np.zeros(2)]
)
def test_what_is_no_real_number_is_refused(given):
    with pytest.raises(ValueError, match="is not a number"):
        Epsilon(given)


@pytest.mark.parametrize(
    "given",
    ["8/0", "8/", "8/2/255", "-8/-255", "eight", "-8/255", "nan", "inf", "__import__('os')", ""],
)
def test_everything_else_is_refused(given):
    with pytest.raises(ValueError, match=r"not a number|negative"):
        Epsilon(given)


def test_it_survives_a_copy_with_its_text():
    assert repr(pickle.loads(pickle.dumps(Epsilon("8/255")))) == "8/255"
