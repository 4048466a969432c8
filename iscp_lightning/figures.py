"""Figures of class-wise patterns and of their predictive power.

Every function takes plain numpy arrays and returns a ``matplotlib.figure.Figure`` that the caller
saves. Matplotlib is imported only when a figure is drawn; pyplot and rcParams are never touched.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal, TypeAlias, get_args

import numpy as np
from numpy.typing import ArrayLike, NDArray

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Background: TypeAlias = Literal["black", "white", "dimmed"]

# Okabe and Ito's colour-blind-safe palette without black and yellow (too pale for a line).
_COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")
_MARKERS = "os^Dvp*"
_CELL = 16 / 15  # inches: 160 dots, so that a 32 x 32 image has whole dots for each pixel
_GAP = 0.08  # inches around cells and labels
_NAMED_CLASSES = 20  # the most classes that get a colour and a legend entry of their own


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
    _require_image("canvas", canvas)
    given, allowed = (selected.dtype, selected.shape), (np.dtype(bool), canvas.shape[:2])
    _require(given == allowed, "selected", _text(*given), _text(*allowed))
    backgrounds = get_args(Background)
    _require(background in backgrounds, "background", repr(background), f"one of {backgrounds}")
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
    _require(rows * columns > 0, "images", f"{rows} x {columns}", "1 x 1 or more")
    texts = [[None] * columns] * rows if captions is None else captions
    _require_length("row_labels", row_labels, rows)
    _require_length("column_labels", column_labels, columns)
    _require_length("captions", texts, rows)
    for r in range(rows):
        _require_length(f"images[{r}]", images[r], columns)
        _require_length(f"captions[{r}]", texts[r], columns)
        for c, image in enumerate(images[r]):
            if image is not None:
                _require_image(f"images[{r}][{c}]", image)

    figure = Figure(dpi=150)
    left, row_height = _extent(figure, row_labels, 9)
    label_width, top = _extent(figure, column_labels, 9)
    caption_width, caption_height = _extent(figure, [t for row in texts for t in row if t], 8)
    title_width, title_height = _extent(figure, [title or ""], 11)
    # Labels wider than a cell first enlarge the cells, then the gaps between them.
    widest = max(label_width, caption_width)
    cell = min(max(_CELL, widest), 1.5 * _CELL)
    step_x = max(cell, widest) + _GAP
    step_y = max(cell + caption_height, row_height) + _GAP
    grid_width = left + columns * step_x + _GAP
    width = max(grid_width, title_width + _GAP)
    height = title_height + top + rows * step_y + _GAP
    figure.set_size_inches(width, height)
    figure.text(0.5, 1 - _GAP / height, title or "", size=11, ha="center", va="top")
    for r, c in np.ndindex(rows, columns):
        image = images[r][c]
        x = (width - grid_width) / 2 + left + c * step_x + (step_x - cell + _GAP) / 2
        y = height - title_height - top - r * step_y - cell - _GAP
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


def predictive_power_curve(
    sizes: Sequence[float], curves: Mapping[str, ArrayLike], *, title: str | None = None
) -> Figure:
    """Plot the mean predictive power over the classes against the pattern size.

    Args:
        sizes: S increasing pattern sizes, fractions of the image in (0, 1].
        curves: For each label the mean at every size and the ends of its interval, floats of shape
            (3, S), NaN where undefined.
        title: Heading of the plot.

    Returns:
        A figure of one axes: for each label a line with markers, the mean, in the band of its
        interval.

    Raises:
        ValueError: If ``sizes`` or ``curves`` is empty or not as above.
    """
    percent = 100 * np.asarray(sizes, dtype=float)
    steps = np.diff(percent, prepend=0)
    increasing = len(sizes) > 0 and bool(np.all(steps > 0)) and percent[-1] <= 100
    _require(increasing, "sizes", str(sizes), "one or more increasing fractions in (0, 1]")
    _require(len(curves) > 0, "curves", "empty", "one or more arrays")
    figure, axes = _single_axes(title)
    top = 1.0
    for i, (label, values) in enumerate(curves.items()):
        mean, low, high = _floats(f"curves[{label!r}]", values, (3, len(sizes)))
        top = max(top, float(np.nan_to_num([mean, high]).max()))
        style = _style(i)
        axes.fill_between(percent, low, high, color=style["color"], alpha=0.15, lw=0)
        axes.vlines(percent, low, high, color=style["color"], lw=0.8)  # a band of one size is none
        axes.plot(percent, mean, label=label, **style)
    _finish(axes, "pattern size (% of the image)", "mean predictive power (mPW)", top)
    if np.all(steps[1:] >= 0.04 * (percent[-1] - percent[0])):  # else the labels would touch
        axes.set_xticks(percent, [f"{value:g}" for value in percent])
    figure.legend(loc="outside right center", fontsize=8)
    return figure


def settling_curves(
    epochs: Sequence[float],
    overlap: ArrayLike,
    power: ArrayLike,
    *,
    class_names: Sequence[str],
    pattern_size: float,
    chance: float | None = None,
    ceiling: float | None = None,
    title: str | None = None,
) -> Figure:
    """Plot how the patterns of the classes settle during training.

    Args:
        epochs: E numbers of completed epochs.
        overlap: Intersection over union of each epoch's pattern with the final epoch's, floats
            in [0, 1] of shape (K, E), NaN where undefined.
        power: Predictive power of each epoch's pattern, as ``overlap``.
        class_names: K names; up to 20 classes are coloured and named in a legend.
        pattern_size: Fraction of the image that a pattern covers, shown in the heading.
        chance: Overlap that random patterns would have, drawn as a dotted line; None for no line.
        ceiling: Overlap of patterns of two search seeds, drawn as a dashed line, likewise.
        title: Heading of the figure, before the pattern size.

    Returns:
        A figure of two axes, for ``overlap`` and ``power``: one thin line a class, then one bold
        black line, the mean over the classes where the value is defined.

    Raises:
        ValueError: If there is no class or no epoch or an argument is not as above.
    """
    import matplotlib
    from matplotlib.figure import Figure

    _require(len(class_names) > 0, "class_names", "empty", "one or more names")
    _require(len(epochs) > 0, "epochs", "empty", "one or more numbers")
    _require(0 < pattern_size <= 1, "pattern_size", str(pattern_size), "a fraction in (0, 1]")
    shape = (len(class_names), len(epochs))
    panels = {
        "pattern overlap (IoU) with the final epoch": _floats("overlap", overlap, shape),
        "predictive power (PW)": _floats("power", power, shape),
    }
    named = len(class_names) <= _NAMED_CLASSES
    # The ten strong colours of tab20 come first, its ten pale ones after them.
    colours = [matplotlib.colormaps["tab20"](k) for k in (*range(0, 20, 2), *range(1, 20, 2))]
    figure = Figure(figsize=(10, 4), dpi=150, layout="constrained")
    both = figure.subplots(1, 2, sharex=True)
    for axes, (ylabel, values) in zip(both, panels.items(), strict=True):
        for k, name in enumerate(class_names):
            colour, label = (colours[k], name) if named else ("0.75", "" if k else "one class")
            axes.plot(epochs, values[k], ".-", color=colour, lw=0.9, ms=3, label=label)
        mean = _statistics(values)[0]
        axes.plot(epochs, mean, ".-", color="black", lw=2.5, ms=7, label="mean over classes")
        _finish(axes, "epoch", ylabel, max(1.0, *values[~np.isnan(values)].tolist(), 0.0))
    for value, style, label in ((ceiling, "--", "two search seeds"), (chance, ":", "chance")):
        if value is not None:
            both[0].axhline(value, color="0.3", lw=1.2, ls=style, label=label)
    lines, labels = both[0].get_legend_handles_labels()
    figure.legend(lines, labels, loc="outside right center", fontsize=8)
    size = f"pattern size {100 * pattern_size:g} %"
    figure.suptitle(f"{title} ({size})" if title else size.capitalize(), size=11)
    return figure


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
    matrix = _floats("counts", counts, (number, number))
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


def _statistics(values: NDArray[np.float64]) -> tuple[NDArray[Any], NDArray[Any]]:
    """Return mean and standard deviation of each column, NaN (no warning) where all is NaN."""
    masked = np.ma.masked_where(np.isnan(values), values)
    return masked.mean(axis=0).filled(np.nan), masked.std(axis=0).filled(np.nan)


def _style(index: int) -> dict[str, Any]:
    """Return the line style of the curve at ``index``; the first 42 differ."""
    colour, marker = _COLOURS[index % len(_COLOURS)], _MARKERS[index % len(_MARKERS)]
    return {"color": colour, "marker": marker, "markersize": 4.5}


def _single_axes(title: str | None, width: float = 6.0) -> tuple[Figure, Axes]:
    """Return a figure of ``width`` (or what the title needs) x 3.5 inches and its only axes."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, 3.5), dpi=150, layout="constrained")
    if title:
        figure.set_figwidth(max(width, _extent(figure, [title], 11)[0]))
        figure.suptitle(title, size=11)
    return figure, figure.subplots()


