"""Projected gradient descent (Madry et al. 2018) and its steps, for training and evaluation.

Everything happens in pixel units of [0, 1]: a classifier has its normalisation inside.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Literal, get_args

import torch
import torch.nn.functional as F
from torch import Generator, Tensor, nn

from iscp_lightning.attacks.epsilon import Epsilon

Norm = Literal["linf", "l2"]


class Attack(ABC):
    """Makes adversarial images: close to the given ones, and classified wrongly."""

    @abstractmethod
    def __call__(
        self,
        classifier: nn.Module,
        images: Tensor,
        labels: Tensor,
        generator: Generator | None = None,
    ) -> Tensor:
        """Return adversarial images in [0, 1], shape and dtype of the images, detached.

        The classifier is used in the mode it is in; its parameters get no gradient.

        Args:
            classifier: Maps images in [0, 1] to logits (N, K).
            images: float (N, C, H, W) in [0, 1].
            labels: (N,) int64, the classes to get away from.
            generator: Source of every random draw, on the images' device; None is the global one.
        """


@dataclass(frozen=True)
class PGD(Attack):
    """Projected gradient ascent on the cross-entropy (Madry et al. 2018).

    One step of size epsilon without random start is FGSM (Goodfellow et al. 2015); one of
    1.25 epsilon with random start is the attack of fast adversarial training (Wong et al. 2020).

    Attributes:
        epsilon: Radius of the ball around each image in pixel units of [0, 1], such as 8/255.
        step_size: Length of a step in the norm, likewise.
        steps: Number of steps.
        norm: `linf` or `l2`; l2 is over all values of an image.
        random_start: Whether it starts at a random point of the ball instead of the image.

    Raises:
        ValueError: if a number is out of range.
    """

    epsilon: Epsilon | float = Epsilon("8/255")
    step_size: Epsilon | float = Epsilon("2/255")
    steps: int = 7
    norm: Norm = "linf"
    random_start: bool = True

    def __post_init__(self) -> None:
        if self.norm not in get_args(Norm):
            raise ValueError(f"`norm` must be linf or l2, got {self.norm!r}")
        if self.steps < 1:
            raise ValueError(f"`steps` must be 1 or more, got {self.steps}")
        for name in ("epsilon", "step_size"):
            object.__setattr__(self, name, Epsilon(getattr(self, name)))
            value = getattr(self, name)
            if self.norm == "linf" and value > 1:
                raise ValueError(
                    f"`{name}` must lie in [0, 1] for linf: pixels do; got {value!r} "
                    f"(did you mean {value!r}/255?)"
                )

    def __call__(
        self,
        classifier: nn.Module,
        images: Tensor,
        labels: Tensor,
        generator: Generator | None = None,
    ) -> Tensor:
        """Return adversarial images at most `epsilon` away, up to rounding, in [0, 1]."""
        with torch.inference_mode(False), torch.enable_grad():
            origin, labels = images.detach().clone(), labels.clone()
            adversarial = origin
            if self.random_start:
                adversarial = random_start(origin, self.epsilon, self.norm, generator)
            for _ in range(self.steps):
                gradient = loss_gradient(classifier, adversarial, labels)
                adversarial = ascend(adversarial, gradient, self.step_size, self.norm)
                adversarial = project(adversarial, origin, self.epsilon, self.norm)
        return adversarial


def fgsm(epsilon: Epsilon | float, norm: Norm = "linf") -> PGD:
    """Return the fast gradient sign method: one step to the edge of the ball."""
    return PGD(epsilon, epsilon, steps=1, norm=norm, random_start=False)


def loss_gradient(classifier: nn.Module, images: Tensor, labels: Tensor) -> Tensor:
    """Return the gradient of each image's cross-entropy with respect to it, shape of the images."""
    images = images.detach().requires_grad_()
    loss = F.cross_entropy(classifier(images), labels, reduction="sum")
    return torch.autograd.grad(loss, images)[0]


def ascend(images: Tensor, gradient: Tensor, step_size: float, norm: Norm) -> Tensor:
    """Return the images one step of length `step_size` in the norm up the gradient."""
    if norm == "linf":
        return images + step_size * gradient.sign()
    lengths = l2_norm(gradient).clamp_(min=torch.finfo(gradient.dtype).tiny)
    return images + step_size * gradient / lengths


def project(images: Tensor, origin: Tensor, epsilon: float | None, norm: Norm) -> Tensor:
    """Return the nearest images in the ball around `origin`, then in [0, 1].

    Args:
        images: float (N, C, H, W).
        origin: Centres, same shape, in [0, 1].
        epsilon: Radius; None means no ball.
        norm: Of the ball.
    """
    if epsilon is not None and norm == "linf":
        images = torch.clamp(images, origin - epsilon, origin + epsilon)
    elif epsilon is not None:
        change = images - origin
        lengths = l2_norm(change).clamp_(min=torch.finfo(change.dtype).tiny)
        images = origin + change * (epsilon / lengths).clamp_(max=1)
    return images.clamp(0, 1)


def random_start(
    images: Tensor, epsilon: float, norm: Norm, generator: Generator | None = None
) -> Tensor:
    """Return a uniformly random point of each image's ball, clipped to [0, 1]."""
    if norm == "linf":
        noise = torch.empty_like(images).uniform_(-epsilon, epsilon, generator=generator)
        return (images + noise).clamp_(0, 1)
    direction = torch.empty_like(images).normal_(generator=generator)
    direction /= l2_norm(direction)
    share = torch.empty_like(images[:, :1, :1, :1]).uniform_(generator=generator)
    radius = epsilon * share ** (1 / images[0].numel())
    return (images + radius * direction).clamp_(0, 1)


def l2_norm(images: Tensor) -> Tensor:
    """Return each image's Euclidean norm over all its values, (N, 1, 1, 1)."""
    norms: Tensor = torch.linalg.vector_norm(images, dim=(1, 2, 3), keepdim=True)
    return norms
