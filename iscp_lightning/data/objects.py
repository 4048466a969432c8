"""Where and how test images show their objects, for sources that know it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from torch import Tensor

from iscp_lightning.data.drawn import Shapes
from iscp_lightning.data.shapes import ShapeFactors, shape_factors, shape_masks

if TYPE_CHECKING:
    from iscp_lightning.data.datamodule import ImageDataModule


def objects_of(data: ImageDataModule) -> Tensor | None:
    """Return where each test image shows its object, bool (N, H, W), None where it is not known."""
    source = data.source
    if not isinstance(source, Shapes):
        return None
    return shape_masks(source.test_count, size=source.image_size[0], seed=3 * source.seed + 1)


def factors_of(data: ImageDataModule) -> ShapeFactors | None:
    """Return what each of the N test images is drawn from, None where it is not known."""
    source = data.source
    if not isinstance(source, Shapes):
        return None
    return shape_factors(source.test_count, size=source.image_size[0], seed=3 * source.seed + 1)
