"""What a classifier is: networks by name, their weights in files, frozen and fast copies."""

from iscp_lightning.classifiers.architectures import (
    Classifier,
    ClassifierSpec,
    ResNet20,
    create_classifier,
    require_image_size,
)
from iscp_lightning.classifiers.checkpoints import (
    class_names_in,
    classifier_hash,
    load_classifier,
    load_trained,
    require_class_names,
    save_classifier,
)
from iscp_lightning.classifiers.resized import Resized
from iscp_lightning.classifiers.subject import Subject

__all__ = [
    "Classifier",
    "ClassifierSpec",
    "ResNet20",
    "Resized",
    "Subject",
    "class_names_in",
    "classifier_hash",
    "create_classifier",
    "load_classifier",
    "load_trained",
    "require_class_names",
    "require_image_size",
    "save_classifier",
]
