"""A copy of a frozen classifier that computes the same, faster."""

from __future__ import annotations

import copy
import logging
from typing import Literal

import torch
from torch import Tensor, nn
from torch.fx.experimental.optimization import fuse

Precision = Literal["fp32", "bf16"]
log = logging.getLogger(__name__)


def prepare(frozen: nn.Module, precision: Precision, images: Tensor) -> nn.Module:
    """Return a faster copy of a frozen classifier that takes the same float32 images.

    Batch normalisation is folded into the convolutions where the network can be traced, the
    layout is channels-last, and `bf16` casts weights and images to bfloat16.

    Args:
        frozen: What `frozen_copy` returned.
        precision: Of the copy.
        images: float32 (n, C, H, W): a folded copy whose logits differ on them is not used.
    """
    try:
        fast: nn.Module = fuse(frozen)
        with torch.no_grad():
            torch.testing.assert_close(
                fast(images), frozen(images), rtol=1e-2, atol=1e-2, equal_nan=True
            )
    except Exception as error:  # tracing arbitrary code fails in arbitrary ways
        log.info("searching without folded batch normalisation: %s", error)
        fast = copy.deepcopy(frozen)
    fast = fast.requires_grad_(False).to(memory_format=torch.channels_last)
    return Bfloat16(fast) if precision == "bf16" else fast


class Bfloat16(nn.Module):
    """A network that computes in bfloat16 on float32 images.

    Args:
        network: Is cast to bfloat16.
    """

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network.bfloat16()

    def forward(self, images: Tensor) -> Tensor:
        """Return bfloat16 logits of float32 images."""
        logits: Tensor = self.network(images.bfloat16())
        return logits
