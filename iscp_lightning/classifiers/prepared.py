"""A copy of a frozen classifier that computes the same, faster."""

from __future__ import annotations

import copy
import io
import logging
import warnings
from contextlib import redirect_stderr
from typing import Literal

import torch
from torch import Tensor, nn
from torch.fx.experimental.optimization import fuse

from iscp_lightning.classifiers.frozen import full_fp32
from iscp_lightning.ranks import rank_and_size

Precision = Literal["fp32", "bf16"]
TOLERANCE = 0.01  # what a change may do to logits, as a share of their spread over the classes
log = logging.getLogger(__name__)


@full_fp32()
def prepare(frozen: nn.Module, precision: Precision, images: Tensor) -> Prepared:
    """Return a faster copy of a frozen classifier that takes the same float32 images.

    Batch normalisation is folded into the convolutions where the network can be traced, the
    layout is channels-last where it can run so, and `bf16` casts weights and images to bfloat16.
    A change that would make other logits is not made, and a warning says so.

    Args:
        frozen: What `frozen_copy` returned.
        precision: Of the copy.
        images: float32 (n, C, H, W) on which logits are compared.
    """
    with torch.no_grad():
        expected = frozen(images)
    fast = Prepared(copy.deepcopy(frozen))
    for change in (_fold, _use_channels_last):
        try:
            # torch.fx prints what it could not trace or run
            with torch.no_grad(), redirect_stderr(io.StringIO()):
                changed = change(fast)
                difference = relative_change(changed(images), expected)
        except Exception as error:  # arbitrary code fails in arbitrary ways
            log.info("searching without %s: %s", change.__name__, error)
            continue
        if difference <= TOLERANCE:
            fast = changed
        elif rank_and_size()[0] == 0:
            warnings.warn(
                f"the search goes without one speed-up ({changed.changes[-1]}), which would move "
                f"the classifier's logits by {100 * difference:.2g} % of their spread",
                stacklevel=2,
            )
    return fast.cast(torch.bfloat16 if precision == "bf16" else torch.float32)


class Prepared(nn.Module):
    """A network with the memory layout and the precision that it computes in.

    Args:
        network: A copy; is changed.
        layout: Of weights and images.
        changes: What distinguishes it from the given classifier.
    """

    def __init__(
        self,
        network: nn.Module,
        layout: torch.memory_format = torch.contiguous_format,
        changes: tuple[str, ...] = (),
    ) -> None:
        super().__init__()
        self.network = network.requires_grad_(False)
        if layout == torch.channels_last:
            network.to(memory_format=layout)
        self.layout = layout
        self.changes = changes
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


def _fold(fast: Prepared) -> Prepared:
    return Prepared(fuse(fast.network), fast.layout, (*fast.changes, "folded"))


def _use_channels_last(fast: Prepared) -> Prepared:
    network = copy.deepcopy(fast.network)
    return Prepared(network, torch.channels_last, (*fast.changes, "channels_last"))


def relative_change(logits: Tensor, expected: Tensor) -> float:
    """Return the largest change of a finite logit, relative to its image's range of logits."""
    finite = expected.isfinite().all(1)
    logits, expected = logits[finite], expected[finite]
    if len(expected) == 0:
        return 0.0
    changes = (logits - expected).abs().amax(1)
    spread = expected.amax(1) - expected.amin(1)
    return float(torch.where(changes == 0, 0, changes / spread).max())
