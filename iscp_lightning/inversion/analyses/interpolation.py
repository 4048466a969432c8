"""Between the vectors of two images: what lies on the way."""

from __future__ import annotations

import torch
from torch import Tensor

from iscp_lightning.inversion.analysis import (
    SHOWN,
    Analysis,
    Answer,
    Sheet,
    difference,
    rows_of,
    side_by_side,
)
from iscp_lightning.inversion.examined import Examined
from iscp_lightning.records import Record


class Interpolation(Analysis):
    """Goes from an image's vector to the next image's in equal steps, with the same noise.

    The pairs are of different classes, which the classifier takes for different ones too. Records,
    means over pairs for each part of the way: `step_change`, the mean squared difference from the
    step before; `end_class`, whether the inverted classifier says one of the two classes that it
    says of the ends' originals; with a judge also `judge_end_class`, likewise by its own answers.

    Args:
        steps: How many, 1 or more.
    """

    name = "interpolation"
    needs = "two images or more"
    unit = "part of the way to another image"

    def __init__(self, steps: int = 8) -> None:
        if steps < 1:
            raise ValueError(f"`steps` must be 1 or more, got {steps}")
        self.steps = steps

    def applies(self, examined: Examined) -> bool:
        """Return whether there is such a pair."""
        return len(pairs_of(examined)) > 0

    def __call__(self, examined: Examined) -> Answer:
        """Return what changes on the way."""
        start = pairs_of(examined)
        vectors = examined.answers.vectors
        found: list[Record] = []
        made: list[Tensor] = []
        for step in range(self.steps + 1):
            part = step / self.steps
            images = examined.inverter.images(torch.lerp(vectors[start], vectors[start + 1], part))
            logits = examined.inverter.answers(images).logits
            measures = {"end_class": of_the_ends(logits, examined.answers.logits, start)}
            if examined.judge is not None:
                logits = examined.judged(images).logits
                ends = examined.judged_images.logits
                measures["judge_end_class"] = of_the_ends(logits, ends, start)
            if made:
                measures["step_change"] = difference(images, made[-1])
            made.append(images)
            found += [self.mean(name, values, strength=part) for name, values in measures.items()]
        first, second = examined.images[start], examined.images[start + 1]
        columns = [
            "original",
            *(f"{s / self.steps:.3g}" for s in range(self.steps + 1)),
            "original",
        ]
        rows = rows_of(examined, len(examined.labels))
        labels = [f"{rows[i]}\nto {rows[i + 1]}" for i in start[:SHOWN].tolist()]
        return Answer(found, {"": Sheet(side_by_side(first, *made, second), labels, columns)})


def pairs_of(examined: Examined) -> Tensor:
    """Return the first images of pairs of neighbours of different classes, (P,) int64."""
    labels, said = examined.labels, examined.answers.logits.argmax(1)
    return ((labels[:-1] != labels[1:]) & (said[:-1] != said[1:])).nonzero().flatten()


def of_the_ends(logits: Tensor, originals: Tensor, start: Tensor) -> Tensor:
    """Return whether the best of logits (P, K) is that of the one or the other end, bool (P,)."""
    best, ends = logits.argmax(1), originals.argmax(1)
    return (best == ends[start]) | (best == ends[start + 1])
