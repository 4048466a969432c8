"""History: what was found in the course of a training, in one JSON file."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from iscp_lightning.records import Findings, Record
from iscp_lightning.runs import write_json


def write_history(path: Path, past: Sequence[Findings]) -> None:
    """Write records and provenance of findings, atomically; an undefined value becomes null."""
    measured = [
        {"provenance": each.provenance, "records": [record.row() for record in each.records]}
        for each in past
    ]
    write_json(path, {"measured": measured})


def read_history(path: Path) -> list[Findings]:
    """Return what `write_history` wrote, in its order; nothing where there is no file.

    Raises:
        ValueError: if the file is something else.
    """
    if not path.is_file():
        return []
    try:
        measured = json.loads(path.read_text())["measured"]
        return [
            Findings(
                records=[_record(row) for row in each["records"]], provenance=each["provenance"]
            )
            for each in measured
        ]
    except (ValueError, TypeError, KeyError) as error:
        raise ValueError(f"{path} is no history of measurements: {error!r}") from error


def _record(row: dict[str, Any]) -> Record:
    about = dict(row)
    measure, value, ends = about.pop("measure"), about.pop("value"), about.pop("interval", None)
    low, high = (math.nan if end is None else end for end in ends or (None, None))
    interval = None if ends is None else (low, high)
    return Record(measure, math.nan if value is None else value, about, interval)
