"""The run folder: where one run writes, and how nothing half-written is ever left there."""

from __future__ import annotations

import json
import math
import os
import platform
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from matplotlib.figure import Figure

RUN_VARIABLE = "ISCP_RUN_FOLDER"


@contextmanager
def atomic_path(path: Path) -> Iterator[Path]:
    """Yield a temporary path beside `path`, renamed to it once the block has succeeded.

    The file is flushed to disk before the rename, so that `path` is either absent, the old file
    or the whole new one, also after a crash. On an error the temporary file is removed.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.stem}.{os.getpid()}{path.suffix}")
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


def process_rank() -> int:
    """Return this process's global rank as far as its launcher has said it, else 0."""
    variables = ("RANK", "LOCAL_RANK", "SLURM_PROCID")
    return next((int(os.environ[name]) for name in variables if name in os.environ), 0)


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
        "created": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        **facts,
    }
