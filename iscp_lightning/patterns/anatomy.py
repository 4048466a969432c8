"""Patterns in numbers: how connected, where in their canvas, how alike, what without colour."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from iscp_lightning.classifiers.subject import Subject
from iscp_lightning.data.images import to_float
from iscp_lightning.data.stamps import Stamp
from iscp_lightning.metrics.connectedness import (
    chance_components,
    chance_connectedness,
    components,
    connectedness,
)
from iscp_lightning.metrics.overlap import chance_overlap, overlaps_by_class
from iscp_lightning.metrics.regions import corner_region, edge_region, share_within
from iscp_lightning.patterns.pasting import measure_power
from iscp_lightning.patterns.pattern import PatternSet
from iscp_lightning.patterns.power import PatternPower
from iscp_lightning.seeds import named_generator

LUMINANCE = torch.tensor([0.299, 0.587, 0.114])


class Compared(NamedTuple):
    """A measure of K patterns at S sizes beside what chance alone would give; NaN: undefined.

    Attributes:
        values: (K, S) float64; (K,) of what has nothing to do with the size.
        chance: Likewise.
        interval: (K, S, 2) float64, ends of the values' 95 % intervals over the images that
            patterns are pasted on; None of what needs no images.
    """

    values: Tensor
    chance: Tensor
    interval: Tensor | None = None

    def at(self, size: int) -> Compared:
        """Return values and chance for the size of this number, (K,) each."""
        parts = (self.values, self.chance)
        return Compared(*(part[:, size] if part.dim() == 2 else part for part in parts))

    def where(self, defined: Tensor) -> Compared:
        """Return values and chance, (K,) each, as NaN where they are not `defined`, bool (K,)."""
        parts = (self.values, self.chance)
        return Compared(*(part.where(defined, torch.nan) for part in parts))


def pixel_measures(
    patterns: PatternSet, pattern_sizes: Sequence[float], objects: Tensor | None = None
) -> dict[str, Compared]:
    """Return where the winners' pixels are, how connected, and how alike those of all canvases.

    `connectedness`, `components` and `largest_component` (8 neighbours), `corner_share`, that of
    the whole mask, whatever the size (`corner_mass`), `edge_share` of as many strongest gradients
    of the canvas, `object_share`, and the overlap of patterns of a class (`overlap_within_class`)
    and of different ones (`overlap_between_classes`).

    Args:
        patterns: All patterns of a search.
        pattern_sizes: S sizes.
        objects: bool (N, H, W), where each test image shows its object, if that is known.

    Raises:
        ValueError: if a size is out of range or selects no pixel.
    """
    winners, kept = patterns[patterns.winners], patterns[~patterns.objectives.isinf()]
    by_size = []
    for size in pattern_sizes:
        selected = winners.selected(size)
        found = _of_pixels(selected, winners, objects)
        shares = selected.double().mean((1, 2)).tolist()
        chance = torch.tensor([chance_overlap(share) for share in shares], dtype=torch.float64)
        alike = overlaps_by_class(kept.selected(size), kept.targets)
        found["overlap_within_class"] = Compared(alike.within, chance)
        found["overlap_between_classes"] = Compared(alike.between, chance)
        by_size.append(found)
    found = {
        name: Compared(
            torch.stack([each[name].values for each in by_size], 1),
            torch.stack([each[name].chance for each in by_size], 1),
        )
        for name in by_size[0]
    }
    if "mask" in winners.variables:
        corners = corner_region(winners.masks.shape[1:])
        mass = share_within(winners.masks, corners)
        found["corner_mass"] = Compared(mass, corners.double().mean().expand(len(winners)))
    return found


def success_measures(
    subject: Subject, winners: PatternSet, pattern_sizes: Sequence[float], indices: Tensor
) -> dict[str, Compared]:
    """Return the predictive power of patterns as they are and with their pixels in grey.

    The latter shows what is left without colour; images of other than 3 channels have none. By
    chance: as many pixels of the same canvas at random places.

    Args:
        subject: The classifier and the test images.
        winners: K patterns.
        pattern_sizes: S sizes.
        indices: (n,) int64, test images that are pasted on.
    """
    stamps = winners.stamps(pattern_sizes)
    kinds = {"predictive_power": stamps}
    if stamps.pixels.shape[2] == len(LUMINANCE):
        kinds["predictive_power_in_grey"] = in_grey(stamps)
    return {
        name: beside_random_masks(power_on(subject, winners, each, pattern_sizes, indices))
        for name, each in kinds.items()
    }


def power_on(
    subject: Subject,
    patterns: PatternSet,
    stamps: Stamp,
    pattern_sizes: Sequence[float],
    indices: Tensor,
) -> PatternPower:
    """Return the predictive power of stamps, in the place of patterns, on chosen test images.

    Args:
        subject: The classifier and the test images.
        patterns: P patterns.
        stamps: (P, S, ...), what is pasted instead of them.
        pattern_sizes: S sizes.
        indices: (n,) int64, test images that are pasted on.
    """
    others = torch.ones(len(subject.images), dtype=torch.bool)
    others[indices] = False
    return measure_power(
        subject,
        patterns.targets,
        patterns.canvas_indices,
        stamps,
        pattern_sizes,
        searched=others.nonzero().flatten(),
    )


def in_grey(stamps: Stamp) -> Stamp:
    """Return stamps (P, S, ...) whose three channels are all the luminance of the pixels."""
    pixels = stamps.pixels
    some = pixels[:, :1] if pixels.stride(1) == 0 else pixels  # the same for all sizes
    some = some if some.is_floating_point() else to_float(some)
    grey = torch.einsum("pschw,c->pshw", some, LUMINANCE).unsqueeze(2)
    return stamps._replace(pixels=grey.expand(*pixels.shape))


def beside_random_masks(power: PatternPower) -> Compared:
    """Return predictive power beside that of random masks of the same size, on the same canvas."""
    assert power.controls is not None
    chance = power.over_accuracy(power.controls.random_mask_rate)
    return Compared(power.predictive_power, chance, power.interval)


def not_blank(winners: PatternSet) -> Tensor:
    """Return which canvases have more than one colour, bool (K,): a white one has no edges."""
    pixels = winners.cut_from.flatten(2)
    return (pixels != pixels[..., :1]).flatten(1).any(1)


def _of_pixels(
    selected: Tensor, winners: PatternSet, objects: Tensor | None
) -> dict[str, Compared]:
    shape, counts = selected.shape[1:], selected.sum((1, 2)).tolist()
    pieces = components(selected)
    by_chance = {
        n: chance_components(n, shape, named_generator(0, "random pixels", n)) for n in set(counts)
    }
    number, largest = torch.tensor([by_chance[n] for n in counts], dtype=torch.float64).T
    expected = [chance_connectedness(n, shape) for n in counts]
    edges = zip(winners.cut_from.split(1), counts, strict=True)
    regions = {
        "corner_share": corner_region(shape).expand_as(selected),
        "edge_share": torch.cat([edge_region(*each) for each in edges]),
    }
    found = {
        "connectedness": Compared(
            connectedness(selected), torch.tensor(expected, dtype=torch.float64)
        ),
        "components": Compared(pieces.number, number),
        "largest_component": Compared(pieces.largest, largest),
        **{
            name: Compared(share_within(selected, region), region.double().mean((1, 2)))
            for name, region in regions.items()
        },
    }
    found["edge_share"] = found["edge_share"].where(not_blank(winners))
    if objects is not None:
        found["object_share"] = _on_objects(selected, winners.canvas_indices, objects)
    return found


def _on_objects(selected: Tensor, canvas_indices: Tensor, objects: Tensor) -> Compared:
    """Return the share of patterns on their canvas's object; by chance, on those of the others.

    Patterns and objects may both prefer the middle: the same pixels on other objects tell.
    """
    known = canvas_indices >= 0  # nothing is said of canvases from elsewhere
    shown = objects[canvas_indices.clamp(min=0)]
    pairs = [share_within(each.expand_as(shown), shown) for each in selected]
    shares = torch.stack(pairs)  # (pattern, object)
    another = known & (canvas_indices != canvas_indices.unsqueeze(1))
    others = shares.where(another, torch.nan).nanmean(1)
    return Compared(shares.diagonal(), others).where(known)
