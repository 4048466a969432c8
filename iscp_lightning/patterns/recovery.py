"""How close patterns come to the trigger of a backdoored classifier (Figure 7)."""

from __future__ import annotations

import warnings
from dataclasses import asdict
from typing import Any

import torch
from torch import Tensor

from iscp_lightning.data.poison import Poison
from iscp_lightning.data.stamps import Stamp
from iscp_lightning.metrics.overlap import overlap, shifted_overlap
from iscp_lightning.patterns.pattern import PatternSet
from iscp_lightning.patterns.pixels import top_pixels
from iscp_lightning.runs import finite
from iscp_lightning.seeds import named_generator

CHANCE_DRAWS = 200


def recover_trigger(
    patterns: PatternSet,
    poison: Poison | None,
    stamp: Stamp | None,
    pattern_size: float,
    recorded: dict[str, Any] | None = None,
) -> dict[str, Any] | None:
    """Compare patterns with the trigger of poisoned data.

    Args:
        patterns: All patterns of a search.
        poison: How the data are poisoned.
        stamp: The true trigger.
        pattern_size: q, share of the pixels.
        recorded: How the classifier's training data were poisoned, where it is known; other
            poison gives a warning.

    Returns:
        What `measure_recovery` does; None where there is no trigger, no one target class, or a
        trigger all over the image, which has no place to compare.
    """
    if poison is None or stamp is None or poison.goal != "all_to_one" or bool(stamp.mask.all()):
        return None
    target = poison.target_index(patterns.class_names)
    if target not in patterns.targets.tolist():
        return None
    if recorded not in (None, finite(asdict(poison))):
        warnings.warn(
            f"the classifier was trained with another backdoor ({recorded}) than `data.poison`: "
            "give the training's --data.poison options",
            stacklevel=2,
        )
    return measure_recovery(patterns, stamp, target, pattern_size)


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
        the intersection over union with the trigger's pixels (`shifted_iou`: with the trigger
        shifted to where that is largest) and the distance between the centres in pixels; by
        `chance` these three of as many random pixels, the mean of 200 draws.
    """
    rows = (patterns.targets == target).nonzero().flatten()
    selected = patterns[rows].selected(pattern_size)
    trigger = stamp.mask[0] > 0
    winners = patterns.winners.tolist()
    found = {name: values.tolist() for name, values in closeness(selected, trigger).items()}
    return {
        "class": target,
        "pattern_size": pattern_size,
        "canvases": [
            {
                "index": int(patterns.canvas_indices[row]),
                "chosen": row in winners,
                **{name: values[number] for name, values in found.items()},
            }
            for number, row in enumerate(rows.tolist())
        ],
        "chance": closeness_by_chance(trigger, pattern_size),
    }


def closeness(selected: Tensor, trigger: Tensor) -> dict[str, Tensor]:
    """Return `iou`, `shifted_iou` and `center_distance` of pixel sets, (P,) each.

    Args:
        selected: bool (P, H, W), at least one pixel each.
        trigger: bool (H, W), at least one pixel.
    """
    return {
        "iou": overlap(selected, trigger.expand_as(selected)),
        "shifted_iou": shifted_overlap(selected, trigger),
        "center_distance": center_distance(selected, trigger),
    }


def closeness_by_chance(trigger: Tensor, pattern_size: float) -> dict[str, float]:
    """Return the same of random pixels, the mean of 200 draws.

    Args:
        trigger: bool (H, W), at least one pixel.
        pattern_size: q, share of the pixels.
    """
    draws = torch.rand(CHANCE_DRAWS, *trigger.shape, generator=named_generator(0, "random pixels"))
    selected = top_pixels(draws, draws, [pattern_size])[:, 0]
    return {name: float(values.mean()) for name, values in closeness(selected, trigger).items()}


def format_recovery(recovery: dict[str, Any]) -> str:
    """Return the comparison of the chosen and of the best canvas with the trigger in one line."""
    (chosen,) = (entry for entry in recovery["canvases"] if entry["chosen"])
    best = max(recovery["canvases"], key=lambda entry: entry["iou"])
    words = [
        f"{name} IoU {entry['iou']:.2f}, {entry['center_distance']:.1f} pixels away"
        for name, entry in (
            ("chosen canvas", chosen),
            ("best canvas", best),
            ("random pixels", recovery["chance"]),
        )
    ]
    return f"trigger against patterns of {100 * recovery['pattern_size']:g} %: {'; '.join(words)}"
