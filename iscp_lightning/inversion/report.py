"""What analyses of inversions say: a table file of all numbers, and lines on the screen."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from iscp_lightning.patterns.tables import number, table
from iscp_lightning.records import Record

FIRST = ("inversion", "analysis", "method", "split", "strength")
SHOWN = (  # on the screen, of each method
    *("mse", "ssim", "class_agreement", "judge_agreement", "judge_accuracy"),
    *("retrieval_rank", "pixel_retrieval_rank", "fid"),
)


def of_inversion(record: Record, name: str) -> Record:
    """Return a record that also says which inversion it is of."""
    return replace(record, about={"inversion": name, **record.about})


def lines_of(records: Sequence[Record]) -> list[str]:
    """Return a table: for each inversion and method, means over all images."""
    rows: dict[tuple[str, str], dict[str, str]] = {}
    for record in records:
        if record.about.get("split") == "all" and record.measure in (*SHOWN, "images"):
            analysis = str(record.about["analysis"])
            method = str(record.about.get("method", analysis))
            name = method if method == analysis else f"{method} (few images)"
            row = rows.setdefault((str(record.about["inversion"]), name), {})
            row[record.measure] = (
                str(record.value) if record.measure == "images" else number(record.value)
            )
    shown = [measure for measure in ("images", *SHOWN) if any(measure in r for r in rows.values())]
    body = [[*key, *(row.get(measure, "") for measure in shown)] for key, row in rows.items()]
    head = ["inversion", "images are made by", *(measure.replace("_", " ") for measure in shown)]
    return [table(head, body)] if rows else []
