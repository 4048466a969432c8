"""The search images D_n, on the device that searches."""

from __future__ import annotations

from typing import NamedTuple

from torch import Tensor

from iscp_lightning.classifiers.subject import Subject


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
    def take(cls, subject: Subject) -> SearchPool:
        """Return a subject's search images, on its device.

        Raises:
            ValueError: if there is none.
        """
        indices = subject.search_indices
        if len(indices) == 0:
            raise ValueError(
                "`search_fraction` leaves no search image: increase it or the test set"
            )
        title = "reading search images" if subject.progress else None
        pixels = subject.images.read(indices, title)
        return cls(pixels.to(subject.device), subject.images.labels[indices], indices)
