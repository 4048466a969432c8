"""Cue-conflict images: the shape of one category with the texture of another (Geirhos et al. 2019).

They are labelled with 16 categories, and a classifier of ImageNet has 1,000 classes: a JSON file
says which classes belong to which category.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from pathlib import Path

import torch

from iscp_lightning.data.images import FileImages


class CueConflictImages(FileImages):
    """The images in a folder of the published naming, `<shape>/<shape>N-<texture>M.jpg`.

    Folders are categories, sorted. `labels` are the categories of the shapes, `textures` those of
    the textures; some images may have both of one category.

    Args:
        root: The folder.
        size: (height, width) of what comes out; None takes the first file's and demands it of all.

    Attributes:
        categories: Names of the categories.

    Raises:
        ValueError: if there is no image, or a name does not fit; names the file.
    """

    def __init__(self, root: str, size: tuple[int, int] | None = None) -> None:
        from torchvision.datasets.folder import IMG_EXTENSIONS

        folder = Path(root)
        files = [f for f in sorted(folder.glob("*/*")) if f.suffix.lower() in IMG_EXTENSIONS]
        if not files:
            raise ValueError(f"`root`={root} must hold images <shape>/<shape>N-<texture>M.jpg")
        self.categories = tuple(sorted({file.parent.name for file in files}))
        cues = torch.tensor([_cues(file, self.categories) for file in files])
        super().__init__([str(file) for file in files], cues[:, 0], size)
        self.textures = cues[:, 1]


def read_categories(path: str, names: Sequence[str]) -> list[list[int]]:
    """Return the class indices of each category that a JSON file {category: [indices]} lists.

    Args:
        path: The file.
        names: Names of the categories, in the order of what is returned.

    Raises:
        ValueError: if it cannot be read, its categories are not those named, or a category has no
            class, one that is no index, or one listed before.
    """
    try:
        found = json.loads(Path(path).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ValueError(f"{path} cannot be read as JSON: {error}") from error
    if not isinstance(found, dict):
        raise ValueError(f"{path} must hold {{category: [class indices]}}, got {found!r:.50}")
    if odd := sorted(set(found) ^ set(names)):
        raise ValueError(f"{path} must list the categories {', '.join(names)}; they differ: {odd}")
    seen: set[int] = set()
    for name in names:
        indices = found[name]
        if not isinstance(indices, list) or not indices:
            raise ValueError(f"{path}: `{name}` must list its classes, got {indices!r:.50}")
        for index in indices:
            if type(index) is not int or index < 0:
                raise ValueError(f"{path}: `{name}` must list class indices, got {index!r}")
            if index in seen:
                raise ValueError(f"{path}: class {index} is listed twice, again in `{name}`")
            seen.add(index)
    return [found[name] for name in names]


def _cues(file: Path, categories: Sequence[str]) -> tuple[int, int]:
    """Return the positions of a file's shape and texture among the categories."""
    shape = file.parent.name
    match = re.fullmatch(re.escape(shape) + r"\d+-(.+?)\d+", file.stem)
    if match is None:
        raise ValueError(f"{file}: the name must be like {shape}1-TEXTURE1{file.suffix}")
    texture = match[1]
    if texture not in categories:
        raise ValueError(
            f"{file}: the texture `{texture}` is no category; there are {', '.join(categories)}"
        )
    return categories.index(shape), categories.index(texture)
