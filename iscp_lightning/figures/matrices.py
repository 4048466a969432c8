"""Matrices: numbers as coloured cells."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import ArrayLike

from iscp_lightning.figures.parts import extent, floats

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def prediction_matrix(
    counts: ArrayLike, *, class_names: Sequence[str], title: str | None = None
) -> Figure:
    """Draw how often each class was predicted as each other, as shares of the rows.

    Args:
        counts: (K, K) counts, true classes in rows, predictions in columns; an empty row is left
            hatched.
        class_names: K names.
        title: Heading of the figure.

    Returns:
        A figure with the shares written into the cells of up to 20 classes.

    Raises:
        ValueError: If the shapes do not fit together.
    """
    from matplotlib.figure import Figure

    number = len(class_names)
    matrix = floats("counts", counts, (number, number))
    totals = matrix.sum(1, keepdims=True)
    shares = np.divide(matrix, totals, out=np.full_like(matrix, np.nan), where=totals > 0)
    side = min(max(4.0, 0.45 * number), 12.0)
    figure = Figure(figsize=(side + 1.5, side), dpi=150)
    axes = figure.subplots()
    axes.set_facecolor("0.85")
    axes.patch.set_hatch("//")
    image = axes.imshow(shares, cmap="Blues", vmin=0, vmax=1)
    figure.colorbar(image, ax=axes, label="share of the class's images")
    if number <= 50:
        axes.set_xticks(range(number), class_names, rotation=45, ha="right", fontsize=8)
        axes.set_yticks(range(number), class_names, fontsize=8)
    if number <= 20:
        for (row, column), share in np.ndenumerate(shares):
            if share > 0:
                color = "white" if share > 0.6 else "black"
                text = f"{share:.2f}"
                axes.text(column, row, text, color=color, size=7, ha="center", va="center")
    axes.set_xlabel("predicted class")
    axes.set_ylabel("class of the image")
    axes.set_title(title or "", fontsize=10)
    return figure


def value_matrix(
    values: ArrayLike,
    *,
    row_labels: Sequence[str],
    column_labels: Sequence[str],
    label: str,
    texts: Sequence[Sequence[str]] | None = None,
    title: str | None = None,
) -> Figure:
    """Draw numbers as a matrix of coloured cells, such as pattern sets by classifiers.

    Args:
        values: (R, C) floats, coloured from 0 to 1; a NaN leaves a hatched cell.
        row_labels: R labels.
        column_labels: C labels.
        label: What the numbers are, beside the colour scale.
        texts: R rows of C texts in the cells; by default the numbers with two decimals.
        title: Heading of the figure.

    Raises:
        ValueError: If the shapes do not fit together.
    """
    from matplotlib.figure import Figure

    matrix = floats("values", values, (len(row_labels), len(column_labels)))
    if texts is None:
        texts = [["" if np.isnan(value) else f"{value:.2f}" for value in row] for row in matrix]
    figure = Figure(dpi=150, layout="constrained")
    room, _ = extent(figure, row_labels, 8)
    lines = max((text.count("\n") + 1 for row in texts for text in row), default=1)
    height = max(0.45, 0.1 + 0.125 * lines)
    figure.set_size_inches(2.2 + room + 0.75 * matrix.shape[1], 1.8 + height * matrix.shape[0])
    axes = figure.subplots()
    axes.patch.set(facecolor="0.96", edgecolor="0.85", hatch="///")
    image = axes.imshow(matrix, cmap="Blues", vmin=0, vmax=1, aspect="auto")
    figure.colorbar(image, ax=axes, label=label)
    axes.set_xticks(range(matrix.shape[1]), column_labels, rotation=30, ha="right", fontsize=8)
    axes.set_yticks(range(matrix.shape[0]), row_labels, fontsize=8)
    for row, column in np.ndindex(matrix.shape):
        color = "white" if matrix[row, column] > 0.6 else "black"
        axes.text(column, row, texts[row][column], color=color, size=7, ha="center", va="center")
    axes.set_title(title or "", fontsize=10)
    return figure
