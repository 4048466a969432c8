"""Saliency maps of distorted images, side by side."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from torch import Tensor

from iscp_lightning import figures
from iscp_lightning.data.images import as_eight_bits
from iscp_lightning.patterns.tables import words
from iscp_lightning.probes.maps import Mapped
from iscp_lightning.probes.saliency import displayed
from iscp_lightning.records import Pixels, Record

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def saliency_grid(found: Mapping[str, Mapped], rows: Sequence[int] = (0, 1, 2)) -> Figure:
    """Return a grid of images by distortions, each beside the saliency map of every classifier.

    Maps are shown as `displayed` says, white being most salient.

    Args:
        found: By the classifier's name, what was measured on the same images and distortions.
        rows: Which of the images, positions in `Mapped.images`.
    """
    cells: list[list[Pixels]] = []
    labels: list[str] = []
    for row in rows:
        for name, mapped in found.items():
            grey = displayed(mapped.maps[:, row]).unsqueeze(1)
            pairs = zip(mapped.images[:, row], as_eight_bits(grey, "maps"), strict=True)
            cells.append([_pixels(each) for pair in pairs for each in pair])
            labels.append(f"{mapped.class_names[int(mapped.labels[row])]}\n{name}")
    abouts = next(iter(found.values())).abouts
    columns = [name for about in abouts for name in (words(Record("", 0, about)), "map")]
    return figures.pattern_grid(cells, row_labels=labels, column_labels=columns)


def _pixels(image: Tensor) -> Pixels:
    pixels: Pixels = image.expand(3, -1, -1).permute(1, 2, 0).numpy()
    return pixels
