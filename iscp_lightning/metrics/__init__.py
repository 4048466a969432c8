"""Metrics: the success of stamps; where sets of pixels lie, how connected and alike they are."""

from iscp_lightning.metrics.connectedness import (
    Components,
    chance_components,
    chance_connectedness,
    components,
    connectedness,
)
from iscp_lightning.metrics.overlap import (
    Overlaps,
    chance_overlap,
    overlap,
    overlaps_by_class,
    shifted_overlap,
)
from iscp_lightning.metrics.regions import corner_region, edge_region, share_within
from iscp_lightning.metrics.success import StampSuccess, Success

__all__ = [
    "Components",
    "Overlaps",
    "StampSuccess",
    "Success",
    "chance_components",
    "chance_connectedness",
    "chance_overlap",
    "components",
    "connectedness",
    "corner_region",
    "edge_region",
    "overlap",
    "overlaps_by_class",
    "share_within",
    "shifted_overlap",
]
