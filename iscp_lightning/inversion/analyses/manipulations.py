"""Logits shifted, scaled and disturbed: what changes in the images that are made from them."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence

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
from iscp_lightning.seeds import named_generator


class Manipulation(Analysis):
    """Changes raw vectors by several strengths.

    Records, means over the images for each strength: `change`, the mean squared difference from
    what is made of the vectors as they are; `brightness`, the mean pixel; `contrast`, the standard
    deviation of an image's pixels; `class_agreement`, whether the inverted classifier still says
    what it says of the original; with a judge also `judge_agreement`, whether that says it.

    Args:
        strengths: How much they are changed.

    Raises:
        ValueError: if there are none.
    """

    def __init__(self, strengths: Sequence[float]) -> None:
        if not strengths:
            raise ValueError("`strengths` must be one number or more, got none")
        self.strengths = tuple(strengths)

    @abstractmethod
    def changed(self, examined: Examined, strength: float) -> Tensor:
        """Return changed raw vectors (N, D)."""

    def __call__(self, examined: Examined) -> Answer:
        """Return what changes with the strength."""
        found: list[Record] = []
        made = []
        for strength in self.strengths:
            images = examined.inverter.images(self.changed(examined, strength))
            made.append(images[:SHOWN])
            measures = {
                "change": difference(images, examined.reconstructions),
                "brightness": images.flatten(1).mean(1),
                "contrast": images.flatten(1).std(1),
                **examined.agreement(images, examined.inverter.answers(images).logits),
            }
            found += [
                self.mean(name, values, strength=strength) for name, values in measures.items()
            ]
        columns = ["original", *(f"{strength:g}" for strength in self.strengths)]
        sheet = Sheet(side_by_side(examined.images, *made), rows_of(examined), columns)
        return Answer(found, {"": sheet})


def deviation(examined: Examined) -> float:
    """Return the standard deviation of a vector's entry over the training images.

    It is the mean over entries, without those that are the same for all images.
    """
    deviations = examined.inverter.standardise.deviation
    varying = deviations[deviations != 1]  # 1 is what stands for a constant: `Standardisation.fit`
    return float(varying.mean()) if len(varying) else 1.0


class LogitShift(Manipulation):
    """Adds the same to all entries, in standard deviations of an entry."""

    name = "logit shift"
    unit = "added to all logits (standard deviations)"

    def __init__(self, strengths: Sequence[float] = (-4, -2, -1, 0, 1, 2, 4)) -> None:
        super().__init__(strengths)

    def changed(self, examined: Examined, strength: float) -> Tensor:
        """Return shifted vectors."""
        return examined.answers.vectors + strength * deviation(examined)


class LogitScale(Manipulation):
    """Multiplies all entries."""

    name = "logit scale"
    unit = "all logits times"

    def __init__(self, strengths: Sequence[float] = (0, 0.25, 0.5, 1, 1.5, 2, 3)) -> None:
        super().__init__(strengths)

    def changed(self, examined: Examined, strength: float) -> Tensor:
        """Return scaled vectors."""
        return strength * examined.answers.vectors


class LogitNoise(Manipulation):
    """Adds normal noise, in standard deviations of an entry."""

    name = "logit noise"
    unit = "noise on the logits (standard deviations)"

    def __init__(self, strengths: Sequence[float] = (0, 0.1, 0.25, 0.5, 1, 2)) -> None:
        super().__init__(strengths)

    def changed(self, examined: Examined, strength: float) -> Tensor:
        """Return disturbed vectors; all strengths share their noise."""
        vectors = examined.answers.vectors
        draws = named_generator(examined.inverter.seed, "noise on vectors")
        noise = torch.randn(vectors.shape, generator=draws)
        return vectors + strength * deviation(examined) * noise
