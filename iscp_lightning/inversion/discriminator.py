"""Discriminator: whether an image is real and belongs to a vector (Miyato & Koyama 2018)."""

from __future__ import annotations

import math

import torch.nn.functional as F
from torch import Tensor, nn

from iscp_lightning.inversion.architecture import Architecture
from iscp_lightning.inversion.layers import SelfAttention, conv, linear


class DiscriminatorBlock(nn.Module):
    """Residual block, without normalisation.

    Args:
        channels_in: Channels of what it gets.
        channels_out: Channels of what it returns.
        first: Whether it gets an image, which has no activation before it.
        halve: Whether it halves the side of its maps.
    """

    def __init__(
        self, channels_in: int, channels_out: int, first: bool = False, halve: bool = True
    ) -> None:
        super().__init__()
        self.first = first
        self.halve = halve
        self.conv1 = conv(channels_in, channels_out)
        self.conv2 = conv(channels_out, channels_out)
        self.shortcut: nn.Module = nn.Identity()
        if halve or channels_in != channels_out:
            self.shortcut = conv(channels_in, channels_out, 1)

    def forward(self, maps: Tensor) -> Tensor:
        """Return maps (N, channels_out, H, W), of half the side if it halves it."""
        hidden = self.conv2(self.conv1(maps if self.first else maps.relu()).relu())
        if self.halve:  # 1 x 1 convolutions and means may change places
            hidden, maps = F.avg_pool2d(hidden, 2), F.avg_pool2d(maps, 2)
        out: Tensor = hidden + self.shortcut(maps)
        return out


class Discriminator(nn.Module):
    """BigGAN's discriminator: D(x, v) = w h(x) + <V v, h(x)> / sqrt(|v|) + b.

    h are its last maps, summed over the image, |v| is the length of vectors.

    Args:
        vector_size: Length of the vectors.
        architecture: Sizes.
        image_size: (height, width) of the images.
        channels: Their channels.

    Raises:
        ValueError: if no stages lead to the size of the images.
    """

    channels_last = True

    def __init__(
        self,
        vector_size: int,
        architecture: Architecture = Architecture(),
        image_size: int | tuple[int, int] = 32,
        channels: int = 3,
    ) -> None:
        super().__init__()
        _, stages = architecture.stages(image_size)
        side = image_size if isinstance(image_size, int) else image_size[0]
        parts: list[nn.Module] = []
        for position, (before, after) in enumerate(
            zip([channels, *stages[:-1]], stages, strict=True)
        ):
            halve = position < len(stages) - 1
            parts.append(DiscriminatorBlock(before, after, first=position == 0, halve=halve))
            side = side // 2 if halve else side
            if halve and side == architecture.attention:
                parts.append(SelfAttention(after))
        self.blocks = nn.Sequential(*parts)
        self.linear = linear(stages[-1], 1)
        self.projection = linear(vector_size, stages[-1], bias=False)

    def forward(self, images: Tensor, vectors: Tensor) -> Tensor:
        """Return scores float (N,), high for real images that belong to their vectors.

        Args:
            images: float (N, C, H, W) in [0, 1].
            vectors: float (N, vector_size), as the generator gets them.
        """
        hidden = self.blocks(2 * images - 1).relu().sum((2, 3))
        vectors = vectors / math.sqrt(vectors.shape[1])  # about as long as one-hot labels
        scores: Tensor = self.linear(hidden)[:, 0] + (self.projection(vectors) * hidden).sum(1)
        return scores
