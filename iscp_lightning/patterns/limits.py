"""What a Trainer must be like for a search: nothing may average, round or cut it short."""

from __future__ import annotations

import lightning as L
from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.pytorch.callbacks import EarlyStopping, Timer

from iscp_lightning.patterns.strategy import ClassParallelStrategy
from iscp_lightning.runs import is_dry


def require_search_trainer(trainer: L.Trainer, stage: str, search_epochs: int) -> None:
    """Check strategy, precision and limits of a Trainer.

    Args:
        trainer: The Trainer.
        stage: `fit`, whose masks will be measured too, or another stage.
        search_epochs: Passes of the search.

    Raises:
        MisconfigurationException: for several processes without `class_parallel`, a precision
            other than fp32, or anything that would leave steps or images out.
    """
    if trainer.world_size > 1 and not isinstance(trainer.strategy, ClassParallelStrategy):
        raise MisconfigurationException(
            "`strategy` must be class_parallel to search with several processes, got "
            f"{type(trainer.strategy).__name__}, which would average the masks"
        )
    if trainer.precision != "32-true":
        raise MisconfigurationException(
            "`trainer.precision` must be 32-true for a search, whose own precision is "
            f"`search.precision`, got {trainer.precision}"
        )
    if is_dry(trainer):
        return
    if limits := _limits(trainer, search_epochs if stage == "fit" else None):
        name, value = limits[0]
        raise MisconfigurationException(
            f"a search needs all its steps and is measured on all images: leave `trainer.{name}` "
            f"out, got {value}"
        )


def _limits(trainer: L.Trainer, search_epochs: int | None) -> list[tuple[str, object]]:
    """Return names and values of the settings that contradict a whole search.

    Args:
        trainer: The Trainer.
        search_epochs: Passes of the search, None if it is only measured.
    """
    found: list[tuple[str, object, bool]] = []
    if search_epochs is not None:
        train = trainer.limit_train_batches
        overfit = trainer.overfit_batches  # type: ignore[attr-defined]
        found += [
            ("overfit_batches", overfit, overfit > 0),  # it sets limit_train_batches too
            ("limit_train_batches", train, _is_part(train)),
            ("max_steps", trainer.max_steps, trainer.max_steps != -1),
            ("min_epochs", trainer.min_epochs, (trainer.min_epochs or 0) > search_epochs),
        ]
        for callback in trainer.callbacks:  # type: ignore[attr-defined]
            found.append(("max_time", "a Timer", isinstance(callback, Timer)))
            found.append(("callbacks", "EarlyStopping", isinstance(callback, EarlyStopping)))
    test = trainer.limit_test_batches
    found.append(("limit_test_batches", test, _is_part(test)))
    return [(name, value) for name, value, wrong in found if wrong]


def _is_part(limit: float) -> bool:
    """Return whether a limit means less than everything: 1 is one batch, 1.0 is all of them."""
    return isinstance(limit, int) or limit != 1.0
