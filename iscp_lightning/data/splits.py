"""Choosing images and classes: stratified splits, classes by index or name, seeds."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Generator, Tensor


def stratified_split(
    labels: Tensor, pool: Tensor, fraction: float, seed: int
) -> tuple[Tensor, Tensor]:
    """Return `fraction` of the pool with equal shares of each class, and the rest; both sorted.

    Args:
        labels: (N,) class index of every image of the set.
        pool: (n,) indices of the images to split.
        fraction: Share of each class in the first part, in [0, 1], rounded to whole images.
        seed: Fixes the choice.
    """
    generator = Generator().manual_seed(seed)
    chosen: list[Tensor] = []
    for label in labels[pool].unique():
        members = pool[labels[pool] == label]
        count = round(fraction * len(members))
        chosen.append(members[torch.randperm(len(members), generator=generator)[:count]])
    first = torch.cat([*chosen, pool[:0]]).sort().values
    rest = pool[~torch.isin(pool, first)]
    return first, rest


def stratified_choice(labels: Tensor, count: int, seed: int) -> Tensor:
    """Return `count` positions, sorted, with numbers per class that differ by one at most.

    Classes with too few images give all they have. The choice is fixed by the seed.

    Args:
        labels: (N,) class indices.
        count: How many; all if there are no more.
        seed: Fixes the choice.
    """
    order = torch.randperm(len(labels), generator=Generator().manual_seed(seed))
    turn = torch.empty_like(order)  # how many of its class come before an image
    for label in labels.unique():
        members = order[labels[order] == label]
        turn[members] = torch.arange(len(members))
    return order[turn[order].argsort(stable=True)][:count].sort().values


def class_indices(classes: Sequence[int | str] | None, names: Sequence[str]) -> list[int]:
    """Return class indices for a mixture of indices and names; None means all classes.

    Raises:
        ValueError: if a name is unknown, an index out of range, or a class given twice.
    """
    if classes is None:
        return list(range(len(names)))
    indices = []
    for given in classes:
        if isinstance(given, int) and 0 <= given < len(names):
            indices.append(given)
        elif given in names:
            indices.append(list(names).index(str(given)))
        else:
            raise ValueError(
                f"`classes` has {given!r}; allowed are 0 to {len(names) - 1} "
                f"and the names {', '.join(names[:20])}{', ...' if len(names) > 20 else ''}"
            )
    if len(set(indices)) != len(indices):
        raise ValueError(f"`classes` names a class twice: {list(classes)}")
    return indices


def derived_seed(*numbers: int) -> int:
    """Return one well-mixed seed for a tuple of non-negative integers."""
    return int(np.random.SeedSequence(numbers).generate_state(1, np.uint64)[0] >> np.uint64(1))
