"""What is asked of inversions, each a file; `invert` asks all."""

from iscp_lightning.inversion.analyses.manipulations import LogitNoise, LogitScale, LogitShift
from iscp_lightning.inversion.analyses.reconstruction import (
    ClassMean,
    Optimisation,
    Reconstruction,
)
from iscp_lightning.inversion.analysis import Analysis

__all__ = [
    "ClassMean",
    "LogitNoise",
    "LogitScale",
    "LogitShift",
    "Optimisation",
    "Reconstruction",
    "every_analysis",
]


def every_analysis() -> list[Analysis]:
    """Return all analyses with their defaults, in the order in which they are asked."""
    return [Reconstruction(), ClassMean(), Optimisation(), LogitShift(), LogitScale(), LogitNoise()]
