"""Analysis: one question about what a classifier's vectors hold, and its answer."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, ClassVar

import torch
from torch import Tensor

from iscp_lightning.inversion.examined import Examined
from iscp_lightning.metrics.intervals import mean_interval
from iscp_lightning.records import Record

if TYPE_CHECKING:
    from iscp_lightning.data.datamodule import ImageDataModule

SHOWN = 8  # images in a sheet


@dataclass(frozen=True)
class Sheet:
    """Images side by side.

    Attributes:
        images: float (R, S, C, H, W) in [0, 1], rows by columns.
        rows: R labels.
        columns: S labels.
    """

    images: Tensor
    rows: Sequence[str]
    columns: Sequence[str]


@dataclass(frozen=True)
class Answer:
    """What an analysis found of one inversion.

    Attributes:
        records: The numbers; each is about the `analysis`, and about a `strength` where it is one
            of a series, which is then drawn as a curve.
        sheets: Pictures by name, without the analysis's own.
    """

    records: list[Record]
    sheets: Mapping[str, Sheet] = field(default_factory=dict)


class Analysis(ABC):
    """Asks something of an inversion. Constructor arguments are plain values kept in attributes.

    Attributes:
        name: What it is called in records and file names.
        unit: What the strengths of its series are; "" where it has none.
        needs: What `applies` asks for, in words.
    """

    name: ClassVar[str]
    unit: ClassVar[str] = ""
    needs: ClassVar[str] = ""

    @abstractmethod
    def __call__(self, examined: Examined) -> Answer:
        """Return what is found; random draws derive from `examined.inverter.seed`."""

    def check(self, data: ImageDataModule) -> None:
        """Refuse data that cannot be asked about, before anything runs; keep what is needed.

        Raises:
            ValueError: if they cannot; says why.
        """

    def applies(self, examined: Examined) -> bool:
        """Return whether it can be asked of this inversion: a judge or factors may be missing."""
        del examined
        return True

    def mean(self, measure: str, values: Tensor, **about: str | float) -> Record:
        """Return the mean of values (n,) over images with its interval; NaN of none."""
        column = values.double().unsqueeze(1)
        low, high = mean_interval(column)[0].tolist()
        mean = float(column.mean()) if len(column) else float("nan")
        interval = None if low != low else (low, high)
        return Record(measure, mean, {"analysis": self.name, **about}, interval)


def rows_of(examined: Examined, count: int = SHOWN) -> list[str]:
    """Return labels of the first images: their classes, and what they are taken for if not that."""
    names = examined.subject.class_names
    said = examined.answers.logits.argmax(1)[:count].tolist()
    labels = [names[label] for label in examined.labels[:count].tolist()]
    if not examined.same_classes:
        return labels
    return [
        label if names[one] == label else f"{label}\n(taken for {names[one]})"
        for label, one in zip(labels, said, strict=True)
    ]


def side_by_side(*columns: Tensor) -> Tensor:
    """Return the first images of each column as (R, S, C, H, W)."""
    return torch.stack([column[:SHOWN] for column in columns], 1)


def difference(images: Tensor, others: Tensor) -> Tensor:
    """Return the mean squared difference of images (N, C, H, W) from others, (N,)."""
    return (images - others).square().flatten(1).mean(1)
