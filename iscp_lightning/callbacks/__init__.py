"""Measurements and pictures at chosen epochs, and after a test."""

from iscp_lightning.callbacks.at_epochs import AtEpochs
from iscp_lightning.callbacks.backdoor import BackdoorSuccess
from iscp_lightning.callbacks.reconstructions import Reconstructions
from iscp_lightning.callbacks.robustness import RobustAccuracy, RobustnessEvaluation
from iscp_lightning.callbacks.snapshot import PatternSnapshot

__all__ = [
    "AtEpochs",
    "BackdoorSuccess",
    "PatternSnapshot",
    "Reconstructions",
    "RobustAccuracy",
    "RobustnessEvaluation",
]
