"""95 % bootstrap intervals: of shares and their ratios over images, of means over classes."""

from __future__ import annotations

import torch
from torch import Tensor

from iscp_lightning.seeds import named_generator

DRAWS = 2000
LEVELS = (0.025, 0.975)


def ratio_interval(hits: Tensor, shown: Tensor, right: Tensor, seen: Tensor) -> Tensor:
    """Return the 95 % percentile interval of (hits / shown) / (right / seen) over images.

    Both groups of images are drawn anew with replacement, each on its own. What a draw counts is
    then binomial, so that no image has to be kept (Efron and Tibshirani 1993, section 13.3). An
    observed share of 0 or 1 has no spread. The upper end is infinite where more than 2.5 % of the
    draws find no image right.

    Args:
        hits: (P, S) int64, images that count, of `shown`.
        shown: (P, S) int64.
        right: (P,) int64, images that count, of `seen`.
        seen: (P,) int64.

    Returns:
        (P, S, 2) float64, lower and upper end; NaN where a share is undefined or `right` is 0.
    """
    ends = torch.full((*hits.shape, 2), torch.nan, dtype=torch.float64)
    for row in range(len(hits)):
        generator = named_generator(0, "intervals over images")  # the same draws for every row
        above = _draw(hits[row], shown[row], generator)
        below = _draw(right[row, None], seen[row, None], generator)
        if right[row] > 0:
            ends[row] = _ends(torch.where(below > 0, above / below, torch.inf))
    return ends


def share_interval(hits: Tensor, shown: Tensor) -> Tensor:
    """Return the 95 % percentile interval of hits / shown over images, as `ratio_interval` draws.

    Args:
        hits: (S,) int64, images that count.
        shown: () int64, of how many.

    Returns:
        (S, 2) float64, lower and upper end.
    """
    generator = named_generator(0, "intervals over images")
    return _ends(_draw(hits, shown.expand_as(hits), generator))


def mean_interval(values: Tensor) -> Tensor:
    """Return the 95 % percentile interval of the mean over rows, which are drawn anew.

    Args:
        values: (P, S) float64, NaN where undefined: those rows are left out of their column.

    Returns:
        (S, 2) float64, lower and upper end; NaN with fewer than two rows.
    """
    generator = named_generator(0, "intervals over rows")
    ends = torch.full((values.shape[1], 2), torch.nan, dtype=torch.float64)
    for column, each in enumerate(values.double().T):
        kept = each[~each.isnan()]
        if len(kept) > 1:
            drawn = torch.randint(len(kept), (DRAWS, len(kept)), generator=generator)
            ends[column] = _ends(kept[drawn].mean(1))
    return ends


def mean_ratio_interval(above: Tensor, below: Tensor) -> Tensor:
    """Return the 95 % percentile interval of the ratio of two means over rows, drawn in pairs.

    Args:
        above: (P, S) float64; rows where this or `below` is NaN are left out of their column.
        below: (P, S) float64.

    Returns:
        (S, 2) float64, lower and upper end, which is infinite where more than 2.5 % of the draws
        have nothing below; NaN with fewer than two rows.
    """
    generator = named_generator(0, "intervals over rows")
    ends = torch.full((above.shape[1], 2), torch.nan, dtype=torch.float64)
    for column, pairs in enumerate(torch.stack([above, below], 2).double().unbind(1)):
        kept = pairs[~pairs.isnan().any(1)]
        if len(kept) > 1:
            drawn = torch.randint(len(kept), (DRAWS, len(kept)), generator=generator)
            over, under = kept[drawn].mean(1).T
            ends[column] = _ends(torch.where(under > 0, over / under, torch.inf))
    return ends


def _draw(hits: Tensor, shown: Tensor, generator: torch.Generator) -> Tensor:
    """Return (DRAWS, ...) float64 shares; NaN where none is shown."""
    counts = shown.double().expand(DRAWS, *shown.shape)
    share = (hits / shown).double().nan_to_num(0)
    return torch.binomial(counts.contiguous(), share.expand_as(counts), generator) / counts


def _ends(draws: Tensor) -> Tensor:
    levels = torch.tensor(LEVELS, dtype=torch.float64)
    return draws.nanquantile(levels, dim=0, interpolation="nearest").movedim(0, -1)
