"""Stamps: what is put on images, be it a pattern, a backdoor's trigger or a perturbation."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from iscp_lightning.data.images import to_float
from iscp_lightning.runs import atomic_path


class Stamp(NamedTuple):
    """Mask and pixels; with a mask of zeros and ones it is hard, between them soft.

    A stamped image is mask * pixels + (1 - mask) * image, Eq. (1) of Zhao et al. 2021, so that
    black pixels are possible; an additive stamp makes it clip(image + mask * pixels, 0, 1).

    Attributes:
        mask: float in [0, 1] or bool (..., 1, H, W), shared by the channels.
        pixels: float (..., C, H, W), in [0, 1] unless it is additive; or uint8.
        additive: Whether the pixels are added to the image.
    """

    mask: Tensor
    pixels: Tensor
    additive: bool = False

    def __call__(self, images: Tensor) -> Tensor:
        """Return stamped images, dtype and device of the images.

        Args:
            images: float in [0, 1] or uint8 (..., C, H, W), broadcast against mask and pixels.
        """
        mask, pixels = self.mask.to(images.device).float(), self.pixels.to(images.device)
        if not pixels.is_floating_point():
            pixels = to_float(pixels)
        if images.is_floating_point():
            return self._put(images, mask.to(images), pixels.to(images), 1)
        return self._put(images.float(), mask, pixels * 255, 255).round_().to(images.dtype)

    def _put(self, images: Tensor, mask: Tensor, pixels: Tensor, top: int) -> Tensor:
        if self.additive:
            return (images + mask * pixels).clamp(0, top)
        return torch.lerp(images, pixels, mask)

    def save(self, path: Path) -> None:
        """Write one stamp that is not additive as an RGBA PNG, alpha being the mask, atomically."""
        pixels = self.pixels if self.pixels.is_floating_point() else to_float(self.pixels)
        pixels = torch.cat([pixels.expand(3, -1, -1), self.mask.float()])
        array = (pixels * 255).round().to(torch.uint8).permute(1, 2, 0).numpy()
        with atomic_path(path) as temporary:
            Image.fromarray(np.ascontiguousarray(array), "RGBA").save(temporary, "PNG")
