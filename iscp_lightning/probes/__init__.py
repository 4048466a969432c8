"""Probes: distortions that take some cues of the class out of test images and leave others."""

from iscp_lightning.probes.distortion import Distortion
from iscp_lightning.probes.distortions import (
    Adversarial,
    Clean,
    Edges,
    Greyscale,
    HighPass,
    LowPass,
    PatchShuffle,
    Saturation,
    Silhouette,
)
from iscp_lightning.probes.geometry import Occlusion, Rotation, Translation
from iscp_lightning.probes.maps import Mapped, measure_maps
from iscp_lightning.probes.measurement import ShapeAndTexture
from iscp_lightning.probes.portraits import saliency_grid
from iscp_lightning.probes.probe import CueConflict, Probed, probe_classifier
from iscp_lightning.probes.saliency import displayed, randomised, saliency_maps
from iscp_lightning.probes.style import Stylised, judge_style

__all__ = [
    "Adversarial",
    "Clean",
    "CueConflict",
    "Distortion",
    "Edges",
    "Greyscale",
    "HighPass",
    "LowPass",
    "Mapped",
    "Occlusion",
    "PatchShuffle",
    "Probed",
    "Rotation",
    "Saturation",
    "ShapeAndTexture",
    "Silhouette",
    "Stylised",
    "Translation",
    "displayed",
    "judge_style",
    "measure_maps",
    "probe_classifier",
    "randomised",
    "saliency_grid",
    "saliency_maps",
]
