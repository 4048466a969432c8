"""Classifiers: networks by name, their weights in files, and their training."""

from iscp_lightning.classifiers.architectures import (
    Classifier,
    ClassifierSpec,
    ResNet20,
    create_classifier,
)
from iscp_lightning.classifiers.checkpoints import (
    classifier_hash,
    load_classifier,
    save_classifier,
)
from iscp_lightning.classifiers.natural import NaturalModule

__all__ = [
    "Classifier",
    "ClassifierSpec",
    "NaturalModule",
    "ResNet20",
    "classifier_hash",
    "create_classifier",
    "load_classifier",
    "save_classifier",
]
