"""Randomness: every draw has a name and derives from one root seed; generators can be put back."""

from __future__ import annotations

import hashlib
import json
import random
from typing import Any

import numpy as np
import torch
from torch import Generator


def derived_seed(root: int, *name: str | int) -> int:
    """Return the seed of a named draw, 0 to 2**63 - 1: SHA-256 of the root seed and the name.

    Args:
        root: The root seed.
        name: What is drawn, in words, and the numbers that tell such draws apart.

    Example:
        >>> derived_seed(0, "order", 1) == derived_seed(0, "order", 1)
        True
        >>> derived_seed(0, "order", 1) == derived_seed(1, "order", 0)
        False
    """
    text = json.dumps([int(root), *(part if isinstance(part, str) else int(part) for part in name)])
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") >> 1


def named_generator(root: int, *name: str | int, device: torch.device | str = "cpu") -> Generator:
    """Return a generator for a named draw, as `derived_seed`."""
    return Generator(device).manual_seed(derived_seed(root, *name))


def generator_states() -> dict[str, Any]:
    """Return the states of the global generators of torch, numpy and Python as plain values."""
    kind, keys, *rest = np.random.get_state()  # noqa: NPY002 - the global one is what is kept
    return {
        "torch": torch.get_rng_state(),
        "cuda": torch.cuda.get_rng_state_all() if torch.cuda.is_available() else [],
        "numpy": [kind, np.asarray(keys).tolist(), *rest],
        "python": random.getstate(),
    }


def set_generator_states(states: dict[str, Any]) -> None:
    """Put the global generators back into states that `generator_states` returned."""
    torch.set_rng_state(states["torch"])
    if len(states["cuda"]) == torch.cuda.device_count():
        torch.cuda.set_rng_state_all(states["cuda"])
    kind, keys, *rest = states["numpy"]
    np.random.set_state((kind, np.array(keys, dtype=np.uint32), *rest))  # noqa: NPY002
    version, internal, gauss = states["python"]
    random.setstate((version, tuple(internal), gauss))
