"""What a search leaves behind: tables, results.json, pattern files and figures."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from iscp_lightning import figures
from iscp_lightning.patterns.mixing import overlap
from iscp_lightning.patterns.pattern import PatternSet
from iscp_lightning.patterns.power import PatternPower
from iscp_lightning.runs import save_figure, write_json

if TYPE_CHECKING:
    from matplotlib.figure import Figure

SHOWN_SIZE = 0.05  # the paper's usual pattern size
SHOWN_CLASSES = 50  # rows of a figure; results.json always holds all
Pixels = NDArray[np.uint8]


def summarize(
    patterns: PatternSet,
    measured: Tensor,
    power: PatternPower,
    pattern_sizes: Sequence[float],
    measure_on: str,
) -> dict[str, Any]:
    """Return the content of a search's results.json: plain values, NaN where undefined.

    Args:
        patterns: All patterns of the search.
        measured: (M,) rows of `patterns` whose power was measured; holds every winner.
        power: Their predictive power (M, S) and the clean accuracy (K,).
        pattern_sizes: The S sizes.
        measure_on: `held_out` or `full`.

    Returns:
        Among others `clean_accuracy`, the share of all `measured_images` predicted right, and
        `mean_clean_accuracy`, the mean over the searched classes that have images.
    """
    position = {row: i for i, row in enumerate(measured.tolist())}
    keys = [f"{size:g}" for size in pattern_sizes]
    values = power.predictive_power.cpu()

    def of_size(row: int) -> dict[str, float] | None:
        if row not in position:
            return None
        return dict(zip(keys, values[position[row]].tolist(), strict=True))

    classes = []
    best = []
    for winner in patterns.winners.tolist():
        target = int(patterns.targets[winner])
        rows = (patterns.targets == target).nonzero().flatten().tolist()
        best.append(torch.stack([values[position[row]] for row in rows if row in position]))
        classes.append(
            {
                "class": target,
                "name": patterns.class_names[target],
                "clean_accuracy": float(power.clean_accuracy[target]),
                "predictive_power": of_size(winner),
                "canvas": {
                    "kind": patterns.settings["canvas"],
                    "index": int(patterns.canvas_indices[winner]),
                },
                "objective": float(patterns.objectives[winner]),
                "canvases": [
                    {
                        "index": int(patterns.canvas_indices[row]),
                        "objective": float(patterns.objectives[row]),
                        "predictive_power": of_size(row),
                    }
                    for row in rows
                ],
            }
        )
    of_winners = [position[row] for row in patterns.winners.tolist()]
    winners = power._replace(predictive_power=values[of_winners])
    result: dict[str, Any] = {
        "mean_predictive_power": dict(zip(keys, winners.mean.tolist(), strict=True)),
        "std_predictive_power": dict(zip(keys, winners.std.tolist(), strict=True)),
        "classes_defined": dict(zip(keys, winners.defined.tolist(), strict=True)),
        "clean_accuracy": float(power.overall_clean_accuracy),
        "mean_clean_accuracy": float(power.clean_accuracy[patterns.targets.unique()].nanmean()),
        "measured_on": measure_on,
        "measured_images": int(power.images.sum()),
    }
    if len(measured) == len(patterns) and len(patterns) > len(of_winners):
        maxima = torch.stack([rows.max(0).values for rows in best]).nanmean(0)
        result["mean_predictive_power_of_best_canvas"] = dict(
            zip(keys, maxima.tolist(), strict=True)
        )
    return result | {
        "classes": classes,
        "settings": patterns.settings,
        "provenance": patterns.provenance,
    }


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
    text = [head] + [[row[0], *(_number(value) for value in row[1:])] for row in rows]
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
    overall = f"clean_accuracy: {_number(results['clean_accuracy'])} of {images}"
    return "\n".join([lines[0], rule, *lines[1:-1], rule, lines[-1], overall])


def write_search(
    folder: Path,
    patterns: PatternSet,
    measured: Tensor,
    power: PatternPower,
    pattern_sizes: Sequence[float],
    measure_on: str,
    **further: Any,  # noqa: ANN401
) -> dict[str, Any]:
    """Write patterns, figures and results.json of a search into the run folder.

    Args:
        folder: The run folder.
        patterns: All patterns.
        measured: (M,) rows whose power was measured.
        power: Their predictive power (M, S) and the clean accuracy (K,).
        pattern_sizes: The S sizes.
        measure_on: `held_out` or `full`.
        further: More entries of results.json, plain values.

    Returns:
        The content of results.json.
    """
    results = summarize(patterns, measured, power, pattern_sizes, measure_on) | further
    kind = patterns.settings["canvas"]
    replace(patterns, results=results).save(folder / "patterns" / f"{kind}.safetensors")
    write_json(folder / "results.json", results)
    by_class = [list(entry["predictive_power"].values()) for entry in results["classes"]]
    drawn = {
        "patterns": draw_sizes(patterns, results, pattern_sizes),
        "predictive_power": figures.predictive_power_curve(
            pattern_sizes, {f"{kind} canvases": np.array(by_class, dtype=float)}
        ),
    }
    if len(patterns) > len(patterns.winners):
        drawn["canvases"] = draw_canvases(patterns, results)
    for name, figure in drawn.items():
        save_figure(folder / "figures" / f"{name}.png", figure)
    return results


def write_dynamics(
    folder: Path, snapshots: Sequence[PatternSet], class_names: Sequence[str], prefix: str = ""
) -> None:
    """Write the figures of a training's snapshots: learning dynamics (Figure 4) and settling.

    Args:
        folder: The run folder.
        snapshots: Winning patterns per epoch, in order of epochs, measured.
        class_names: Name of each class.
        prefix: What the files' names begin with.
    """
    epochs = [snapshot.provenance["epoch"] for snapshot in snapshots]
    classes = sorted({int(t) for snapshot in snapshots for t in snapshot.targets})[:SHOWN_CLASSES]
    grid: list[list[Pixels | None]] = [[None] * len(epochs) for _ in classes]
    captions = [[""] * len(epochs) for _ in classes]
    iou, power = np.full((2, len(classes), len(epochs)), np.nan)
    snapshots = [snapshot[snapshot.winners] for snapshot in snapshots]
    final = {int(t): row for row, t in enumerate(snapshots[-1].targets)}
    last = snapshots[-1].selected(SHOWN_SIZE)
    for column, snapshot in enumerate(snapshots):
        selected = snapshot.selected(SHOWN_SIZE)
        for row, entry in enumerate(snapshot.results["classes"]):
            if entry["class"] not in classes:
                continue
            at = classes.index(entry["class"]), column
            value = entry["predictive_power"][f"{SHOWN_SIZE:g}"]
            grid[at[0]][column] = pattern_pixels(snapshot, row, SHOWN_SIZE)
            captions[at[0]][column] = f"PW {_number(value)}"
            power[at] = np.nan if value is None else value
            if entry["class"] in final:
                other = final[entry["class"]]
                iou[at] = overlap(selected[[row]], last[[other]]).item()
    accuracies = [snapshot.results["clean_accuracy"] for snapshot in snapshots]
    save_figure(
        folder / "figures" / f"{prefix}learning_dynamics.png",
        figures.pattern_grid(
            grid,
            row_labels=[class_names[k] for k in classes],
            column_labels=[
                f"epoch {epoch}\naccuracy {100 * accuracy:.1f} %"
                for epoch, accuracy in zip(epochs, accuracies, strict=True)
            ],
            captions=captions,
            title=f"patterns of {100 * SHOWN_SIZE:g} %",
        ),
    )
    if len(epochs) > 1:
        save_figure(
            folder / "figures" / f"{prefix}settling.png",
            figures.settling_curves(
                epochs,
                iou,
                power,
                class_names=[class_names[k] for k in classes],
                pattern_size=SHOWN_SIZE,
            ),
        )


def draw_sizes(
    patterns: PatternSet, results: dict[str, Any], pattern_sizes: Sequence[float]
) -> Figure:
    """Return a grid classes x (canvas, pattern sizes) of the winners (Figure 1)."""
    winners = patterns.winners.tolist()[:SHOWN_CLASSES]
    entries = results["classes"][:SHOWN_CLASSES]
    return figures.pattern_grid(
        [
            [canvas_pixels(patterns, row)]
            + [pattern_pixels(patterns, row, size) for size in pattern_sizes]
            for row in winners
        ],
        row_labels=[entry["name"] for entry in entries],
        column_labels=["canvas", *(f"{100 * size:g} %" for size in pattern_sizes)],
        captions=[
            ["", *(f"PW {_number(v)}" for v in entry["predictive_power"].values())]
            for entry in entries
        ],
    )


def draw_canvases(patterns: PatternSet, results: dict[str, Any]) -> Figure:
    """Return a grid classes x canvases of patterns at 5 % (Figure 3), the winner marked."""
    grid: list[list[Pixels | None]] = []
    captions: list[list[str]] = []
    most = max(len(entry["canvases"]) for entry in results["classes"])
    for entry in results["classes"][:SHOWN_CLASSES]:
        rows = (patterns.targets == entry["class"]).nonzero().flatten().tolist()
        images: list[Pixels | None] = []
        texts = []
        for row, canvas in zip(rows, entry["canvases"], strict=True):
            won = canvas["index"] == entry["canvas"]["index"]
            power = (canvas["predictive_power"] or {}).get(f"{SHOWN_SIZE:g}", None)
            images.append(pattern_pixels(patterns, row, SHOWN_SIZE))
            texts.append(f"PW {_number(power)}{' (chosen)' if won else ''}")
        grid.append(images + [None] * (most - len(images)))
        captions.append(texts + [""] * (most - len(texts)))
    return figures.pattern_grid(
        grid,
        row_labels=[entry["name"] for entry in results["classes"][:SHOWN_CLASSES]],
        column_labels=[f"canvas {i + 1}" for i in range(most)],
        captions=captions,
        title=f"patterns of {100 * SHOWN_SIZE:g} %; chosen: the lowest objective",
    )


def canvas_pixels(patterns: PatternSet, row: int) -> Pixels:
    """Return a problem's canvas for drawing, uint8 (H, W, 3)."""
    canvas = patterns.canvases[row]
    pixels: Pixels = canvas.expand(3, -1, -1).permute(1, 2, 0).numpy()
    return pixels


def pattern_pixels(patterns: PatternSet, row: int, pattern_size: float) -> Pixels:
    """Return a problem's pattern on black for drawing, uint8 (H, W, 3)."""
    selected = patterns[torch.tensor([row])].selected(pattern_size)[0].numpy()
    return figures.render_pattern(canvas_pixels(patterns, row), selected)


def _number(value: float | None) -> str:
    return "-" if value is None or value != value else f"{value:.3f}"
