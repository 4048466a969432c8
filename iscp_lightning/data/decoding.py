"""What an image file shows: 8 bits a channel, upright, nothing transparent."""

from __future__ import annotations

from contextlib import suppress
from typing import Literal

import numpy as np
from PIL import Image, ImageOps

UNREADABLE = (OSError, SyntaxError, ValueError, Image.DecompressionBombError)  # Pillow's errors
# what may say that an image is rotated; Pillow itself turns TIFF, which says it elsewhere
ORIENTED = {"exif", "Raw profile type exif", "xmp", "XML:com.adobe.xmp"}


def read_image(path: str) -> Image.Image:
    """Return an image file as RGB, as `to_eight_bits` does.

    Raises:
        ValueError: if it cannot be read; names the file.
    """
    try:
        with Image.open(path) as image:
            return to_eight_bits(image)
    except UNREADABLE as error:
        raise ValueError(f"{path} cannot be read as an image: {error}") from error


def to_eight_bits(image: Image.Image, mode: Literal["RGB", "RGBA"] = "RGB") -> Image.Image:
    """Return an opened file's image with 8 bits a channel, turned upright as its Exif data say.

    16-bit grey is scaled from 65535 to 255. RGB shows white behind transparent pixels.

    Args:
        image: The opened file.
        mode: What comes out.

    Raises:
        OSError: if its content is damaged, or its pixels are 32-bit numbers, whose range nobody
            knows.
    """
    image.load()
    if not ORIENTED.isdisjoint(image.info):
        with suppress(Exception):  # Exif data that cannot be read say nothing
            ImageOps.exif_transpose(image, in_place=True)
    if image.mode == mode and "transparency" not in image.info:
        return image
    transparent = image.mode.endswith(("A", "a")) or "transparency" in image.info
    if image.mode == "F" or image.mode.startswith("I"):
        image = _scaled(image)
    if mode == "RGB" and transparent:
        white = Image.new("RGBA", image.size, "white")
        image = Image.alpha_composite(white, image.convert("RGBA"))
    return image.convert(mode)


def _scaled(image: Image.Image) -> Image.Image:
    """Return an image of 16-bit numbers as grey, with alpha where one level is transparent."""
    sixteen_bits = image.mode.startswith("I;16") or image.format in ("PNG", "PPM")
    if image.mode == "F" or not sixteen_bits:
        raise OSError(
            f"it has mode {image.mode}, 32-bit numbers without a known range: save 8 or 16 bits"
        )
    levels = np.asarray(image).astype(np.int32)
    grey = Image.fromarray(((levels + 128) // 257).astype(np.uint8))
    if "transparency" in image.info:
        opaque = levels != image.info["transparency"]
        grey.putalpha(Image.fromarray(opaque.astype(np.uint8) * 255))
    return grey
