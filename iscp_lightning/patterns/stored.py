"""Patterns of earlier searches, which must be those of the images at hand."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from iscp_lightning.data.images import ImageSet
from iscp_lightning.data.testset import require_same, require_same_classes
from iscp_lightning.patterns.pattern import PATTERN_SIZES, PatternSet


def pattern_path(place: str) -> Path:
    """Return a pattern file, or the one of a run folder.

    Raises:
        ValueError: if there is none or not one alone.
    """
    path = Path(place)
    if path.is_file():
        return path
    found = sorted((path / "patterns").glob("*.safetensors"))
    if not found:
        raise ValueError(
            f"`patterns`={place} is neither a pattern file nor a run folder with patterns"
        )
    if len(found) > 1:
        files = ", ".join(map(str, found))
        raise ValueError(f"`patterns`={place} has several files, name one: {files}")
    return found[0]


def measured_sizes(sets: Sequence[PatternSet]) -> list[float]:
    """Return the pattern sizes at which searches measured all of these sets, else the usual ones.

    Raises:
        ValueError: if all were measured, but at no size together.
    """
    measured = [set(each.power.pattern_sizes) for each in sets if each.power]
    if len(measured) < len(sets):
        return list(PATTERN_SIZES)
    if not set.intersection(*measured):
        raise ValueError("`pattern_sizes` must be given: the searches measured none in common")
    return sorted(set.intersection(*measured))


def load_patterns(
    place: str, images: ImageSet, class_names: Sequence[str], winners: bool = False
) -> PatternSet:
    """Return the patterns of a file or of a run.

    Args:
        place: The file or the run folder.
        images: Test images that the patterns are to be of.
        class_names: Their classes.
        winners: Whether each class's winner is enough.

    Raises:
        ValueError: if there are none, or names of classes, image size or test set are others.
    """
    patterns = PatternSet.load(pattern_path(place), winners)
    require_same_classes(f"`patterns`={place}", patterns.class_names, class_names)
    size = tuple(images.pixels([0]).shape[2:])
    if tuple(patterns.canvases.shape[2:]) != size:
        raise ValueError(
            f"`patterns`={place} are {tuple(patterns.canvases.shape[2:])}, the images {size}: "
            "height and width must agree"
        )
    require_same(patterns.provenance, images)
    return patterns
