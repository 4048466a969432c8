"""What a probe of several classifiers says: records, tables and lines."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import combinations
from typing import Any

from iscp_lightning.patterns.tables import clear_differences, number, table, with_interval, words
from iscp_lightning.probes.distortion import Distortion
from iscp_lightning.probes.distortions import Clean
from iscp_lightning.probes.probe import Probed
from iscp_lightning.records import Record

FIRST = ("classifier", "other", "distortion", "strength")  # columns of the table
LOSSES = ("content_loss", "style_loss")  # of a stylised set
SHOWN = ("clean_accuracy", "generalisation", "shape_bias", "cue_share")  # in the table
MAPPED = (  # likewise, of the images as they are
    *("saliency_gini", "saliency_on_object", "saliency_on_edge", "saliency_overlap"),
    "correlation_with_random",
)


def last_of_each_kind(distortions: Sequence[Distortion]) -> list[Distortion]:
    """Return the last listed distortion of each kind: saliency is mapped under few of them."""
    kinds = {
        tuple(item for item in distortion.about.items() if item[0] != "strength"): distortion
        for distortion in distortions
    }
    return list(kinds.values())


def records_of(*sets: Mapping[str, Any]) -> list[Record]:
    """Return the numbers of every classifier, then those of every pair.

    Args:
        sets: By classifier what answers `records` and `compared_with`: `Probed`, `Mapped`.
    """
    records = [
        record
        for found in sets
        for name, each in found.items()
        for record in each.records({"classifier": name})
    ]
    for found in sets:
        for (one, ours), (other, theirs) in combinations(found.items(), 2):
            about = {"classifier": one, "other": other}
            records += ours.compared_with(theirs, about)
    return records


def lines_of(found: Mapping[str, Probed], records: Sequence[Record]) -> list[str]:
    """Return the tables on the screen: accuracy and generalisation, and what differs surely."""
    lines = [table(*overview(found, records))]
    probed = next(iter(found.values()))
    images = len(probed.clean)
    lines.append(f"* share still right, of the images that are right as they are; {images} images")
    if probed.cues is not None:
        conflicting = int((probed.cues.shapes != probed.cues.textures).sum())
        lines.append(f"shape bias and cue share: {conflicting} images whose cues are in conflict")
    lines.append("95 % intervals over the images")
    kappas = [
        f"error consistency (kappa): {r.about['classifier']}, {r.about['other']} = "
        f"{with_interval(r)}"
        for r in records
        if r.measure == "error_consistency" and "distortion" not in r.about
    ]
    found_surely = clear_differences(records, "classifier")
    return [*lines, *kappas, *found_surely, *lines_of_styles(records)]


def lines_of_styles(records: Sequence[Record]) -> list[str]:
    """Return what stylised sets have kept of the content and taken of the style, if there are such.

    Args:
        records: Among others those of `StyleJudgement`.
    """
    judged: dict[str, dict[str, str]] = {}
    for record in records:
        if record.measure in LOSSES:
            name = f"{record.measure.replace('_', ' ')}, {words(record)}"
            judged.setdefault(name, {})[str(record.about["pictures"])] = number(record.value)
    return [
        f"{name}: {of['stylised']}; images as they are {of['content']}, styles {of['style']}"
        for name, of in judged.items()
    ]


def overview(
    found: Mapping[str, Probed], records: Sequence[Record]
) -> tuple[list[str], list[list[str]]]:
    """Return head and rows of the table of classifiers; `*` marks generalisation."""
    rows: dict[str, dict[str, str]] = {}
    for record in records:
        mapped = record.measure in MAPPED and record.about["distortion"] == Clean.name
        if "other" not in record.about and (record.measure in SHOWN or mapped):
            name = f"{words(record)}{' *' if record.measure == 'generalisation' else ''}"
            name = record.measure.replace("_", " ") if mapped else name
            rows.setdefault(name, {})[str(record.about["classifier"])] = with_interval(record)
    return ["", *found], [[name, *(of[each] for each in found)] for name, of in rows.items()]
