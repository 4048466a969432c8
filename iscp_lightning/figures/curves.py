"""Curves: numbers against pattern sizes, epochs and the like."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from iscp_lightning.figures.parts import extent, floats, require, style_of

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

NAMED_CLASSES = 20  # the most classes that get a colour and a legend entry of their own


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
    require(increasing, "sizes", str(sizes), "one or more increasing fractions in (0, 1]")
    require(len(curves) > 0, "curves", "empty", "one or more arrays")
    figure, axes = _single_axes(title)
    top = max(1.0, _banded(axes, percent, curves))
    finish(axes, "pattern size (% of the image)", "mean predictive power (mPW)", top)
    if np.all(steps[1:] >= 0.04 * (percent[-1] - percent[0])):  # else the labels would touch
        axes.set_xticks(percent, [f"{value:g}" for value in percent])
    figure.legend(loc="outside right center", fontsize=8)
    return figure


def banded_curves(
    x: Sequence[float],
    curves: Mapping[str, ArrayLike],
    *,
    xlabel: str,
    ylabel: str,
    logarithmic: bool = False,
    chance: float | None = None,
    title: str | None = None,
) -> Figure:
    """Plot shares with their intervals against anything, such as accuracy against saturation.

    Args:
        x: S increasing numbers.
        curves: For each label the value at every number and the ends of its interval, floats of
            shape (3, S), NaN where undefined.
        xlabel: What the numbers are.
        ylabel: What the values are.
        logarithmic: Whether the numbers are evenly spaced by their ratios.
        chance: What chance alone gives, drawn as a dotted line; None for no line.
        title: Heading of the plot.

    Raises:
        ValueError: If ``x`` or ``curves`` is empty or not as above.
    """
    numbers = np.asarray(x, dtype=float)
    increasing = len(numbers) > 0 and bool(np.all(np.diff(numbers) > 0))
    require(increasing, "x", str(x), "one or more increasing numbers")
    require(len(curves) > 0, "curves", "empty", "one or more arrays")
    figure, axes = _single_axes(title)
    if logarithmic:
        axes.set_xscale("log")
    top = max(1.0, _banded(axes, numbers, curves))
    if chance is not None:
        axes.axhline(chance, color="0.3", lw=1.2, ls=":", label="chance")
    finish(axes, xlabel, ylabel, top)
    if xlabel != "epoch":
        axes.set_xticks(numbers, [f"{value:g}" for value in numbers], minor=False)
        axes.set_xticks([], minor=True)
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

    require(len(class_names) > 0, "class_names", "empty", "one or more names")
    require(len(epochs) > 0, "epochs", "empty", "one or more numbers")
    require(0 < pattern_size <= 1, "pattern_size", str(pattern_size), "a fraction in (0, 1]")
    shape = (len(class_names), len(epochs))
    panels = {
        "pattern overlap (IoU) with the final epoch": floats("overlap", overlap, shape),
        "predictive power (PW)": floats("power", power, shape),
    }
    named = len(class_names) <= NAMED_CLASSES
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
        finish(axes, "epoch", ylabel, max(1.0, *values[~np.isnan(values)].tolist(), 0.0))
    for value, style, label in ((ceiling, "--", "two search seeds"), (chance, ":", "chance")):
        if value is not None:
            both[0].axhline(value, color="0.3", lw=1.2, ls=style, label=label)
    lines, labels = both[0].get_legend_handles_labels()
    figure.legend(lines, labels, loc="outside right center", fontsize=8)
    size = f"pattern size {100 * pattern_size:g} %"
    figure.suptitle(f"{title} ({size})" if title else size.capitalize(), size=11)
    return figure


def _banded(axes: Axes, x: NDArray[np.float64], curves: Mapping[str, ArrayLike]) -> float:
    """Draw curves with bands; return the highest value."""
    top = 0.0
    for i, (label, values) in enumerate(curves.items()):
        checked = floats(f"curves[{label!r}]", values, (3, len(x)))
        top = max(top, draw_curve(axes, x, checked, label, i))
    return top


def draw_curve(
    axes: Axes, x: NDArray[np.float64], curve: ArrayLike, label: str, index: int
) -> float:
    """Draw a value and the ends of its interval, (3, S), at S numbers; return the highest value."""
    mean, low, high = np.asarray(curve, dtype=float)
    style = style_of(index)
    axes.fill_between(x, low, high, color=style["color"], alpha=0.15, lw=0)
    axes.vlines(x, low, high, color=style["color"], lw=0.8)  # a band of one number is none
    axes.plot(x, mean, label=label, **style)
    return float(np.nan_to_num([mean, high]).max())


def _statistics(values: NDArray[np.float64]) -> tuple[NDArray[Any], NDArray[Any]]:
    """Return mean and standard deviation of each column, NaN (no warning) where all is NaN."""
    masked = np.ma.masked_where(np.isnan(values), values)
    return masked.mean(axis=0).filled(np.nan), masked.std(axis=0).filled(np.nan)


def _single_axes(title: str | None, width: float = 6.0) -> tuple[Figure, Axes]:
    """Return a figure of ``width`` (or what the title needs) x 3.5 inches and its only axes."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, 3.5), dpi=150, layout="constrained")
    if title:
        figure.set_figwidth(max(width, extent(figure, [title], 11)[0]))
        figure.suptitle(title, size=11)
    return figure, figure.subplots()


def finish(axes: Axes, xlabel: str, ylabel: str, top: float = 1.0) -> None:
    """Label the axes, show y from 0 to ``top`` and draw a light grid behind the data."""
    from matplotlib.ticker import MaxNLocator

    axes.set(xlabel=xlabel, ylabel=ylabel, ylim=(0, 1.03 * top))
    axes.grid(color="0.9", linewidth=0.8)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)
    if xlabel == "epoch":
        axes.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
