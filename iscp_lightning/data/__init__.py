"""Data sources, image sets, augmentation and the Lightning data module."""

from iscp_lightning.data.augment import Augmentation
from iscp_lightning.data.drawn import Noise, Shapes
from iscp_lightning.data.images import Batch, FileImages, ImageSet, MemoryImages
from iscp_lightning.data.poison import Poison
from iscp_lightning.data.robust import RobustData
from iscp_lightning.data.sources import (
    CIFAR10,
    CIFAR100,
    MNIST,
    SVHN,
    FashionMNIST,
    ImageFolder,
    ImageSource,
)
from iscp_lightning.data.triggers import Trigger

__all__ = [
    "CIFAR10",
    "CIFAR100",
    "MNIST",
    "SVHN",
    "Augmentation",
    "Batch",
    "FashionMNIST",
    "FileImages",
    "ImageFolder",
    "ImageSet",
    "ImageSource",
    "MemoryImages",
    "Noise",
    "Poison",
    "RobustData",
    "Shapes",
    "Trigger",
]
