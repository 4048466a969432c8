"""Where a run writes: decided once, the same on all processes."""

from __future__ import annotations

import os
import time
from pathlib import Path

import torch

from iscp_lightning.classifiers.checkpoints import unreadable
from iscp_lightning.messages import fail
from iscp_lightning.runs import RUN_VARIABLE, Run, is_first_process

RUNS = Path("runs")


def locate(
    run: Run,
    command: str,
    name: str | None,
    *,
    resume: str | None = None,
    overwrite: bool = False,
    dry: bool = False,
    reads: str | None = None,
) -> None:
    """Say where the run writes, the same on all ranks.

    Args:
        run: The run.
        command: Name of the command.
        name: Name of the folder, None for command and time.
        resume: Folder of a run to go on with instead.
        overwrite: Whether an existing folder is replaced.
        dry: Whether nothing will be written.
        reads: Checkpoint that is read after the folder has been replaced.

    Raises:
        SystemExit: with a message, if the folder exists already or holds nothing to resume.
    """
    if not is_first_process() and RUN_VARIABLE in os.environ:
        run.folder = Path(os.environ[RUN_VARIABLE])
    elif resume:
        run.go_on(Path(resume))
        if not (run.folder / "checkpoints" / "last.ckpt").is_file():
            fail(
                f"`--resume {resume}`: no checkpoint in {run.folder / 'checkpoints'}; start "
                f"it anew: {command} -c {run.folder / 'config.yaml'} --run {run.folder.name} "
                "--overwrite"
            )
    else:
        run.folder = RUNS / run_name(name, command)
        requeued = int(os.environ.get("SLURM_RESTART_COUNT", 0)) > 0  # Lightning goes on by itself
        if requeued and run.folder.exists():
            run.go_on(run.folder)
        run.replaces = overwrite and not run.resumes
        checked = is_first_process() and not run.resumes and not dry
        if checked and run.folder.exists() and not overwrite:
            fail(f"{run.folder} exists: choose another `--run`, or give `--overwrite`")
        if reads and run.folder in Path(reads).parents:
            fail(f"`--ckpt_path {reads}` lies in the run that `--overwrite` replaces")
    os.environ[RUN_VARIABLE] = str(run.folder)


def run_name(given: str | None, command: str) -> str:
    """Return the name of a run's folder: the given one, else command and time.

    Raises:
        SystemExit: with a message, if it is no plain name, or processes could disagree on it.
    """
    many = int(os.environ.get("SLURM_NTASKS", 1)) > 1
    alone = "TORCHELASTIC_RUN_ID" not in os.environ and (many or "NODE_RANK" not in os.environ)
    if given is None and not alone:
        fail("`--run NAME` must be given on several nodes, so that all processes agree on it")
    stamp = os.environ["SLURM_JOB_ID"] if many else time.strftime("%Y%m%d-%H%M%S")
    name = given or f"{command}-{stamp}"
    if Path(name).name != name or name in (".", ".."):
        fail(f"`--run` must be a plain folder name under {RUNS}/, got {name!r}")
    return name


def require_checkpoint(path: str | None) -> None:
    """Leave with a message if a path is neither a checkpoint nor a word that the Trainer knows."""
    if path in (None, "best", "last", "hpc", "registry") or ":" in path:
        return
    if not Path(path).is_file():
        fail(f"`--ckpt_path {path}` is neither an existing file nor best or last")
    try:
        torch.load(path, map_location="cpu", weights_only=True)["state_dict"]
    except Exception as error:  # a garbled file makes the reader raise anything
        fail(f"`--ckpt_path {path}` is no checkpoint of a run: {unreadable(Path(path), error)}")
