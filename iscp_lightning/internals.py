"""Private attributes of Lightning that are used here, each with its reason; nowhere else."""

from __future__ import annotations

from typing import Any

import lightning as L


def take_loader_from(loop: Any, module: L.LightningModule) -> None:  # noqa: ANN401
    """Let a loop (fit, test or predict) take its loader from the module.

    A data module's loader wins otherwise, also over the module's own.
    """
    loop._data_source.instance = module


def optimizer_steps(trainer: L.Trainer) -> int:
    """Return how many optimiser steps have been made, as `self.log` counts them.

    `global_step` counts every optimiser, and a resumed run starts it elsewhere.
    """
    return int(trainer.fit_loop.epoch_loop._batches_that_stepped)
