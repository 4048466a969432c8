"""How robust a classifier is: accuracy under attacks of growing strength, and signs of illusion."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import torch
from torch import Generator, Tensor, nn

from iscp_lightning.attacks.autoattack import AutoAttack
from iscp_lightning.attacks.epsilon import Epsilon
from iscp_lightning.attacks.pgd import PGD, Attack, Norm, fgsm, random_start
from iscp_lightning.attacks.spatial import StAdv
from iscp_lightning.classifiers.frozen import full_fp32
from iscp_lightning.classifiers.outputs import require_logits
from iscp_lightning.classifiers.subject import Subject
from iscp_lightning.data.images import to_float
from iscp_lightning.ranks import gather, share
from iscp_lightning.seeds import named_generator

ATTACKS: dict[str, Callable[[Epsilon | float, Norm], Attack]] = {  # from weak to strong
    "fgsm": fgsm,
    "pgd20": lambda epsilon, norm: PGD(epsilon, epsilon / 4, 20, norm),
    "pgd100": lambda epsilon, norm: PGD(epsilon, epsilon / 4, 100, norm),
    "autoattack": AutoAttack,
    "stadv": lambda *_: StAdv(),
}
WITHOUT_BALL = ("stadv",)  # neither weaker nor stronger than the others
DEFAULT_ATTACKS = ("fgsm", "pgd20", "pgd100")
TOLERANCE = 0.01  # accuracies closer than this are not called different


class Noise(Attack):
    """A uniformly random point of the ball: what every attack must beat.

    Args:
        epsilon: Radius of the ball.
        norm: `linf` or `l2`.
    """

    def __init__(self, epsilon: float, norm: Norm) -> None:
        self.epsilon = epsilon
        self.norm = norm

    def __call__(
        self,
        classifier: nn.Module,
        images: Tensor,
        labels: Tensor,
        generator: Generator | None = None,
    ) -> Tensor:
        """Return the images with noise."""
        del classifier, labels
        return random_start(images, self.epsilon, self.norm, generator)


@dataclass(frozen=True)
class Robustness:
    """Which images withstood which attacks.

    An image withstands an attack if it is classified right as it is and under the attack.

    Attributes:
        labels: (n,) int64.
        clean: (n,) bool, classified right as it is.
        withstood: For each attack, from weak to strong, (n,) bool.
        sanity: For random noise (`noise`) and 20 steps of PGD at half and twice the radius
            (`pgd20 at x0.5`, `pgd20 at x2`), (n,) bool.
        norm: Of the attacks.
        epsilon: Their radius, in pixel units of [0, 1].
    """

    labels: Tensor
    clean: Tensor
    withstood: dict[str, Tensor]
    sanity: dict[str, Tensor]
    norm: Norm
    epsilon: float

    @property
    def withstood_all(self) -> Tensor:
        """(n,) bool, withstood every attack (pointwise worst case)."""
        return torch.stack([self.clean, *self.withstood.values()]).all(0)

    @property
    def robust_accuracy(self) -> float:
        """Share of the images that withstood every attack."""
        return _share(self.withstood_all)

    @property
    def conclusive(self) -> bool:
        """Whether the absence of flags says anything: 100 or more images are classified right.

        One image of fewer is already more than the difference that the flags look for.
        """
        return int(self.clean.sum()) * TOLERANCE >= 1

    @property
    def flags(self) -> list[str]:
        """Signs of gradient masking, in words; empty if there are none."""
        found = []
        in_ball = [name for name in self.withstood if name not in WITHOUT_BALL]
        rates = {name: _share(self.withstood[name]) for name in in_ball}
        noise = _share(self.sanity["noise"])
        for weak, strong in pairwise(rates):
            if rates[strong] > rates[weak] + TOLERANCE:
                found.append(
                    f"the weaker {weak} ({rates[weak]:.3f}) beats {strong} ({rates[strong]:.3f})"
                )
        for name, rate in rates.items():
            if noise < rate - TOLERANCE:
                found.append(f"random noise ({noise:.3f}) hurts more than {name} ({rate:.3f})")
        half, double = (_share(self.sanity[f"pgd20 at x{factor}"]) for factor in ("0.5", "2"))
        by_radius = [half, rates["pgd20"], double]
        for small, large in pairwise(by_radius):
            if large > small + TOLERANCE:
                found.append(
                    f"accuracy rises with epsilon, from {small:.3f} to {large:.3f} under pgd20"
                )
        return [f"gradient masking suspected: {reason}" for reason in found]

    def summary(self, class_names: Sequence[str]) -> dict[str, Any]:
        """Return all accuracies, overall and per class, and the flags, as plain values."""
        everything = {"clean": self.clean} | self.withstood | self.sanity
        worst = {"robust_accuracy": self.withstood_all}
        per_class = {
            name: {
                key: _share(kept[self.labels == k]) for key, kept in (everything | worst).items()
            }
            for k, name in enumerate(class_names)
        }
        return {
            "images": len(self.labels),
            "norm": self.norm,
            "epsilon": float(self.epsilon),
            "robust_accuracy": self.robust_accuracy,
            "accuracy": {name: _share(kept) for name, kept in everything.items()},
            "per_class": per_class,
            "flags": self.flags,
        }


def build_attacks(
    attacks: Sequence[str], epsilon: Epsilon | float, norm: Norm, num_classes: int
) -> dict[str, Attack]:
    """Return the named attacks and PGD-20 from weak to strong, then those of the sanity checks.

    Raises:
        ValueError: if a name or the radius is not allowed, or `autoattack` cannot run.
    """
    if not set(attacks) <= set(ATTACKS):
        raise ValueError(f"`attacks` must be among {', '.join(ATTACKS)}, got {list(attacks)}")
    if "autoattack" in attacks and num_classes < 4:
        raise ValueError(f"autoattack needs at least 4 classes, the data have {num_classes}")
    names = [name for name in ATTACKS if name in {"pgd20", *attacks}]
    double = epsilon * 2 if norm == "l2" else min(epsilon * 2, 1.0)
    return {name: ATTACKS[name](epsilon, norm) for name in names} | {
        "noise": Noise(epsilon, norm),
        "pgd20 at x0.5": ATTACKS["pgd20"](epsilon / 2, norm),
        "pgd20 at x2": ATTACKS["pgd20"](double, norm),
    }


@full_fp32()
@torch.inference_mode(False)
def evaluate_robustness(
    subject: Subject,
    indices: Tensor,
    attacks: Sequence[str] = DEFAULT_ATTACKS,
    *,
    epsilon: Epsilon | float = Epsilon("8/255"),
    norm: Norm = "linf",
    batch_size: int = 250,
) -> Robustness:
    """Return which images withstand which attacks; ranks share the batches (a collective).

    Random starts depend on the subject's seed alone, not on the number of processes or the other
    attacks.

    Args:
        subject: The classifier, measured in fp32, and the images.
        indices: (n,) which of its images.
        attacks: Names among `ATTACKS`; `pgd20` always runs, since the flags need it.
        epsilon: Radius of the ball in pixel units of [0, 1].
        norm: `linf` or `l2`.
        batch_size: Images attacked together, which share a seed.

    Raises:
        ValueError: if an attack is unknown, or the classifier returns probabilities.
    """
    epsilon, frozen, device = Epsilon(epsilon), subject.frozen, subject.device
    running = build_attacks(attacks, epsilon, norm, int(subject.images.labels.max()) + 1)
    require_logits(_outputs(frozen, to_float(subject.images.pixels(indices[:8])).to(device)))
    chunks = list(enumerate(indices.split(batch_size)))
    mine = share(chunks)
    batches = subject.images.batches([chunk for _, chunk in mine])
    rows: list[tuple[int, Tensor]] = []
    with subject.bar(len(mine) * len(running), "attacks") as bar:
        for (number, _), stored in zip(mine, batches, strict=True):
            image, label = to_float(stored.image).to(device), stored.label.to(device)
            right = _outputs(frozen, image).argmax(1) == label
            kept = [label, right]
            for name, attack in running.items():
                generator = named_generator(subject.seed, "attack", name, number, device=device)
                withstands = right.clone()
                if right.any():
                    adversarial = attack(frozen, image[right], label[right], generator)
                    withstands[right] = _outputs(frozen, adversarial).argmax(1) == label[right]
                kept.append(withstands)
                bar.update()
            rows.append((number, torch.stack([tensor.cpu().long() for tensor in kept])))
    everyone = sorted((row for part in gather(rows) for row in part), key=lambda row: row[0])
    labels, clean, *results = torch.cat([row for _, row in everyone], dim=1)
    kept_by = dict(zip(running, [result.bool() for result in results], strict=True))
    withstood = {name: kept_by.pop(name) for name in running if name in ATTACKS}
    return Robustness(labels, clean.bool(), withstood, kept_by, norm, epsilon)


@torch.no_grad()
def _outputs(classifier: nn.Module, images: Tensor) -> Tensor:
    outputs: Tensor = classifier(images)
    return outputs


def _share(kept: Tensor) -> float:
    return float(kept.double().mean())
