"""Generator: an image from a vector and noise (Brock et al. 2019, Teterwak et al. 2021)."""

from __future__ import annotations

from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from iscp_lightning.inversion.architecture import COARSEST, Architecture
from iscp_lightning.inversion.layers import (
    ConditionalBatchNorm,
    SelfAttention,
    conv,
    linear,
    orthogonal,
)


class GeneratorBlock(nn.Module):
    """Residual block that doubles the side of its maps.

    Args:
        channels_in: Channels of what it gets.
        channels_out: Channels of what it returns.
        condition_size: Length of what normalises its maps.
    """

    def __init__(self, channels_in: int, channels_out: int, condition_size: int) -> None:
        super().__init__()
        self.norm1 = ConditionalBatchNorm(channels_in, condition_size)
        self.conv1 = conv(channels_in, channels_out)
        self.norm2 = ConditionalBatchNorm(channels_out, condition_size)
        self.conv2 = conv(channels_out, channels_out)
        self.shortcut = conv(channels_in, channels_out, 1)

    def forward(self, maps: Tensor, condition: Tensor) -> Tensor:
        """Return maps (N, channels_out, 2 H, 2 W)."""
        hidden = F.interpolate(self.norm1(maps, condition).relu(), scale_factor=2)
        hidden = self.norm2(self.conv1(hidden), condition).relu()
        # 1 x 1 convolutions and repeated pixels may change places
        shortcut = F.interpolate(self.shortcut(maps), scale_factor=2)
        out: Tensor = shortcut + self.conv2(hidden)
        return out


class Generator(nn.Module):
    """BigGAN's generator, conditioned on a vector instead of a class.

    An embedding of the vector, joined with a part of the noise of their own, is what all stages
    get: the first as its 4 x 4 maps (in BigGAN they come from the noise alone), the others as gains
    and biases of their batch normalisation.

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
        stages, _ = architecture.stages(image_size)
        self.noise_per_stage = architecture.noise_per_stage
        condition_size = architecture.embedding_size + self.noise_per_stage
        self.embedding = orthogonal(nn.Linear(vector_size, architecture.embedding_size, bias=False))
        self.first = linear(condition_size, stages[0] * COARSEST**2)
        self.blocks = nn.ModuleList(
            GeneratorBlock(before, after, condition_size) for before, after in pairwise(stages)
        )
        self.attention = nn.ModuleDict()
        for position, after in enumerate(stages[1:]):
            if COARSEST * 2 ** (position + 1) == architecture.attention:
                self.attention[str(position)] = SelfAttention(after)
        self.last_norm = nn.BatchNorm2d(stages[-1])
        self.last = conv(stages[-1], channels)

    @property
    def noise_size(self) -> int:
        """Length of an image's noise."""
        return self.noise_per_stage * (1 + len(self.blocks))

    def forward(self, vectors: Tensor, noise: Tensor) -> Tensor:
        """Return images float (N, C, H, W) in [0, 1].

        Args:
            vectors: float (N, vector_size), entries of mean 0 and standard deviation 1.
            noise: float (N, noise_size), standard normal.
        """
        embedded = self.embedding(vectors)
        first, *others = (
            torch.cat([embedded, part], 1) for part in noise.split(self.noise_per_stage, 1)
        )
        maps = self.first(first).unflatten(1, (-1, COARSEST, COARSEST))
        for position, (block, condition) in enumerate(zip(self.blocks, others, strict=True)):
            maps = block(maps, condition)
            if str(position) in self.attention:
                maps = self.attention[str(position)](maps)
        out: Tensor = self.last(self.last_norm(maps).relu())
        return (out.tanh() + 1) / 2
