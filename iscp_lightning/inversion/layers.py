"""What generator and discriminator are built of: layers whose largest singular value is 1."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.parametrizations import spectral_norm

SHARE = 8  # attention compares one channel of so many


def conv(channels_in: int, channels_out: int, kernel: int = 3, bias: bool = True) -> nn.Module:
    """Return a convolution that keeps the size, spectrally normalised (Miyato et al. 2018)."""
    return _normalised(nn.Conv2d(channels_in, channels_out, kernel, padding=kernel // 2, bias=bias))


def linear(size_in: int, size_out: int, bias: bool = True) -> nn.Module:
    """Return a linear layer, spectrally normalised."""
    return _normalised(nn.Linear(size_in, size_out, bias))


def orthogonal(layer: nn.Module) -> nn.Module:
    """Start a layer with orthogonal weights (Saxe et al. 2014) and without bias; return it."""
    nn.init.orthogonal_(layer.weight)  # type: ignore[arg-type]
    if layer.bias is not None:
        nn.init.zeros_(layer.bias)  # type: ignore[arg-type]
    return layer


def _normalised(layer: nn.Module) -> nn.Module:
    return spectral_norm(orthogonal(layer), eps=1e-6)


class ConditionalBatchNorm(nn.Module):
    """Batch normalisation whose gain 1 + W c and bias V c depend on a condition c.

    Args:
        channels: Channels of the maps.
        condition_size: Length of c.
    """

    def __init__(self, channels: int, condition_size: int) -> None:
        super().__init__()
        self.normalisation = nn.BatchNorm2d(channels, affine=False)
        self.gain = linear(condition_size, channels, bias=False)
        self.bias = linear(condition_size, channels, bias=False)

    def forward(self, maps: Tensor, condition: Tensor) -> Tensor:
        """Return maps (N, C, H, W) for conditions (N, condition_size)."""
        gain, bias = 1 + self.gain(condition), self.bias(condition)
        normalised = self.normalisation(maps)
        return torch.addcmul(bias[..., None, None], gain[..., None, None], normalised)


class SelfAttention(nn.Module):
    """Self-attention of maps (Zhang et al. 2019), of which nothing is added at first.

    Args:
        channels: Channels of the maps, at least 8.

    Raises:
        ValueError: if there are fewer.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        if channels < SHARE:
            raise ValueError(
                f"`attention` needs maps of {SHARE} channels or more, got {channels}: a larger "
                "`width`, or None"
            )
        self.query = conv(channels, channels // SHARE, 1, bias=False)
        self.key = conv(channels, channels // SHARE, 1, bias=False)
        self.value = conv(channels, channels // 2, 1, bias=False)
        self.out = conv(channels // 2, channels, 1, bias=False)
        self.strength = nn.Parameter(torch.zeros(()))

    def forward(self, maps: Tensor) -> Tensor:
        """Return maps (N, C, H, W); keys and values are pooled 2 x 2."""
        n, _, height, width = maps.shape
        query = self.query(maps).flatten(2).mT
        key, value = (F.max_pool2d(each(maps), 2).flatten(2).mT for each in (self.key, self.value))
        seen = F.scaled_dot_product_attention(query, key, value, scale=1.0)
        out: Tensor = self.out(seen.mT.reshape(n, -1, height, width))
        return maps + self.strength * out
