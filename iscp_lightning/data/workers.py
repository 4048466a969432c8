"""How many processes may read images: those of one machine share its cores and shared memory."""

from __future__ import annotations

import os
import shutil
import warnings
from pathlib import Path

from iscp_lightning.ranks import rank_and_size

# of a process by default, for each set that it reads: they decode thousands of photographs a second
# and those of a training and of its validation stay side by side
MOST_WORKERS = 16
SHARED_MEMORY = Path("/dev/shm")  # through which workers hand their batches over
PREFETCHED = 2  # batches that a DataLoader orders from each worker in advance
HELD = 2  # batches that the reader holds meanwhile: the last one, and the one it is handed
MIB = 2**20


def available_cores() -> int:
    """Return the number of CPU cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def share_of_cores(processes: int = 1) -> int:
    """Return how many workers each process of this machine can have: its cores, 1 to 16.

    The available cores are shared out, but a Slurm task has those of its own that it asked for.

    Args:
        processes: How many processes there are, unless torchrun says that there are more.
    """
    cores = available_cores()
    own = _cores_of_task()
    share = cores // _processes(processes) if own is None else min(cores, own)
    return min(max(1, share), MOST_WORKERS)


def affordable_workers(wanted: int, batch_bytes: int, processes: int = 1) -> int:
    """Return how many workers can prefetch batches: `wanted`, or fewer with a warning.

    Workers that find no room in the shared memory fail or are killed.

    Args:
        wanted: Number of workers.
        batch_bytes: Size of a batch, at least 1.
        processes: As for `share_of_cores`.
    """
    if wanted == 0 or not SHARED_MEMORY.is_dir():
        return wanted
    free = shutil.disk_usage(SHARED_MEMORY).free // _processes(processes)
    affordable = max(0, free // batch_bytes - HELD) // PREFETCHED
    if affordable < wanted and rank_and_size()[0] == 0:
        needed = (PREFETCHED * wanted + HELD) * batch_bytes
        warnings.warn(
            f"{SHARED_MEMORY} has {free / MIB:,.0f} MiB free for this process, the batches of "
            f"{wanted} workers need {needed / MIB:,.0f}: {affordable or 'no'} workers read instead",
            stacklevel=2,
        )
    return min(wanted, affordable)


def _cores_of_task() -> int | None:
    """Return the cores that each of several Slurm tasks asked for, to which it is mostly bound.

    The processes that torchrun starts in one task share that task's.
    """
    several = int(os.environ.get("SLURM_NTASKS", 1)) > 1 and "LOCAL_WORLD_SIZE" not in os.environ
    return int(os.environ.get("SLURM_CPUS_PER_TASK", 0)) or None if several else None


def _processes(known: int) -> int:
    return max(known, int(os.environ.get("LOCAL_WORLD_SIZE", 1)))
