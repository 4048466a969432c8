"""The test set of a search: what it must be like, and how it is told from another."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from itertools import zip_longest
from typing import Any

import torch
from torch import Tensor

from iscp_lightning.data.images import ImageSet

LOOKED_AT = 64  # images of a test set, evenly spaced
SAME_PIXELS = 0.01  # mean of an image in [0, 1]; decoders and resizing differ by less


def fingerprint(images: ImageSet) -> dict[str, Any]:
    """Return what tells a test set from others, as plain values.

    Returns:
        The number of images, the SHA-256 of their labels, and the mean pixel value in [0, 1] of
        each of at most 64 evenly spaced images.
    """
    count = len(images)
    chosen = torch.linspace(0, count - 1, min(LOOKED_AT, count)).round().long()
    means = images.pixels(chosen).double().mean((1, 2, 3)) / 255
    return {
        "images": count,
        "labels": hashlib.sha256(images.labels.numpy().tobytes()).hexdigest(),
        "pixel_means": [round(mean, 4) for mean in means.tolist()],
    }


def difference(known: dict[str, Any], other: dict[str, Any]) -> str:
    """Return how a test set differs from the known one, in words; empty if it does not.

    Args:
        known: Fingerprint of the known set.
        other: Fingerprint of the other.
    """
    if other["images"] != known["images"]:
        return f"{other['images']} images, not {known['images']}"
    if other["labels"] != known["labels"]:
        return "other labels, or the same in another order"
    pairs = zip(known["pixel_means"], other["pixel_means"], strict=True)
    largest = max(abs(mean - other_mean) for mean, other_mean in pairs)
    if largest > SAME_PIXELS:
        return f"other images: mean pixel values differ by up to {largest:.2f}"
    return ""


def require_same_classes(what: str, names: Sequence[str], wanted: Sequence[str]) -> None:
    """Raise a ValueError if the names of classes are others than those of the data, in order.

    Args:
        what: Whose names these are, in words.
        names: The names.
        wanted: Those of the data.
    """
    if tuple(names) == tuple(wanted):
        return
    pairs = zip_longest(names, wanted)
    start = next(at for at, (one, other) in enumerate(pairs) if one != other)
    few = [
        ", ".join([*each[start : start + 3], "..."]) if len(each) > start else "none"
        for each in (names, wanted)
    ]
    raise ValueError(
        f"{what} knows other classes ({few[0]}) than the data have ({few[1]}), "
        f"from class {start} on"
    )


def require_same(provenance: dict[str, Any], images: ImageSet) -> None:
    """Check that images are the test set that patterns were searched on.

    Args:
        provenance: Of the patterns; without a fingerprint nothing is checked.
        images: The whole test set.

    Raises:
        ValueError: if they are another set; says how it differs.
    """
    known = provenance.get("test_set")
    if known and (words := difference(known, fingerprint(images))):
        raise ValueError(f"`images` are not the test set that was searched: they have {words}")


def require_names(labels: Tensor, class_names: Sequence[str]) -> None:
    """Check that every label has a name of its own.

    Raises:
        ValueError: if one has none, or two have the same.
    """
    if twice := sorted({name for name in class_names if list(class_names).count(name) > 1}):
        raise ValueError(f"`class_names` must differ from each other, got {twice[0]!r} twice")
    low, high = int(labels.min()), int(labels.max())
    if low < 0 or high >= len(class_names):
        raise ValueError(
            f"`class_names` has {len(class_names)} names, so labels must be 0 to "
            f"{len(class_names) - 1}, got {low} to {high}"
        )


def require_drawable(images: ImageSet) -> None:
    """Check that figures can show the images.

    Raises:
        ValueError: if they have other than 1 or 3 channels.
    """
    channels = images.pixels([0]).shape[1]
    if channels not in (1, 3):
        raise ValueError(
            f"images must have 1 or 3 channels to be drawn, got {channels}: `search_patterns` "
            "searches images of any number and draws nothing"
        )
