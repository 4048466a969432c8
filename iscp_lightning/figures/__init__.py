"""Figures of patterns, predictive power and other numbers.

Every function takes plain numpy arrays and returns a ``matplotlib.figure.Figure`` that the caller
saves. Matplotlib is imported only when a figure is drawn; pyplot and rcParams are never touched.
"""

from iscp_lightning.figures.curves import banded_curves, predictive_power_curve, settling_curves
from iscp_lightning.figures.grid import Background, pattern_grid, render_pattern
from iscp_lightning.figures.matrices import prediction_matrix, value_matrix
from iscp_lightning.figures.panels import curve_panels
from iscp_lightning.figures.plane import plane

__all__ = [
    "Background",
    "banded_curves",
    "curve_panels",
    "pattern_grid",
    "plane",
    "prediction_matrix",
    "predictive_power_curve",
    "render_pattern",
    "settling_curves",
    "value_matrix",
]
