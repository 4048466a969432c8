"""What a probe of several classifiers says: records, tables and lines."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import combinations

from iscp_lightning.patterns.tables import clear_differences, number, table, with_interval, words
from iscp_lightning.probes.distortion import Distortion
from iscp_lightning.probes.probe import Probed
from iscp_lightning.records import Record

FIRST = ("classifier", "other", "distortion", "strength")  # columns of the table
LOSSES = ("content_loss", "style_loss")  # of a stylised set
SHOWN = ("clean_accuracy", "generalisation", "shape_bias", "cue_share")  # on the screen


def strongest(distortions: Sequence[Distortion]) -> list[Distortion]:
    """Return the last listed distortion of each kind: saliency is mapped under few of them."""
    kinds = {
        tuple(item for item in distortion.about.items() if item[0] != "strength"): distortion
        for distortion in distortions
    }
    return list(kinds.values())


def records_of(found: Mapping[str, Probed]) -> list[Record]:
    """Return the numbers of every classifier, then those of every pair."""
    records = [
        record for name, probed in found.items() for record in probed.records({"classifier": name})
    ]
    for one, other in combinations(found, 2):
        about = {"classifier": one, "other": other}
        records += found[one].compared_with(found[other], about)
    return records


def lines_of(found: Mapping[str, Probed], records: Sequence[Record]) -> list[str]:
    """Return the tables on the screen: accuracy and generalisation, and what differs surely."""
    lines = [table(*overview(found, records))]
    images = len(next(iter(found.values())).clean)
    lines.append(f"* share still right, of the images that are right as they are; {images} images")
    lines.append("95 % intervals over the images")
    return [*lines, *clear_differences(records, "classifier"), *lines_of_styles(records)]


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
        if "other" not in record.about and record.measure in SHOWN:
            name = f"{words(record)}{' *' if record.measure == 'generalisation' else ''}"
            rows.setdefault(name, {})[str(record.about["classifier"])] = with_interval(record)
    return ["", *found], [[name, *(of[each] for each in found)] for name, of in rows.items()]
