"""BackdoorSuccess: how well a backdoor works, as a measurement at chosen epochs."""

from __future__ import annotations

from dataclasses import asdict

import torch

from iscp_lightning.classifiers.subject import Subject
from iscp_lightning.data.datamodule import ImageDataModule
from iscp_lightning.data.poison import Poison
from iscp_lightning.measurement import Measurement
from iscp_lightning.metrics.success import StampSuccess, count_success
from iscp_lightning.ranks import rank_and_size
from iscp_lightning.records import Findings, Record
from iscp_lightning.runs import provenance


class BackdoorSuccess(Measurement):
    """Counts what a trigger makes of all test images, as `BadNetsModule` does in a test.

    Attack success rate and robust accuracy are of the images whose label is not already the wanted
    one; the rate also for each class.

    Args:
        poison: Trigger and goal of a backdoor that one suspects; None takes those of the data.
    """

    title = "backdoor"

    def __init__(self, poison: Poison | None = None) -> None:
        self.poison = poison

    def check(self, data: ImageDataModule) -> None:
        """Draw the trigger.

        Raises:
            ValueError: if there is none, it does not fit, or the data lack the target class.
        """
        poison = self.poison or data.poison
        if poison is None:
            raise ValueError("BackdoorSuccess needs data with `poison`, or a `poison` of its own")
        self._known = asdict(poison)
        self._stamp = poison.trigger.draw(data.image_size)
        self._wanted = poison.wanted(torch.arange(data.num_classes), data.class_names)

    def measure(self, subject: Subject, last: bool = False) -> Findings:
        """Return the rates; the images are shared out over ranks."""
        every = torch.arange(len(subject.images))
        rank, size = rank_and_size()
        metric = StampSuccess(self._wanted.unsqueeze(0))
        count_success(metric, subject, [self._stamp], every[rank::size])
        success = metric.compute()
        right, seen = subject.correct_and_seen(every)
        overall = [
            Record("attack_success_rate", success.rate.item()),
            Record("robust_accuracy_on_triggered", success.robust_accuracy.item()),
            Record("clean_accuracy", (right.sum() / seen.sum()).item()),
        ]
        rates = zip(subject.class_names, success.rate_by_class[0].tolist(), strict=True)
        by_class = [Record("attack_success_rate", rate, {"class": name}) for name, rate in rates]
        return Findings(
            [*overall, *by_class],
            lines=[f"{record.measure}: {record.value:.3f}" for record in overall],
            provenance=provenance(classifier_hash=subject.hash, poison=self._known),
        )
