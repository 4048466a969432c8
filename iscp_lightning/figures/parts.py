"""What figures share: colours, the room that texts need, and checks of arguments."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

if TYPE_CHECKING:
    from matplotlib.figure import Figure

# Okabe and Ito's colour-blind-safe palette, with grey for yellow (too pale for a line).
COLOURS = (
    *("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9"),
    *("#000000", "#7F7F7F"),
)
MARKERS = "os^Dvp*X"
GAP = 0.08  # inches around cells and labels


def extent(figure: Figure, texts: Sequence[str], size: float) -> tuple[float, float]:
    """Return the room in inches, gap included, that the widest and the highest text need."""
    boxes = []
    for text in filter(None, set(texts)):
        artist = figure.text(0, 0, text, size=size)
        boxes.append(artist.get_window_extent())
        artist.remove()
    widest = max((box.width / figure.dpi + GAP for box in boxes), default=0.0)
    return widest, max((box.height / figure.dpi + GAP for box in boxes), default=0.0)


def text(dtype: object, shape: object) -> str:
    """Return dtype and shape of an array in words."""
    return f"{dtype} of shape {shape}"


def require(condition: bool, name: str, given: str, allowed: str) -> None:
    """Raise ValueError about the argument ``name`` unless ``condition`` holds."""
    if not condition:
        raise ValueError(f"`{name}` is {given}; it must be {allowed}")


def require_image(name: str, image: NDArray[np.uint8]) -> None:
    """Raise ValueError unless the argument ``name`` is an RGB image."""
    fits = image.dtype == np.uint8 and image.ndim == 3 and image.shape[2] == 3 and image.size > 0
    require(fits, name, text(image.dtype, image.shape), "uint8 of shape (H, W, 3)")


def require_length(name: str, values: Sequence[object], length: int) -> None:
    """Raise ValueError unless the argument ``name`` has a length."""
    require(len(values) == length, name, f"of length {len(values)}", f"of length {length}")


def floats(name: str, values: ArrayLike, shape: tuple[int | str, ...]) -> NDArray[np.float64]:
    """Return ``values`` as float64 of ``shape``, where a string stands for any positive length."""
    array = np.asarray(values, dtype=np.float64)
    fits = array.ndim == len(shape) and array.size > 0
    fits = fits and all(
        isinstance(b, str) or a == b for a, b in zip(array.shape, shape, strict=True)
    )
    allowed = ", ".join(map(str, shape)) + ("," if len(shape) == 1 else "")
    require(fits, name, f"of shape {array.shape}", f"of shape ({allowed})")
    return array


def style_of(index: int) -> dict[str, Any]:
    """Return the line style of the curve at ``index``; the first 42 differ."""
    colour, marker = COLOURS[index % len(COLOURS)], MARKERS[index % len(MARKERS)]
    return {"color": colour, "marker": marker, "markersize": 4.5}
