"""AdaIN style transfer (Huang & Belongie 2017): an encoder, a decoder and their losses.

Feature maps of a content image get, channel by channel, the mean and the standard deviation of
those of a style image, and a decoder draws the picture that has them.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import partial
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from iscp_lightning.classifiers.frozen import frozen_copy, uncompiled

EPSILON = 1e-5  # added to variances
DEEPEST = 8  # an encoding has at least 1/8 of the image's sides, as VGG's relu4_1,
FEWEST = 14  # and so many pixels a side or half of it: coarser maps do not say where a shape is
NARROWEST = 16  # channels of a decoder's layers


class Losses(NamedTuple):
    """How far a picture is from its two models, () each.

    Attributes:
        content: Mean squared error between its encoding and AdaIN's target.
        style: Over the stages, the sum of the mean squared errors of channel means and of channel
            standard deviations, against the style image's.
    """

    content: Tensor
    style: Tensor


def statistics(maps: Tensor) -> tuple[Tensor, Tensor]:
    """Return mean and standard deviation of every channel, both float32 (N, C, 1, 1).

    Args:
        maps: Feature maps (N, C, h, w) of more than one pixel.
    """
    variance, mean = torch.var_mean(maps.float(), (2, 3), keepdim=True)
    return mean, (variance + EPSILON).sqrt()


def adain(content: Tensor, style: Tensor) -> Tensor:
    """Return the content's feature maps with the style's statistics, float32 (N, C, h, w).

    Args:
        content: Feature maps (N, C, h, w).
        style: Feature maps (N, C, h', w').
    """
    (mean, std), (style_mean, style_std) = statistics(content), statistics(style)
    return (content.float() - mean) / std * style_std + style_mean


def losses_of(maps: Sequence[Tensor], target: Tensor, style: Sequence[Tensor]) -> Losses:
    """Return the losses of pictures.

    Args:
        maps: Their feature maps, one of each stage.
        target: What the last one should be.
        style: Feature maps of their style images.
    """
    pairs = zip(map(statistics, maps), map(statistics, style), strict=True)
    parts = [
        F.mse_loss(found, wanted)
        for own, other in pairs
        for found, wanted in zip(own, other, strict=True)
    ]
    return Losses(F.mse_loss(maps[-1].float(), target), torch.stack(parts).sum())


class Encoder(nn.Module):
    """Feature maps of a frozen network, the last of which is the encoding.

    Args:
        network: Takes images (N, C, H, W) in [0, 1]; is frozen.
        stages: Names of its parts whose outputs are the maps, from shallow to deep.
    """

    def __init__(self, network: nn.Module, stages: Sequence[str]) -> None:
        super().__init__()
        self.network = network.requires_grad_(False)
        self.stages = tuple(stages)
        self.eval()

    def forward(self, images: Tensor) -> list[Tensor]:
        """Return one map (N, c, h, w) of each stage."""
        maps: dict[str, Tensor] = {}
        handles = [
            self.network.get_submodule(name).register_forward_hook(partial(_keep, maps, name))
            for name in self.stages
        ]
        try:
            self.network(images)
        finally:
            for handle in handles:
                handle.remove()
        return [maps[name] for name in self.stages]


def _keep(maps: dict[str, Tensor], name: str, _: nn.Module, __: object, output: Tensor) -> None:
    maps[name] = output


class StyleNetwork(nn.Module):
    """Encoder and decoder; the encoder stays frozen and in eval mode.

    A picture whose sides the strides do not divide comes out of the decoder larger or smaller, and
    is resized, bilinearly, to those of the content image.

    Args:
        encoder: Takes images in [0, 1].
        decoder: From the encoding to images; values outside [0, 1] are cut off by `stylise`.
    """

    def __init__(self, encoder: Encoder, decoder: nn.Module) -> None:
        super().__init__()
        self.encoder = encoder
        self.decoder = decoder

    @property
    def channels(self) -> int:
        """Number of channels of the images."""
        return [p.out_channels for p in self.decoder.modules() if isinstance(p, nn.Conv2d)][-1]

    def train(self, mode: bool = True) -> StyleNetwork:
        """Set the mode of the decoder alone."""
        super().train(mode)
        self.encoder.eval()
        return self

    def decode(self, encoding: Tensor, size: Sequence[int]) -> Tensor:
        """Return the pictures (N, C, *size) of an encoding."""
        pictures: Tensor = self.decoder(encoding)
        if tuple(pictures.shape[2:]) != tuple(size):
            pictures = F.interpolate(pictures, tuple(size), mode="bilinear", align_corners=False)
        return pictures

    def target(self, content: Tensor, style: Tensor, alpha: float = 1.0) -> Tensor:
        """Return the encoding that is decoded: AdaIN's, mixed with `1 - alpha` of the content's."""
        encoding: Tensor = self.encoder(content)[-1].float()
        return encoding.lerp(adain(encoding, self.encoder(style)[-1]), alpha)

    def stylise(self, content: Tensor, style: Tensor, alpha: float = 1.0) -> Tensor:
        """Return the content images in the style of others, float32 (N, C, H, W) in [0, 1].

        Args:
            content: float32 (N, C, H, W) in [0, 1].
            style: As many, of the same or another size.
            alpha: Share of the style, in [0, 1].
        """
        pictures = self.decode(self.target(content, style, alpha), content.shape[2:])
        return pictures.float().clamp(0, 1)

    def losses(self, content: Tensor, style: Tensor) -> Losses:
        """Return the losses of what the decoder makes of these images, for its training."""
        with torch.no_grad():
            target, style_maps = self.target(content, style), self.encoder(style)
        return losses_of(self.encoder(self.decode(target, content.shape[2:])), target, style_maps)


@torch.no_grad()
def encoder_of(classifier: nn.Module, images: Tensor) -> Encoder:
    """Return the trunk of a convolutional classifier as an encoder; a frozen copy of it.

    Of every resolution down to the encoding's it has the last map: that of the last part with
    several layers, such as a stage of a ResNet, else that of the last layer. The encoding is the
    deepest map that has at least 1/8 of the images' sides, and at least 14 x 14 pixels or half of
    the sides: 16 x 16 of ResNet-20 for images of 32 x 32, 28 x 28 of ResNet-50 for 224 x 224.

    Args:
        classifier: Takes images (N, C, H, W) in [0, 1].
        images: float32 (n, C, H, W) of the size that will be encoded, on its device.

    Raises:
        ValueError: if it has no such map.
    """
    network = frozen_copy(uncompiled(classifier), images.device)
    calls: list[tuple[str, tuple[int, ...]]] = []

    def note(name: str, _: nn.Module, __: object, output: object) -> None:
        if isinstance(output, Tensor) and output.ndim == 4:
            calls.append((name, tuple(output.shape[2:])))

    named = {name: part for name, part in network.named_modules() if name}
    handles = [part.register_forward_hook(partial(note, name)) for name, part in named.items()]
    try:
        network(images)
    finally:
        for handle in handles:
            handle.remove()
    smallest = [max(min(FEWEST, side // 2), side // DEEPEST) for side in images.shape[2:]]
    stages: dict[tuple[int, ...], str] = {}
    for size in sorted({size for _, size in calls}, reverse=True):
        # a layer that is called at several resolutions would give the map of its last call
        parts = [n for n, at in calls if at == size and {s for m, s in calls if m == n} == {size}]
        blocks = [name for name in parts if _has_convolution_inside(named[name])]
        if parts and all(side >= least for side, least in zip(size, smallest, strict=True)):
            stages[size] = (blocks or parts)[-1]
    if not stages:
        raise ValueError(
            f"`classifier`={type(classifier).__name__} has no feature map of {smallest[0]} x "
            f"{smallest[1]} pixels or more for images of {tuple(images.shape[2:])}: it cannot be "
            "an encoder"
        )
    return Encoder(network, list(stages.values()))


def _has_convolution_inside(part: nn.Module) -> bool:
    return any(isinstance(inner, nn.Conv2d) for inner in part.modules() if inner is not part)


def decoder_of(encoder: Encoder, images: Tensor) -> nn.Sequential:
    """Return a decoder with fresh weights for the encodings of images of this size.

    Every doubling of the sides halves the channels, to no fewer than 16; pictures lie in [0, 1].

    Args:
        encoder: Says the encoding's channels and stride.
        images: float32 (n, C, H, W), on its device.
    """
    with torch.no_grad():
        encoding = encoder(images[:1])[-1]
    doublings = math.ceil(math.log2(images.shape[2] / encoding.shape[2]))
    channels = encoding.shape[1]
    widths = [max(NARROWEST, channels // 2**step) for step in range(1, doublings + 1)]
    layers = decoder_layers([channels, *widths], [1] * doublings, images.shape[1])
    return nn.Sequential(*layers, nn.Sigmoid()).to(images.device)


def decoder_layers(widths: Sequence[int], repeats: Sequence[int], channels: int) -> list[nn.Module]:
    """Return convolutions with reflection padding, and nearest upsampling between the widths.

    Args:
        widths: Channels of the encoding, and after each doubling of the sides.
        repeats: How many convolutions of equal width follow each doubling.
        channels: Of the pictures.
    """
    layers: list[nn.Module] = []
    for wide, narrow, count in zip(widths, widths[1:], repeats, strict=False):
        layers += [*convolution(wide, narrow), nn.ReLU(), nn.Upsample(scale_factor=2)]
        for _ in range(count):
            layers += [*convolution(narrow, narrow), nn.ReLU()]
    return [*layers, *convolution(widths[-1], channels)]


def convolution(width_in: int, width_out: int) -> list[nn.Module]:
    """Return a 3x3 convolution that keeps the sides, with the image reflected at its border."""
    return [nn.ReflectionPad2d(1), nn.Conv2d(width_in, width_out, 3)]
