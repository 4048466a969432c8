"""Examined: an inversion with test images and a judge, which every analysis looks at."""

from __future__ import annotations

from functools import cached_property

import torch
from torch import Tensor, nn

from iscp_lightning.classifiers.subject import Subject
from iscp_lightning.data.images import to_float
from iscp_lightning.data.shapes import ShapeFactors
from iscp_lightning.inversion.conditioning import Answers, answers_to
from iscp_lightning.inversion.fidelity import Judgement, fidelity, records
from iscp_lightning.inversion.inverter import Inverter
from iscp_lightning.records import Record


class Examined:
    """An inversion on some test images; what several analyses need is computed once.

    Args:
        inverter: The classifier and the generator.
        subject: The same classifier with its test images.
        indices: (N,) int64, which of them, at least one.
        judge: A classifier that the generator was not trained with, of the same classes and in eval
            mode; None where there is none.
        factors: What the whole test set was drawn with, where that is known.
        class_means: Mean training image of each class, float (K, C, H, W), where they are known.
        same_classes: Whether the classifier's classes are those of the labels.
    """

    def __init__(
        self,
        inverter: Inverter,
        subject: Subject,
        indices: Tensor,
        judge: nn.Module | None = None,
        factors: ShapeFactors | None = None,
        class_means: Tensor | None = None,
        same_classes: bool = True,
    ) -> None:
        self.inverter = inverter
        self.subject = subject
        self.indices = indices
        self.judge = judge
        self.factors = factors
        self.class_means = class_means
        self.same_classes = same_classes
        self._drawn: dict[int, Tensor] = {}

    def first(self, count: int) -> Examined:
        """Return the same for the first images alone."""
        return Examined(
            self.inverter,
            self.subject,
            self.indices[:count],
            self.judge,
            self.factors,
            self.class_means,
            self.same_classes,
        )

    @cached_property
    def images(self) -> Tensor:
        """The images, float32 (N, C, H, W) in [0, 1], on the CPU."""
        return to_float(self.subject.images.read(self.indices))

    @property
    def labels(self) -> Tensor:
        """Their classes, (N,) int64."""
        return self.subject.images.labels[self.indices]

    @cached_property
    def answers(self) -> Answers:
        """What the classifier says of them, on the CPU."""
        return self.inverter.answers(self.images)

    def drawn(self, draw: int) -> Tensor:
        """Return what becomes of them with one of the noises, 0, 1, ..., as `images`; made once."""
        if draw not in self._drawn:
            self._drawn[draw] = self.inverter.images(self.answers.vectors, draw)
        return self._drawn[draw]

    @property
    def reconstructions(self) -> Tensor:
        """What becomes of them with the first noise, as `images`."""
        return self.drawn(0)

    @property
    def right(self) -> Tensor:
        """Whether the classifier is right, (N,) bool; nowhere if it knows other classes."""
        right = self.answers.logits.argmax(1) == self.labels
        return right if self.same_classes else torch.zeros_like(right)

    def judged(self, images: Tensor) -> Answers:
        """Return what the judge says of images, logits and penultimate features, on the CPU.

        Args:
            images: float (n, C, H, W) in [0, 1].

        Raises:
            ValueError: without a judge.
        """
        if self.judge is None:
            raise ValueError("there is no `judge`")
        return Answers(*(each.cpu() for each in answers_to(self.judge, images, "features")))

    @cached_property
    def judged_images(self) -> Answers:
        """What the judge says of the images."""
        return self.judged(self.images)

    def agreement(self, images: Tensor, logits: Tensor) -> dict[str, Tensor]:
        """Return whether these show what the classifier says of the originals, bool (N,) by whom.

        `class_agreement` is by the inverted classifier; `judge_agreement` by the judge, where there
        is one and the classifier knows its classes.

        Args:
            images: float (N, C, H, W) in [0, 1], made of the originals.
            logits: What the inverted classifier says of them.
        """
        said = self.answers.logits.argmax(1)
        found = {"class_agreement": logits.argmax(1) == said}
        if self.judge is not None and self.same_classes:
            found["judge_agreement"] = self.judged(images).logits.argmax(1) == said
        return found

    def fidelity_of(self, reconstructions: Tensor) -> dict[str, Tensor]:
        """Return how well these keep the images, float (N,) by measure: see `fidelity`.

        The judge agrees with nobody where the classifier knows other classes: that is left out.
        """
        return self._fidelity(reconstructions, self._judgement(reconstructions))

    def records_of(
        self, reconstructions: Tensor, about: dict[str, str | int | float]
    ) -> list[Record]:
        """Return the same as means with intervals, by split: see `records`."""
        judgement = self._judgement(reconstructions)
        measures = self._fidelity(reconstructions, judgement)
        found = records(measures, self.right, judgement, about)
        return [r for r in found if self.same_classes or r.about["split"] == "all"]

    def _fidelity(self, reconstructions: Tensor, judgement: Judgement | None) -> dict[str, Tensor]:
        found = fidelity(
            self.images,
            reconstructions,
            self.answers.logits,
            self.inverter.answers(reconstructions).logits,
            self.labels,
            judgement,
        )
        if not self.same_classes:
            found.pop("judge_agreement", None)
        return found

    def _judgement(self, reconstructions: Tensor) -> Judgement | None:
        if self.judge is None:
            return None
        made = self.judged(reconstructions)
        return Judgement(made.logits, self.judged_images.vectors, made.vectors)


def columns_of_noise(examined: Examined) -> tuple[Tensor, list[str]]:
    """Return images, their reconstructions and those of two other noises, and what they are called.

    Returns:
        float (N, 4, C, H, W) in [0, 1], and four names.
    """
    images = torch.stack([examined.images, *(examined.drawn(draw) for draw in (0, 1, 2))], 1)
    return images, ["original", "reconstruction", "other noise", "other noise"]
