"""Frozen copies: a classifier is measured, searched and attacked without ever being changed."""

from __future__ import annotations

import copy

import torch
from torch import nn


def frozen_copy(classifier: nn.Module, device: torch.device) -> nn.Module:
    """Return a deep copy in fp32 and eval mode without gradients; the original is untouched.

    Its layout is channels-last, which convolutions like.
    """
    frozen = copy.deepcopy(classifier).to(device).float()
    frozen = frozen.to(memory_format=torch.channels_last)
    return frozen.eval().requires_grad_(False)


def module_device(module: nn.Module) -> torch.device:
    """Return the device of a module's first parameter or buffer, else the CPU."""
    tensors = [*module.parameters(), *module.buffers()]
    return tensors[0].device if tensors else torch.device("cpu")
