"""Probe: what a classifier still says of distorted images, and of cues in conflict."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from iscp_lightning.classifiers.frozen import full_fp32
from iscp_lightning.classifiers.subject import Subject
from iscp_lightning.data.images import ImageSet, to_float
from iscp_lightning.data.pool import NO_CLASS
from iscp_lightning.metrics.agreement import (
    accuracy,
    category_decisions,
    cue_share,
    difference_interval,
    error_consistency,
    generalisation,
    interval,
    shape_bias,
)
from iscp_lightning.probes.distortion import Distortion
from iscp_lightning.ranks import share, sum_over_ranks
from iscp_lightning.records import Record

OUTSIDE = 2  # of a distorted image whose values leave [0, 1]

About = Mapping[str, str | int | float]


@dataclass(frozen=True)
class CueConflict:
    """Images whose shape is of one class and whose texture is of another.

    Attributes:
        images: Labelled with the classes of the shapes, `textures` being those of the textures.
        categories: The classifier's classes of each category that images are labelled with; None
            where categories are classes.
    """

    images: ImageSet
    categories: Sequence[Sequence[int]] | None = None


@dataclass(frozen=True)
class Decisions:
    """What a classifier decided for images whose cues are in conflict, int64 (n,) each.

    Attributes:
        decisions: The category that an image is taken for.
        shapes: The category of its shape.
        textures: That of its texture.
    """

    decisions: Tensor
    shapes: Tensor
    textures: Tensor

    @property
    def answers(self) -> list[Tensor]:
        """What `shape_bias` and `cue_share` take."""
        return [self.decisions, self.shapes, self.textures]


@dataclass(frozen=True)
class Probed:
    """What one classifier said.

    Attributes:
        clean: bool (n,), which images are classified right as they are.
        distorted: For each distortion what it is, and which images are still classified right.
        cues: Decisions on images whose cues are in conflict, None without such.
    """

    clean: Tensor
    distorted: Sequence[tuple[About, Tensor]]
    cues: Decisions | None = None

    def records(self, about: About | None = None) -> list[Record]:
        """Return accuracy and generalisation under each distortion, shape bias and cue share.

        All have 95 % bootstrap intervals over the images.

        Args:
            about: What all of them are about besides, such as the classifier.
        """
        about = about or {}
        found = [record("clean_accuracy", about, accuracy, [self.clean])]
        for of, right in self.distorted:
            both = {**about, **of}
            found.append(record("accuracy", both, accuracy, [right]))
            found.append(record("generalisation", both, generalisation, [right, self.clean]))
        if self.cues is not None:
            found.append(record("shape_bias", about, shape_bias, self.cues.answers))
            found.append(record("cue_share", about, cue_share, self.cues.answers))
        return found

    def compared_with(self, other: Probed, about: About) -> list[Record]:
        """Return differences to another classifier on the same images, and `error_consistency`.

        A difference is of this one minus the other, `accuracy_difference` and so on; its interval
        is of images that are drawn together for both.

        Args:
            other: What the other said of the same images.
            about: What all of them are about, such as both classifiers' names.
        """
        found = [_difference("clean_accuracy", about, accuracy, [self.clean], [other.clean])]
        found.append(
            record("error_consistency", about, error_consistency, [self.clean, other.clean])
        )
        for (of, ours), (_, theirs) in zip(self.distorted, other.distorted, strict=True):
            both = {**about, **of}
            found.append(_difference("accuracy", both, accuracy, [ours], [theirs]))
            sides = [ours, self.clean], [theirs, other.clean]
            found.append(_difference("generalisation", both, generalisation, *sides))
            found.append(record("error_consistency", both, error_consistency, [ours, theirs]))
        if self.cues is not None and other.cues is not None:
            cues = self.cues.answers, other.cues.answers
            found.append(_difference("shape_bias", about, shape_bias, *cues))
            found.append(_difference("cue_share", about, cue_share, *cues))
        return found


def probe_classifier(
    subject: Subject,
    distortions: Sequence[Distortion],
    indices: Tensor | None = None,
    cues: CueConflict | None = None,
) -> Probed:
    """Return what a classifier says of distorted test images, and of cues in conflict.

    Ranks share the work; each gets the same.

    Args:
        subject: The classifier and the test images.
        distortions: What is done to the images; those that need it have seen their data (`check`).
        indices: (n,) int64, which test images; None means all.
        cues: Images whose cues are in conflict, if there are such.

    Raises:
        ValueError: if a distortion cannot distort the images, leaves [0, 1] or returns NaN.
    """
    indices = torch.arange(len(subject.images)) if indices is None else indices
    labels = subject.images.labels[indices]
    right, broken = torch.zeros(2, len(distortions), len(indices), dtype=torch.int64)
    parts = share(torch.arange(len(indices)).split(subject.batch_size))
    mine = indices[torch.cat([indices[:0], *parts])]
    with subject.bar(len(parts) * len(distortions), "distorted images") as bar:
        batches = subject.batches(mine, subject.batch_size)
        for part, batch in zip(parts, batches, strict=True):
            for row, distortion in enumerate(distortions):
                images = distortion(subject, batch)
                within = (images >= 0) & (images <= 1)
                answers = subject.classify(images)
                right[row, part] = (answers == batch.label).long().cpu()
                broken[row, part] = torch.where(
                    within.flatten(1).all(1), (answers < 0).long(), OUTSIDE
                ).cpu()
                bar.update()
    still, broken = sum_over_ranks(right).bool(), sum_over_ranks(broken)  # raise on every rank
    for distortion, of in zip(distortions, broken, strict=True):
        if (of == OUTSIDE).any():
            raise ValueError(f"`{distortion.name}` must return images in [0, 1]")
        if of.any():
            raise ValueError(f"the classifier's logits are NaN for images with {distortion.name}")
    said = [(d.about, row) for d, row in zip(distortions, still, strict=True)]
    decided = None if cues is None else decide(subject, cues)
    return Probed(subject.predictions[indices] == labels, said, decided)


@torch.no_grad()
@full_fp32()
def decide(subject: Subject, cues: CueConflict) -> Decisions:
    """Return the categories that images whose cues are in conflict are taken for.

    Args:
        subject: The classifier.
        cues: The images.

    Raises:
        ValueError: if the images have no textures, or a category's class is none of the
            classifier's.
    """
    images = cues.images
    if images.textures is None:
        raise ValueError("`cues` must have images with `textures`")
    decisions = torch.zeros(len(images), dtype=torch.int64)
    parts = share(torch.arange(len(images)).split(subject.batch_size))
    for part, stored in zip(parts, images.batches(parts), strict=True):
        logits = subject.frozen(to_float(stored.image.to(subject.device))).float().cpu()
        if logits.isnan().any():
            decisions[part] = NO_CLASS
        elif cues.categories is None:
            decisions[part] = logits.argmax(1)
        else:
            decisions[part] = category_decisions(logits, cues.categories)
    decisions = sum_over_ranks(decisions)
    if (decisions < 0).any():
        raise ValueError("the classifier's logits are NaN for images whose cues are in conflict")
    return Decisions(decisions, images.labels, images.textures)


def record(
    measure: str, about: About, statistic: Callable[..., Tensor], answers: Sequence[Tensor]
) -> Record:
    """Return a statistic of answers with its interval; see `metrics.agreement`."""
    low, high = interval(statistic, *answers).tolist()
    return Record(measure, float(statistic(*answers)), about, (low, high))


def _difference(
    measure: str,
    about: About,
    statistic: Callable[..., Tensor],
    first: Sequence[Tensor],
    second: Sequence[Tensor],
) -> Record:
    low, high = difference_interval(statistic, first, second).tolist()
    value = float(statistic(*first) - statistic(*second))
    return Record(f"{measure}_difference", value, about, (low, high))