def _finish(axes: Axes, xlabel: str, ylabel: str, top: float = 1.0) -> None:
    """Label the axes, show y from 0 to ``top`` and draw a light grid behind the data."""
    from matplotlib.ticker import MaxNLocator

    axes.set(xlabel=xlabel, ylabel=ylabel, ylim=(0, top + 0.03))
    axes.grid(color="0.9", linewidth=0.8)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)
    if xlabel == "epoch":
        axes.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))


def _extent(figure: Figure, texts: Sequence[str], size: float) -> tuple[float, float]:
    """Return the room in inches, gap included, that the widest and the highest text need."""
    boxes = []
    for text in filter(None, set(texts)):
        artist = figure.text(0, 0, text, size=size)
        boxes.append(artist.get_window_extent())
        artist.remove()
    widest = max((box.width / figure.dpi + _GAP for box in boxes), default=0.0)
    return widest, max((box.height / figure.dpi + _GAP for box in boxes), default=0.0)


def _text(dtype: object, shape: object) -> str:
    return f"{dtype} of shape {shape}"


def _require(condition: bool, name: str, given: str, allowed: str) -> None:
    """Raise ValueError about the argument ``name`` unless ``condition`` holds."""
    if not condition:
        raise ValueError(f"`{name}` is {given}; it must be {allowed}")


