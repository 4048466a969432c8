"""Panels: the same things, such as classifiers, compared in several measures side by side."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING

from numpy.typing import ArrayLike

from iscp_lightning.figures.curves import draw_curve, finish
from iscp_lightning.figures.parts import floats, require

if TYPE_CHECKING:
    from matplotlib.figure import Figure

COLUMNS = 3
SMALL = 0.4  # a panel whose values are all below is enlarged


def curve_panels(
    panels: Mapping[str, Mapping[str, ArrayLike]], *, xlabel: str, title: str | None = None
) -> Figure:
    """Plot curves with their intervals, in a panel for each measure.

    A panel reaches from 0 to 1, or as far as its values where these are above 1 or all small.

    Args:
        panels: For each measure its curves by label, each floats (4, S), S of its own: increasing
            numbers, the value at each, and the ends of its interval, NaN where undefined. A label
            looks the same in every panel.
        xlabel: What the numbers are.
        title: Heading of the figure.

    Raises:
        ValueError: If there is no panel or no curve, or one is not as above.
    """
    from matplotlib.figure import Figure

    require(len(panels) > 0, "panels", "empty", "one or more")
    labels = list(dict.fromkeys(label for curves in panels.values() for label in curves))
    columns = min(len(panels), COLUMNS)
    rows = math.ceil(len(panels) / columns)
    figure = Figure(figsize=(1 + 3 * columns, 0.6 + 2.3 * rows), dpi=150, layout="constrained")
    grid = figure.subplots(rows, columns, squeeze=False).flatten()
    drawn = {}
    for axes, (name, curves) in zip(grid, panels.items(), strict=False):
        require(len(curves) > 0, f"panels[{name!r}]", "empty", "one or more arrays")
        top = 0.0
        for label, values in curves.items():
            x, *rest = floats(f"panels[{name!r}][{label!r}]", values, (4, "S"))
            top = max(top, draw_curve(axes, x, rest, label, labels.index(label)))
            drawn[label] = axes.lines[-1]
        finish(axes, xlabel, "", top if top > 1 or 0 < top < SMALL else 1.0)
        axes.set_title(name, fontsize=10)
    for axes in grid[len(panels) :]:
        axes.remove()
    lines = [drawn[label] for label in labels]
    figure.legend(lines, labels, loc="outside lower center", ncols=COLUMNS, fontsize=8)
    figure.suptitle(title or "", size=11)
    return figure
