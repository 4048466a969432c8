"""Numbers as tables."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from iscp_lightning.patterns.findings import number
from iscp_lightning.records import Record


def table(head: Sequence[str], rows: Sequence[Sequence[str | float]]) -> str:
    """Return a table with a rule below its head; text to the left, numbers with three decimals.

    Args:
        head: C titles.
        rows: C cells each, of one type a column; NaN becomes a dash.
    """
    cells = [[cell if isinstance(cell, str) else number(cell) for cell in row] for row in rows]
    widths = [max(map(len, column)) for column in zip(head, *cells, strict=True)]
    texts = [isinstance(cell, str) for cell in (rows[0] if rows else head)]
    lines = [
        "  ".join(
            cell.ljust(width) if text else cell.rjust(width)
            for cell, width, text in zip(row, widths, texts, strict=True)
        ).rstrip()
        for row in [head, *cells]
    ]
    return "\n".join([lines[0], "-" * max(map(len, lines)), *lines[1:]])


def by_row(records: Sequence[Record], keys: Sequence[str]) -> list[dict[str, Any]]:
    """Return one row for each combination of what records are about: these values and all measures.

    A record that is about fewer of the keys counts in every row that it fits.

    Args:
        records: Records; those about anything else are left out.
        keys: What a row is about, such as `pattern_size`.
    """
    rows = {tuple(r.about[key] for key in keys): None for r in records if set(r.about) == set(keys)}
    found = []
    for values in rows:
        row: dict[str, Any] = dict(zip(keys, values, strict=True))
        fits = [record for record in records if record.about.items() <= row.items()]
        found.append(row | {record.measure: record.value for record in fits})
    return found
