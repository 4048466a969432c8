"""Search variants, one file each; `class_path` names them."""

from iscp_lightning.patterns.variants.algorithm1 import Algorithm1
from iscp_lightning.patterns.variants.area_constrained import AreaConstrained
from iscp_lightning.patterns.variants.base import Outcome, Problems, Variables, Variant
from iscp_lightning.patterns.variants.joint_canvases import JointCanvases
from iscp_lightning.patterns.variants.learned_canvas import LearnedCanvas
from iscp_lightning.patterns.variants.successive_halving import SuccessiveHalving
from iscp_lightning.patterns.variants.total_variation import TotalVariation
from iscp_lightning.patterns.variants.trigger_inversion import TriggerInversion
from iscp_lightning.patterns.variants.universal_perturbation import UniversalPerturbation

__all__ = [
    "Algorithm1",
    "AreaConstrained",
    "JointCanvases",
    "LearnedCanvas",
    "Outcome",
    "Problems",
    "SuccessiveHalving",
    "TotalVariation",
    "TriggerInversion",
    "UniversalPerturbation",
    "Variables",
    "Variant",
]
