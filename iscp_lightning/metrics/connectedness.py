"""How connected sets of pixels are, and what chance alone would give."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, NamedTuple

import torch
import torch.nn.functional as F
from scipy.ndimage import label
from torch import Generator, Tensor

Neighbours = Literal[4, 8]  # pixels that share a side; or a side or a corner
KERNELS = {
    4: torch.tensor([[0, 1, 0], [1, 0, 1], [0, 1, 0]]),
    8: torch.tensor([[1, 1, 1], [1, 0, 1], [1, 1, 1]]),
}
DRAWS = 100


class Components(NamedTuple):
    """The connected components of P sets of pixels.

    Attributes:
        number: (P,) float64, how many.
        largest: (P,) float64, share of the set's pixels in the largest one; NaN of an empty set.
    """

    number: Tensor
    largest: Tensor


def connectedness(selected: Tensor, neighbours: Neighbours = 8) -> Tensor:
    """Return the mean share of a selected pixel's neighbours that are selected too, (P,) float64.

    Neighbours outside the image do not count. A set without pixels has NaN.

    Args:
        selected: bool (P, H, W).
        neighbours: 4 or 8.

    Raises:
        ValueError: if `neighbours` is another number.

    Example:
        >>> checkerboard = (torch.arange(4) + torch.arange(4)[:, None]) % 2 == 0
        >>> connectedness(checkerboard[None], 4).item()
        0.0
    """
    kernel = _kernel(neighbours).to(selected.device).float()[None, None]
    there = torch.ones_like(selected[:1]).float()
    around, possible = (
        F.conv2d(pixels.unsqueeze(1), kernel, padding=1).squeeze(1)
        for pixels in (selected.float(), there)
    )
    shares = torch.where(selected, around / possible, 0)
    return shares.sum((1, 2), dtype=torch.float64) / selected.sum((1, 2))


def chance_connectedness(count: int, shape: Sequence[int]) -> float:
    """Return the expected `connectedness` of n random pixels: (n - 1) / (H * W - 1), exactly.

    Args:
        count: n.
        shape: (H, W).
    """
    height, width = shape
    return (count - 1) / (height * width - 1)


def components(selected: Tensor, neighbours: Neighbours = 8) -> Components:
    """Return number and largest share of the connected components.

    Args:
        selected: bool (P, H, W).
        neighbours: 4 or 8.

    Raises:
        ValueError: if `neighbours` is another number.
    """
    structure = _kernel(neighbours).numpy().copy()
    structure[1, 1] = 1
    number, largest = [], []
    for pixels in selected.cpu().numpy():
        labels, found = label(pixels, structure)
        sizes = torch.from_numpy(labels[pixels]).long().bincount()
        number.append(float(found))
        largest.append(float(sizes.max() / sizes.sum()) if found else torch.nan)
    return Components(*(torch.tensor(values, dtype=torch.float64) for values in (number, largest)))


def chance_components(
    count: int, shape: Sequence[int], generator: Generator, neighbours: Neighbours = 8
) -> Components:
    """Return the mean of `components` over 100 sets of n random pixels, each of shape ().

    Args:
        count: n.
        shape: (H, W).
        generator: Draws the pixels, on the CPU.
        neighbours: 4 or 8.
    """
    height, width = shape
    order = torch.rand(DRAWS, height * width, generator=generator).argsort(1)
    drawn = torch.zeros(DRAWS, height * width, dtype=torch.bool).scatter_(1, order[:, :count], True)
    found = components(drawn.view(DRAWS, height, width), neighbours)
    return Components(found.number.mean(), found.largest.mean())


def _kernel(neighbours: int) -> Tensor:
    if neighbours not in KERNELS:
        raise ValueError(f"`neighbours` must be 4 or 8, got {neighbours}")
    return KERNELS[neighbours]
