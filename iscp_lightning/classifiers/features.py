"""Penultimate features: what the last linear layer of a classifier sees."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from torch import Tensor, nn


@contextmanager
def features_of(classifier: nn.Module) -> Iterator[Any]:
    """Yield a function from images to (features, logits): features enter the last `nn.Linear`.

    Args:
        classifier: Any module with a final linear layer, such as every timm ResNet.

    Raises:
        ValueError: if it has none.
    """
    layers = [part for part in classifier.modules() if isinstance(part, nn.Linear)]
    if not layers:
        raise ValueError("`classifier` has no nn.Linear, so no penultimate features are known")
    caught: list[Tensor] = []
    handle = layers[-1].register_forward_pre_hook(lambda _, inputs: caught.append(inputs[0]))

    def features(images: Tensor) -> tuple[Tensor, Tensor]:
        caught.clear()
        logits = classifier(images)
        return caught[0].flatten(1), logits

    try:
        yield features
    finally:
        handle.remove()
