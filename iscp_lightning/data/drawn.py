"""Sources that need no files: drawn shapes, and noise."""

from __future__ import annotations

from typing import Literal, get_args

import torch

from iscp_lightning.data.drawing import SHAPES, TEXTURES
from iscp_lightning.data.images import ImageSet, MemoryImages
from iscp_lightning.data.pool import NO_CLASS
from iscp_lightning.data.shapes import draw_shapes
from iscp_lightning.data.sources import ImageSource
from iscp_lightning.seeds import named_generator

Labels = Literal["shape", "texture", "shape_texture"]


class Shapes(ImageSource):
    """The embedded data set: ten drawn shapes, each filled with one of ten textures.

    Its shifted test set `random_texture` has textures that say nothing about the shape.

    Args:
        train_count: Number of training images.
        test_count: Number of test images.
        size: Height and width in pixels.
        texture_correlation: Chance that the texture is the shape's own, in [0, 1]. 0.1 makes
            texture and shape independent.
        cue_conflict: Test images show a texture that is never the shape's own.
        seed: Two equal seeds draw the same images.
        labels: What the classes are: `shape`, `texture`, or `shape_texture` for the 100 pairs,
            10 * shape + texture. All pairs are equally likely at a `texture_correlation` of 0.1;
            at 0.8, the ten shapes in their own textures make up 80 % of the images.

    Raises:
        ValueError: if `labels` is none of these, or pairs are to be shown with `cue_conflict`.
    """

    def __init__(
        self,
        train_count: int = 5000,
        test_count: int = 1000,
        size: int = 32,
        texture_correlation: float = 0.8,
        cue_conflict: bool = False,
        seed: int = 0,
        labels: Labels = "shape",
    ) -> None:
        if labels not in get_args(Labels):
            raise ValueError(f"`labels` must be one of {', '.join(get_args(Labels))}; got {labels}")
        if cue_conflict and labels == "shape_texture":
            raise ValueError(
                "`cue_conflict` must be false with `labels`=shape_texture: a class that is a shape "
                "and a texture has no cues in conflict"
            )
        self.train_count = train_count
        self.test_count = test_count
        self.image_size = (size, size)
        self.texture_correlation = texture_correlation
        self.cue_conflict = cue_conflict
        self.seed = seed
        self.labels = labels
        self.num_classes = len(self.class_names)

    @property
    def class_names(self) -> tuple[str, ...]:
        """Names of the shapes, of the textures, or of pairs, such as `ring/dots`."""
        pairs = tuple(f"{shape}/{texture}" for shape in SHAPES for texture in TEXTURES)
        return {"shape": SHAPES, "texture": TEXTURES, "shape_texture": pairs}[self.labels]

    def train(self) -> ImageSet:
        """Return `train_count` images whose texture follows the shape."""
        return self._draw(self.train_count, 0, self.texture_correlation, False)

    def test(self) -> ImageSet:
        """Return `test_count` images like the training images, or cue-conflict ones."""
        return self._draw(self.test_count, 1, self.texture_correlation, self.cue_conflict)

    def shifted_tests(self) -> dict[str, ImageSet]:
        """Return `random_texture`: texture and shape are independent."""
        return {"random_texture": self._draw(self.test_count, 2, 1 / len(SHAPES), False)}

    def _draw(self, count: int, part: int, correlation: float, conflict: bool) -> ImageSet:
        drawn = draw_shapes(
            count,
            size=self.image_size[0],
            seed=3 * self.seed + part,
            texture_correlation=correlation,
            cue_conflict=conflict,
        )
        if self.labels == "shape":
            return MemoryImages(drawn.images, drawn.labels, drawn.textures)
        shapes = 0 if self.labels == "texture" else len(TEXTURES) * drawn.labels
        return MemoryImages(drawn.images, shapes + drawn.textures)


class Noise(ImageSource):
    """Uniform noise: every value of every image is drawn on its own. It shows none of the classes.

    Search images for who has no others: `search_images` of the data module.

    Args:
        count: Number of images.
        image_size: Height and width, an int for square ones. There are three channels.
        seed: Two equal seeds draw the same images; None is the data module's, else 0.

    Raises:
        ValueError: if a number is below 1.
    """

    num_classes = 0

    def __init__(
        self,
        count: int = 1000,
        image_size: int | tuple[int, int] = 32,
        seed: int | None = None,
    ) -> None:
        height, width = (image_size,) * 2 if isinstance(image_size, int) else image_size
        if count < 1:
            raise ValueError(f"`count` must be 1 or more, got {count}")
        if min(height, width) < 1:
            raise ValueError(f"`image_size` must be 1 or more pixels, got {image_size}")
        self.count = count
        self.image_size = (height, width)
        self.seed = seed

    @property
    def class_names(self) -> tuple[str, ...]:
        """No name."""
        return ()

    def train(self) -> None:
        """Return None."""

    def test(self) -> ImageSet:
        """Return `count` images, all labelled as none of the classes."""
        shape = (self.count, 3, *self.image_size)
        generator = named_generator(self.seed or 0, "noise")
        images = torch.randint(0, 256, shape, generator=generator, dtype=torch.uint8)
        return MemoryImages(images, torch.full((self.count,), NO_CLASS))

    def seeded(self, root_seed: int) -> Noise:
        """Return the same with a seed: its own, or else the root seed."""
        return Noise(self.count, self.image_size, root_seed if self.seed is None else self.seed)
