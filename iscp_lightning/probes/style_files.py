"""Style networks from and to files, read in ways that cannot execute anything in them."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import nn

from iscp_lightning.classifiers.architectures import Classifier, create_classifier
from iscp_lightning.classifiers.checkpoints import SPEC_KEY, load_classifier, unreadable
from iscp_lightning.classifiers.frozen import frozen_copy
from iscp_lightning.probes.adain import (
    Encoder,
    StyleNetwork,
    convolution,
    decoder_layers,
    decoder_of,
)
from iscp_lightning.runs import atomic_path

METADATA = "style_network"
VGG_WIDTHS = (*(64, 64, 0), *(128, 128, 0), *(256,) * 4, 0, *(512,) * 4, 0, *(512,) * 4)  # 0: pool
VGG_USED = 31  # of its 53 layers: up to relu4_1
VGG_STAGES = ("3", "10", "17", "30")  # relu1_1, relu2_1, relu3_1, relu4_1


def load_published(vgg_file: str | Path, decoder_file: str | Path) -> StyleNetwork:
    """Return the network of naoto0804/pytorch-AdaIN from its two files.

    Args:
        vgg_file: Its `vgg_normalised.pth`, or the same weights as safetensors.
        decoder_file: Its `decoder.pth`, likewise.

    Raises:
        ValueError: if a file is missing or does not hold these weights; names the file.
    """
    vgg, decoder = published_layers()
    load_classifier(vgg, weights=str(vgg_file))
    load_classifier(decoder, weights=str(decoder_file))
    return StyleNetwork(Encoder(vgg[:VGG_USED], VGG_STAGES), decoder)


def published_layers() -> tuple[nn.Sequential, nn.Sequential]:
    """Return the published VGG-19 (53 layers) and decoder with fresh weights."""
    layers: list[nn.Module] = [nn.Conv2d(3, 3, 1)]  # from [0, 1] to what VGG was trained with
    last = 3
    for width in VGG_WIDTHS:
        if width:
            layers += [*convolution(last, width), nn.ReLU()]
            last = width
        else:
            layers.append(nn.MaxPool2d(2, ceil_mode=True))
    return nn.Sequential(*layers), nn.Sequential(*decoder_layers((512, 256, 128, 64), (3, 1, 1), 3))


def save_style_network(
    path: str | Path, network: StyleNetwork, image_shape: tuple[int, int, int]
) -> None:
    """Write a network with a classifier's encoder to a safetensors file, atomically.

    Args:
        path: The file.
        network: The network.
        image_shape: (C, H, W) of the images that its decoder was made for.
    """
    classifier = network.encoder.network
    about = {
        SPEC_KEY: asdict(classifier.spec) if isinstance(classifier, Classifier) else None,
        "stages": network.encoder.stages,
        "image_shape": image_shape,
    }
    state = {name: tensor.contiguous() for name, tensor in network.state_dict().items()}
    with atomic_path(Path(path)) as temporary:
        save_file(state, temporary, {METADATA: json.dumps(about)})


def load_style_network(file: str | Path, classifier: nn.Module | None = None) -> StyleNetwork:
    """Return what `save_style_network` has written.

    Args:
        file: The file.
        classifier: Structure of an encoder that `create_classifier` does not know by name.

    Raises:
        ValueError: if the file is missing, is another, or needs a `classifier`.
    """
    path = Path(file)
    if not path.is_file():
        raise ValueError(f"`network`={file} is not an existing file")
    try:
        with safe_open(path, "pt") as opened:
            about: dict[str, Any] = json.loads(opened.metadata()[METADATA])
        spec, stages, image_shape = (about[key] for key in (SPEC_KEY, "stages", "image_shape"))
    except Exception as error:  # a garbled file makes the reader raise anything
        raise ValueError(
            f"`network`={file} is no file of `save_style_network`: {unreadable(path, error)}"
        ) from error
    if classifier is None and spec is None:
        raise ValueError(
            f"`network`={file} has an encoder that is not known by name: give its structure to "
            "`load_style_network` as `classifier`"
        )
    try:
        structure = classifier or create_classifier(**spec, trained=False)
        encoder = Encoder(frozen_copy(structure, torch.device("cpu")), stages)
        decoder = decoder_of(encoder, torch.zeros(1, *image_shape))
    except (RuntimeError, TypeError, AttributeError, ValueError, KeyError) as error:
        raise ValueError(f"{file} names an encoder that cannot be built: {error}") from error
    network = StyleNetwork(encoder, decoder)
    load_classifier(network, weights=str(file))
    return network
