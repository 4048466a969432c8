"""Grids of images, such as classes by canvases, and patterns as images."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Literal, TypeAlias, get_args

import numpy as np
from numpy.typing import NDArray

from iscp_lightning.figures.parts import GAP, extent, require, require_image, require_length, text

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Background: TypeAlias = Literal["black", "white", "dimmed"]

CELL = 16 / 15  # inches: 160 dots, so that a 32 x 32 image has whole dots for each pixel


def render_pattern(
    canvas: NDArray[np.uint8], selected: NDArray[np.bool_], background: Background = "black"
) -> NDArray[np.uint8]:
    """Show the selected pixels of a canvas on a plain or dimmed background.

    Args:
        canvas: Canvas image, uint8 of shape (H, W, 3).
        selected: Pixels that belong to the pattern, bool of shape (H, W).
        background: What the other pixels show: "black", "white", or "dimmed", the canvas in
            mid-grey (120 to 180), on which black, white and coloured pixels all stand out.

    Returns:
        A new uint8 image of shape (H, W, 3); selected pixels are those of ``canvas``.

    Raises:
        ValueError: If an argument is not as above.
    """
    require_image("canvas", canvas)
    given, allowed = (selected.dtype, selected.shape), (np.dtype(bool), canvas.shape[:2])
    require(given == allowed, "selected", text(*given), text(*allowed))
    backgrounds = get_args(Background)
    require(background in backgrounds, "background", repr(background), f"one of {backgrounds}")
    if background == "dimmed":
        luminance = canvas @ np.array([0.299, 0.587, 0.114])
        behind = np.rint(120 + luminance * (60 / 255)).astype(np.uint8)[..., None]
    else:
        behind = np.full((1, 1, 1), 255 if background == "white" else 0, np.uint8)
    return np.where(selected[..., None], canvas, behind)


def pattern_grid(
    images: Sequence[Sequence[NDArray[np.uint8] | None]],
    *,
    row_labels: Sequence[str],
    column_labels: Sequence[str],
    captions: Sequence[Sequence[str | None]] | None = None,
    title: str | None = None,
) -> Figure:
    """Lay out images in labelled rows and columns, such as classes by canvases.

    Args:
        images: R rows of C images, uint8 of shape (H, W, 3); None leaves a hatched "n/a" cell.
        row_labels: R labels, left of the rows; like all labels they may have several lines.
        column_labels: C labels, above the columns.
        captions: R rows of C captions shown under the cells, None for no caption.
        title: Heading of the figure.

    Returns:
        A figure of R * C axes in row-major order, just large enough for cells of at least
        1 inch; pixels are drawn without interpolation.

    Raises:
        ValueError: If there is no cell or an argument is not as above.
    """
    from matplotlib.figure import Figure

    rows, columns = len(images), len(images[0]) if len(images) else 0
    require(rows * columns > 0, "images", f"{rows} x {columns}", "1 x 1 or more")
    texts = [[None] * columns] * rows if captions is None else captions
    require_length("row_labels", row_labels, rows)
    require_length("column_labels", column_labels, columns)
    require_length("captions", texts, rows)
    for r in range(rows):
        require_length(f"images[{r}]", images[r], columns)
        require_length(f"captions[{r}]", texts[r], columns)
        for c, image in enumerate(images[r]):
            if image is not None:
                require_image(f"images[{r}][{c}]", image)

    figure = Figure(dpi=150)
    left, row_height = extent(figure, row_labels, 9)
    label_width, top = extent(figure, column_labels, 9)
    caption_width, caption_height = extent(figure, [t for row in texts for t in row if t], 8)
    title_width, title_height = extent(figure, [title or ""], 11)
    # Labels wider than a cell first enlarge the cells, then the gaps between them.
    widest = max(label_width, caption_width)
    cell = min(max(CELL, widest), 1.5 * CELL)
    step_x = max(cell, widest) + GAP
    step_y = max(cell + caption_height, row_height) + GAP
    grid_width = left + columns * step_x + GAP
    width = max(grid_width, title_width + GAP)
    height = title_height + top + rows * step_y + GAP
    figure.set_size_inches(width, height)
    figure.text(0.5, 1 - GAP / height, title or "", size=11, ha="center", va="top")
    for r, c in np.ndindex(rows, columns):
        image = images[r][c]
        x = (width - grid_width) / 2 + left + c * step_x + (step_x - cell + GAP) / 2
        y = height - title_height - top - r * step_y - cell - GAP
        box = (x / width, y / height, cell / width, cell / height)
        axes = figure.add_axes(box, xticks=[], yticks=[])
        axes.spines[:].set(color="0.6", linewidth=0.5)
        if image is None:
            axes.patch.set(facecolor="0.96", edgecolor="0.85", hatch="///")
            axes.text(0.5, 0.5, "n/a", size=8, color="0.4", ha="center", va="center")
        else:
            axes.imshow(image, interpolation="nearest")
        axes.set_xlabel(texts[r][c] or "", size=8, labelpad=2)
        if r == 0:
            axes.set_title(column_labels[c], size=9, pad=4)
        if c == 0:
            axes.set_ylabel(row_labels[r], size=9, rotation="horizontal", ha="right", va="center")
    return figure
