"""Figures of probes: accuracy against strengths, shape against texture, and the course of both."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from iscp_lightning import figures
from iscp_lightning.patterns.tables import words
from iscp_lightning.records import Findings, Record

if TYPE_CHECKING:
    from matplotlib.figure import Figure

UNITS = {
    "saturation": "saturation p (2: as it is)",
    "patch shuffle": "tiles a side k",
    "low-pass": "radius in cycles per image, low-pass",
    "high-pass": "radius in cycles per image, high-pass",
    "adversarial linf": "radius (L-inf) in 1/255",
    "adversarial l2": "radius (L2)",
}
PER_UNIT = {"adversarial linf": 255}  # how many units a strength of 1 has
NEUTRAL = {"saturation": 2.0, "patch shuffle": 1.0}  # strengths that change nothing
COURSE = ("clean_accuracy", "accuracy", "shape_bias", "cue_share")  # against epochs
PLANE = {"patch shuffle": 4.0, "saturation": math.inf}  # the largest strength that counts


def strength_figures(records: Sequence[Record], measure: str) -> dict[str, Figure]:
    """Return for each distortion with several strengths a measure against them.

    Args:
        records: Of several classifiers, as `classifier` says.
        measure: `accuracy` or `generalisation`.
    """
    chosen = [
        r for r in records if r.measure == measure and {"strength", "classifier"} <= r.about.keys()
    ]
    clean = {str(r.about["classifier"]): r for r in records if r.measure == "clean_accuracy"}
    drawn = {}
    for kind in dict.fromkeys(map(kind_of, chosen)):
        of_name = [record for record in chosen if kind_of(record) == kind]
        name = str(of_name[0].about["distortion"])
        strengths = sorted({float(record.about["strength"]) for record in of_name})
        if measure == "accuracy" and name in NEUTRAL:
            strengths = sorted({*strengths, NEUTRAL[name]})
        if len(strengths) < 2:
            continue
        curves = {}
        for classifier, unchanged in clean.items():
            ours = [record for record in of_name if record.about["classifier"] == classifier]
            found = {float(record.about["strength"]): record for record in ours}
            found.setdefault(NEUTRAL.get(name, math.nan), unchanged)
            curves[classifier] = np.stack([ends(found[strength]) for strength in strengths], 1)
        drawn[f"{measure}_{kind.replace(' ', '_')}"] = figures.banded_curves(
            [PER_UNIT.get(name, 1) * strength for strength in strengths],
            curves,
            xlabel=UNITS.get(name, name),
            ylabel=measure,
            logarithmic=True,
        )
    return drawn


def kind_of(record: Record) -> str:
    """Return what a record's distortion is but for its strength, such as `stylised textures`."""
    rest = {name: value for name, value in record.about.items() if name != "strength"}
    return words(replace(record, about=rest))


def plane_figure(records: Sequence[Record]) -> Figure | None:
    """Return the shape-texture plane with a point for each classifier; None without both.

    How much is left where texture of little contrast is flattened (the strongest saturation),
    against how much is left where shape is broken (the most tiles up to 4 a side, of which smaller
    ones show no texture either), each of the images that are right as they are.

    Args:
        records: Of several classifiers, as `classifier` says.
    """
    points: dict[str, list[NDArray[np.float64]]] = {}
    for name, most in PLANE.items():
        of_name = [
            record
            for record in records
            if record.measure == "generalisation"
            and record.about.get("distortion") == name
            and float(record.about["strength"]) <= most
        ]
        if not of_name:
            return None
        strongest = max(float(record.about["strength"]) for record in of_name)
        for record in of_name:
            if record.about["strength"] == strongest:
                points.setdefault(str(record.about["classifier"]), []).append(ends(record))
    return figures.plane(
        {name: np.stack(both) for name, both in points.items()},
        xlabel="still right with shuffled patches",
        ylabel="still right when saturated",
    )


def course(past: Sequence[Findings]) -> dict[str, Figure]:
    """Return the measures against epochs: all accuracies in one figure, the shape bias in another.

    Args:
        past: Findings in order of their epochs.
    """
    epochs = [float(each.provenance["epoch"]) for each in past]
    drawn = {}
    for title, measures in (
        ("accuracy", ("clean_accuracy", "accuracy")),
        ("shape_bias", ("shape_bias", "cue_share")),
    ):
        by_name: dict[str, list[NDArray[np.float64]]] = {}
        for found in past:
            for record in found.records:
                if record.measure in measures:
                    by_name.setdefault(words(record), []).append(ends(record))
        curves = {name: np.stack(each, 1) for name, each in by_name.items()}
        curves = {name: each for name, each in curves.items() if each.shape[1] == len(epochs)}
        if curves:
            drawn[title] = figures.banded_curves(
                epochs, curves, xlabel="epoch", ylabel="share of the images"
            )
    return drawn


def joint_course(past: Mapping[str, Sequence[Findings]]) -> Figure | None:
    """Return accuracies and shape bias of several trainings against epochs, a panel for each.

    Args:
        past: For each training its findings in order of their epochs, of which it has its own.

    Returns:
        The figure of all that two trainings or more have measured; None where there is nothing.
    """
    panels: dict[str, dict[str, list[NDArray[np.float64]]]] = {}
    for name, findings in past.items():
        for found in findings:
            for record in found.records:
                if record.measure in COURSE:
                    point = np.array([found.provenance["epoch"], *ends(record)], dtype=float)
                    panels.setdefault(words(record), {}).setdefault(name, []).append(point)
    shared = {
        measure: {name: np.stack(points, 1) for name, points in of.items()}
        for measure, of in panels.items()
        if len(of) > 1
    }
    return figures.curve_panels(shared, xlabel="epoch") if shared else None


def ends(record: Record) -> NDArray[np.float64]:
    """Return value and ends of the interval, float64 (3,); NaN where there is none."""
    low, high = record.interval or (math.nan, math.nan)
    return np.array([record.value, low, high])
