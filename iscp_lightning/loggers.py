"""Loggers of a run folder: a CSV file that a resumed run continues, and W&B that never blocks."""

from __future__ import annotations

import csv
import netrc
import os
import sys
from pathlib import Path
from typing import Any
from urllib.parse import urlparse

from jsonargparse import Namespace
from lightning.fabric.loggers.logger import rank_zero_experiment
from lightning.pytorch.loggers import CSVLogger, Logger
from lightning.pytorch.utilities import rank_zero_warn

from iscp_lightning.internals import KeepingCSVLogger, KeepingWriter, OpenWandbLogger
from iscp_lightning.runs import Run, atomic_path

WANDB_TIMEOUT = 20  # seconds to wait for a server before going on offline
WANDB_FINISH_TIMEOUT = 300  # seconds to upload the rest at the end; the files stay on disk


class RunCSVLogger(KeepingCSVLogger):
    """`metrics.csv` in the run folder; an existing file is continued.

    Args:
        save_dir: The run folder; the command line sets it.
    """

    def __init__(self, save_dir: str = ".") -> None:
        super().__init__(save_dir, name="", version="")

    def new_writer(self) -> ContinuingWriter:
        """Return the writer of `metrics.csv`."""
        return ContinuingWriter(self.log_dir)

    def drop_from(self, step: int) -> None:
        """Remove rows of `step` and later, which a resumed run will write again."""
        path = Path(self.log_dir) / ContinuingWriter.NAME_METRICS_FILE
        if not path.exists():
            return
        with path.open(newline="") as file:
            reader = csv.DictReader(file)
            rows = [row for row in reader if row.get("step") and int(row["step"]) < step]
            header = reader.fieldnames or []
        with atomic_path(path) as temporary, temporary.open("w", newline="") as file:
            writer = csv.DictWriter(file, header)
            writer.writeheader()
            writer.writerows(rows)


class ContinuingWriter(KeepingWriter):
    """A CSV writer that appends to the file of an earlier process.

    Args:
        log_dir: Folder of `metrics.csv`.
    """

    def __init__(self, log_dir: str) -> None:
        super().__init__(log_dir)
        path = Path(self.metrics_file_path)
        if path.exists():
            with path.open(newline="") as file:
                self.metrics_keys = list(csv.DictReader(file).fieldnames or [])


class RunWandbLogger(OpenWandbLogger):
    """W&B, online if a login is there and the server answers, else offline; never a prompt.

    Args:
        save_dir: The run folder; the command line sets it.
        name: The run's name, likewise.
        version: The run's id, likewise; an existing one is continued.
        project: The W&B project.
    """

    def __init__(
        self,
        save_dir: str = ".",
        name: str | None = None,
        version: str | None = None,
        project: str = "iscp_lightning",
    ) -> None:
        import wandb

        mode = os.environ.get("WANDB_MODE") or ("online" if has_wandb_login() else "offline")
        # online it says where the run can be seen, offline only what the command's table says
        settings = wandb.Settings(init_timeout=WANDB_TIMEOUT, quiet=mode == "offline")
        if hasattr(settings, "finish_timeout"):  # without it, W&B retries for days
            settings.finish_timeout = WANDB_FINISH_TIMEOUT
        super().__init__(
            name=name,
            save_dir=str(Path(save_dir).resolve()),  # W&B's service may work in another folder
            version=version,
            project=project,
            mode=mode,
            settings=settings,
        )

    @property
    @rank_zero_experiment
    def experiment(self) -> Any:  # noqa: ANN401
        """The W&B run, offline if the server cannot be reached or refuses the login."""
        import wandb

        if not self.started:
            Path(self.arguments["dir"]).mkdir(parents=True, exist_ok=True)
            try:
                return super().experiment
            except (wandb.errors.CommError, wandb.errors.UsageError) as error:
                rank_zero_warn(f"W&B is not reachable, logging offline: {error}")
                wandb.teardown()
                self.arguments["mode"] = "offline"
        return super().experiment


def has_wandb_login() -> bool:
    """Return whether a login for W&B's server is in the environment or the netrc file."""
    if os.environ.get("WANDB_API_KEY") or os.environ.get("WANDB_IDENTITY_TOKEN_FILE"):
        return True
    host = urlparse(os.environ.get("WANDB_BASE_URL", "https://api.wandb.ai")).netloc
    try:
        path = Path(os.environ.get("NETRC") or "~/.netrc").expanduser()
        return netrc.netrc(str(path)).authenticators(host) is not None
    except (OSError, RuntimeError, UnicodeError, netrc.NetrcParseError):  # no file, no home, ...
        return False


def finish_wandb() -> None:
    """End the process's W&B run, if there is one, so that the next run gets its own."""
    if "wandb" in sys.modules:
        sys.modules["wandb"].finish()


def own_loggers(logger: Any) -> list[Namespace]:  # noqa: ANN401
    """Return those of the configured loggers that write into the run folder."""
    loggers = logger if isinstance(logger, list) else [logger]
    prefix = "iscp_lightning."
    return [x for x in loggers if isinstance(x, Namespace) and x.class_path.startswith(prefix)]


def run_loggers(run: Run, given: Any) -> list[Logger]:  # noqa: ANN401
    """Return the loggers of a run: the given ones, else CSV and W&B; with any there is CSV."""
    if given is None or given is True:
        given = [RunWandbLogger(str(run.folder), run.folder.name, run.id)]
    loggers: list[Logger] = given if isinstance(given, list) else [given] if given else []
    if loggers and not any(isinstance(logger, CSVLogger) for logger in loggers):
        loggers = [RunCSVLogger(str(run.folder)), *loggers]
    return loggers
