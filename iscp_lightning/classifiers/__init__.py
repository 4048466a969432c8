"""Classifiers: networks by name, their weights in files, and their training."""

from iscp_lightning.classifiers.architectures import (
    Classifier,
    ClassifierSpec,
    ResNet20,
    create_classifier,
)
from iscp_lightning.classifiers.badnets import BadNetsModule
from iscp_lightning.classifiers.checkpoints import (
    classifier_hash,
    load_classifier,
    load_trained,
    save_classifier,
)
from iscp_lightning.classifiers.free import FreeModule
from iscp_lightning.classifiers.madry import MadryModule
from iscp_lightning.classifiers.natural import NaturalModule
from iscp_lightning.classifiers.robust_data_writer import RobustDataWriter

__all__ = [
    "BadNetsModule",
    "Classifier",
    "ClassifierSpec",
    "FreeModule",
    "MadryModule",
    "NaturalModule",
    "ResNet20",
    "RobustDataWriter",
    "classifier_hash",
    "create_classifier",
    "load_classifier",
    "load_trained",
    "save_classifier",
]
