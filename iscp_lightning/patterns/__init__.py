"""Class-wise patterns: canvases, the batched search, its variants, results and their power."""

from iscp_lightning.patterns.canvas import MissingCanvasError
from iscp_lightning.patterns.engine import PatternSearch
from iscp_lightning.patterns.pattern import PatternSet
from iscp_lightning.patterns.power import PatternPower
from iscp_lightning.patterns.search import search_patterns
from iscp_lightning.patterns.settings import SearchSettings

__all__ = [
    "MissingCanvasError",
    "PatternPower",
    "PatternSearch",
    "PatternSet",
    "SearchSettings",
    "search_patterns",
]
