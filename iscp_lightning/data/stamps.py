"""Stamps: mask and pixels."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from iscp_lightning.runs import atomic_path


class Stamp(NamedTuple):
    """A trigger drawn for one image size.

    Attributes:
        mask: float32 (1, H, W) in [0, 1], the share of the pattern in each pixel.
        pattern: float32 (C, H, W) in [0, 1].
    """

    mask: Tensor
    pattern: Tensor

    def __call__(self, images: Tensor) -> Tensor:
        """Return stamped images, same shape and dtype: float in [0, 1], or uint8."""
        mask, pattern = self.mask.to(images.device), self.pattern.to(images.device)
        if images.is_floating_point():
            return torch.lerp(images, pattern.to(images.dtype), mask.to(images.dtype))
        return torch.lerp(images.float(), pattern * 255, mask).round_().to(images.dtype)

    def save(self, path: Path) -> None:
        """Write the trigger as an RGBA PNG whose alpha is the mask, atomically."""
        pixels = torch.cat([self.pattern.expand(3, -1, -1), self.mask])
        array = (pixels * 255).round().to(torch.uint8).permute(1, 2, 0).numpy()
        with atomic_path(path) as temporary:
            Image.fromarray(np.ascontiguousarray(array), "RGBA").save(temporary, "PNG")
