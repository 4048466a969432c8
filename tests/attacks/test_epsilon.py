"""Tests of distances written as fractions."""

import pickle

import pytest

from iscp_lightning.attacks import Epsilon


@pytest.mark.parametrize(
    ("given", "value"), [("8/255", 8 / 255), ("0.5", 0.5), (0.25, 0.25), ("0", 0.0), ("1e-2", 0.01)]
)
def test_numbers_and_fractions_are_read(given, value):
    assert Epsilon(given) == value
    assert repr(Epsilon(given)) == str(given)


@pytest.mark.parametrize("given", ["8/0", "eight", "-8/255", "nan", "inf", "__import__('os')", ""])
def test_everything_else_is_refused(given):
    with pytest.raises(ValueError, match=r"not a number|negative"):
        Epsilon(given)


def test_it_survives_a_copy_with_its_text():
    assert repr(pickle.loads(pickle.dumps(Epsilon("8/255")))) == "8/255"
