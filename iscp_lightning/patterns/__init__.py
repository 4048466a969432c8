"""Class-wise patterns: canvases, the batched search, its results and their predictive power."""

from iscp_lightning.patterns.api import search_patterns
from iscp_lightning.patterns.canvas import MissingCanvasError
from iscp_lightning.patterns.descent import SignDescent
from iscp_lightning.patterns.pattern import PatternSet
from iscp_lightning.patterns.power import PatternPower, PredictivePower
from iscp_lightning.patterns.search import PatternSearch, SearchSettings

__all__ = [
    "MissingCanvasError",
    "PatternPower",
    "PatternSearch",
    "PatternSet",
    "PredictivePower",
    "SearchSettings",
    "SignDescent",
    "search_patterns",
]
