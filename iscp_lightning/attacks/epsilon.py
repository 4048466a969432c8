"""Distances in pixel units of [0, 1] that may be written as fractions, as papers do: 8/255."""

from __future__ import annotations

from fractions import Fraction

from jsonargparse.typing import register_type


class Epsilon(float):
    """A float of at least 0 that remembers how it was written.

    Args:
        value: A number, or text such as `8/255` or `0.03`; parsed, never evaluated.

    Raises:
        ValueError: if the text is no number or fraction, or the value is negative or not finite.

    Example:
        >>> Epsilon("8/255")
        8/255
        >>> Epsilon("8/255") * 255
        8.0
    """

    text: str

    def __new__(cls, value: float | str) -> Epsilon:
        """Return the number that `value` writes."""
        try:
            number = float(Fraction(value))
        except (ValueError, ZeroDivisionError, OverflowError) as error:
            raise ValueError(f"{value!r} is not a number or a fraction such as 8/255") from error
        if number < 0:
            raise ValueError(f"{value} is negative; distances are 0 or more")
        made = super().__new__(cls, number)
        made.text = value if isinstance(value, str) else repr(value)
        return made

    def __repr__(self) -> str:
        return self.text


register_type(Epsilon, repr, Epsilon)
