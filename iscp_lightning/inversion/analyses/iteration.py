"""Reconstructions of reconstructions: where images drift to."""

from __future__ import annotations

from iscp_lightning.inversion.analysis import (
    Analysis,
    Answer,
    Sheet,
    difference,
    rows_of,
    side_by_side,
)
from iscp_lightning.inversion.examined import Examined
from iscp_lightning.records import Record


class Iteration(Analysis):
    """Passes images through classifier and generator again and again, with the same noise.

    Records, means over images for each number of passes: `mse`, from the original; `step_change`,
    the mean squared difference from the pass before; `class_agreement`, whether the inverted
    classifier still says what it says of the original; with a judge also `judge_agreement`, whether
    that says it.

    Args:
        times: How many passes, 1 or more.
    """

    name = "iteration"
    unit = "passes"

    def __init__(self, times: int = 8) -> None:
        if times < 1:
            raise ValueError(f"`times` must be 1 or more, got {times}")
        self.times = times

    def __call__(self, examined: Examined) -> Answer:
        """Return how far images drift."""
        found: list[Record] = []
        made = [examined.images]
        answers = examined.answers
        for passes in range(1, self.times + 1):
            images = examined.inverter.images(answers.vectors)
            answers = examined.inverter.answers(images)
            measures = {
                "mse": difference(images, examined.images),
                "step_change": difference(images, made[-1]),
                **examined.agreement(images, answers.logits),
            }
            made.append(images)
            found += [self.mean(name, values, strength=passes) for name, values in measures.items()]
        columns = ["original", *(str(passes) for passes in range(1, self.times + 1))]
        return Answer(found, {"": Sheet(side_by_side(*made), rows_of(examined), columns)})
