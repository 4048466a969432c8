"""A copy of a frozen classifier that computes the same, faster."""

from __future__ import annotations

import copy
import logging
from itertools import product
from typing import Literal

import torch
from torch import Tensor, nn
from torch.fx.experimental.optimization import fuse

Precision = Literal["fp32", "bf16"]
log = logging.getLogger(__name__)


def prepare(frozen: nn.Module, precision: Precision, images: Tensor) -> nn.Module:
    """Return a faster copy of a frozen classifier that takes the same float32 images.

    Batch normalisation is folded into the convolutions where the network can be traced, the
    layout is channels-last where it can run so, and `bf16` casts weights and images to bfloat16.

    Args:
        frozen: What `frozen_copy` returned.
        precision: Of the copy.
        images: float32 (n, C, H, W): a change after which logits differ on them is not made.
    """
    with torch.no_grad():
        expected = frozen(images)
    layouts = (torch.channels_last, torch.contiguous_format)
    for change, layout in product((fuse, copy.deepcopy), layouts):
        try:
            fast = Prepared(change(frozen), layout)
            with torch.no_grad():
                torch.testing.assert_close(
                    fast(images), expected, rtol=1e-2, atol=1e-2, equal_nan=True
                )
            break
        except Exception as error:  # arbitrary code fails in arbitrary ways
            log.info("searching without %s in %s: %s", change.__name__, layout, error)
    return fast.cast(torch.bfloat16 if precision == "bf16" else torch.float32)


class Prepared(nn.Module):
    """A network with the memory layout and the precision that it computes in.

    Args:
        network: A copy; is changed.
        layout: Of weights and images.
    """

    def __init__(self, network: nn.Module, layout: torch.memory_format) -> None:
        super().__init__()
        self.network = network.requires_grad_(False)
        if layout == torch.channels_last:
            network.to(memory_format=layout)
        self.layout = layout
        self.dtype = torch.float32

    def cast(self, dtype: torch.dtype) -> Prepared:
        """Compute in another precision from now on; return self."""
        self.network.to(dtype)
        self.dtype = dtype
        return self

    def forward(self, images: Tensor) -> Tensor:
        """Return logits of float32 images, in the network's precision."""
        logits: Tensor = self.network(images.to(self.dtype, memory_format=self.layout))
        return logits
