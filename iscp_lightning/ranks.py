"""Sharing work over the processes of torch.distributed; in one process everything is a no-op."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Any, TypeVar

import torch.distributed as dist
from torch import Tensor, nn

T = TypeVar("T")


def rank_and_size() -> tuple[int, int]:
    """Return this process's rank and the number of processes."""
    if dist.is_available() and dist.is_initialized():
        return dist.get_rank(), dist.get_world_size()
    return 0, 1


def share(items: Sequence[T]) -> Sequence[T]:
    """Return this rank's share of the items: every world-size-th one."""
    rank, size = rank_and_size()
    return items[rank::size]


def sum_over_ranks(tensor: Tensor) -> Tensor:
    """Return the sum over all ranks on the tensor's device; a collective when there are several."""
    if rank_and_size()[1] == 1:
        return tensor
    device = "cuda" if dist.get_backend() == "nccl" else "cpu"
    total = tensor.to(device, copy=True)
    dist.all_reduce(total)
    return total.to(tensor.device)


def gather(item: T) -> list[T]:
    """Return every rank's picklable item in rank order; a collective when there are several."""
    size = rank_and_size()[1]
    if size == 1:
        return [item]
    items: list[Any] = [None] * size
    dist.all_gather_object(items, item)
    return items


def in_order(shares: Sequence[tuple[Tensor, Tensor]]) -> Tensor:
    """Return the rows that all processes hold together, in one copy.

    Args:
        shares: Of each process, the numbers of its rows, int64 (n,), and the rows (n, ...).
    """
    rows = shares[0][1]
    whole = rows.new_empty(sum(len(numbers) for numbers, _ in shares), *rows.shape[1:])
    for numbers, part in shares:
        whole[numbers] = part
    return whole


def gather_to_first(item: T) -> list[T]:
    """Return every rank's picklable item in rank order on rank 0, elsewhere nothing; a collective.

    The other ranks need no memory for what they do not own.
    """
    rank, size = rank_and_size()
    if size == 1:
        return [item]
    items: list[Any] | None = [None] * size if rank == 0 else None
    dist.gather_object(item, items)
    return items or []


def same_on_all_ranks(module: Any) -> Any:  # noqa: ANN401
    """Return the module, or with several ranks a copy with rank 0's buffers; a collective.

    DDP keeps parameters equal, but batch normalisation's statistics differ between its ranks.
    """
    if rank_and_size()[1] == 1:
        return module
    module = copy.deepcopy(module)
    broadcast_buffers(module)
    return module


def broadcast_buffers(module: nn.Module) -> None:
    """Give the module rank 0's buffers on every rank; a collective when there are several."""
    if rank_and_size()[1] > 1:
        for buffer in module.buffers():
            dist.broadcast(buffer, 0)
