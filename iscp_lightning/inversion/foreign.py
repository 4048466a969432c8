"""Inputs that a classifier was not trained with, by kind."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from iscp_lightning.data.drawn import Noise
from iscp_lightning.data.images import ImageSet, to_float
from iscp_lightning.data.sources import ImageSource
from iscp_lightning.data.splits import class_index
from iscp_lightning.data.stamps import Stamp
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


def images_of(source: ImageSource, seed: int) -> ImageSet:
    """Return a source's test images, else its training images.

    Raises:
        ValueError: if it has neither, or they have no three channels.
    """
    source = source.seeded(seed)
    source.prepare()
    found = source.test()
    found = source.train() if found is None else found
    if found is None or len(found) == 0:
        raise ValueError("`source` has neither test nor training images")
    if (channels := found.pixels([0]).shape[1]) != 3:
        raise ValueError(f"`source` must have images of 3 channels, got {channels}")
    return found


def elsewhere(examined: Examined, source: ImageSource) -> Foreign:
    """Return images of another source, as many as are examined or all, bilinearly resized."""
    seed = examined.inverter.seed
    found = images_of(source, seed)
    draws = named_generator(seed, "foreign images")
    chosen = torch.randperm(len(found), generator=draws)[: len(examined.images)]
    images = to_float(found.read(chosen))
    size = list(examined.images.shape[2:])
    resized = F.interpolate(images, size, mode="bilinear", align_corners=False, antialias=True)
    return Foreign(f"images of {type(source).__name__}", resized.clamp(0, 1))


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
