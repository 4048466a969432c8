"""Networks by name: every timm network, a small-image stem for its ResNets, CIFAR's ResNet-20.

A classifier maps images in [0, 1] to logits; its normalisation is inside it.
"""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

SMALL_IMAGE = 64
WEIGHTS = (".ckpt", ".safetensors", ".pt", ".pth", ".bin")  # suffixes of weights files


@dataclass(frozen=True)
class ClassifierSpec:
    """Everything that rebuilds a classifier's structure; stored with its weights.

    Attributes:
        architecture: `resnet20` or a timm name; a name with a tag, such as `resnet50.a1_in1k`,
            means timm's trained weights of that tag.
        num_classes: Number of logits K.
        image_size: (height, width) the network is built for.
        mean: Per-channel mean that is subtracted from images in [0, 1].
        std: Per-channel standard deviation that they are divided by.
    """

    architecture: str
    num_classes: int
    image_size: tuple[int, int]
    mean: tuple[float, ...]
    std: tuple[float, ...]


class Classifier(nn.Module):
    """A network with its normalisation: images (N, C, H, W) in [0, 1] to logits (N, K).

    Args:
        network: Maps normalised images to logits.
        spec: How the network was built.
    """

    channels_last = True  # every network by name can run in this layout
    mean: Tensor
    std: Tensor

    def __init__(self, network: nn.Module, spec: ClassifierSpec) -> None:
        super().__init__()
        self.network = network
        self.spec = spec
        self.register_buffer("mean", torch.tensor(spec.mean).view(-1, 1, 1))
        self.register_buffer("std", torch.tensor(spec.std).view(-1, 1, 1))

    def forward(self, images: Tensor) -> Tensor:
        """Return logits (N, K)."""
        logits: Tensor = self.network((images - self.mean) / self.std)
        return logits


def create_classifier(
    architecture: str = "resnet50",
    num_classes: int = 10,
    image_size: int | tuple[int, int] = 32,
    mean: Sequence[float] = (0.5, 0.5, 0.5),
    std: Sequence[float] = (0.25, 0.25, 0.25),
    trained: bool = True,
) -> Classifier:
    """Return a classifier with fresh weights, or with timm's trained ones if the name has a tag.

    timm's ResNets get a 3x3 stem of stride 1 without max-pooling when both sides of the image are
    at most 64 pixels; a tagged network keeps its own stem.

    Args:
        architecture: `resnet20` (He et al. 2016, section 4.2), or any timm name.
        num_classes: Number of logits.
        image_size: Height and width, an int for square images.
        mean: Per-channel mean of the images; its length is the number of channels. A tagged
            network uses its own.
        std: Per-channel standard deviation, likewise.
        trained: Whether a tagged name loads its weights, or takes only its structure.

    Raises:
        ValueError: if the name is unknown.
    """
    size = (image_size, image_size) if isinstance(image_size, int) else image_size
    if not is_architecture(architecture):
        raise ValueError(unknown_architecture(architecture))
    if architecture == "resnet20":
        network: Any = ResNet20(num_classes, len(mean))
    else:
        network = _create_timm(architecture, num_classes, size, len(mean), trained)
        if "." in architecture:
            mean, std = network.pretrained_cfg["mean"], network.pretrained_cfg["std"]
    return Classifier(
        network, ClassifierSpec(architecture, num_classes, size, tuple(mean), tuple(std))
    )


def is_architecture(name: str) -> bool:
    """Return whether `create_classifier` knows the name; hub addresses are not names."""
    import timm

    if name == "resnet20" or ":" in name or "/" in name:
        return name == "resnet20"
    return timm.is_model(name) and ("." not in name or timm.models.is_model_pretrained(name))


def unknown_architecture(name: str) -> str:
    """Return the error message for a name that is neither a weights file nor a network."""
    import timm

    if name and Path(name).is_dir():
        files = sorted(Path(name).glob("checkpoints/*.ckpt"))
        example = f", such as {files[-1]}" if files else ""
        return f"`classifier`={name} is a folder: give a weights file{example}"
    if Path(name).suffix in WEIGHTS:
        return f"`classifier`={name} is not an existing file: give the path of a weights file"
    known = timm.list_pretrained() if "." in name else ["resnet20", *timm.list_models()]
    near = difflib.get_close_matches(name, known, n=3)
    hint = f"; did you mean {' or '.join(near)}?" if near else ""
    return f"`classifier`={name!r} is neither an existing weights file nor a network name{hint}"


