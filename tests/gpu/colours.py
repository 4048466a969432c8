"""Images that are told apart by their colour, and a small network that learns to."""

import torch
from torch import nn

from iscp_lightning.data import MemoryImages
from iscp_lightning.data.datamodule import ImageDataModule
from iscp_lightning.data.sources import ImageSource


class Colours(ImageSource):
    """Noise with one bright channel, which is the class."""

    num_classes = 3
    image_size = (8, 8)
    class_names = ("red", "green", "blue")

    def train(self) -> MemoryImages:
        return noise(96, seed=0)

    def test(self) -> MemoryImages:
        return noise(60, seed=1)


def noise(count: int, seed: int) -> MemoryImages:
    generator = torch.Generator().manual_seed(seed)
    images = torch.randint(0, 150, (count, 3, 8, 8), generator=generator)
    labels = torch.arange(count) % 3
    images[torch.arange(count), labels] += 60
    return MemoryImages(images.to(torch.uint8), labels)


def colours(**arguments) -> ImageDataModule:
    return ImageDataModule(Colours(), **({"batch_size": 16, "val_fraction": 0.25} | arguments))


def small_net() -> nn.Module:
    """Batch statistics and dropout: what disturbs a training shows. Weights by seed 0."""
    torch.manual_seed(0)
    return nn.Sequential(
        *(nn.Conv2d(3, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU(), nn.Flatten()),
        *(nn.Dropout(0.3), nn.Linear(8 * 64, 3)),
    )


def sgd(parameters):
    return torch.optim.SGD(parameters, lr=0.02, momentum=0.9)
