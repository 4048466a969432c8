"""Where in an image sets of pixels lie: in its corners, on its edges, on its object.

By chance, the expected share within a region is the region's share of the image, exactly.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

SOBEL = torch.tensor([[-1.0, 0, 1], [-2, 0, 2], [-1, 0, 1]])


def share_within(selected: Tensor, region: Tensor) -> Tensor:
    """Return the share of the selected pixels, or of a mask's mass, within a region, (P,) float64.

    Args:
        selected: bool, or float and not negative, (P, H, W); an empty set has NaN.
        region: bool (H, W), or one for each set, (P, H, W).
    """
    mass = selected.double()
    return (mass * region).sum((1, 2)) / mass.sum((1, 2))


def corner_region(shape: Sequence[int]) -> Tensor:
    """Return the four corner squares, whose side is a quarter of the shorter side: bool (H, W).

    Args:
        shape: (H, W), each 4 or more.
    """
    side = min(shape) // 4
    rows, columns = (
        (torch.arange(length) < side) | (torch.arange(length) >= length - side) for length in shape
    )
    return rows[:, None] & columns


def edge_region(images: Tensor, count: int) -> Tensor:
    """Return the pixels with the largest gradients, bool (P, H, W).

    The gradient is Sobel's; its squares are summed over the channels. The image goes on beyond its
    frame as it ends, which is therefore no edge. Equal ones go to the smaller pixel index; where
    fewer than `count` pixels have a gradient, only these are returned.

    Args:
        images: uint8 (P, C, H, W).
        count: How many pixels.
    """
    kernels = torch.stack([SOBEL, SOBEL.T]).unsqueeze(1).to(images.device)  # (2, 1, 3, 3)
    regions = []
    for image in images:  # one by one: a thousand large images in floats are too many
        padded = F.pad(image.float().unsqueeze(1), (1, 1, 1, 1), mode="replicate")
        magnitude = F.conv2d(padded, kernels).square().sum((0, 1))  # (H, W)
        order = magnitude.flatten().argsort(descending=True, stable=True)
        strongest = torch.zeros_like(order, dtype=torch.bool)
        strongest[order[:count]] = True
        regions.append(strongest.view_as(magnitude) & (magnitude > 0))
    return torch.stack(regions)
