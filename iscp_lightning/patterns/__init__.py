"""Class-wise patterns: canvases, the batched search, its results and their predictive power."""

from iscp_lightning.patterns.api import search_patterns
from iscp_lightning.patterns.canvas import MissingCanvasError
from iscp_lightning.patterns.descent import SignDescent
from iscp_lightning.patterns.module import PatternSearchModule
from iscp_lightning.patterns.pattern import PatternSet
from iscp_lightning.patterns.power import PatternPower, PredictivePower
from iscp_lightning.patterns.search import PatternSearch, SearchSettings
from iscp_lightning.patterns.snapshot import PatternSnapshot
from iscp_lightning.patterns.strategy import ClassParallelStrategy

__all__ = [
    "ClassParallelStrategy",
    "MissingCanvasError",
    "PatternPower",
    "PatternSearch",
    "PatternSearchModule",
    "PatternSet",
    "PatternSnapshot",
    "PredictivePower",
    "SearchSettings",
    "SignDescent",
    "search_patterns",
]
