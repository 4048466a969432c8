"""Averaging: the generator that images are made by is a mean over its training."""

from __future__ import annotations

import copy

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize


class Average(nn.Module):
    """An exponential moving average of a network, without gradients.

    Weights and the statistics of batch normalisation are averaged. The singular vectors of spectral
    normalisation are not, since a mean of unit vectors is shorter than one: a power iteration after
    each step keeps them those of the averaged weights.

    Args:
        network: What is averaged, of which it starts as a copy.
        decay: Share of the average that a step keeps, in [0, 1); within the first n steps at most
            (1 + n) / (10 + n).
    """

    steps: Tensor

    def __init__(self, network: nn.Module, decay: float) -> None:
        super().__init__()
        self.module = copy.deepcopy(network).requires_grad_(False)
        self.decay = decay
        self.register_buffer("steps", torch.zeros((), dtype=torch.int64))

    @torch.no_grad()
    def update(self, network: nn.Module) -> None:
        """Take in the network as it is."""
        steps = int(self.steps)
        kept = min(self.decay, (1 + steps) / (10 + steps))
        values = network.state_dict()
        for name, mean in self.module.state_dict().items():
            if name.endswith(("._u", "._v")):
                continue
            if mean.is_floating_point():
                mean.lerp_(values[name], 1 - kept)
            else:
                mean.copy_(values[name])
        self.steps += 1
        for layer in self.module.modules():
            if parametrize.is_parametrized(layer, "weight"):
                (normalisation,) = layer.parametrizations.weight  # type: ignore[union-attr,misc]
                mode = normalisation.training
                normalisation.train()
                _ = layer.weight  # reading it is a power iteration
                normalisation.train(mode)
