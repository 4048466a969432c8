"""Averaging: the generator that images are made by is a mean over its training."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch


def decaying(most: float) -> Callable[[Any, Any, Any], None]:
    """Return an average that forgets with `most`, and faster within the first steps."""

    @torch.no_grad()
    def average(averages: Any, values: Any, steps: Any) -> None:  # noqa: ANN401
        kept = min(most, (1 + float(steps)) / (10 + float(steps)))
        for mean, value in zip(averages, values, strict=True):
            if mean.is_floating_point():
                mean.lerp_(value, 1 - kept)
            else:
                mean.copy_(value)

    return average
