"""How close patterns come to the trigger of a backdoored classifier (Figure 7)."""

from __future__ import annotations

import warnings
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from iscp_lightning import figures
from iscp_lightning.data.poison import Poison
from iscp_lightning.data.stamps import Stamp
from iscp_lightning.patterns.mixing import overlap
from iscp_lightning.patterns.pattern import PatternSet
from iscp_lightning.patterns.results import canvas_pixels, pattern_pixels
from iscp_lightning.runs import finite, save_figure


def recover_trigger(
    folder: Path,
    patterns: PatternSet,
    poison: Poison | None,
    stamp: Stamp | None,
    pattern_size: float,
    recorded: dict[str, Any] | None,
) -> dict[str, Any]:
    """Compare patterns with the trigger of poisoned data, and draw the comparison.

    Args:
        folder: The run folder.
        patterns: All patterns of a search.
        poison: How the data are poisoned.
        stamp: The true trigger.
        pattern_size: q, share of the pixels.
        recorded: How the classifier's training data were poisoned, where it is known; other
            poison gives a warning.

    Returns:
        What results.json says of it; empty where there is no trigger, no one target class, or a
        trigger all over the image, which has no place to compare.
    """
    if poison is None or stamp is None or poison.goal != "all_to_one" or bool(stamp.mask.all()):
        return {}
    target = poison.target_index(patterns.class_names)
    if target not in patterns.targets.tolist():
        return {}
    if recorded not in (None, finite(asdict(poison))):
        warnings.warn(
            f"the classifier was trained with another backdoor ({recorded}) than `data.poison`: "
            "give the training's --data.poison options",
            stacklevel=2,
        )
    recovery = measure_recovery(patterns, stamp, target, pattern_size)
    draw_recovery(folder, patterns, stamp, recovery)
    return {"trigger_recovery": recovery}


def center_distance(selected: Tensor, trigger: Tensor) -> Tensor:
    """Return the distance in pixels between the centres of gravity of pixel sets, (P,).

    Args:
        selected: bool (P, H, W), at least one pixel each.
        trigger: bool (H, W), at least one pixel.
    """
    centers = torch.stack([p.nonzero().double().mean(0) for p in [*selected, trigger]])
    distances: Tensor = torch.linalg.vector_norm(centers[:-1] - centers[-1], dim=1)
    return distances


def measure_recovery(
    patterns: PatternSet, stamp: Stamp, target: int, pattern_size: float
) -> dict[str, Any]:
    """Return how well each canvas's pattern of the target class covers the trigger.

    Args:
        patterns: All patterns of a search.
        stamp: The true trigger.
        target: The backdoor's target class.
        pattern_size: q, share of the pixels.

    Returns:
        Plain values: the class, the size, and for each canvas its index, whether it is the winner,
        the intersection over union with the trigger's pixels and the distance between the centres
        in pixels.
    """
    rows = (patterns.targets == target).nonzero().flatten()
    selected = patterns[rows].selected(pattern_size)
    trigger = stamp.mask[0] > 0
    overlaps = overlap(selected, trigger.expand_as(selected)).tolist()
    distances = center_distance(selected, trigger).tolist()
    winners = patterns.winners.tolist()
    return {
        "class": target,
        "pattern_size": pattern_size,
        "canvases": [
            {
                "index": int(patterns.canvas_indices[row]),
                "chosen": row in winners,
                "iou": iou,
                "center_distance": distance,
            }
            for row, iou, distance in zip(rows.tolist(), overlaps, distances, strict=True)
        ],
    }


def format_recovery(recovery: dict[str, Any]) -> str:
    """Return the comparison of the chosen and of the best canvas with the trigger in one line."""
    (chosen,) = (entry for entry in recovery["canvases"] if entry["chosen"])
    best = max(recovery["canvases"], key=lambda entry: entry["iou"])
    words = [
        f"{name} canvas IoU {entry['iou']:.2f}, {entry['center_distance']:.1f} pixels away"
        for name, entry in (("chosen", chosen), ("best", best))
    ]
    return f"trigger against patterns of {100 * recovery['pattern_size']:g} %: {'; '.join(words)}"


def draw_recovery(
    folder: Path, patterns: PatternSet, stamp: Stamp, recovery: dict[str, Any]
) -> None:
    """Write the figure of the trigger, the canvases and what was found on them."""
    size = recovery["pattern_size"]
    rows = (patterns.targets == recovery["class"]).nonzero().flatten().tolist()
    shape = patterns.canvases.shape[2:]
    grey = torch.full((3, *shape), 0.35)
    shown = (torch.stack([stamp(grey), stamp.pixels * stamp.mask]) * 255).round()
    on_grey, on_black = shown.to(torch.uint8).permute(0, 2, 3, 1).numpy()
    name = patterns.class_names[recovery["class"]]
    figure = figures.pattern_grid(
        [
            [on_grey, *(canvas_pixels(patterns, row) for row in rows)],
            [on_black, *(pattern_pixels(patterns, row, size) for row in rows)],
        ],
        row_labels=["on grey", f"target {name}\n{100 * size:g} %"],
        column_labels=["true trigger", *(f"canvas {i + 1}" for i in range(len(rows)))],
        captions=[
            [""] * (len(rows) + 1),
            [
                "",
                *(
                    f"IoU {entry['iou']:.2f}, {entry['center_distance']:.1f} px away"
                    f"{' (chosen)' if entry['chosen'] else ''}"
                    for entry in recovery["canvases"]
                ),
            ],
        ],
    )
    save_figure(folder / "figures" / "trigger_recovery.png", figure)
