"""Figures of patterns: sizes, canvases, the course of a training, a trigger that was found."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from iscp_lightning import figures
from iscp_lightning.data.images import as_eight_bits
from iscp_lightning.data.stamps import Stamp
from iscp_lightning.metrics.intervals import mean_interval
from iscp_lightning.metrics.overlap import chance_overlap, overlap
from iscp_lightning.patterns.findings import power_of, summarize
from iscp_lightning.patterns.pattern import PatternSet
from iscp_lightning.patterns.tables import number, span
from iscp_lightning.records import Picture, Pixels

if TYPE_CHECKING:
    from matplotlib.figure import Figure

SHOWN_SIZE = 0.05  # the paper's usual pattern size
SHOWN_CLASSES = 50  # rows of a figure; results.json always holds all


def search_figures(patterns: PatternSet) -> dict[str, Figure]:
    """Return the figures of a measured search by file name."""
    results, power = summarize(patterns), power_of(patterns)
    kind = patterns.settings["canvas"]
    winners = power[patterns.winners]
    variant = patterns.variant
    name = f"{kind} canvases" if variant.needs_canvas else type(variant).__name__
    curves = {name: winners.predictive_power}
    if winners.controls is not None:
        base_rate, random_mask_rate, whole_canvas_rate = winners.controls
        curves["random masks"] = winners.over_accuracy(random_mask_rate)
        single = {"no pattern": base_rate}
        if variant.needs_canvas:
            single["whole canvas"] = whole_canvas_rate
        for label, rate in single.items():
            values = winners.over_accuracy(rate.unsqueeze(1))
            curves[label] = values.expand_as(winners.predictive_power)
    drawn = {
        "patterns": _draw_sizes(patterns, results, power.pattern_sizes),
        "predictive_power": figures.predictive_power_curve(
            power.pattern_sizes,
            {
                label: torch.stack([values.nanmean(0), *mean_interval(values).T]).numpy()
                for label, values in curves.items()
                if label == name or not values.isnan().all()
            },
        ),
    }
    if len(patterns) > len(patterns.winners):
        drawn["canvases"] = _draw_canvases(patterns, results)
    return drawn


def training_figures(
    snapshots: Sequence[PatternSet], epochs: Sequence[float], ceiling: float | None = None
) -> dict[str, Figure]:
    """Return the figures of a training by file name: learning dynamics (Figure 4) and settling.

    Args:
        snapshots: Measured winning patterns of each epoch.
        epochs: Completed epochs, increasing.
        ceiling: Overlap of the last epoch's patterns with those of another search seed.
    """
    names = snapshots[-1].class_names
    classes = sorted({int(t) for each in snapshots for t in each.targets})[:SHOWN_CLASSES]
    grid: list[list[Pixels | None]] = [[None] * len(epochs) for _ in classes]
    captions = [[""] * len(epochs) for _ in classes]
    iou, power = np.full((2, len(classes), len(epochs)), np.nan)
    final = {int(t): row for row, t in enumerate(snapshots[-1].targets)}
    last = snapshots[-1].selected(SHOWN_SIZE)
    for column, snapshot in enumerate(snapshots):
        selected, measured = snapshot.selected(SHOWN_SIZE), power_of(snapshot)
        values = measured.predictive_power[:, measured.pattern_sizes.index(SHOWN_SIZE)].tolist()
        for row, target in enumerate(snapshot.targets.tolist()):
            if target not in classes:
                continue
            at = classes.index(target), column
            grid[at[0]][column] = pattern_pixels(snapshot, row, SHOWN_SIZE)
            captions[at[0]][column] = f"PW {number(values[row])}"
            power[at] = values[row]
            if target in final:
                iou[at] = overlap(selected[[row]], last[[final[target]]]).item()
    accuracies = [float(power_of(each).overall_clean_accuracy) for each in snapshots]
    drawn = {
        "learning_dynamics": figures.pattern_grid(
            grid,
            row_labels=[names[k] for k in classes],
            column_labels=[
                f"epoch {epoch:g}\naccuracy {100 * accuracy:.1f} %"
                for epoch, accuracy in zip(epochs, accuracies, strict=True)
            ],
            captions=captions,
            title=f"patterns of {100 * SHOWN_SIZE:g} %",
        )
    }
    if len(epochs) > 1:
        drawn["settling"] = figures.settling_curves(
            epochs,
            iou,
            power,
            class_names=[names[k] for k in classes],
            pattern_size=SHOWN_SIZE,
            chance=chance_overlap(SHOWN_SIZE),
            ceiling=ceiling,
        )
    return drawn


def recovery_figure(patterns: PatternSet, stamp: Stamp, recovery: dict[str, Any]) -> Figure:
    """Return the figure of the trigger, the canvases and what was found on them (Figure 7).

    Args:
        patterns: All patterns of a search.
        stamp: The true trigger.
        recovery: What `measure_recovery` returned.
    """
    size = recovery["pattern_size"]
    rows = (patterns.targets == recovery["class"]).nonzero().flatten().tolist()
    shape = patterns.canvases.shape[2:]
    grey = torch.full((3, *shape), 0.35)
    shown = (torch.stack([stamp(grey), stamp.pixels * stamp.mask]) * 255).round()
    on_grey, on_black = shown.to(torch.uint8).permute(0, 2, 3, 1).numpy()
    name = patterns.class_names[recovery["class"]]
    return figures.pattern_grid(
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


def winner_pictures(patterns: PatternSet) -> dict[str, Picture]:
    """Return the winners' patterns at 5 % by class, for loggers."""
    power = power_of(patterns)
    column = power.pattern_sizes.index(SHOWN_SIZE)
    pictures = {}
    for row in patterns.winners.tolist():
        name = patterns.class_names[int(patterns.targets[row])]
        value = float(power.predictive_power[row, column])
        pixels = pattern_pixels(patterns, row, SHOWN_SIZE)
        pictures[f"pattern/{name}"] = Picture(pixels, f"{name}, PW {number(value)}")
    return pictures