def _create_timm(
    architecture: str, num_classes: int, size: tuple[int, int], channels: int, trained: bool
) -> Any:  # noqa: ANN401
    import timm

    tagged = "." in architecture
    arguments: dict[str, Any] = {
        "num_classes": num_classes,
        "in_chans": channels,
        "pretrained": tagged and trained,
    }
    try:
        try:  # networks with position embeddings must know the size, the others refuse it
            network: Any = timm.create_model(architecture, img_size=size, **arguments)
        except TypeError:
            network = timm.create_model(architecture, **arguments)
    except OSError as error:
        raise ValueError(
            f"`classifier`={architecture}: its trained weights can neither be found on this "
            f"machine nor downloaded ({type(error).__name__})"
        ) from error
    is_resnet = isinstance(network, timm.models.resnet.ResNet)
    if is_resnet and not tagged and max(size) <= SMALL_IMAGE:
        width = network.bn1.num_features
        network.conv1 = nn.Conv2d(channels, width, 3, padding=1, bias=False)
        nn.init.kaiming_normal_(network.conv1.weight, mode="fan_out", nonlinearity="relu")
        network.maxpool = nn.Identity()
    return network


class ResNet20(nn.Module):
    """The CIFAR ResNet of He et al. 2016, section 4.2, with n = 3: 0.27 M parameters.

    Shortcuts are parameter-free (option A): every second pixel, new channels zero.

    Args:
        num_classes: Number of logits.
        channels: Image channels.
    """

    def __init__(self, num_classes: int = 10, channels: int = 3) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels, 16, 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(16)
        widths = [16] * 3 + [32] * 3 + [64] * 3
        self.blocks = nn.Sequential(
            *(BasicBlock(a, b) for a, b in zip([16, *widths[:-1]], widths, strict=True))
        )
        self.fc = nn.Linear(64, num_classes)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")

    def forward(self, images: Tensor) -> Tensor:
        """Return logits (N, K) of normalised images (N, C, H, W)."""
        features = self.blocks(F.relu(self.bn1(self.conv1(images))))  # (N, 64, H/4, W/4)
        logits: Tensor = self.fc(features.mean((2, 3)))
        return logits


class BasicBlock(nn.Module):
    """Two 3x3 convolutions around a parameter-free shortcut; a wider output halves the image.

    Args:
        width_in: Input channels.
        width_out: Output channels.
    """

    def __init__(self, width_in: int, width_out: int) -> None:
        super().__init__()
        self.stride = 1 if width_in == width_out else 2
        self.extra = width_out - width_in
        self.conv1 = nn.Conv2d(width_in, width_out, 3, self.stride, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(width_out)
        self.conv2 = nn.Conv2d(width_out, width_out, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(width_out)

    def forward(self, inputs: Tensor) -> Tensor:
        """Return features (N, width_out, H / stride, W / stride)."""
        outputs = self.bn2(self.conv2(F.relu(self.bn1(self.conv1(inputs)))))
        if self.extra:
            half = self.extra // 2
            inputs = F.pad(inputs[:, :, ::2, ::2], (0, 0, 0, 0, half, self.extra - half))
        return F.relu(outputs + inputs)


def require_image_size(name: str, classifier: nn.Module, size: tuple[int, int]) -> None:
    """Raise a ValueError if a network by name is made for images of another size.

    Args:
        name: What it is called in the message.
        classifier: Any; what is no `Classifier` does not say.
        size: (height, width) of the images.
    """
    if isinstance(classifier, Classifier) and tuple(classifier.spec.image_size) != tuple(size):
        own, given = (" x ".join(map(str, each)) for each in (classifier.spec.image_size, size))
        raise ValueError(
            f"{name} is made for images of {own} pixels, the data have {given}: "
            "`classifiers.Resized` shows it images of its own size"
        )