def _require_image(name: str, image: NDArray[np.uint8]) -> None:
    fits = image.dtype == np.uint8 and image.ndim == 3 and image.shape[2] == 3 and image.size > 0
    _require(fits, name, _text(image.dtype, image.shape), "uint8 of shape (H, W, 3)")


def _require_length(name: str, values: Sequence[object], length: int) -> None:
    _require(len(values) == length, name, f"of length {len(values)}", f"of length {length}")


def _floats(name: str, values: ArrayLike, shape: tuple[int | str, ...]) -> NDArray[np.float64]:
    """Return ``values`` as float64 of ``shape``, where a string stands for any positive length."""
    array = np.asarray(values, dtype=np.float64)
    fits = array.ndim == len(shape) and array.size > 0
    fits = fits and all(
        isinstance(b, str) or a == b for a, b in zip(array.shape, shape, strict=True)
    )
    allowed = ", ".join(map(str, shape)) + ("," if len(shape) == 1 else "")
    _require(fits, name, f"of shape {array.shape}", f"of shape ({allowed})")
    return array


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

    matrix = _floats("values", values, (len(row_labels), len(column_labels)))
    if texts is None:
        texts = [["" if np.isnan(value) else f"{value:.2f}" for value in row] for row in matrix]
    figure = Figure(dpi=150, layout="constrained")
    room, _ = _extent(figure, row_labels, 8)
    figure.set_size_inches(2.2 + room + 0.75 * matrix.shape[1], 1.8 + 0.45 * matrix.shape[0])
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
