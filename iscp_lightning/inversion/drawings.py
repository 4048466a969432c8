"""Figures of inversions: sheets of images, and curves of what they were changed by."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from iscp_lightning import figures
from iscp_lightning.data.images import as_eight_bits
from iscp_lightning.inversion.analysis import Sheet
from iscp_lightning.records import Pixels, Record

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def sheet_figure(sheet: Sheet, title: str | None = None) -> Figure:
    """Return a sheet's images in rows and columns."""
    return figures.pattern_grid(
        [[pixels_of(image) for image in row] for row in sheet.images],
        row_labels=sheet.rows,
        column_labels=sheet.columns,
        title=title,
    )


def beside_each_other(images: Tensor, rows: Sequence[str], made: Mapping[str, Tensor]) -> Figure:
    """Return images and what several inversions make of them.

    Args:
        images: float (R, C, H, W) in [0, 1].
        rows: R labels.
        made: By inversion, as `images`.
    """
    columns = torch.stack([images, *made.values()], 1)
    return sheet_figure(Sheet(columns, rows, ["original", *made]))


def pixels_of(image: Tensor) -> Pixels:
    """Return a float image (C, H, W) in [0, 1] as uint8 (H, W, 3)."""
    eight_bits = as_eight_bits(image.clamp(0, 1), "image").expand(3, -1, -1)
    pixels: Pixels = eight_bits.permute(1, 2, 0).numpy()
    return pixels


def curve_figures(records: Sequence[Record], units: Mapping[str, str]) -> dict[str, Figure]:
    """Return a figure for each analysis with strengths: a panel a measure, a line an inversion.

    Args:
        records: About an `analysis`, a `strength` and an `inversion`; others are left out.
        units: What the strengths are, by the name of the analysis.
    """
    panels: dict[str, dict[str, dict[str, list[list[float]]]]] = {}
    for record in records:
        if not {"analysis", "strength", "inversion"} <= record.about.keys():
            continue
        low, high = record.interval or (np.nan, np.nan)
        point = [float(record.about["strength"]), record.value, low, high]
        of = panels.setdefault(str(record.about["analysis"]), {}).setdefault(record.measure, {})
        of.setdefault(str(record.about["inversion"]), []).append(point)
    return {
        name: figures.curve_panels(
            {
                measure: {line: np.array(points).T for line, points in lines.items()}
                for measure, lines in measures.items()
            },
            xlabel=units[name],
        )
        for name, measures in panels.items()
    }
