"""What is seen of the factors of drawn images: place, size, rotation and colours of the object."""

from __future__ import annotations

import math
from functools import cache

import torch
from torch import Tensor

from iscp_lightning.data.drawing import OUTLINES, SHAPES

THRESHOLD = 0.3  # Euclidean distance in RGB from the border's colour, beyond its noise and slope
ORDERS = {  # of the angular moment that tells how a shape is turned; the first one is zero
    **{"triangle": 3, "crescent": 3, "arrow": 3, "heart": 3},
    **{"square": 4, "cross": 4, "star": 5, "hexagon": 6},
}


def estimates(images: Tensor, shapes: Tensor) -> dict[str, Tensor]:
    """Return what is seen of the factors of images with one object before an even background.

    The object is where the colour is far from the background's, which is the median of the border
    (`background`, (N, 3)); `x` and `y` are the centre of its pixels, (N, 1), as in `ShapeFactors`,
    and the middle of the image where there are none; `radius` is the root of their number, (N, 1),
    `color` their mean colour, (N, 3), the background's where there are none. `rotation`, (N, 1), is
    how far the moment sum r e^(i k a) of the pixels at distance r and angle a from the centre is
    turned from that of the shape as it is, in radians from -pi / k to pi / k, beyond which it
    starts anew; k is the shape's of `ORDERS`. It is 0 where there are none, NaN of circles and
    rings.

    Args:
        images: float (N, 3, H, W) in [0, 1], on the CPU.
        shapes: (N,) int64, indices into `SHAPES`.
    """
    objects, background = objects_in(images), background_of(images)
    area = objects.sum((1, 2))
    found = {"background": background, "radius": area.sqrt().unsqueeze(1)}
    found["x"], found["y"] = centres(objects)
    colour = (images * objects.unsqueeze(1)).sum((2, 3)) / area.clamp(min=1).unsqueeze(1)
    found["color"] = torch.where(area.unsqueeze(1) > 0, colour, background)
    orders, upright = _orders_and_moments()
    turned = moments(objects, found["x"], found["y"], orders[shapes]) * upright[shapes].conj()
    angle = torch.where((area > 0) | orders[shapes].isnan(), turned.angle(), 0)
    found["rotation"] = (angle / orders[shapes]).unsqueeze(1)
    return found


def background_of(images: Tensor) -> Tensor:
    """Return the median colour of the border of images (N, 3, H, W), (N, 3)."""
    border = torch.ones(images.shape[2:], dtype=torch.bool)
    border[1:-1, 1:-1] = False
    return images[:, :, border].median(2).values


def objects_in(images: Tensor) -> Tensor:
    """Return where images (N, 3, H, W) are far from their background's colour, bool (N, H, W)."""
    distances: Tensor = (images - background_of(images)[..., None, None]).norm(dim=1)
    return distances > THRESHOLD


def centres(objects: Tensor) -> tuple[Tensor, Tensor]:
    """Return x and y, (N, 1) each, of the centre of each object's pixels, bool (N, H, W)."""
    area, found = objects.sum((1, 2)), []
    for size, other in ((objects.shape[2], 1), (objects.shape[1], 2)):
        sums = (objects.sum(other) * torch.arange(size)).sum(1)
        centre = torch.where(area > 0, sums / area.clamp(min=1), (size - 1) / 2)
        found.append(centre.unsqueeze(1))
    return found[0], found[1]


def moments(objects: Tensor, x: Tensor, y: Tensor, orders: Tensor) -> Tensor:
    """Return sum r e^(i k a) over the pixels of each object, complex (N,).

    Args:
        objects: bool (N, H, W).
        x: (N, 1), centres from the first column to the right.
        y: (N, 1), from the first row down.
        orders: (N,) k; angles are anticlockwise.
    """
    height, width = objects.shape[1:]
    right = (torch.arange(width) - x)[:, None, :]
    up = (y - torch.arange(height))[:, :, None]
    angles = torch.atan2(up, right) * orders[:, None, None]
    return (objects * torch.polar(torch.hypot(right, up), angles)).sum((1, 2))


@cache
def _orders_and_moments(size: int = 64) -> tuple[Tensor, Tensor]:
    """Return k of each shape, NaN without one, and the moments of the shapes as they are."""
    orders = torch.tensor([float(ORDERS.get(name, math.nan)) for name in SHAPES])
    place = torch.arange(size) - (size - 1) / 2
    across, up = place.expand(size, size).numpy(), -place.unsqueeze(1).expand(size, size).numpy()
    half = size / 2
    drawn = torch.stack(
        [torch.from_numpy(field(across / half, up / half)) < 0 for field in OUTLINES.values()]
    )
    return orders, moments(drawn, *centres(drawn), orders)
