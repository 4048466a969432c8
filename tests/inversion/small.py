"""A small inversion, quick to train."""

from typing import Any

import torch
from torch import Tensor, nn

from iscp_lightning.classifiers import create_classifier
from iscp_lightning.classifiers.subject import Subject
from iscp_lightning.data import Shapes
from iscp_lightning.data.datamodule import ImageDataModule
from iscp_lightning.data.images import MemoryImages
from iscp_lightning.inversion.architecture import Architecture
from iscp_lightning.inversion.conditioning import Standardisation
from iscp_lightning.inversion.examined import Examined
from iscp_lightning.inversion.inverter import Inverter
from iscp_lightning.inversion.module import FeedforwardInversionModule

SMALL = Architecture(4, [4, 2, 1], [1, 2, 4], embedding_size=8, noise_per_stage=4)


def small_module(**settings: Any) -> FeedforwardInversionModule:
    """Return an inversion of a random network for images of 16 pixels."""
    torch.manual_seed(0)
    classifier = settings.pop("classifier", None) or create_classifier("resnet20", 10, 16)
    options = {"architecture": SMALL, "image_size": 16, **settings}
    return FeedforwardInversionModule(classifier, **options)


def small_data(**settings: Any) -> ImageDataModule:
    """Return 50 training images and 20 test images of 16 pixels."""
    return ImageDataModule(
        Shapes(60, 20, 16), **{"batch_size": 16, "val_fraction": 0.2, **settings}
    )


class Colours(nn.Module):
    """A classifier whose features are the mean colours of an image, its logits twice these."""

    def __init__(self) -> None:
        super().__init__()
        self.last = nn.Linear(3, 3, bias=False)
        self.last.weight = nn.Parameter(2 * torch.eye(3))

    def forward(self, images: Tensor) -> Tensor:
        """Return logits (N, 3)."""
        return self.last(images.mean((2, 3)))


class Painter(nn.Module):
    """A generator that paints the mean colour that `Colours` has seen, and noise in one pixel."""

    noise_size = 1

    def __init__(self) -> None:
        super().__init__()
        self.unused = nn.Parameter(torch.zeros(1))

    def forward(self, vectors: Tensor, noise: Tensor) -> Tensor:
        """Return images (N, 3, 16, 16)."""
        colours = (vectors / 2).clamp(0, 1)
        images = colours[..., None, None].repeat(1, 1, 16, 16)
        images[:, 0, 0, 0] = noise[:, 0].sigmoid()
        return images


def examined_colours(count: int = 30, judge: bool = True, **settings: Any) -> Examined:
    """Return images of noise around a colour, turned into that colour; a third is each class's."""
    draws = torch.Generator().manual_seed(0)
    labels = torch.arange(count) % 3
    colours = 0.3 + 0.4 * nn.functional.one_hot(labels, 3)
    images = colours[..., None, None] + 0.2 * torch.rand(count, 3, 16, 16, generator=draws)
    subject = Subject(Colours(), MemoryImages(images, labels), ["red", "green", "blue"])
    inverter = Inverter(Colours().eval(), Painter().eval(), Standardisation(3))  # type: ignore[arg-type]
    settings = {"judge": Colours().eval() if judge else None, **settings}
    return Examined(inverter, subject, torch.arange(count), **settings)
