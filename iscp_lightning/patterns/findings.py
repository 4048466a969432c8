"""What a search found, as records, table, results.json and pattern file."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from iscp_lightning.metrics.intervals import mean_interval
from iscp_lightning.patterns.pattern import PatternSet
from iscp_lightning.patterns.power import PatternPower
from iscp_lightning.patterns.recovery import format_recovery
from iscp_lightning.patterns.tables import Cell, number, span, table
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
    """Return the content of a search's results.json: its records by measure, NaN where undefined.

    Args:
        patterns: Measured patterns; at least every winner.

    Returns:
        Each measure of `pattern_records` under its name, by size where it has one, its interval
        under the name with `_interval`; those of a class in `classes`, with all its canvases.
    """
    power = power_of(patterns)
    records = pattern_records(patterns)
    return {
        **_nested([record for record in records if "class" not in record.about]),
        "measured_on": power.measured_on,
        "classes": [_of_class(patterns, power, records, row) for row in patterns.winners.tolist()],
        "settings": patterns.settings,
        "provenance": patterns.provenance,
    }


def pattern_records(patterns: PatternSet) -> list[Record]:
    """Return the numbers of the winners: the means over classes, then those of each class.

    `clean_accuracy` is the share of all `measured_images` predicted right, `mean_clean_accuracy`
    the mean over the searched classes that have images; other means are over the winners where
    they are defined. Intervals of means are over the classes of this one search, all others over
    images.
    """
    power = power_of(patterns)
    winners = power[patterns.winners]
    classes = power.clean_accuracy[winners.targets]
    by_size = {
        "mean_predictive_power": winners.mean,
        "std_predictive_power": winners.std,
        "classes_defined": winners.defined,
        "mean_attack_success_rate": winners.attack_success_rate.nanmean(0),
    }
    overall = {
        "clean_accuracy": power.overall_clean_accuracy,
        "mean_clean_accuracy": classes.nanmean(),
        "measured_images": power.images.sum(),
    }
    of_class = {"clean_accuracy": classes, "objective": patterns.objectives[patterns.winners]}
    of_pattern = {
        "predictive_power": winners.predictive_power,
        "attack_success_rate": winners.attack_success_rate,
    }
    ends_of = {
        "mean_predictive_power": winners.mean_interval,
        "mean_attack_success_rate": mean_interval(winners.attack_success_rate),
    }
    if (best := _of_best_canvas(patterns, power)) is not None:
        by_size["mean_predictive_power_of_best_canvas"] = best
    intervals = {
        "predictive_power": winners.interval,
        "attack_success_rate": winners.rate_interval(winners.attack_success_rate),
    }
    if (controls := winners.controls) is not None:
        for name, rates in controls._asdict().items():
            columns = rates if rates.dim() == 2 else rates.unsqueeze(1)
            over_classes, over_images = mean_interval(columns), winners.rate_interval(columns)
            if rates.dim() == 2:
                of_pattern[name], intervals[name] = rates, over_images
                by_size[f"mean_{name}"], ends_of[f"mean_{name}"] = rates.nanmean(0), over_classes
            else:
                of_class[name], intervals[name] = rates, over_images.squeeze(1)
                overall[f"mean_{name}"] = rates.nanmean()
                ends_of[f"mean_{name}"] = over_classes.squeeze(0)
    sizes = power.pattern_sizes
    found = [
        record
        for name, values in by_size.items()
        for record in _by_size(name, values, sizes, {}, ends_of.get(name))
    ]
    found += [
        Record(name, value.item(), {}, _pair(ends_of.get(name))) for name, value in overall.items()
    ]
    for row, target in enumerate(winners.targets.tolist()):
        about = {"class": patterns.class_names[target]}
        for name, values in of_class.items():
            ends = intervals[name][row] if name in intervals else None
            found.append(Record(name, float(values[row]), about, _pair(ends)))
        for name, values in of_pattern.items():
            found += _by_size(name, values[row], sizes, about, intervals[name][row])
    return found


def _by_size(
    measure: str,
    values: Tensor,
    sizes: Sequence[float],
    about: dict[str, Any],
    ends: Tensor | None = None,
) -> list[Record]:
    """Return a record for each of the S sizes.

    Args:
        measure: What was measured.
        values: (S,) numbers.
        sizes: S pattern sizes.
        about: What else they are of.
        ends: (S, 2) ends of their intervals.
    """
    intervals = [None] * len(sizes) if ends is None else map(_pair, ends)
    return [
        Record(measure, value, {"pattern_size": size} | about, interval)
        for value, size, interval in zip(values.tolist(), sizes, intervals, strict=True)
    ]


def _pair(ends: Tensor | None) -> tuple[float, float] | None:
    return None if ends is None else (float(ends[0]), float(ends[1]))


def format_table(results: dict[str, Any]) -> str:
    """Return accuracy and predictive power of the searched classes and their means as a table.

    Below stand the interval of the means, what they have to be compared with, and the accuracy on
    all images, also those of other classes.
    """
    sizes = list(results["mean_predictive_power"])
    head = ["class", "clean accuracy", *(f"PW {100 * float(size):g} %" for size in sizes)]
    classes = [
        [entry["name"], entry["clean_accuracy"], *entry["predictive_power"].values()]
        for entry in results["classes"]
    ]
    intervals = results["mean_predictive_power_interval"].values()
    means: list[list[Cell]] = [
        ["mean", results["mean_clean_accuracy"], *results["mean_predictive_power"].values()],
        ["  95 % interval", "over classes", *map(span, intervals)],
    ]
    if best := results.get("mean_predictive_power_of_best_canvas"):
        means.append(["  of best canvases", "", *best.values()])
    for title, measure in (("mean ASR", "attack_success"), ("  of random masks", "random_mask")):
        if rates := results.get(f"mean_{measure}_rate"):
            ends = results[f"mean_{measure}_rate_interval"].values()
            means.append([title, "", *rates.values()])
            means.append(["  95 % interval", "over classes", *map(span, ends)])
    images = f"{results['measured_images']} {results['measured_on']} images"
    below = [f"clean_accuracy: {number(results['clean_accuracy'])} of {images}"]
    if "mean_base_rate" in results:
        base, whole = (
            f"{number(results[name])} ({span(results[f'{name}_interval'])})"
            for name in ("mean_base_rate", "mean_whole_canvas_rate")
        )
        below.append(f"mean ASR without a pattern: {base}; of the whole canvas: {whole}")
    return "\n".join([table(head, classes, means), *below])


def power_of(patterns: PatternSet) -> PatternPower:
    """Return what was measured of patterns.

    Raises:
        ValueError: if nothing was.
    """
    if patterns.power is None:
        raise ValueError("the patterns have not been measured: `predictive_power` measures them")
    return patterns.power


def _nested(records: Sequence[Record]) -> dict[str, Any]:
    """Return records by measure and, where they have one, by pattern size."""
    nested: dict[str, Any] = {}
    for record in records:
        if "pattern_size" not in record.about:
            nested[record.measure] = record.value
            if record.interval is not None:
                nested[f"{record.measure}_interval"] = list(record.interval)
            continue
        key = f"{record.about['pattern_size']:g}"
        nested.setdefault(record.measure, {})[key] = record.value
        if record.interval is not None:
            nested.setdefault(f"{record.measure}_interval", {})[key] = list(record.interval)
    return nested


def _of_class(
    patterns: PatternSet, power: PatternPower, records: Sequence[Record], winner: int
) -> dict[str, Any]:
    target = int(patterns.targets[winner])
    name = patterns.class_names[target]
    sizes = [f"{size:g}" for size in power.pattern_sizes]
    canvases = [
        {
            "index": int(patterns.canvas_indices[row]),
            "objective": float(patterns.objectives[row]),
            "predictive_power": None
            if power.attack_success_rate[row].isnan().all()
            else dict(zip(sizes, power.predictive_power[row].tolist(), strict=True)),
        }
        for row in (patterns.targets == target).nonzero().flatten().tolist()
    ]
    canvas = {"kind": patterns.settings["canvas"], "index": int(patterns.canvas_indices[winner])}
    own = _nested([record for record in records if record.about.get("class") == name])
    return {"class": target, "name": name, **own, "canvas": canvas, "canvases": canvases}


def _of_best_canvas(patterns: PatternSet, power: PatternPower) -> Tensor | None:
    """Return (S,) the mean over classes of each class's best canvas, if all were measured."""
    unmeasured = power.attack_success_rate.isnan().all(1)
    if unmeasured.any() or len(patterns) == len(patterns.winners):
        return None
    values = power.predictive_power
    maxima = [values[patterns.targets == t].amax(0) for t in patterns.targets.unique()]
    return torch.stack(maxima).nanmean(0)
