"""A plane with a point for each of several things, such as classifiers by shape and texture."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import ArrayLike

from iscp_lightning.figures.parts import floats, require, style_of

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def plane(
    points: Mapping[str, ArrayLike], *, xlabel: str, ylabel: str, title: str | None = None
) -> Figure:
    """Plot points with intervals in both directions, from 0 to 1.

    Args:
        points: For each label x and y, each with the ends of its interval, floats (2, 3).
        xlabel: What x is.
        ylabel: What y is.
        title: Heading of the plot.

    Raises:
        ValueError: If ``points`` is empty or not as above.
    """
    from matplotlib.figure import Figure

    require(len(points) > 0, "points", "empty", "one or more arrays")
    figure = Figure(figsize=(6, 4.5), dpi=150, layout="constrained")
    axes = figure.subplots()
    for i, (label, point) in enumerate(points.items()):
        values = floats(f"points[{label!r}]", point, (2, 3))
        (x, y), reach = values[:, 0], np.abs(values[:, 1:] - values[:, :1]).clip(0)
        style = style_of(i)
        axes.errorbar([x], [y], reach[1, :, None], reach[0, :, None], lw=0.8, label=label, **style)
    axes.set(xlabel=xlabel, ylabel=ylabel, xlim=(0, 1.03), ylim=(0, 1.03))
    axes.grid(color="0.9", linewidth=0.8)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)
    axes.set_title(title or "", fontsize=11)
    figure.legend(loc="outside right center", fontsize=8)
    return figure
