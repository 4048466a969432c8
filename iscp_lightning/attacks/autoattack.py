"""AutoAttack (Croce & Hein 2020) through its authors' package, which is an optional extra."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Generator, Tensor, nn

from iscp_lightning.attacks.epsilon import Epsilon
from iscp_lightning.attacks.pgd import Attack, Norm


@dataclass(frozen=True)
class AutoAttack(Attack):
    """The standard version: APGD-CE, targeted APGD, targeted FAB and Square, each on what is left.

    Attributes:
        epsilon: Radius of the ball in pixel units of [0, 1].
        norm: `linf` or `l2`.

    Raises:
        ValueError: if the package is missing.
    """

    epsilon: Epsilon | float = Epsilon("8/255")
    norm: Norm = "linf"

    def __post_init__(self) -> None:
        try:
            import pyautoattack  # noqa: F401
        except ImportError as error:
            raise ValueError(
                "autoattack needs a package: pip install 'iscp-lightning[attacks]'"
            ) from error

    def __call__(
        self,
        classifier: nn.Module,
        images: Tensor,
        labels: Tensor,
        generator: Generator | None = None,
    ) -> Tensor:
        """Return adversarial images; where no attack succeeds, the image itself.

        Its draws come from the generator's seed; the global random state is left as it was.
        """
        import pyautoattack

        devices = range(torch.cuda.device_count() if images.is_cuda else 0)
        with torch.inference_mode(False), torch.random.fork_rng(devices), torch.no_grad():
            images, labels = images.clone(), labels.clone()
            classes = classifier(images[:1]).shape[1]
            attack = pyautoattack.AutoAttack(
                classifier,
                device=images.device,
                eps=float(self.epsilon),
                norm={"linf": "Linf", "l2": "L2"}[self.norm],
                seed=generator.initial_seed() % 2**32 if generator else 0,
            )
            for targeted in (attack.apgd_targeted, attack.fab):
                targeted.n_target_classes = min(9, classes - 1)
            adversarial: Tensor = attack.run_standard_evaluation(
                images, labels, batch_size=len(images)
            )[0]
        return adversarial.detach()
