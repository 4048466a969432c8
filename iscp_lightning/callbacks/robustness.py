"""RobustAccuracy: accuracy under attacks, as a measurement; RobustnessEvaluation: after a test."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import lightning as L
from lightning.fabric.utilities.exceptions import MisconfigurationException

from iscp_lightning.attacks.autoattack import AutoAttack
from iscp_lightning.attacks.epsilon import Epsilon
from iscp_lightning.attacks.pgd import Attack, Norm
from iscp_lightning.attacks.robustness import (
    DEFAULT_ATTACKS,
    Robustness,
    build_attacks,
    evaluate_robustness,
)
from iscp_lightning.classifiers.frozen import module_device
from iscp_lightning.classifiers.outputs import outputs_in_eval_mode, require_logits
from iscp_lightning.classifiers.subject import Subject
from iscp_lightning.data.datamodule import ImageDataModule
from iscp_lightning.data.images import to_float
from iscp_lightning.data.splits import stratified_choice
from iscp_lightning.measurement import Measurement
from iscp_lightning.records import Findings, Record
from iscp_lightning.runs import is_dry, provenance
from iscp_lightning.seeds import derived_seed
from iscp_lightning.training.natural import NaturalModule
from iscp_lightning.work import Work

EPSILONS: dict[Norm, Epsilon] = {"linf": Epsilon("8/255"), "l2": Epsilon("0.5")}
ATTACKED_WHEN_DRY = 2


@dataclass(frozen=True)
class Attacked(Findings):
    """What attacks found.

    Attributes:
        summary: As `Robustness.summary` returns it.
    """

    summary: Mapping[str, Any] = field(default_factory=dict)

    @property
    def results(self) -> dict[str, Any]:
        """The summary and where it comes from."""
        return {**self.summary, "provenance": dict(self.provenance)}


class RobustAccuracy(Measurement):
    """Attacks a classifier on test images: its accuracy under each attack, and under all together.

    Robust accuracy counts the images that withstand every attack, overall and for each class.

    Args:
        attacks: Names of attacks; none means FGSM, PGD-20 and PGD-100.
        epsilon: Radius of the ball in pixel units of [0, 1]; None is 8/255 for linf, 0.5 for l2.
        norm: `linf` or `l2`.
        images: Number of test images, as many of each class; None means all.

    Raises:
        ValueError: if `images` is below 1.
    """

    title = "robustness"

    def __init__(
        self,
        attacks: Sequence[str] = (),
        epsilon: Epsilon | float | None = None,
        norm: Norm = "linf",
        images: int | None = None,
    ) -> None:
        if images is not None and images < 1:
            raise ValueError(f"`images` must be 1 or more, got {images}")
        self.attacks = tuple(attacks) or DEFAULT_ATTACKS
        self.epsilon = EPSILONS[norm] if epsilon is None else epsilon
        self.norm = norm
        self.images = images

    def check(self, data: ImageDataModule) -> None:
        """Refuse attacks that cannot be run.

        Raises:
            ValueError: if an attack or the radius is not allowed.
        """
        self._attacks(data)
        self._batch_size = data.batch_size

    def measure(self, subject: Subject, last: bool = False) -> Attacked:
        """Return the accuracies; the images are shared out over ranks.

        Raises:
            ValueError: if the classifier returns probabilities.
        """
        labels = subject.images.labels
        found = evaluate_robustness(
            subject,
            stratified_choice(
                labels, self.images or len(labels), derived_seed(subject.seed, "attacked images")
            ),
            self.attacks,
            epsilon=self.epsilon,
            norm=self.norm,
            batch_size=self._batch_size,
        )
        summary = found.summary(subject.class_names)
        return Attacked(
            records_of(summary),
            lines=lines_of(found),
            provenance=provenance(classifier_hash=subject.hash, attacks=list(self.attacks)),
            summary=summary,
        )

    def work(
        self, data: ImageDataModule, processes: int, times: int = 1, last: bool = False
    ) -> list[Work]:
        """Return what it takes if every image is classified right and withstands every attack."""
        del processes, last
        total = data.count("test")
        count = min(self.images or total, total)
        forwards, gradients = map(sum, zip(*map(passes, self._attacks(data)), strict=True))
        work = Work("attacks", forwards=count * (1 + forwards), gradients=count * gradients)
        return [work.times(times)]

    def small(self) -> RobustAccuracy:
        """Return the same attacks on two images."""
        small = copy.copy(self)
        small.images = ATTACKED_WHEN_DRY
        return small

    def _attacks(self, data: ImageDataModule) -> list[Attack]:
        return [*build_attacks(self.attacks, self.epsilon, self.norm, data.num_classes).values()]


class RobustnessEvaluation(L.Callback):
    """Attacks the classifier after its test, and logs its accuracy under each attack.

    Args:
        measurement: The attacks.
    """

    def __init__(self, measurement: RobustAccuracy) -> None:
        self.measurement = measurement
        self.findings: dict[str, Findings] = {}

    def setup(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: str) -> None:
        """Check everything before the test.

        Raises:
            MisconfigurationException: for another stage than a test, a module without a classifier,
                or data without test set.
            ValueError: if an attack or the radius is not allowed, or the classifier returns
                probabilities.
        """
        data = getattr(trainer, "datamodule", None)
        if stage not in ("fit", "test"):  # what is trained may be tested next
            raise MisconfigurationException("`--attacks` goes with `test` alone")
        if not isinstance(pl_module, NaturalModule) or not isinstance(data, ImageDataModule):
            raise MisconfigurationException(
                "`--attacks` goes with the test of a classifier, "
                f"got {type(pl_module).__name__} and {type(data).__name__}"
            )
        self.measurement.check(data)
        some = to_float(data.test_images.pixels([0, 1])).to(module_device(pl_module.classifier))
        require_logits(outputs_in_eval_mode(pl_module.classifier, some))

    def on_test_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Attack, and log `attacks/NAME` of each attack and `attacks/robust_accuracy` of all."""
        assert isinstance(pl_module, NaturalModule)
        data: ImageDataModule = trainer.datamodule  # type: ignore[attr-defined]
        measurement = self.measurement.small() if is_dry(trainer) else self.measurement
        show = trainer.progress_bar_callback is not None
        found = measurement.measure(Subject.of(pl_module.classifier, data, pl_module.device, show))
        self.findings = {measurement.title: found}
        together = {"robust_accuracy": found.summary["robust_accuracy"]}
        for name, value in {**found.summary["accuracy"], **together}.items():
            pl_module.log(f"attacks/{name}", value, sync_dist=True)


