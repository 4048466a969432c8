"""Frozen copies: a classifier is measured, searched and attacked without ever being changed."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import partial
from typing import Any, NamedTuple

import torch
from torch import nn


class _Flag(NamedTuple):
    """One of torch's switches of the precision that fp32 is computed in, and its full setting."""

    get: Callable[[], Any]
    set: Callable[[Any], None]
    full: Any

    @classmethod
    def of(cls, owner: Any, name: str, full: Any) -> _Flag:  # noqa: ANN401
        return cls(partial(getattr, owner, name), partial(setattr, owner, name), full)


def _precision_flags() -> list[_Flag]:
    backends: Any = torch.backends
    flags = [
        _Flag(torch.get_float32_matmul_precision, torch.set_float32_matmul_precision, "highest"),
        _Flag.of(backends.cudnn, "allow_tf32", False),
    ]
    if hasattr(backends.cudnn, "conv"):  # torch 2.9 has a second interface to the same switches
        operations = (
            *(backends.cudnn.conv, backends.cudnn.rnn, backends.cuda.matmul),
            *(backends.mkldnn.conv, backends.mkldnn.rnn, backends.mkldnn.matmul),
        )
        flags += [_Flag.of(operation, "fp32_precision", "ieee") for operation in operations]
    return flags


@contextmanager
def full_fp32() -> Iterator[None]:
    """Compute fp32 in full precision in the block, without TF32 or bf16 inside; then as before.

    Backward passes must run inside too. Also a decorator: `@full_fp32()`.
    """
    before = []
    for flag in _precision_flags():
        with suppress(RuntimeError):  # the first interface is closed to those who used the second
            before.append((flag, flag.get()))
    try:
        for flag, _ in before:
            flag.set(flag.full)
        yield
    finally:
        for flag, value in before:
            flag.set(value)


def frozen_copy(classifier: nn.Module, device: torch.device) -> nn.Module:
    """Return a deep copy in fp32 and eval mode without gradients; the original is untouched."""
    frozen = copy.deepcopy(classifier).to(device).float()
    use_fast_layout(frozen)
    return frozen.eval().requires_grad_(False)


@contextmanager
def frozen_weights(module: nn.Module) -> Iterator[None]:
    """Ask for no gradient of the weights in the block; a compiled pass computes all asked for."""
    asked = [parameter for parameter in module.parameters() if parameter.requires_grad]
    for parameter in asked:
        parameter.requires_grad_(False)
    try:
        yield
    finally:
        for parameter in asked:
            parameter.requires_grad_(True)


def uncompiled(module: nn.Module) -> nn.Module:
    """Return what `torch.compile` has wrapped, any other module as it is."""
    plain: nn.Module = getattr(module, "_orig_mod", module)
    return plain


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
