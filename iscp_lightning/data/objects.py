"""Where and how test images show their objects, for sources that know it."""

from __future__ import annotations

from math import nan
from typing import TYPE_CHECKING, Any

from torch import Tensor

from iscp_lightning.data.drawing import SHAPES, TEXTURES
from iscp_lightning.data.drawn import Shapes
from iscp_lightning.data.shapes import ShapeFactors, draw_shapes, shape_factors, shape_masks

if TYPE_CHECKING:
    from iscp_lightning.data.datamodule import ImageDataModule


def objects_of(data: ImageDataModule) -> Tensor | None:
    """Return where each test image shows its object, bool (N, H, W), None where it is not known."""
    source = data.source
    if not isinstance(source, Shapes):
        return None
    return shape_masks(source.test_count, size=source.image_size[0], seed=3 * source.seed + 1)


def factors_of(data: ImageDataModule) -> ShapeFactors | None:
    """Return what each of the N test images is drawn from, None where it is not known.

    What an image does not show is NaN: the rotation of a circle or a ring, the second colour of a
    plain texture.
    """
    source = data.source
    if not isinstance(source, Shapes):
        return None
    settings: Any = {"size": source.image_size[0], "seed": 3 * source.seed + 1}
    factors = shape_factors(source.test_count, **settings)
    settings["texture_correlation"] = source.texture_correlation
    drawn = draw_shapes(source.test_count, **settings, cue_conflict=source.cue_conflict)
    disc = (drawn.labels == SHAPES.index("circle")) | (drawn.labels == SHAPES.index("ring"))
    plain = drawn.textures == TEXTURES.index("plain")
    return factors._replace(
        rotation=factors.rotation.masked_fill(disc, nan),
        second=factors.second.masked_fill(plain.unsqueeze(1), nan),
    )
