"""Inputs that a classifier was not trained with, by kind."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from iscp_lightning.data.drawn import Noise
from iscp_lightning.data.images import to_float
from iscp_lightning.data.sources import ImageSource
from iscp_lightning.data.splits import class_index
from iscp_lightning.data.stamps import Stamp
from iscp_lightning.data.testset import require_same
from iscp_lightning.data.triggers import Trigger
from iscp_lightning.inversion.examined import Examined
from iscp_lightning.patterns.pattern import PatternSet
from iscp_lightning.seeds import named_generator

GREYS = 8
BACKGROUNDS = {"black": 0.0, "grey": 0.5}  # of patterns alone


@dataclass(frozen=True)
class Foreign:
    """Inputs of one kind.

    Attributes:
        name: What they are.
        images: float32 (n, C, H, W) in [0, 1], at least one.
        targets: (n,) int64, the class that each is to be taken for; None where there is none.
        originals: What the images were before something was put on them, as `images`; None where
            there was nothing.
    """

    name: str
    images: Tensor
    targets: Tensor | None = None
    originals: Tensor | None = None


def uniform_noise(examined: Examined) -> Foreign:
    """Return as many images as are examined, whose values are drawn uniformly from [0, 1]."""
    count, _, height, width = examined.images.shape
    noise = Noise(count, (height, width), examined.inverter.seed).test()
    return Foreign("uniform noise", to_float(noise.read(torch.arange(count))))


def greys(examined: Examined) -> Foreign:
    """Return images of one grey each, from black to white."""
    levels = torch.linspace(0, 1, GREYS).view(-1, 1, 1, 1)
    return Foreign("grey", levels.repeat(1, *examined.images.shape[1:]))


def elsewhere(examined: Examined, source: ImageSource) -> Foreign:
    """Return images of another source, as many as are examined or all, bilinearly resized.

    Raises:
        ValueError: if it has none, or their number of channels is another.
    """
    seed = examined.inverter.seed
    source = source.seeded(seed)
    source.prepare()
    found = source.test()
    found = source.train() if found is None else found
    if found is None or len(found) == 0:
        raise ValueError("`source` has neither test nor training images")
    draws = named_generator(seed, "foreign images")
    chosen = torch.randperm(len(found), generator=draws)[: len(examined.images)]
    images = to_float(found.read(chosen))
    if images.shape[1] != examined.images.shape[1]:
        raise ValueError(
            f"`source` must have images of {examined.images.shape[1]} channels, "
            f"got {images.shape[1]}"
        )
    size = list(examined.images.shape[2:])
    resized = F.interpolate(images, size, mode="bilinear", align_corners=False, antialias=True)
    return Foreign(f"images of {type(source).__name__}", resized.clamp(0, 1))


def winners_of(examined: Examined, place: str) -> PatternSet:
    """Return the best pattern of each class from a file.

    Raises:
        ValueError: if it is no pattern file, or its patterns are of other classes, another size or
            another test set.
    """
    try:
        patterns = PatternSet.load(place, winners=True)
    except OSError as error:
        raise ValueError(f"`patterns` must be a pattern file, got {place}: {error}") from error
    given = (patterns.class_names, tuple(patterns.canvases.shape[1:]))
    if given != (examined.subject.class_names, tuple(examined.images.shape[1:])):
        raise ValueError(
            f"`patterns` must be of the {len(examined.subject.class_names)} classes and "
            f"{tuple(examined.images.shape[1:])} values of the test images, got "
            f"{len(given[0])} classes and {given[1]} values"
        )
    require_same(patterns.provenance, examined.subject.images)
    return patterns


def patterns_alone(patterns: PatternSet, pattern_size: float) -> list[Foreign]:
    """Return each pattern on black and on grey, with its class as target."""
    stamp = stamp_of(patterns, pattern_size, torch.arange(len(patterns)))
    backgrounds = {
        f"pattern on {name}": torch.full(patterns.canvases.shape, level)
        for name, level in BACKGROUNDS.items()
    }
    return [
        Foreign(name, stamp(background), patterns.targets)
        for name, background in backgrounds.items()
    ]


def patterns_pasted(examined: Examined, patterns: PatternSet, pattern_size: float) -> list[Foreign]:
    """Return each held-out image with a pattern of another class, in turn; [] if there is none."""
    held_out = ~torch.isin(examined.indices, patterns.search_indices)
    chosen: list[int] = []
    pasted: list[int] = []
    for row in held_out.nonzero().flatten().tolist():
        others = (patterns.targets != examined.labels[row]).nonzero().flatten()
        if len(others):
            chosen.append(row)
            pasted.append(int(others[len(pasted) % len(others)]))
    if not chosen:
        return []
    stamp = stamp_of(patterns, pattern_size, torch.tensor(pasted))
    originals = examined.images[chosen]
    return [Foreign("pasted pattern", stamp(originals), patterns.targets[pasted], originals)]


def triggered(examined: Examined, trigger: Trigger, target: int | str | None) -> list[Foreign]:
    """Return images with a trigger, without those of the target's class; [] if none is left.

    Raises:
        ValueError: if the trigger does not fit into the images, or the data have no such class.
    """
    height, width = examined.images.shape[2:]
    stamp = trigger.draw((height, width))
    if target is None:
        return [Foreign("trigger", stamp(examined.images))]
    index = class_index(target, examined.subject.class_names, "`target` is")
    originals = examined.images[examined.labels != index]
    if not len(originals):
        return []
    return [Foreign("trigger", stamp(originals), torch.full((len(originals),), index), originals)]


def stamp_of(patterns: PatternSet, pattern_size: float, rows: Tensor) -> Stamp:
    """Return the patterns of these rows at a size, as one stamp for as many images."""
    stamps = patterns.stamps([pattern_size])
    return stamps._replace(mask=stamps.mask[rows, 0], pixels=stamps.pixels[rows, 0])
