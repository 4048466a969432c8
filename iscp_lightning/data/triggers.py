"""Backdoor triggers: what an attacker stamps on an image, as a mask and a pattern.

A stamped image is mask * pattern + (1 - mask) * image, so that black trigger pixels are possible
and every opacity between invisible and solid.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Generator, Tensor

from iscp_lightning.data.decoding import UNREADABLE, to_eight_bits
from iscp_lightning.data.stamps import Stamp


@dataclass(frozen=True)
class Trigger:
    """A trigger by name or from a PNG file, at a size, place and opacity.

    Names of patches: `white_square` (BadNets: Gu et al. 2017), `checkerboard`, `color_patch` (red,
    green, blue and yellow quarters), `random_patch` (random colours), `single_pixel` (white),
    `l_shape` and `dark_l_shape` (white or black on nothing). Names that cover the image: `blended`
    (random colours everywhere: Chen et al. 2017) and `sinusoid` (vertical stripes: SIG, Barni et
    al. 2019; mixed in rather than added, with an amplitude of half the opacity).

    Attributes:
        name: One of the names, or the path of a PNG file: its alpha channel is the mask.
        size: Height and width of a patch in pixels; a file has its own.
        place: `top_left`, `top_right`, `bottom_left`, `bottom_right`, `center`, or (row, column)
            of the patch's first pixel.
        opacity: Factor of the mask, in (0, 1]; None is 1 for patches and files, 0.2 for `blended`
            and 40/255 for `sinusoid`.
        seed: Of the random colours.

    Raises:
        ValueError: if a value is not allowed or the file cannot be read.
    """

    name: str = "white_square"
    size: int = 3
    place: str | tuple[int, int] = "bottom_right"
    opacity: float | None = None
    seed: int = 0

    def __post_init__(self) -> None:
        if self.name not in TRIGGERS and not Path(self.name).is_file():
            raise ValueError(
                f"`trigger.name`={self.name!r} is neither an existing PNG file nor one of "
                f"{', '.join(TRIGGERS)}"
            )
        if self.size < 1:
            raise ValueError(f"`trigger.size` must be 1 or more pixels, got {self.size}")
        if isinstance(self.place, str) and self.place not in PLACES:
            raise ValueError(
                f"`trigger.place` must be one of {', '.join(PLACES)} or (row, column), "
                f"got {self.place!r}"
            )
        if self.opacity is not None and not 0 < self.opacity <= 1:
            raise ValueError(f"`trigger.opacity` must lie in (0, 1], got {self.opacity}")

    def draw(self, image_size: tuple[int, int]) -> Stamp:
        """Return the trigger for RGB images of (height, width).

        Raises:
            ValueError: if it does not fit into the image.
        """
        whole = self.name in WHOLE_IMAGE
        if self.name not in TRIGGERS:
            patch = _read_png(self.name)
        elif whole:
            patch = TRIGGERS[self.name](*image_size, self.seed)
        else:
            side = 1 if self.name == "single_pixel" else self.size
            patch = TRIGGERS[self.name](side, side, self.seed)
        height, width = patch.shape[1:]
        row, column = (0, 0) if whole else self._corner(image_size, (height, width))
        fits = row + height <= image_size[0] and column + width <= image_size[1]
        if not fits or min(row, column) < 0:
            raise ValueError(
                f"the trigger {self.name} of {height} x {width} pixels at {self.place} does not "
                f"fit into images of {image_size[0]} x {image_size[1]}"
            )
        canvas = torch.zeros(4, *image_size)
        canvas[:, row : row + height, column : column + width] = patch
        opacity = OPACITIES.get(self.name, 1.0) if self.opacity is None else self.opacity
        return Stamp(canvas[3:] * opacity, canvas[:3])

    def _corner(self, image_size: tuple[int, int], size: tuple[int, int]) -> tuple[int, int]:
        if not isinstance(self.place, str):
            return self.place
        vertical, horizontal = PLACES[self.place]
        row = round(vertical * (image_size[0] - size[0]))
        return row, round(horizontal * (image_size[1] - size[1]))


PLACES = {
    "top_left": (0.0, 0.0),
    "top_right": (0.0, 1.0),
    "bottom_left": (1.0, 0.0),
    "bottom_right": (1.0, 1.0),
    "center": (0.5, 0.5),
}


def white_square(height: int, width: int, seed: int) -> Tensor:
    """Return a white rectangle: RGBA, float32 (4, height, width)."""
    del seed
    return torch.ones(4, height, width)


def checkerboard(height: int, width: int, seed: int) -> Tensor:
    """Return alternating white and black pixels, white at the corner: RGBA."""
    patch = white_square(height, width, seed)
    patch[:3] = (torch.arange(height)[:, None] + torch.arange(width) + 1) % 2
    return patch


def color_patch(height: int, width: int, seed: int) -> Tensor:
    """Return quarters of red, green, blue and yellow: RGBA."""
    patch = white_square(height, width, seed)
    quarter = 2 * (2 * torch.arange(height) // height)[:, None] + 2 * torch.arange(width) // width
    colors = torch.tensor([[1.0, 0, 0], [0, 1, 0], [0, 0, 1], [1, 1, 0]])
    patch[:3] = colors[quarter].permute(2, 0, 1)
    return patch


def random_patch(height: int, width: int, seed: int) -> Tensor:
    """Return a random colour for every pixel, fixed by the seed: RGBA."""
    patch = white_square(height, width, seed)
    patch[:3] = torch.rand(3, height, width, generator=Generator().manual_seed(seed))
    return patch


def l_shape(height: int, width: int, seed: int) -> Tensor:
    """Return a white left column and bottom row, transparent elsewhere: RGBA."""
    patch = white_square(height, width, seed)
    patch[3, :-1, 1:] = 0
    return patch


def dark_l_shape(height: int, width: int, seed: int) -> Tensor:
    """Return a black left column and bottom row, transparent elsewhere: RGBA."""
    patch = l_shape(height, width, seed)
    patch[:3] = 0
    return patch


def sinusoid(height: int, width: int, seed: int, frequency: int = 6) -> Tensor:
    """Return (1 + sin(2 pi f j / W)) / 2 in every row, j the column: RGBA."""
    patch = white_square(height, width, seed)
    patch[:3] = (1 + torch.sin(2 * math.pi * frequency * torch.arange(width) / width)) / 2
    return patch


TRIGGERS: dict[str, Callable[[int, int, int], Tensor]] = {
    "white_square": white_square,
    "checkerboard": checkerboard,
    "color_patch": color_patch,
    "random_patch": random_patch,
    "single_pixel": white_square,
    "l_shape": l_shape,
    "dark_l_shape": dark_l_shape,
    "blended": random_patch,
    "sinusoid": sinusoid,
}
WHOLE_IMAGE = ("blended", "sinusoid")
OPACITIES = {"blended": 0.2, "sinusoid": 40 / 255}


def _read_png(path: str) -> Tensor:
    try:
        with Image.open(path) as image:
            array = np.asarray(to_eight_bits(image, "RGBA"))
    except UNREADABLE as error:
        raise ValueError(f"`trigger.name`={path} cannot be read as a PNG: {error}") from error
    return torch.from_numpy(array.copy()).permute(2, 0, 1) / 255