def records_of(summary: Mapping[str, Any]) -> list[Record]:
    """Return the accuracies of a `Robustness.summary` as records.

    Random noise and the other radii, which the signs of gradient masking need, count as attacks.
    """
    under = dict(summary["accuracy"])
    overall = [
        Record("clean_accuracy", under.pop("clean")),
        Record("robust_accuracy", summary["robust_accuracy"]),
    ]
    by_attack = [Record("accuracy", value, {"attack": name}) for name, value in under.items()]
    by_class = [
        Record("robust_accuracy", values["robust_accuracy"], {"class": name})
        for name, values in summary["per_class"].items()
    ]
    return [*overall, *by_attack, *by_class]


def lines_of(found: Robustness) -> list[str]:
    """Return in words what was attacked, what is left, and whether gradients may be masked."""
    ball = f"{found.norm} {float(found.epsilon):.4g}"
    left = f"robust accuracy {found.robust_accuracy:.3f}"
    lines = [f"attacked: {len(found.labels)} images, {ball}: {left}", *found.flags]
    if not found.conclusive:
        right = int(found.clean.sum())
        lines.append(f"{right} images classified right are too few to tell gradient masking")
    elif not found.flags:
        lines.append("no sign of gradient masking")
    return lines


def passes(attack: Attack) -> tuple[int, int]:
    """Return how often an image that withstands an attack passes forward, and with gradient."""
    if isinstance(attack, AutoAttack):
        return 5000, 1900  # of Square; of APGD and, for nine targets each, targeted APGD and FAB
    return 1, getattr(attack, "steps", 0)
