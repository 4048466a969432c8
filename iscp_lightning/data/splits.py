"""Choosing images and classes: stratified splits, the order of epochs, classes by index or name."""

from __future__ import annotations

from collections.abc import Sequence
from difflib import get_close_matches
from numbers import Integral
from typing import Any

import torch
from torch import Generator, Tensor
from torch.utils.data import Dataset, DistributedSampler

from iscp_lightning.seeds import derived_seed


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
        ValueError: as `class_index` does, or if a class is given twice.
    """
    if classes is None:
        return list(range(len(names)))
    indices = [class_index(given, names, "`classes` has") for given in classes]
    if len(set(indices)) != len(indices):
        raise ValueError(f"`classes` names a class twice: {list(classes)}")
    return indices


def class_index(given: int | str, names: Sequence[str], said: str) -> int:
    """Return the index of a class that is given by index or name.

    Where names are numbers, `index:2` is the third class and `name:2` the class named 2.

    Args:
        given: A name, an index, or one of them with `name:` or `index:` before it.
        names: Names of the classes.
        said: How a message begins, such as "`target` is".

    Raises:
        ValueError: if the name is unknown, or the index out of range or another class's name.
    """
    hint = ""
    if isinstance(given, str):
        if given in names:
            return names.index(given)
        kind, _, rest = given.partition(":")
        if kind == "name" and rest in names:
            return names.index(rest)
        if kind == "index" and rest.isdecimal() and int(rest) < len(names):
            return int(rest)
        similar = {name.lower(): name for name in names}
        for near in get_close_matches(given.removeprefix("name:").lower(), similar, 1):
            hint = f" (did you mean {similar[near]!r}?)"
    elif isinstance(given, Integral) and not isinstance(given, bool):
        exists = 0 <= given < len(names)
        for index, name in enumerate(names):
            if index != given and _says(name, int(given)):
                meant = f"class {names[int(given)]}" if exists else "no class"
                raise ValueError(
                    f"{said} {given}, which is ambiguous: "
                    f"give `index:{given}` ({meant}) or `name:{name}`"
                )
        if exists:
            return int(given)
    raise ValueError(
        f"{said} {given!r}{hint}; allowed are 0 to {len(names) - 1} "
        f"and the names {', '.join(names[:20])}{', ...' if len(names) > 20 else ''}"
    )


def _says(name: str, number: int) -> bool:
    return name == str(number) or (name.isdecimal() and int(name) == number)


class EpochOrder(DistributedSampler[Any]):
    """Shuffles a set anew in every epoch, by a seed that derives from root seed and epoch.

    Args:
        dataset: What is shuffled.
        num_replicas: Number of ranks that share it.
        rank: This one.
        root_seed: The root seed.
    """

    def __init__(
        self, dataset: Dataset[Any], num_replicas: int, rank: int, *, root_seed: int
    ) -> None:
        super().__init__(dataset, num_replicas, rank)
        self.root_seed = root_seed
        self.set_epoch(0)

    def set_epoch(self, epoch: int) -> None:
        """Take the order of an epoch, counted from 0."""
        super().set_epoch(0)  # the sampler adds seed and epoch
        self.seed = derived_seed(self.root_seed, "order", epoch)
