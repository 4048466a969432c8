"""What the embedded data set draws with: outlines, textures and colours, as functions of a place.

Everything is plain vectorised numpy in float32, without any randomness.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

Array: TypeAlias = NDArray[Any]  # float32 throughout; numpy's annotations lose track of it
Field: TypeAlias = Callable[[Array, Array], Array]

# Shapes are signed distances (negative inside, y up) and stay within the unit disc.


def _disc(x: Array, y: Array) -> Array:
    return np.hypot(x, y) - 1


def _box(x: Array, y: Array, half_width: float, half_height: float) -> Array:
    return np.maximum(np.abs(x) - half_width, np.abs(y) - half_height)


def _star(x: Array, y: Array, tips: int, waist: float) -> Array:
    """Star whose edges run from tips at radius 1 to notches at radius `waist`, one tip up."""
    half = math.pi / tips
    # All edges are mirror images of one: fold the plane onto the half-sector that holds it.
    angle = np.abs(np.mod(np.arctan2(x, y) + half, 2 * half) - half)
    radius = np.hypot(x, y)
    along, across = radius * np.cos(angle), radius * np.sin(angle)
    rise, run = waist * math.sin(half), 1 - waist * math.cos(half)
    return (rise * (along - 1) + run * across) / math.hypot(rise, run)


def _arrow(x: Array, y: Array) -> Array:
    head = np.maximum(-x, (x + np.abs(y) - 1) / math.sqrt(2))
    shaft = _box(x + 0.4, y, 0.5, 0.3)
    return np.minimum(head, shaft)


def _heart(x: Array, y: Array) -> Array:
    """Square standing on its corner, with half a disc on each of its upper sides."""
    x, y = np.abs(x), y + 0.2
    square = (x + np.abs(y)) / math.sqrt(2) - 0.56
    discs = np.hypot(x - 0.396, y - 0.396) - 0.56
    return np.minimum(square, discs)


OUTLINES: dict[str, Field] = {
    "circle": _disc,
    "square": lambda x, y: _box(x, y, 0.7, 0.7),
    "triangle": lambda x, y: _star(x, y, tips=3, waist=0.5),
    "star": lambda x, y: _star(x, y, tips=5, waist=0.42),
    "cross": lambda x, y: np.minimum(_box(x, y, 0.93, 0.33), _box(x, y, 0.33, 0.93)),
    "ring": lambda x, y: np.abs(np.hypot(x, y) - 0.75) - 0.25,
    "crescent": lambda x, y: np.maximum(_disc(x, y), 0.8 - np.hypot(x - 0.5, y)),
    # Slightly slim, because a small regular hexagon is hard to tell from a circle.
    "hexagon": lambda x, y: _star(x / 0.85, y, tips=6, waist=0.866),
    "arrow": _arrow,
    "heart": _heart,
}
SHAPES: tuple[str, ...] = tuple(OUTLINES)

# Textures blend two colours: up to 0 is the first, from 1 on the second. Lengths are in periods.


def _stripes(t: Array) -> Array:
    """Stripes of period 1 with edges soft enough for a handful of pixels per period."""
    return 0.5 + np.sin(2 * math.pi * t)


FILLS: dict[str, Field] = {
    "plain": lambda u, v: np.zeros_like(u),
    "horizontal stripes": lambda u, v: _stripes(v),
    "vertical stripes": lambda u, v: _stripes(u),
    "diagonal stripes": lambda u, v: _stripes((u + v) / math.sqrt(2)),
    "zigzag": lambda u, v: _stripes(0.8 * v + 1.2 * np.abs(np.mod(0.6 * u, 1) - 0.5)),
    "checks": lambda u, v: 0.5 + 2 * np.sin(1.2 * math.pi * u) * np.sin(1.2 * math.pi * v),
    "dots": lambda u, v: np.cos(1.5 * math.pi * u) + np.cos(1.5 * math.pi * v) - 0.4,
    "ripples": lambda u, v: _stripes(np.hypot(u, v)),
    "rays": lambda u, v: 0.5 + 2 * np.sin(5 * np.arctan2(v, u)),
    "gradient": lambda u, v: 0.5 + u / 3,
}
TEXTURES: tuple[str, ...] = tuple(FILLS)  # every shape's own one stands at the shape's index


def by_group(kinds: NDArray[np.int64], fields: dict[str, Field], x: Array, y: Array) -> Array:
    """Evaluate field number `kinds[i]` on the coordinates of picture i, kind by kind."""
    values = np.empty_like(x)
    for kind, field in enumerate(fields.values()):
        chosen = kinds == kind
        values[chosen] = field(x[chosen], y[chosen])
    return values


def contrasting_colours(candidates: Array) -> Array:
    """Choose the best of k colour triples (n, k, 3, 3); shape (3, n, 3, 1, 1).

    The best triple has the second and third colour far from each other, and the first one far from
    all of their mixtures, so that no texture ever melts into the background.
    """
    backdrop, first, second = np.moveaxis(candidates, 2, 0)
    span, offset = second - first, backdrop - first
    nearest = np.clip((offset * span).sum(-1) / (span * span).sum(-1), 0, 1)[..., None]
    to_mixture = np.linalg.norm(offset - nearest * span, axis=-1)
    contrast = np.minimum(to_mixture, np.linalg.norm(span, axis=-1))
    best: Array = candidates[np.arange(len(candidates)), contrast.argmax(1)]
    return best.swapaxes(0, 1)[..., None, None]
