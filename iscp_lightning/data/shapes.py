"""Small pictures of ten shapes filled with ten textures, drawn on demand.

Every class has a texture of its own, and how faithfully the pictures keep to it is adjustable, so
one can tell whether a classifier looks at the outline, at the surface, or at both. The drawing is
plain vectorised numpy, and all randomness comes from one seed.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, NamedTuple, TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

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


_SHAPES: dict[str, Field] = {
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
SHAPES: tuple[str, ...] = tuple(_SHAPES)

# Textures blend two colours: up to 0 is the first, from 1 on the second. Lengths are in periods.


def _stripes(t: Array) -> Array:
    """Stripes of period 1 with edges soft enough for a handful of pixels per period."""
    return 0.5 + np.sin(2 * math.pi * t)


_TEXTURES: dict[str, Field] = {
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
TEXTURES: tuple[str, ...] = tuple(_TEXTURES)  # every shape's own one stands at the shape's index


class DrawnShapes(NamedTuple):
    """Pictures with the two facts that describe each of them.

    Attributes:
        images: RGB pictures, uint8 of shape (N, 3, size, size).
        labels: Index into `SHAPES`, int64 of shape (N,).
        textures: Index into `TEXTURES`, int64 of shape (N,).
    """

    images: Tensor
    labels: Tensor
    textures: Tensor


def draw_shapes(
    count: int,
    *,
    size: int = 32,
    seed: int = 0,
    texture_correlation: float = 0.8,
    cue_conflict: bool = False,
) -> DrawnShapes:
    """Draw textured shapes at random places, scales, small rotations and colours.

    The same arguments always give the same bytes, and no global random state is touched.
    `texture_correlation` and `cue_conflict` change the textures alone: with equal `count`, `size`
    and `seed`, picture `i` keeps its shape, place, colours and background.

    Args:
        count: How many pictures, at least 1. Class sizes differ by at most one.
        size: Side of the square pictures in pixels, at least 8.
        seed: Non-negative seed of everything random.
        texture_correlation: Probability, 0 to 1, that a picture has its class's own texture
            (`TEXTURES[label]`); otherwise it has any of the others, all equally likely. At 0.1,
            with ten textures, the texture says nothing about the class.
        cue_conflict: Never use the class's own texture, whatever `texture_correlation` says.

    Returns:
        Pictures (uint8, shape (count, 3, size, size), values 0 to 255), labels and textures (int64,
        shape (count,)), in random order.

    Raises:
        ValueError: If `count`, `size`, `seed` or `texture_correlation` is out of range.

    Example:
        >>> drawn = draw_shapes(20, seed=1)
        >>> drawn.images.shape, drawn.images.dtype
        (torch.Size([20, 3, 32, 32]), torch.uint8)
        >>> drawn.labels.bincount().tolist()
        [2, 2, 2, 2, 2, 2, 2, 2, 2, 2]
        >>> conflicting = draw_shapes(20, seed=1, cue_conflict=True)
        >>> bool((conflicting.textures == conflicting.labels).any())
        False
    """
    drawn, _ = _draw(count, size, seed, texture_correlation, cue_conflict)
    return drawn


def shape_masks(count: int, *, size: int = 32, seed: int = 0) -> Tensor:
    """Return where the shapes are that `draw_shapes` draws, bool (count, size, size).

    A pixel belongs to the shape that covers half of it or more. Textures have no say in it.

    Args:
        count: How many pictures, as for `draw_shapes`; likewise the others.
        size: Side of the square pictures in pixels.
        seed: Seed of everything random.

    Raises:
        ValueError: If `count`, `size` or `seed` is out of range.
    """
    return _draw(count, size, seed, 1.0, False)[1]


def draw_textures(count: int, *, size: int = 32, seed: int = 0) -> Tensor:
    """Draw pictures of nothing but a texture, each in two colours; uint8 (count, 3, size, size).

    All textures but the plain one occur equally often, to within one, at random scales and places.
    The same arguments always give the same bytes.

    Args:
        count: How many pictures, at least 1.
        size: Side of the square pictures in pixels, at least 8.
        seed: Non-negative seed of everything random.

    Raises:
        ValueError: If a number is out of range.
    """
    _check_numbers(count, size, seed)
    rng = np.random.default_rng(seed)
    textures = 1 + rng.permutation(np.arange(count) % (len(TEXTURES) - 1))
    pixel = np.arange(size, dtype=np.float32) - (size - 1) / 2
    images = np.empty((count, 3, size, size), np.uint8)
    step = max(1, 2**18 // size**2)  # bounds the memory of the float arrays
    for start in range(0, count, step):
        kinds = textures[start : start + step]
        n = len(kinds)
        # periods that the pixel grid can show
        period = np.maximum(size * rng.uniform(0.12, 0.3, (n, 1, 1)), 4).astype(np.float32)
        centre = (size * rng.uniform(-0.5, 0.5, (2, n, 1, 1))).astype(np.float32)
        u, v = (pixel - centre[0]) / period, (centre[1] - pixel[:, None]) / period
        u, v = np.broadcast_arrays(u, v)
        blend = np.clip(_by_group(kinds, _TEXTURES, u, v), 0, 1)[:, None]
        colours = rng.uniform(0, 1, (n, 16, 3, 3)).astype(np.float32)
        _, first, second = _contrasting_colours(colours)
        images[start : start + step] = np.rint(255 * (first + blend * (second - first)))
    return torch.from_numpy(images)


def _check_numbers(count: int, size: int, seed: int) -> None:
    for name, value, lowest in (("count", count, 1), ("size", size, 8), ("seed", seed, 0)):
        if value < lowest:
            raise ValueError(f"`{name}` is {value}; it must be at least {lowest}.")


def _draw(
    count: int, size: int, seed: int, texture_correlation: float, cue_conflict: bool
) -> tuple[DrawnShapes, Tensor]:
    _check_numbers(count, size, seed)
    if not 0 <= texture_correlation <= 1:
        raise ValueError(
            f"`texture_correlation` is {texture_correlation}; it must be between 0 and 1."
        )
    rng = np.random.default_rng(seed)
    labels = rng.permutation(np.arange(count) % len(SHAPES))
    # Both are drawn in any case, so that the rest of the random stream stays the same.
    own = rng.random(count) < texture_correlation
    other = (labels + rng.integers(1, len(TEXTURES), count)) % len(TEXTURES)
    textures = np.where(own & (not cue_conflict), labels, other)

    images = np.empty((count, 3, size, size), np.uint8)
    objects = np.empty((count, size, size), bool)
    step = max(1, 2**18 // size**2)  # bounds the memory of the float arrays
    for start in range(0, count, step):
        part = slice(start, start + step)
        painted, cover = _paint(rng, labels[part], textures[part], size)
        images[part], objects[part] = np.rint(255 * painted), cover >= 0.5
    drawn = DrawnShapes(*map(torch.from_numpy, (images, labels, textures)))
    return drawn, torch.from_numpy(objects)


def _paint(
    rng: np.random.Generator, labels: NDArray[np.int64], textures: NDArray[np.int64], size: int
) -> tuple[Array, Array]:
    """Paint one picture per label, (n, 3, size, size), and say how much of a pixel the shape has.

    Both have values 0 to 1; the latter has the shape (n, size, size).
    """
    n = len(labels)

    def uniform(low: float, high: float, *shape: int) -> Array:
        return rng.uniform(low, high, shape).astype(np.float32)

    radius = size / 2 * uniform(0.55, 0.87, n, 1, 1)
    centre_x, centre_y = uniform(-1, 1, 2, n, 1, 1) * (size / 2 - 0.5 - radius)
    angle = np.radians(uniform(-15, 15, n, 1, 1))
    pixel = np.arange(size, dtype=np.float32) - (size - 1) / 2
    dx, dy = pixel - centre_x, centre_y - pixel[:, None]
    x = (np.cos(angle) * dx + np.sin(angle) * dy) / radius
    y = (np.cos(angle) * dy - np.sin(angle) * dx) / radius
    distance = _by_group(labels, _SHAPES, x, y)
    cover = np.clip(0.5 - radius * distance, 0, 1)[:, None]

    # Two periods per radius, but never finer than the pixel grid can show.
    periods = radius / np.maximum(radius / 2, 4)
    shift_u, shift_v = uniform(-0.5, 0.5, 2, n, 1, 1)
    blend = _by_group(textures, _TEXTURES, periods * x + shift_u, periods * y + shift_v)
    blend = np.clip(blend, 0, 1)[:, None]

    backdrop, first, second = _contrasting_colours(uniform(0, 1, n, 16, 3, 3))
    slope_x, slope_y = uniform(-0.08, 0.08, 2, n, 3, 1, 1)
    image: Array = rng.standard_normal((n, 3, size, size), dtype=np.float32) * 0.05
    image += backdrop + (slope_x * pixel + slope_y * pixel[:, None]) * (2 / size)
    image += cover * (first + blend * (second - first) - image)
    return image.clip(0, 1), cover[:, 0]


def _by_group(kinds: NDArray[np.int64], fields: dict[str, Field], x: Array, y: Array) -> Array:
    """Evaluate field number `kinds[i]` on the coordinates of picture i, kind by kind."""
    values = np.empty_like(x)
    for kind, field in enumerate(fields.values()):
        chosen = kinds == kind
        values[chosen] = field(x[chosen], y[chosen])
    return values


def _contrasting_colours(candidates: Array) -> Array:
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
