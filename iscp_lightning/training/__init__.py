"""How classifiers are trained: naturally, on poisoned data, adversarially."""

from iscp_lightning.training.badnets import BadNetsModule
from iscp_lightning.training.free import FreeModule
from iscp_lightning.training.madry import MadryModule
from iscp_lightning.training.natural import NaturalModule
from iscp_lightning.training.robust_data_writer import RobustDataWriter

__all__ = ["BadNetsModule", "FreeModule", "MadryModule", "NaturalModule", "RobustDataWriter"]
