"""How saliency maps look: how sparse they are, and how much they have in common."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from iscp_lightning.metrics.overlap import overlap


def gini(maps: Tensor) -> Tensor:
    """Return the Gini index of each map, (n,) float64: 0 if even, 1 - 1/(H W) if of one pixel.

    It is the measure of sparsity of Hurley & Rickard 2009. NaN where a map is 0.

    Args:
        maps: float (n, H, W), none negative.
    """
    values = maps.flatten(1).double().sort(1).values
    count = values.shape[1]
    above = count - torch.arange(count, dtype=torch.float64, device=maps.device) - 0.5
    return 1 - 2 * (values * above).sum(1) / (values.sum(1) * count)


def edge_of(masks: Tensor) -> Tensor:
    """Return the border of each mask, bool (n, H, W): one pixel inside and one outside.

    Inside and outside touch at sides or corners. A mask goes on beyond the frame as it ends, which
    is therefore no border.

    Args:
        masks: bool (n, H, W).
    """
    inside = masks.unsqueeze(1).float()
    near_inside, near_outside = (F.max_pool2d(each, 3, 1, 1) for each in (inside, 1 - inside))
    return (near_inside * near_outside).squeeze(1) > 0


def correlation(maps: Tensor, others: Tensor) -> Tensor:
    """Return Spearman's rank correlation of two sets of maps, (n,) float64.

    Equal values have their mean rank. NaN where a map is constant.

    Args:
        maps: float (n, H, W).
        others: Likewise.
    """
    first, second = (_centred_ranks(each.flatten(1)) for each in (maps, others))
    return (first * second).sum(1) / (first.square().sum(1) * second.square().sum(1)).sqrt()


def _centred_ranks(values: Tensor) -> Tensor:
    """Return ranks minus their mean, float64 (n, N)."""
    ordered = values.sort(1).values
    below = torch.searchsorted(ordered, values)
    not_above = torch.searchsorted(ordered, values, right=True)
    return (below + not_above - values.shape[1]).double() / 2


def top_overlap(maps: Tensor, selected: Tensor) -> Tensor:
    """Return the overlap of patterns with as many most salient pixels, (n,) float64.

    Of equally salient pixels the one with the smaller index goes first. By chance it is
    `chance_overlap` of the pattern's share; NaN where a pattern has no pixel.

    Args:
        maps: float (n, H, W).
        selected: bool (n, H, W), the pixels of a pattern for each map.
    """
    ranks = maps.flatten(1).argsort(dim=1, descending=True, stable=True).argsort(dim=1)
    top = ranks < selected.flatten(1).sum(1, keepdim=True)
    return overlap(top.view_as(selected), selected).double()
