"""What a search found, as records, table, results.json and pattern file."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from iscp_lightning.patterns.pattern import PatternSet
from iscp_lightning.patterns.power import PatternPower
from iscp_lightning.patterns.recovery import format_recovery
from iscp_lightning.records import Findings, Record


@dataclass(frozen=True)
class PatternFindings(Findings):
    """The findings of a search: its patterns, and what else was found of them.

    Attributes:
        patterns: The pattern set; what was measured is in it.
        further: More entries of results.json, plain values.
    """

    patterns: PatternSet | None = None
    further: dict[str, Any] = field(default_factory=dict)

    @property
    def results(self) -> dict[str, Any]:
        """What results.json says of a search."""
        if self.patterns is None:
            return super().results
        return summarize(self._sourced) | self.further

    def save(self, folder: Path, name: str) -> None:
        """Write `patterns/NAME.safetensors`."""
        if self.patterns is not None:
            self._sourced.save(folder / "patterns" / f"{name}.safetensors")

    @property
    def _sourced(self) -> PatternSet:
        """The patterns, with what a training adds to their provenance."""
        assert self.patterns is not None
        return replace(self.patterns, provenance=dict(self.provenance))


def search_findings(
    patterns: PatternSet, recovery: dict[str, Any] | None = None
) -> PatternFindings:
    """Return the findings of a measured search.

    Args:
        patterns: All its patterns.
        recovery: How close they come to a known trigger, as `measure_recovery` says it.
    """
    lines = [format_table(summarize(patterns))]
    if recovery is not None:
        lines.append(format_recovery(recovery))
    return PatternFindings(
        records=pattern_records(patterns),
        lines=lines,
        provenance=patterns.provenance,
        patterns=patterns,
        further={} if recovery is None else {"trigger_recovery": recovery},
    )


def summarize(patterns: PatternSet) -> dict[str, Any]:
    """Return the content of a search's results.json: plain values, NaN where undefined.

    Args:
        patterns: Measured patterns; at least every winner.

    Returns:
        Among others `clean_accuracy`, the share of all `measured_images` predicted right, and
        `mean_clean_accuracy`, the mean over the searched classes that have images.
    """
    power = power_of(patterns)
    keys = [f"{size:g}" for size in power.pattern_sizes]
    of_winners = power[patterns.winners]
    classes = power.clean_accuracy[patterns.targets.unique()]
    best = _of_best_canvas(patterns, power)
    result: dict[str, Any] = {
        "mean_predictive_power": _by(keys, of_winners.mean),
        "std_predictive_power": _by(keys, of_winners.std),
        "classes_defined": _by(keys, of_winners.defined),
        "clean_accuracy": float(power.overall_clean_accuracy),
        "mean_clean_accuracy": float(classes.nanmean()),
        "measured_on": power.measured_on,
        "measured_images": int(power.images.sum()),
    }
    if best is not None:
        result["mean_predictive_power_of_best_canvas"] = _by(keys, best)
    return result | {
        "classes": [_of_class(patterns, power, keys, row) for row in patterns.winners.tolist()],
        "settings": patterns.settings,
        "provenance": patterns.provenance,
    }


def pattern_records(patterns: PatternSet) -> list[Record]:
    """Return the numbers of the winners, of each class and the means over classes, and accuracy."""
    power = power_of(patterns)
    winners = power[patterns.winners]
    records = [
        Record("mean_predictive_power", value, {"pattern_size": size})
        for size, value in zip(power.pattern_sizes, winners.mean.tolist(), strict=True)
    ]
    records.append(Record("clean_accuracy", float(power.overall_clean_accuracy)))
    rows = zip(patterns.winners.tolist(), winners.predictive_power.tolist(), strict=True)
    for row, values in rows:
        name = patterns.class_names[int(patterns.targets[row])]
        records.append(Record("objective", float(patterns.objectives[row]), {"class": name}))
        records += [
            Record("predictive_power", value, {"pattern_size": size, "class": name})
            for size, value in zip(power.pattern_sizes, values, strict=True)
        ]
    return records


def format_table(results: dict[str, Any]) -> str:
    """Return accuracy and predictive power of the searched classes and their means as a table.

    The accuracy on all images, also those of other classes, stands below it.
    """
    sizes = list(results["mean_predictive_power"])
    head = ["class", "clean accuracy", *(f"PW {100 * float(size):g} %" for size in sizes)]
    rows = [
        [entry["name"], entry["clean_accuracy"], *entry["predictive_power"].values()]
        for entry in results["classes"]
    ]
    means = results["mean_predictive_power"].values()
    rows.append(["mean", results["mean_clean_accuracy"], *means])
    text = [head] + [[row[0], *(number(value) for value in row[1:])] for row in rows]
    widths = [max(len(row[i]) for row in text) for i in range(len(head))]
    lines = [
        "  ".join(
            [
                row[0].ljust(widths[0]),
                *(c.rjust(w) for c, w in zip(row[1:], widths[1:], strict=True)),
            ]
        )
        for row in text
    ]
    rule = "-" * len(lines[0])
    images = f"{results['measured_images']} {results['measured_on']} images"
    overall = f"clean_accuracy: {number(results['clean_accuracy'])} of {images}"
    return "\n".join([lines[0], rule, *lines[1:-1], rule, lines[-1], overall])


def power_of(patterns: PatternSet) -> PatternPower:
    """Return what was measured of patterns.

    Raises:
        ValueError: if nothing was.
    """
    if patterns.power is None:
        raise ValueError("the patterns have not been measured: `predictive_power` measures them")
    return patterns.power


def number(value: float | None) -> str:
    """Return a number with three decimals, a dash where there is none."""
    return "-" if value is None or value != value else f"{value:.3f}"


def _by(keys: Sequence[str], values: Tensor) -> dict[str, float]:
    return dict(zip(keys, values.tolist(), strict=True))


def _measured(power: PatternPower) -> Tensor:
    """Return which patterns were measured, (P,) bool."""
    return ~power.attack_success_rate.isnan().all(1)


def _of_class(
    patterns: PatternSet, power: PatternPower, keys: Sequence[str], winner: int
) -> dict[str, Any]:
    target = int(patterns.targets[winner])
    values, measured = power.predictive_power, _measured(power)
    canvases = [
        {
            "index": int(patterns.canvas_indices[row]),
            "objective": float(patterns.objectives[row]),
            "predictive_power": _by(keys, values[row]) if measured[row] else None,
        }
        for row in (patterns.targets == target).nonzero().flatten().tolist()
    ]
    return {
        "class": target,
        "name": patterns.class_names[target],
        "clean_accuracy": float(power.clean_accuracy[target]),
        "predictive_power": _by(keys, values[winner]),
        "canvas": {
            "kind": patterns.settings["canvas"],
            "index": int(patterns.canvas_indices[winner]),
        },
        "objective": float(patterns.objectives[winner]),
        "canvases": canvases,
    }


def _of_best_canvas(patterns: PatternSet, power: PatternPower) -> Tensor | None:
    """Return (S,) the mean over classes of each class's best canvas, if all were measured."""
    if not _measured(power).all() or len(patterns) == len(patterns.winners):
        return None
    values = power.predictive_power
    maxima = [values[patterns.targets == t].amax(0) for t in patterns.targets.unique()]
    return torch.stack(maxima).nanmean(0)
