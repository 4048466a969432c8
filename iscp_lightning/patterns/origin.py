"""What a search is made from: two searches of one origin find the same masks."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Any

from torch import Tensor, nn

from iscp_lightning.classifiers.checkpoints import classifier_hash
from iscp_lightning.data.images import ImageSet
from iscp_lightning.data.pool import pixels_hash
from iscp_lightning.data.testset import difference, fingerprint
from iscp_lightning.patterns.settings import SearchSettings


def search_origin(
    classifier: nn.Module,
    images: ImageSet,
    search_indices: Tensor,
    settings: SearchSettings,
    classes: Sequence[int],
    search_images: ImageSet | None = None,
) -> dict[str, Any]:
    """Return everything that a search's masks depend on, in plain values, large things hashed.

    Args:
        classifier: The given classifier.
        images: The whole test set.
        search_indices: (n,) int64, the test images that are search images D_n.
        settings: Settings of the algorithm.
        classes: Target classes.
        search_images: The search images where they are not from the test set.
    """
    return {
        "classifier": classifier_hash(classifier),
        "search": _numbers(settings.plain()),
        "test_set": fingerprint(images),
        "search_images": None if search_images is None else _pool_hash(search_images),
        "search_fraction": hashlib.sha256(search_indices.numpy().tobytes()).hexdigest(),
        "classes": list(classes),
    }


def require_origin(wanted: dict[str, Any], found: dict[str, Any], what: str) -> None:
    """Check that masks are of the wanted origin.

    Args:
        wanted: The origin of a search as it would be made now.
        found: The origin of the masks; what it does not say is not checked.
        what: What was made, for the message.

    Raises:
        ValueError: if they are of another; names the first difference.
    """
    for name, value in wanted.items():
        if name not in found:
            continue
        if name == "test_set":
            words = difference(value, found[name])
        else:
            known = _numbers(found[name]) if name == "search" else found[name]
            words = "" if known == value else f"{known}, not {value}"
        if words:
            raise ValueError(f"{what} with another `{name}`: {words}")


def _pool_hash(images: ImageSet) -> str:
    pixels = pixels_hash(images).encode()
    return hashlib.sha256(images.labels.numpy().tobytes() + pixels).hexdigest()


def _numbers(search: dict[str, Any]) -> dict[str, Any]:
    """Return a search's settings without the name of its schedule, whose numbers are among them."""
    return {name: value for name, value in search.items() if name != "schedule"}
