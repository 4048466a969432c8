"""Figures of descriptions and of transfer: numbers as matrices, and where a classifier looks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from iscp_lightning import figures
from iscp_lightning.classifiers.subject import Subject
from iscp_lightning.data.stamps import Stamp
from iscp_lightning.patterns.attribution import attention_stamps, grad_cam, predictions
from iscp_lightning.patterns.description import Description
from iscp_lightning.patterns.drawings import SHOWN_CLASSES, canvas_pixels, pattern_pixels
from iscp_lightning.patterns.pattern import PatternSet
from iscp_lightning.patterns.tables import ends_of, number
from iscp_lightning.records import Pixels

if TYPE_CHECKING:
    from matplotlib.figure import Figure

COUNTS = ("components",)  # what is no share


def measure_figures(description: Description) -> dict[str, Figure]:
    """Return for each size a matrix of classes by measures, chance in its first row."""
    names = [name for name in description.measures if name not in COUNTS]
    classes = list(description.class_names)[:SHOWN_CLASSES]
    drawn = {}
    for column, size in enumerate(description.pattern_sizes):
        measures = [description.measures[name].at(column) for name in names]
        values = torch.stack([each.values[: len(classes)] for each in measures], 1)
        chance = torch.stack([each.chance.nanmean() for each in measures])
        drawn[f"description_{100 * size:g}"] = figures.value_matrix(
            torch.cat([chance[None], values]).numpy(),
            row_labels=["by chance", *classes],
            column_labels=[name.replace("_", " ") for name in names],
            label="share, overlap or predictive power",
            title=f"patterns of {100 * size:g} %",
        )
    return drawn


def transfer_figures(rows: Sequence[Mapping[str, Any]]) -> dict[str, Figure]:
    """Return for each size the matrices of mean predictive power, of ASR and of robust accuracy.

    Args:
        rows: One for each pattern set, classifier and size, with what was measured.
    """
    sets, networks, sizes = (
        list(dict.fromkeys(row[key] for row in rows))
        for key in ("patterns", "classifier", "pattern_size")
    )
    kinds = {  # what is drawn, what stands below it in a cell, and how
        "mean_predictive_power": {"transfer_rate": "rate {}"},
        "mean_attack_success_rate": {
            "mean_random_mask_rate": "random {}",
            "mean_base_rate": "without {}",
        },
        "robust_accuracy": {"clean_accuracy": "of {}"},
    }
    drawn = {}
    for size in sizes:
        for measure, beside in kinds.items():
            cells = {(r["patterns"], r["classifier"]): r for r in rows if r["pattern_size"] == size}
            chosen = [[cells[of, on] for on in networks] for of in sets]
            what = measure.replace("_", " ")
            drawn[f"{measure}_{100 * size:g}"] = figures.value_matrix(
                [[cell[measure] for cell in row] for row in chosen],
                row_labels=[f"patterns of {of}" for of in sets],
                column_labels=networks,
                texts=[
                    [
                        "\n".join(
                            [
                                _ranged(cell, measure),
                                *(words.format(number(cell[of])) for of, words in beside.items()),
                            ]
                        )
                        for cell in row
                    ]
                    for row in chosen
                ],
                label=what,
                title=f"{what}, patterns of {100 * size:g} %",
            )
    return drawn


def _ranged(row: Mapping[str, Any], measure: str) -> str:
    low, high = (number(row[end]) for end in ends_of(measure))
    return f"{number(row[measure])}\n{low} to {high}"


def attention_figure(
    subject: Subject, winners: PatternSet, pattern_size: float, indices: Tensor
) -> Figure:
    """Return where the classifier looks, for each class (Figures 11 and 12).

    The canvas, the attention to it, its most attended pixels and the pattern; then an image of
    another class, the attention to what it is taken for, and both with the pattern on it.

    Args:
        subject: The classifier and the test images.
        winners: A pattern for each class.
        pattern_size: q, share of the pixels.
        indices: (n,) int64, test images among which each pattern finds one of another class.
    """
    winners = winners[torch.arange(len(winners))[:SHOWN_CLASSES]]
    canvases, targets, labels = winners.cut_from, winners.targets, subject.images.labels[indices]
    others = [indices[labels != target] for target in targets]
    chosen = [each[row * len(each) // len(others)] for row, each in enumerate(others)]
    images = subject.images.read(torch.stack(chosen))
    stamps = winners.stamps([pattern_size])
    pasted = torch.stack(
        [
            Stamp(stamps.mask[i, 0], stamps.pixels[i, 0], stamps.additive)(image)
            for i, image in enumerate(images)
        ]
    )
    to_canvas = grad_cam(subject, canvases, targets)
    attended = attention_stamps(to_canvas, canvases, [pattern_size])
    said = [predictions(subject, each) for each in (images, pasted)]
    to_image, to_pasted = (
        grad_cam(subject, *each) for each in zip((images, pasted), said, strict=True)
    )
    names = winners.class_names
    before, after = ([names[int(k)] if k < len(names) else "?" for k in each] for each in said)
    grid: list[list[Pixels | None]] = []
    for row, canvas in enumerate(canvases):
        area = (canvas * attended.mask[row, 0]).expand(3, -1, -1).permute(1, 2, 0).numpy()
        grid.append(
            [
                canvas_pixels(winners, row),
                attention_pixels(canvas, to_canvas[row]),
                area,
                pattern_pixels(winners, row, pattern_size),
                attention_pixels(images[row], None),
                attention_pixels(images[row], to_image[row]),
                attention_pixels(pasted[row], None),
                attention_pixels(pasted[row], to_pasted[row]),
            ]
        )
    size = f"{100 * pattern_size:g} %"
    columns = ["canvas", "attention", f"attended {size}", f"pattern {size}"]
    columns += ["image", "attention", "with pattern", "attention"]
    return figures.pattern_grid(
        grid,
        row_labels=[names[int(target)] for target in targets],
        column_labels=columns,
        captions=[
            ["", "", "", "", f"taken for {a}", "", f"taken for {b}", ""]
            for a, b in zip(before, after, strict=True)
        ],
        title="Grad-CAM: canvases for their class, images for what they are taken for",
    )


def attention_pixels(image: Tensor, attention: Tensor | None) -> Pixels:
    """Return an image for drawing, uint8 (H, W, 3), in grey under a map from blue to red.

    Args:
        image: uint8 (C, H, W).
        attention: float (H, W), whose positive values are shown as shares of the largest; None
            shows the image alone.
    """
    shown: Pixels = image.expand(3, -1, -1).permute(1, 2, 0).numpy()
    if attention is None:
        return shown
    positive = attention.clamp(min=0)
    heat = (positive / positive.max().clamp(min=1e-12)).numpy()
    colours = np.stack([heat, 1 - np.abs(2 * heat - 1), 1 - heat], 2)
    grey = shown.mean(2, keepdims=True)
    mixed: Pixels = np.rint(0.5 * grey + 127.5 * colours).astype(np.uint8)
    return mixed
