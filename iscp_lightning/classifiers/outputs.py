"""What a classifier's outputs must be, and how they are taken without changing its modes."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn


@contextmanager
def eval_mode(module: nn.Module, enabled: bool = True) -> Iterator[None]:
    """Put a module and all its parts into eval mode for the block, and back as they were."""
    training = [part for part in module.modules() if part.training] if enabled else []
    for part in training:
        part.training = False
    try:
        yield
    finally:
        for part in training:
            part.training = True


def require_logits(outputs: Tensor) -> None:
    """Check that a classifier's outputs for a few images are not probabilities.

    Args:
        outputs: float (N, K).

    Raises:
        ValueError: if every row sums to 1 without a negative value: the loss would take the softmax
            of a softmax.
    """
    if outputs.min() >= 0 and (outputs.sum(1) - 1).abs().max() < 1e-2:
        raise ValueError(
            "`classifier` returns probabilities, logits are needed: leave the last softmax out"
        )


@torch.no_grad()
def outputs_in_eval_mode(classifier: nn.Module, images: Tensor) -> Tensor:
    """Return a classifier's outputs for float images (N, C, H, W); its modes are left alone."""
    with eval_mode(classifier):
        outputs: Tensor = classifier(images)
    return outputs
