"""RobustnessEvaluation: what `--attacks` adds to a test."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import lightning as L
from lightning.fabric.utilities.exceptions import MisconfigurationException

from iscp_lightning.attacks.epsilon import Epsilon
from iscp_lightning.attacks.pgd import Norm
from iscp_lightning.attacks.robustness import DEFAULT_ATTACKS, build_attacks, evaluate_robustness
from iscp_lightning.classifiers.frozen import module_device
from iscp_lightning.classifiers.outputs import outputs_in_eval_mode, require_logits
from iscp_lightning.classifiers.subject import Subject
from iscp_lightning.data.datamodule import ImageDataModule
from iscp_lightning.data.images import to_float
from iscp_lightning.data.splits import stratified_choice
from iscp_lightning.records import Findings
from iscp_lightning.runs import is_dry
from iscp_lightning.seeds import derived_seed
from iscp_lightning.training.natural import NaturalModule

EPSILONS: dict[Norm, Epsilon] = {"linf": Epsilon("8/255"), "l2": Epsilon("0.5")}


@dataclass(frozen=True)
class Attacked(Findings):
    """What attacks found.

    Attributes:
        summary: As `Robustness.summary` returns it; the accuracies are metrics of the test.
    """

    summary: Mapping[str, Any] = field(default_factory=dict)

    @property
    def results(self) -> dict[str, Any]:
        """The summary."""
        return dict(self.summary)


class RobustnessEvaluation(L.Callback):
    """Attacks the classifier after its test and logs its accuracy under each attack.

    Args:
        attacks: Names of attacks; none means FGSM, PGD-20 and PGD-100.
        epsilon: Radius of the ball in pixel units of [0, 1]; None is 8/255 for linf, 0.5 for l2.
        norm: `linf` or `l2`.
        images: Number of test images, as many of each class; None means all.

    Raises:
        ValueError: if `images` is below 1.
    """

    def __init__(
        self,
        attacks: Sequence[str] = (),
        epsilon: Epsilon | float | None = None,
        norm: Norm = "linf",
        images: int | None = None,
    ) -> None:
        if images is not None and images < 1:
            raise ValueError(f"`attack_images` must be 1 or more, got {images}")
        self.attacks = tuple(attacks) or DEFAULT_ATTACKS
        self.epsilon = EPSILONS[norm] if epsilon is None else epsilon
        self.norm = norm
        self.images = images
        self.findings: dict[str, Findings] = {}

    def setup(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: str) -> None:
        """Check the arguments before anything is trained.

        Raises:
            MisconfigurationException: for a module without a classifier or data without test set.
            ValueError: if an attack or the radius is not allowed, or the classifier returns
                probabilities.
        """
        data = getattr(trainer, "datamodule", None)
        if stage not in ("fit", "test"):
            raise MisconfigurationException(f"`--attacks` goes with fit and test, not {stage}")
        if not isinstance(pl_module, NaturalModule) or not isinstance(data, ImageDataModule):
            raise MisconfigurationException(
                "`--attacks` goes with the training or test of a classifier, "
                f"got {type(pl_module).__name__} and {type(data).__name__}"
            )
        build_attacks(self.attacks, self.epsilon, self.norm, data.num_classes)
        some = to_float(data.test_images.pixels([0, 1])).to(module_device(pl_module.classifier))
        require_logits(outputs_in_eval_mode(pl_module.classifier, some))

    def on_test_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Attack, and log `test/robust_accuracy` of each attack and of all together."""
        assert isinstance(pl_module, NaturalModule)
        data: ImageDataModule = trainer.datamodule  # type: ignore[attr-defined]
        labels = data.test_images.labels
        count = 2 if is_dry(trainer) else self.images or len(labels)
        chosen = stratified_choice(labels, count, derived_seed(data.seed, "attacked images"))
        show = trainer.progress_bar_callback is not None
        found = evaluate_robustness(
            Subject.of(pl_module.classifier, data, pl_module.device, show),
            chosen,
            self.attacks,
            epsilon=self.epsilon,
            norm=self.norm,
            batch_size=data.batch_size,
        )
        summary = found.summary(data.class_names)
        ball = f"{summary['norm']} {summary['epsilon']:.4g}"
        lines = [f"attacked: {summary['images']} images, {ball}"]
        lines += summary["flags"] or ["no sign of gradient masking"]
        self.findings = {"robustness": Attacked(lines=lines, summary=summary)}
        for name, value in summary["accuracy"].items():
            pl_module.log(f"attacks/{name}", value, sync_dist=True)
        pl_module.log("attacks/robust_accuracy", found.robust_accuracy, sync_dist=True)
