"""How much the patterns of two searches have in common, class by class.

    python docs/claims/overlaps.py RUN OTHER --run NAME

RUN and OTHER are folders of searches in the same classes. runs/NAME/results.json gets two records
for each class: the overlap of both runs' patterns of it, and that of RUN's with OTHER's of other
classes, the mean over these.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import torch
from torch import Tensor

from iscp_lightning import PatternSet
from iscp_lightning.metrics.overlap import overlap
from iscp_lightning.patterns.stored import pattern_path

SIZE = 0.05


def overlaps(selected: Tensor, other: Tensor) -> tuple[Tensor, Tensor]:
    """Return the intersection over union of patterns of the same class and of different ones.

    Args:
        selected: bool (K, H, W), a pattern for each class.
        other: bool (K, H, W), likewise.

    Returns:
        (K,) float, the same class; (K,) float, the mean over the others.
    """
    pairs = torch.stack([overlap(each.expand_as(other), other) for each in selected])
    same = pairs.diagonal()
    return same, (pairs.sum(1) - same) / (len(pairs) - 1)


def main() -> None:
    """Measure and write."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("searches", type=Path, nargs=2)
    parser.add_argument("--run", required=True)
    parser.add_argument("--overwrite", action="store_true")
    given = parser.parse_args()
    found = []
    for search in given.searches:
        patterns = PatternSet.load(pattern_path(str(search)))
        found.append(patterns[patterns.winners])
    one, other = found
    if one.targets.tolist() != other.targets.tolist():
        parser.error("the searches are of different classes")
    measures = ("overlap", "overlap_with_other_classes")
    records = [
        {"measure": measure, "value": value, "class": name, "pattern_size": SIZE}
        for measure, of in zip(
            measures, overlaps(one.selected(SIZE), other.selected(SIZE)), strict=True
        )
        for name, value in zip(
            (one.class_names[k] for k in one.targets.tolist()), of.tolist(), strict=True
        )
    ]
    folder = Path("runs") / given.run
    folder.mkdir(parents=True, exist_ok=given.overwrite)
    (folder / "results.json").write_text(json.dumps({"records": records}, indent=1))


if __name__ == "__main__":
    main()
