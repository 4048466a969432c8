"""Numbers as tables."""

from __future__ import annotations

import csv
from collections.abc import Mapping, Sequence
from itertools import chain
from pathlib import Path
from typing import Any

from iscp_lightning.records import Record
from iscp_lightning.runs import atomic_path


def number(value: float | None) -> str:
    """Return a number with three decimals, a dash where there is none."""
    return "-" if value is None or value != value else f"{value:.3f}"


def span(ends: Sequence[float | None]) -> str:
    """Return the ends of an interval, a dash where there is none."""
    low, high = map(number, ends)
    return "-" if low == "-" else f"{low}-{high}"


IN_WORDS = ("distortion", "strength", "classifier", "other", "pictures")


def words(record: Record) -> str:
    """Return what a record is of in a legend, such as `saturation 8`."""
    about: Mapping[str, object] = record.about
    if "distortion" not in about:
        return record.measure.replace("_", " ")
    strength = f" {about['strength']:g}" if "strength" in about else ""
    rest = [str(value) for key, value in about.items() if key not in IN_WORDS]
    return " ".join([f"{about['distortion']}{strength}", *rest])


def with_interval(record: Record) -> str:
    """Return a value and its interval."""
    low, high = record.interval or (None, None)
    return f"{number(record.value)} ({number(low)} to {number(high)})"


def clear_differences(records: Sequence[Record], of: str) -> list[str]:
    """Return a line for each difference of a pair whose interval excludes 0.

    Args:
        records: Those of differences have a measure that ends in `_difference`.
        of: What in `about` is the pair's first side; `other` is its second one.
    """
    lines = []
    for record in records:
        low, high = record.interval or (0, 0)
        if record.measure.endswith("_difference") and (low > 0 or high < 0):
            what = record.measure.removesuffix("_difference").replace("_", " ")
            about = f", {words(record)}" if "distortion" in record.about else ""
            sides = f"{record.about[of]} - {record.about['other']}"
            lines.append(f"{what}{about}: {sides} = {with_interval(record)}")
    return lines


Cell = str | float | None


def table(head: Sequence[str], *groups: Sequence[Sequence[Cell]]) -> str:
    """Return a table with rules below its head and between groups of rows.

    Text stands to the left where the column's first cell is text, else all to the right; numbers
    have three decimals.

    Args:
        head: C titles.
        groups: Rows of C cells each; NaN and None become a dash.
    """
    cells = [
        [[cell if isinstance(cell, str) else number(cell) for cell in row] for row in rows]
        for rows in ([head], *groups)
    ]
    widths = [max(map(len, column)) for column in zip(*chain(*cells), strict=True)]
    first = next(chain(*groups), head)
    texts = [isinstance(cell, str) for cell in first]
    blocks = [
        [
            "  ".join(
                cell.ljust(width) if text else cell.rjust(width)
                for cell, width, text in zip(row, widths, texts, strict=True)
            ).rstrip()
            for row in rows
        ]
        for rows in cells
    ]
    rule = "-" * max(map(len, chain(*blocks)))
    return f"\n{rule}\n".join("\n".join(lines) for lines in blocks)


def markdown(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Return a table in Markdown, with a line break at its end.

    Args:
        head: C titles.
        rows: C cells each.
    """
    lines = [head, ["---"] * len(head), *rows]
    return "".join(f"| {' | '.join(cells)} |\n" for cells in lines)


def write_csv(path: Path, columns: Sequence[str], rows: Sequence[Mapping[str, Any]]) -> None:
    """Write rows as a CSV table, atomically; NaN and what a row lacks become empty cells."""
    with atomic_path(path) as temporary, temporary.open("w", newline="") as file:
        writer = csv.DictWriter(file, columns)
        writer.writeheader()
        for row in rows:
            writer.writerow({key: "" if value != value else value for key, value in row.items()})


def write_records(path: Path, records: Sequence[Record], first: Sequence[str]) -> None:
    """Write records as a CSV table, a row each: what they are about, measure, value and interval.

    Args:
        path: The file.
        records: In the order of the rows.
        first: The first columns; others follow as records name them.
    """
    last = ("measure", "value", "low", "high")
    columns = dict.fromkeys([*first, *(key for record in records for key in record.about), *last])
    rows = []
    for record in records:
        low, high = record.interval or ("", "")
        found = {"measure": record.measure, "value": record.value, "low": low, "high": high}
        rows.append({**record.about, **found})
    write_csv(path, list(columns), rows)


def by_row(records: Sequence[Record], keys: Sequence[str]) -> list[dict[str, Any]]:
    """Return one row for each combination of what records are about: these values and all measures.

    A record that is about fewer of the keys counts in every row that it fits. Where it has an
    interval, its ends are `MEASURE_low` and `MEASURE_high`.

    Args:
        records: Records; those about anything else are left out.
        keys: What a row is about, such as `pattern_size`.
    """
    rows = {tuple(r.about[key] for key in keys): None for r in records if set(r.about) == set(keys)}
    found = []
    for values in rows:
        row: dict[str, Any] = dict(zip(keys, values, strict=True))
        fits = [record for record in records if record.about.items() <= row.items()]
        row |= {record.measure: record.value for record in fits}
        for record in fits:
            if record.interval is not None:
                row |= dict(zip(ends_of(record.measure), record.interval, strict=True))
        found.append(row)
    return found


def ends_of(measure: str) -> tuple[str, str]:
    """Return the columns of an interval."""
    return f"{measure}_low", f"{measure}_high"