def canvas_pixels(patterns: PatternSet, row: int) -> Pixels:
    """Return what a problem's pattern is cut from for drawing, uint8 (H, W, 3)."""
    (canvas,) = patterns[torch.tensor([row])].cut_from
    pixels: Pixels = canvas.expand(3, -1, -1).permute(1, 2, 0).numpy()
    return pixels


def pattern_pixels(patterns: PatternSet, row: int, pattern_size: float) -> Pixels:
    """Return a problem's pattern for drawing, uint8 (H, W, 3).

    It is on black; a perturbation is on grey, its largest value white or black.
    """
    stamp = patterns[torch.tensor([row])].stamps([pattern_size])
    mask, added = stamp.mask[0, 0], stamp.pixels[0, 0]
    if stamp.additive:
        shown = as_eight_bits(0.5 + added / (2 * added.abs().max()).clamp(min=1e-9), "pixels")
    else:
        shown = Stamp(mask, added)(torch.zeros(patterns.canvases.shape[1:], dtype=torch.uint8))
    pixels: Pixels = shown.expand(3, -1, -1).permute(1, 2, 0).numpy()
    return pixels


def _draw_sizes(
    patterns: PatternSet, results: dict[str, Any], pattern_sizes: Sequence[float]
) -> Figure:
    """Return a grid classes x (canvas, if there is one, and pattern sizes) of the winners."""
    winners = patterns.winners.tolist()[:SHOWN_CLASSES]
    entries = results["classes"][:SHOWN_CLASSES]
    canvas = ["canvas"] if patterns.variant.needs_canvas else []
    return figures.pattern_grid(
        [
            [canvas_pixels(patterns, row) for _ in canvas]
            + [pattern_pixels(patterns, row, size) for size in pattern_sizes]
            for row in winners
        ],
        row_labels=[entry["name"] for entry in entries],
        column_labels=canvas + [f"{100 * size:g} %" for size in pattern_sizes],
        captions=[
            [""] * len(canvas) + [_measured(entry, f"{size:g}") for size in pattern_sizes]
            for entry in entries
        ],
    )


def _measured(entry: dict[str, Any], size: str) -> str:
    """Return a class's predictive power and success rate at a size, with the power's interval."""
    power, rate = (entry[name][size] for name in ("predictive_power", "attack_success_rate"))
    interval = span(entry["predictive_power_interval"][size])
    return f"PW {number(power)}\n({interval})\nASR {number(rate)}"


def _draw_canvases(patterns: PatternSet, results: dict[str, Any]) -> Figure:
    """Return a grid classes x canvases of patterns at 5 % (Figure 3), the winner marked."""
    grid: list[list[Pixels | None]] = []
    captions: list[list[str]] = []
    most = max(len(entry["canvases"]) for entry in results["classes"])
    size = patterns.settings.get("winner_size")
    competed = "objective" if size is None else f"cross-entropy at {100 * size:g} %"
    for entry in results["classes"][:SHOWN_CLASSES]:
        rows = (patterns.targets == entry["class"]).nonzero().flatten().tolist()
        images: list[Pixels | None] = []
        texts = []
        for row, canvas in zip(rows, entry["canvases"], strict=True):
            won = canvas["index"] == entry["canvas"]["index"]
            power = (canvas["predictive_power"] or {}).get(f"{SHOWN_SIZE:g}", None)
            images.append(pattern_pixels(patterns, row, SHOWN_SIZE))
            texts.append(f"PW {number(power)}{' (chosen)' if won else ''}")
        grid.append(images + [None] * (most - len(images)))
        captions.append(texts + [""] * (most - len(texts)))
    return figures.pattern_grid(
        grid,
        row_labels=[entry["name"] for entry in results["classes"][:SHOWN_CLASSES]],
        column_labels=[f"canvas {i + 1}" for i in range(most)],
        captions=captions,
        title=f"patterns of {100 * SHOWN_SIZE:g} %; chosen: the lowest {competed}",
    )
