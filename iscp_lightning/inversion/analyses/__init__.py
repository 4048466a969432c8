"""What is asked of inversions, each a file; `invert` asks all."""

from iscp_lightning.inversion.analyses.distorted_inputs import DistortedInputs
from iscp_lightning.inversion.analyses.factors import Factors
from iscp_lightning.inversion.analyses.foreign_inputs import ForeignInputs
from iscp_lightning.inversion.analyses.interpolation import Interpolation
from iscp_lightning.inversion.analyses.iteration import Iteration
from iscp_lightning.inversion.analyses.manipulations import LogitNoise, LogitScale, LogitShift
from iscp_lightning.inversion.analyses.noise import NoiseResampling
from iscp_lightning.inversion.analyses.reconstruction import (
    ClassMean,
    Optimisation,
    Reconstruction,
)
from iscp_lightning.inversion.analyses.right_and_wrong import RightAndWrong
from iscp_lightning.inversion.analyses.top_logits import TopLogits
from iscp_lightning.inversion.analysis import Analysis

__all__ = [
    "ClassMean",
    "DistortedInputs",
    "Factors",
    "ForeignInputs",
    "Interpolation",
    "Iteration",
    "LogitNoise",
    "LogitScale",
    "LogitShift",
    "NoiseResampling",
    "Optimisation",
    "Reconstruction",
    "RightAndWrong",
    "TopLogits",
    "every_analysis",
]


def every_analysis() -> list[Analysis]:
    """Return all analyses with their defaults, in the order in which they are asked."""
    return [
        *(Reconstruction(), ClassMean(), Optimisation(), RightAndWrong()),
        *(NoiseResampling(), Factors()),
        *(LogitShift(), LogitScale(), LogitNoise(), TopLogits()),
        *(Interpolation(), Iteration()),
        *(DistortedInputs(), ForeignInputs()),
    ]
