"""Tests of sharing cores and shared memory among the processes of one machine."""

import os
from pathlib import Path
from types import SimpleNamespace

import pytest

from iscp_lightning.data import workers
from iscp_lightning.data.workers import MIB, affordable_workers, share_of_cores


@pytest.fixture(autouse=True)
def _machine(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    """Eight cores, 1,000 MiB of shared memory."""
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(8)), raising=False)
    monkeypatch.setattr(workers, "SHARED_MEMORY", tmp_path)
    monkeypatch.setattr(workers.shutil, "disk_usage", lambda _: SimpleNamespace(free=1000 * MIB))
    for name in ("LOCAL_WORLD_SIZE", "SLURM_NTASKS", "SLURM_CPUS_PER_TASK"):
        monkeypatch.delenv(name, raising=False)


@pytest.mark.parametrize(
    ("processes", "torchrun", "expected"),
    [(1, None, 8), (2, None, 4), (3, None, 2), (16, None, 1), (1, "4", 2), (4, "4", 2)],
)
def test_the_cores_are_shared_out(
    monkeypatch: pytest.MonkeyPatch, processes: int, torchrun: str | None, expected: int
):
    if torchrun:
        monkeypatch.setenv("LOCAL_WORLD_SIZE", torchrun)
    assert share_of_cores(processes) == expected


@pytest.mark.parametrize(
    ("cores", "tasks", "of_each", "torchrun", "expected"),
    [
        (16, 8, 12, None, 12),  # bound to its own cores, which are not shared out again
        (128, 16, 12, None, 12),  # not bound
        (4, 8, 12, None, 4),  # srun gave it fewer
        (128, 8, 64, None, 16),
        (24, 2, 24, "8", 3),  # torchrun in one task of each node
        (16, 1, 16, None, 2),  # one task, in which Lightning starts the processes
        (16, 8, None, None, 2),
    ],
)
def test_a_slurm_task_has_cores_of_its_own(
    monkeypatch: pytest.MonkeyPatch,
    cores: int,
    tasks: int,
    of_each: int | None,
    torchrun: str | None,
    expected: int,
):
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(cores)), raising=False)
    monkeypatch.setenv("SLURM_NTASKS", str(tasks))
    if of_each:
        monkeypatch.setenv("SLURM_CPUS_PER_TASK", str(of_each))
    if torchrun:
        monkeypatch.setenv("LOCAL_WORLD_SIZE", torchrun)
    assert share_of_cores(8) == expected


@pytest.mark.parametrize(("processes", "expected"), [(1, 16), (4, 16), (8, 16), (9, 14)])
def test_a_large_machine_is_not_filled_with_workers(
    monkeypatch: pytest.MonkeyPatch, processes: int, expected: int
):
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(128)), raising=False)
    assert share_of_cores(processes) == expected


@pytest.mark.parametrize(
    ("wanted", "batch_mib", "processes"), [(4, 100, 1), (0, 10**9, 1), (2, 50, 3), (1, 250, 1)]
)
def test_workers_that_fit_are_had(wanted: int, batch_mib: int, processes: int):
    assert affordable_workers(wanted, batch_mib * MIB, processes) == wanted


@pytest.mark.parametrize(
    ("wanted", "batch_mib", "processes", "expected", "needed"),
    [
        (5, 100, 1, "4", "1,200"),
        (5, 101, 1, "3", "1,212"),
        (4, 100, 2, "1", "1,000"),
        (1, 251, 1, "no", "1,004"),
        (8, 2000, 1, "no", "36,000"),
    ],
)
def test_workers_that_do_not_fit_are_not_started(
    tmp_path: Path, wanted: int, batch_mib: int, processes: int, expected: str, needed: str
):
    free = f"{1000 // processes:,} MiB free"
    message = f"{tmp_path} has {free}.*{wanted} workers need {needed}: {expected} workers"
    with pytest.warns(UserWarning, match=message):
        found = affordable_workers(wanted, batch_mib * MIB, processes)
    assert found == (0 if expected == "no" else int(expected))


def test_nothing_is_known_without_a_folder_of_shared_memory(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
):
    monkeypatch.setattr(workers, "SHARED_MEMORY", tmp_path / "missing")
    assert affordable_workers(4, 10**9) == 4
