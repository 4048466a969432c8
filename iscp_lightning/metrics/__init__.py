"""Metrics: the success of stamps, the overlap of pixel sets."""

from iscp_lightning.metrics.overlap import chance_overlap, overlap
from iscp_lightning.metrics.success import StampSuccess, Success

__all__ = ["StampSuccess", "Success", "chance_overlap", "overlap"]
