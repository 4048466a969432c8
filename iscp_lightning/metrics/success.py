"""StampSuccess: how often a stamp turns images of other classes into its class."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor
from torchmetrics import Metric

from iscp_lightning.classifiers.subject import Subject
from iscp_lightning.data.stamps import Stamp


class Success(NamedTuple):
    """What `StampSuccess` computes; shares are NaN without any image.

    Attributes:
        hits: (S, K) int64, stamped images of each class that became what is wanted.
        kept: (S, K) int64, those still predicted as what they show.
        shown: (S, K) int64, all of them.
    """

    hits: Tensor
    kept: Tensor
    shown: Tensor

    @property
    def rate(self) -> Tensor:
        """(S,) float64: the attack success rate."""
        return self.hits.sum(1).double() / self.shown.sum(1)

    @property
    def rate_by_class(self) -> Tensor:
        """(S, K) float64: likewise, for the images of each class."""
        return self.hits.double() / self.shown

    @property
    def robust_accuracy(self) -> Tensor:
        """(S,) float64: share still predicted as what they show."""
        return self.kept.sum(1).double() / self.shown.sum(1)


class StampSuccess(Metric):
    """Counts how many images of other classes each of S stamps turns into the class it wants.

    Images that already show the wanted class are left out, as in an attack success rate.

    Args:
        wanted: (S, K) int64, the class that each stamp shall make of the images of each class.
        sync_on_compute: Whether `compute` sums over processes.
    """

    is_differentiable = False
    higher_is_better = True
    full_state_update = False
    wanted: Tensor
    hits: Tensor
    kept: Tensor
    shown: Tensor

    def __init__(self, wanted: Tensor, sync_on_compute: bool = True) -> None:
        super().__init__(sync_on_compute=sync_on_compute)
        self.register_buffer("wanted", wanted, persistent=False)
        for name in ("hits", "kept", "shown"):
            zeros = torch.zeros(wanted.shape, dtype=torch.int64)
            self.add_state(name, zeros, dist_reduce_fx="sum")

    def affects(self, stamp: int, labels: Tensor) -> Tensor:
        """Return which images a stamp shall change, (N,) bool.

        Args:
            stamp: Which one.
            labels: (N,) int64, what the images show.
        """
        changed: Tensor = self.wanted[stamp, labels] != labels
        return changed

    def update(self, stamp: int, predicted: Tensor, labels: Tensor) -> None:
        """Count a batch of stamped images.

        Args:
            stamp: Which stamp they have.
            predicted: (N,) int64, what they are taken for.
            labels: (N,) int64, what they show.
        """
        changed = self.affects(stamp, labels)
        predicted, labels = predicted[changed], labels[changed]
        classes = self.wanted.shape[1]
        hit = predicted == self.wanted[stamp, labels]
        self.hits[stamp] += labels[hit].bincount(minlength=classes)
        self.kept[stamp] += labels[predicted == labels].bincount(minlength=classes)
        self.shown[stamp] += labels.bincount(minlength=classes)

    def compute(self) -> Success:
        """Return the counts of all batches, on the CPU."""
        return Success(self.hits.cpu(), self.kept.cpu(), self.shown.cpu())


def count_success(
    metric: StampSuccess,
    subject: Subject,
    stamps: Sequence[Stamp],
    indices: Tensor,
    left_out: Sequence[int] | None = None,
) -> None:
    """Count what stamps make of a subject's test images.

    Args:
        metric: Takes the counts; one row for each stamp.
        subject: The classifier and the images.
        stamps: S stamps without leading dimensions; fastest on the subject's device.
        indices: (n,) int64, which test images are stamped.
        left_out: For each stamp the index of an image that it is not put on, such as its canvas.
    """
    metric.to(subject.device)
    with subject.bar(len(indices), "stamping test images") as bar:
        for batch in subject.batches(indices, subject.batch_size):
            before: Tensor | None = None
            for row, stamp in enumerate(stamps):
                chosen = metric.affects(row, batch.label)
                if left_out is not None:
                    chosen &= batch.index != left_out[row]
                if before is None or not torch.equal(chosen, before):  # stamps of a class follow
                    images, labels = batch.image[chosen], batch.label[chosen]
                before = chosen
                # many networks cannot take an empty batch
                predicted = subject.classify(stamp(images)) if len(images) else labels
                metric.update(row, predicted, labels)
            bar.update(len(batch.image))
