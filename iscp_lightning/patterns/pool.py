"""The search images D_n, on the device that searches."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from iscp_lightning.data.images import ImageSet


class SearchPool(NamedTuple):
    """D_n: the images that canvases are mixed with.

    Attributes:
        images: uint8 (n, C, H, W).
        labels: (n,) int64.
        indices: (n,) int64 positions in the test set.
    """

    images: Tensor
    labels: Tensor
    indices: Tensor

    @classmethod
    def take(
        cls, images: ImageSet, indices: Tensor, device: torch.device, progress: bool = False
    ) -> SearchPool:
        """Return the chosen images of a set, on `device`.

        Raises:
            ValueError: if none is chosen.
        """
        if len(indices) == 0:
            raise ValueError(
                "`search_fraction` leaves no search image: increase it or the test set"
            )
        pixels = images.read(indices, "reading search images" if progress else None)
        return cls(pixels.to(device), images.labels[indices], indices)
