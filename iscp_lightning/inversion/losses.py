"""What generator and discriminator are trained on."""

from __future__ import annotations

from dataclasses import dataclass, fields

import torch.nn.functional as F
from torch import Tensor


@dataclass(frozen=True)
class Weights:
    """How much each term counts for the generator; the paper's is the adversarial one alone.

    Dosovitskiy & Brox 2016 have all three.

    Attributes:
        adversarial: Of the negative score of the discriminator, which is not trained at 0.
        pixel: Of the mean squared difference of the pixels.
        feature: Of the mean squared difference of the classifier's standardised vectors.

    Raises:
        ValueError: if one is negative, or all are 0.
    """

    adversarial: float = 1.0
    pixel: float = 0.0
    feature: float = 0.0

    def __post_init__(self) -> None:
        for each in fields(self):
            if getattr(self, each.name) < 0:
                raise ValueError(f"`{each.name}` must be 0 or more, got {getattr(self, each.name)}")
        if not self.adversarial + self.pixel + self.feature:
            raise ValueError("`loss`: one of `adversarial`, `pixel` and `feature` must be above 0")


def discriminator_hinge(real: Tensor, fake: Tensor) -> Tensor:
    """Return the hinge loss E[max(0, 1 - D(x, v))] + E[max(0, 1 + D(G(v, e), v))].

    Args:
        real: (N,), scores of images with their vectors.
        fake: (N,), scores of generated ones.
    """
    return F.relu(1 - real).mean() + F.relu(1 + fake).mean()
