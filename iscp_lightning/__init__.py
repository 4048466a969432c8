"""Class-wise patterns in the input space of image classifiers (Zhao et al. 2021)."""

from __future__ import annotations

from importlib import import_module
from typing import Any

__version__ = "0.1.0"

_HOMES = {
    "BadNetsModule": "training",
    "ImageDataModule": "data.datamodule",
    "MadryModule": "training",
    "NaturalModule": "training",
    "PatternSearchModule": "patterns.module",
    "PatternSet": "patterns",
    "PatternSnapshot": "callbacks",
    "SearchSettings": "patterns",
    "Shapes": "data",
    "Subject": "classifiers",
    "create_classifier": "classifiers",
    "load_classifier": "classifiers",
    "save_classifier": "classifiers",
    "search_patterns": "patterns",
}
__all__ = [*_HOMES, "__version__"]


def __getattr__(name: str) -> Any:  # noqa: ANN401
    """Import public names when they are first used: torch takes seconds to load."""
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)


def __dir__() -> list[str]:
    """Return the public names, for completion."""
    return __all__
