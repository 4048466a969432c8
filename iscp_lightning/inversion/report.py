"""What analyses of inversions say: a table file of all numbers, and lines on the screen."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import combinations

from torch import Tensor

from iscp_lightning.metrics.intervals import mean_interval
from iscp_lightning.patterns.tables import clear_differences, number, table
from iscp_lightning.records import Record

FIRST = ("inversion", "other", "analysis", "method", "split", "strength")
SHOWN = (  # on the screen, of each method
    *("mse", "ssim", "class_agreement", "judge_agreement", "judge_accuracy"),
    *("retrieval_rank", "pixel_retrieval_rank", "fid"),
)


def of_inversion(record: Record, name: str) -> Record:
    """Return a record that also says which inversion it is of."""
    return replace(record, about={"inversion": name, **record.about})


def differences(measures: Mapping[str, Mapping[str, Tensor]]) -> list[Record]:
    """Return how reconstructions of each pair of inversions differ in all measures of `fidelity`.

    `mse_difference` and so on are of the one minus the `other`; their 95 % intervals are of images
    that are drawn together for both.

    Args:
        measures: Of the same images by every inversion, (N,) each, by inversion and measure; of
            different classifiers some may be missing.
    """
    found = []
    for one, other in combinations(measures, 2):
        about = {"inversion": one, "other": other, "analysis": "reconstruction"}
        for name in measures[one].keys() & measures[other].keys():
            values = (measures[one][name].double() - measures[other][name].double()).unsqueeze(1)
            low, high = mean_interval(values)[0].tolist()
            found.append(Record(f"{name}_difference", float(values.mean()), about, (low, high)))
    return sorted(found, key=lambda record: record.measure)


def lines_of(records: Sequence[Record]) -> list[str]:
    """Return a table, means over all images by inversion and method, and what differs surely."""
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
    return [*([table(head, body)] if rows else []), *clear_differences(records, "inversion")]
