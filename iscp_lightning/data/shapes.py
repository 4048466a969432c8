"""Small pictures of ten shapes filled with ten textures, drawn on demand.

Every class has a texture of its own, and how faithfully the pictures keep to it is adjustable, so
one can tell whether a classifier looks at the outline, at the surface, or at both. The drawing is
plain vectorised numpy, and all randomness comes from one seed.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from iscp_lightning.data.drawing import (
    FILLS,
    OUTLINES,
    SHAPES,
    TEXTURES,
    Array,
    by_group,
    contrasting_colours,
)


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


class ShapeFactors(NamedTuple):
    """What each picture is drawn from besides its texture; float32 unless said otherwise.

    Attributes:
        x: Centre of the shape in pixels from the centre of the first column to the right, (N,).
        y: Likewise from the centre of the first row down, (N,).
        radius: Radius in pixels of the disc that the shape fills, (N,).
        rotation: Anticlockwise, in radians, (N,); it moves nothing of a disc or a ring.
        background: RGB in [0, 1], (N, 3): the mean of the surroundings, before the slight slope and
            noise that are laid over them.
        first: RGB of the texture's first colour in [0, 1], (N, 3).
        second: Likewise of its second one, which the texture `plain` does not show.
        shape: Index into `SHAPES`, int64, (N,).
    """

    x: Tensor
    y: Tensor
    radius: Tensor
    rotation: Tensor
    background: Tensor
    first: Tensor
    second: Tensor
    shape: Tensor


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
    return _draw(count, size, seed, texture_correlation, cue_conflict)[0]


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


def shape_factors(count: int, *, size: int = 32, seed: int = 0) -> ShapeFactors:
    """Return place, scale, rotation and colours of what `draw_shapes` draws; textures have no say.

    Args:
        count: How many pictures, as for `draw_shapes`; likewise the others.
        size: Side of the square pictures in pixels.
        seed: Seed of everything random.

    Raises:
        ValueError: If `count`, `size` or `seed` is out of range.
    """
    return _draw(count, size, seed, 1.0, False)[2]


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
        blend = np.clip(by_group(kinds, FILLS, u, v), 0, 1)[:, None]
        colours = rng.uniform(0, 1, (n, 16, 3, 3)).astype(np.float32)
        _, first, second = contrasting_colours(colours)
        images[start : start + step] = np.rint(255 * (first + blend * (second - first)))
    return torch.from_numpy(images)


def _check_numbers(count: int, size: int, seed: int) -> None:
    for name, value, lowest in (("count", count, 1), ("size", size, 8), ("seed", seed, 0)):
        if value < lowest:
            raise ValueError(f"`{name}` is {value}; it must be at least {lowest}.")


def _draw(
    count: int, size: int, seed: int, texture_correlation: float, cue_conflict: bool
) -> tuple[DrawnShapes, Tensor, ShapeFactors]:
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
    factors: list[tuple[Array, ...]] = []
    step = max(1, 2**18 // size**2)  # bounds the memory of the float arrays
    for start in range(0, count, step):
        part = slice(start, start + step)
        painted, cover, drawn_from = _paint(rng, labels[part], textures[part], size)
        images[part], objects[part] = np.rint(255 * painted), cover >= 0.5
        factors.append(drawn_from)
    joined = (torch.from_numpy(np.concatenate(each)) for each in zip(*factors, strict=True))
    drawn = DrawnShapes(*map(torch.from_numpy, (images, labels, textures)))
    return drawn, torch.from_numpy(objects), ShapeFactors._make([*joined, drawn.labels])


def _paint(
    rng: np.random.Generator, labels: NDArray[np.int64], textures: NDArray[np.int64], size: int
) -> tuple[Array, Array, tuple[Array, ...]]:
    """Paint one picture per label, (n, 3, size, size), and say how much of a pixel the shape has.

    Both have values 0 to 1; the latter has the shape (n, size, size). The third are the fields of
    `ShapeFactors`.
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
    distance = by_group(labels, OUTLINES, x, y)
    cover = np.clip(0.5 - radius * distance, 0, 1)[:, None]

    # Two periods per radius, but never finer than the pixel grid can show.
    periods = radius / np.maximum(radius / 2, 4)
    shift_u, shift_v = uniform(-0.5, 0.5, 2, n, 1, 1)
    blend = by_group(textures, FILLS, periods * x + shift_u, periods * y + shift_v)
    blend = np.clip(blend, 0, 1)[:, None]

    colours = contrasting_colours(uniform(0, 1, n, 16, 3, 3))
    backdrop, first, second = colours
    slope_x, slope_y = uniform(-0.08, 0.08, 2, n, 3, 1, 1)
    image: Array = rng.standard_normal((n, 3, size, size), dtype=np.float32) * 0.05
    image += backdrop + (slope_x * pixel + slope_y * pixel[:, None]) * (2 / size)
    image += cover * (first + blend * (second - first) - image)
    numbers = (centre_x + (size - 1) / 2, centre_y + (size - 1) / 2, radius, angle)
    factors = (*(each.reshape(n) for each in numbers), *(each.reshape(n, 3) for each in colours))
    return image.clip(0, 1), cover[:, 0], factors
