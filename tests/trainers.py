"""A Trainer that only trains: no logger, no bars, on the CPU."""

from pathlib import Path
from typing import Any

import lightning as L


def quiet_trainer(folder: Path | None = None, **settings: Any) -> L.Trainer:
    return L.Trainer(
        accelerator="cpu",
        default_root_dir=folder,
        logger=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        **settings,
    )
