"""The run folder: where one run writes, and how nothing half-written is ever left there."""

from __future__ import annotations

import json
import math
import os
import platform
import shutil
import time
import uuid
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from matplotlib.figure import Figure

RUN_VARIABLE = "ISCP_RUN_FOLDER"


class Run:
    """The folder of one run; a run that it replaces is kept until this one has an artefact.

    Only the first process of a run writes. Nothing is written before `start`. A process that is
    killed between `start` and `keep` leaves the old run beside the new, as `.NAME.` and letters.

    Args:
        arguments: What was typed, kept in `run.json`.

    Attributes:
        folder: The run folder.
        replaces: Whether an existing folder is replaced.
        resumes: Whether the run goes on with what is in the folder.
        id: The run's id in W&B, kept in `run.json` with the commands that were given.
    """

    def __init__(self, arguments: Sequence[str] = ()) -> None:
        self.arguments = list(arguments)
        self.id = f"r{uuid.uuid4().hex[:8]}"
        self.folder = Path()
        self.replaces = False
        self.resumes = False
        self.started = False
        self._aside: Path | None = None
        self._kept = False

    def go_on(self, folder: Path) -> None:
        """Go on with the run in a folder."""
        self.folder, self.resumes = folder, True
        self.id = self._record().get("id", self.id)

    def start(self) -> None:
        """Make the folder, unless that has been done; set aside the run that it replaces."""
        if self.started or not is_first_process():
            return
        self.started = True
        if self.replaces and self.folder.exists():
            self._aside = self.folder.with_name(f".{self.folder.name}.{uuid.uuid4().hex}")
            self.folder.rename(self._aside)
        commands = self._record().get("commands", [])
        commands.append({"started": utc_time(), "arguments": self.arguments})
        write_json(self.folder / "run.json", {"id": self.id, "commands": commands})

    def keep(self) -> None:
        """Remove the run that was replaced: there is an artefact of this one."""
        self._kept = True
        if self._aside is not None:
            shutil.rmtree(self._aside)
            self._aside = None

    def abandon(self) -> None:
        """Undo `start` after an error, unless there is an artefact to keep."""
        if not self.started or self._kept or self.resumes:
            return
        shutil.rmtree(self.folder, ignore_errors=True)
        if self._aside is not None:
            self._aside.rename(self.folder)

    def _record(self) -> dict[str, Any]:
        path = self.folder / "run.json"
        record: dict[str, Any] = json.loads(path.read_text()) if path.is_file() else {}
        return record


@contextmanager
def atomic_path(path: Path) -> Iterator[Path]:
    """Yield a temporary path beside `path`, renamed to it once the block has succeeded.

    The file is flushed to disk before the rename, so that `path` is either absent, the old file
    or the whole new one, also after a crash. On an error the temporary file is removed.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.stem}.{uuid.uuid4().hex}{path.suffix}")
    try:
        yield temporary
        temporary.chmod(0o644)  # safetensors keeps its files to their owner
        with temporary.open("rb") as file:
            os.fsync(file.fileno())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def write_json(path: Path, content: Mapping[str, Any]) -> None:
    """Write `content` as JSON, atomically; NaN and infinities become null."""
    with atomic_path(path) as temporary:
        temporary.write_text(json.dumps(finite(content), indent=1) + "\n")


def save_figure(path: Path, figure: Figure) -> None:
    """Write a figure as PNG, atomically."""
    with atomic_path(path) as temporary:
        figure.savefig(temporary, dpi=150, bbox_inches="tight")


def finite(value: Any) -> Any:  # noqa: ANN401
    """Return `value` with every NaN or infinite float replaced by None, in nested containers."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {str(key): finite(item) for key, item in value.items()}
    if isinstance(value, Sequence) and not isinstance(value, str):
        return [finite(item) for item in value]
    return value


def is_first_process() -> bool:
    """Return whether this is the process of global rank 0, as far as its launcher has said it.

    Under torchrun and SLURM the rank is known; otherwise, on nodes started by hand, it is 0 where
    both `NODE_RANK` and `LOCAL_RANK` are.
    """
    for name in ("RANK", "SLURM_PROCID"):
        if name in os.environ:
            return int(os.environ[name]) == 0
    return all(int(os.environ.get(name, 0)) == 0 for name in ("NODE_RANK", "LOCAL_RANK"))


def may_write(trainer: Any) -> bool:  # noqa: ANN401
    """Return whether this process of a Trainer writes artefacts: rank 0, and no dry run."""
    return bool(trainer.is_global_zero) and not is_dry(trainer)


def is_dry(trainer: Any) -> bool:  # noqa: ANN401
    """Return whether a Trainer only tries its loops out (`fast_dev_run`)."""
    return bool(trainer.fast_dev_run)


def provenance(**facts: Any) -> dict[str, Any]:  # noqa: ANN401
    """Return where a result comes from: package versions, Python, time, and the given facts."""
    packages = ("iscp-lightning", "torch", "torchvision", "lightning", "timm")
    return {
        "versions": {"python": platform.python_version()} | {p: version(p) for p in packages},
        "created": utc_time(),
        **facts,
    }


def utc_time() -> str:
    """Return the time in UTC, such as 2026-01-31T12:00:00Z."""
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
