"""Distances in pixel units of [0, 1] that may be written as fractions, as papers do: 8/255."""

from __future__ import annotations

import math
from fractions import Fraction
from numbers import Rational
from typing import SupportsFloat

from jsonargparse.typing import register_type


class Epsilon(float):
    """A float of at least 0 that remembers how it was written.

    Args:
        value: A real number of Python, numpy or torch, or text such as `8/255`, `0.5/255` or
            `0.03`, which is parsed, never evaluated.

    Raises:
        ValueError: if the text is no number or fraction, or the value is negative or not finite.

    Example:
        >>> Epsilon("8/255")
        8/255
        >>> Epsilon("8/255") * 255
        8.0
    """

    text: str

    def __new__(cls, value: SupportsFloat | str) -> Epsilon:
        """Return the number that `value` writes."""
        try:
            plain = value.item() if hasattr(value, "item") else value  # of numpy or torch
            number = float(_fraction(plain) if isinstance(plain, str) else plain)
        except (ArithmeticError, RuntimeError, TypeError, ValueError):
            plain = number = math.nan
        if isinstance(plain, bool) or not math.isfinite(number):
            raise ValueError(f"{value!r} is not a number or a fraction such as 8/255")
        if number < 0:
            raise ValueError(f"{value} is negative; distances are 0 or more")
        made = super().__new__(cls, number)
        made.text = str(plain) if isinstance(plain, str | Rational | Epsilon) else repr(number)
        return made

    def __repr__(self) -> str:
        return self.text


def _fraction(text: str) -> Fraction:
    numerator, denominator = text.split("/") if "/" in text else (text, "1")
    if "-" in denominator:
        raise ValueError(text)
    return Fraction(numerator) / Fraction(denominator)


register_type(Epsilon, repr, Epsilon)
