"""Search variants, one file each; `class_path` names them."""

from iscp_lightning.patterns.variants.algorithm1 import Algorithm1
from iscp_lightning.patterns.variants.base import Outcome, Problems, Variables, Variant

__all__ = ["Algorithm1", "Outcome", "Problems", "Variables", "Variant"]
