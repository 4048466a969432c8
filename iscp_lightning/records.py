"""What a measurement finds: records, pictures and lines, which every output is made from."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

Pixels = NDArray[np.uint8]


class Picture(NamedTuple):
    """A small image for loggers.

    Attributes:
        pixels: uint8 (H, W, 3).
        caption: What it shows.
    """

    pixels: Pixels
    caption: str


@dataclass(frozen=True)
class Record:
    """One measured number.

    Attributes:
        measure: The field's term for it, such as `predictive_power`.
        value: The number; NaN where it is undefined.
        about: What it is of, such as `{"pattern_size": 0.05, "class": "airplane"}`.
        interval: Ends of its 95 % interval, None where there is none.
    """

    measure: str
    value: float
    about: Mapping[str, str | int | float] = field(default_factory=dict)
    interval: tuple[float, float] | None = None

    @property
    def name(self) -> str:
        """The name in logs: the measure and what it is of, such as `predictive_power/0.05/ring`."""
        parts = [f"{v:g}" if isinstance(v, float) else str(v) for v in self.about.values()]
        return "/".join([self.measure, *parts])

    def row(self) -> dict[str, Any]:
        """Return the record as one row of a table: what it is of, the measure and the value."""
        row = {**self.about, "measure": self.measure, "value": self.value}
        return row if self.interval is None else {**row, "interval": list(self.interval)}


@dataclass(frozen=True)
class Findings:
    """What one measurement of one classifier found.

    Attributes:
        records: The numbers; names are unique.
        pictures: By name.
        lines: What a command prints.
        provenance: Where they come from: at least the classifier's hash as `classifier_hash`, and
            `epoch`, the completed epochs, for a classifier in training.
    """

    records: Sequence[Record] = ()
    pictures: Mapping[str, Picture] = field(default_factory=dict)
    lines: Sequence[str] = ()
    provenance: Mapping[str, Any] = field(default_factory=dict)

    @property
    def results(self) -> dict[str, Any]:
        """What results.json says, in plain values; nothing where nothing was measured."""
        if not self.records:
            return {}
        rows = [record.row() for record in self.records]
        return {"records": rows, "provenance": dict(self.provenance)}

    def save(self, folder: Path, name: str) -> None:
        """Write artefacts of the measurement's own into a run folder; most have none.

        Args:
            folder: The run folder.
            name: What file names begin with, such as `epoch003`.
        """
