"""Frozen copies: a classifier is measured, searched and attacked without ever being changed."""

from __future__ import annotations

import copy

import torch
from torch import nn


def frozen_copy(classifier: nn.Module, device: torch.device) -> nn.Module:
    """Return a deep copy in fp32 and eval mode without gradients; the original is untouched."""
    frozen = copy.deepcopy(classifier).to(device).float()
    use_fast_layout(frozen)
    return frozen.eval().requires_grad_(False)


def use_fast_layout(module: nn.Module) -> None:
    """Give the weights of a module that says `channels_last` the layout convolutions like.

    Other modules are left as they are: one that calls `view` on its features could not run.
    """
    if getattr(module, "channels_last", False):
        module.to(memory_format=torch.channels_last)


def module_device(module: nn.Module) -> torch.device:
    """Return the device of a module's first parameter or buffer, else the CPU."""
    tensors = [*module.parameters(), *module.buffers()]
    return tensors[0].device if tensors else torch.device("cpu")
