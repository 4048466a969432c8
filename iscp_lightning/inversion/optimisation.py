"""Inversion by optimisation: images with given vectors, by gradient descent on their pixels.

The vectors are what a classifier says of the images that are looked for, such as its logits. This
is Mahendran & Vedaldi 2015 with Adam for their momentum.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor
from torchmetrics.functional.image import total_variation

from iscp_lightning.seeds import named_generator

NOISE = 0.01  # standard deviation of what is added to mean grey


def invert_by_optimisation(
    vectors_of: Callable[[Tensor], Tensor],
    vectors: Tensor,
    image_shape: tuple[int, int, int],
    *,
    steps: int = 300,
    step_size: float = 0.02,
    smoothness: float = 0.5,
    seed: int = 0,
) -> Tensor:
    """Return images whose vectors are near the given ones, (N, C, H, W) in [0, 1], detached.

    What is minimised is, for each image, the mean squared difference of its vector from the given
    one, plus `smoothness` times the total variation: the absolute difference of neighbouring pixels
    in both directions, as a sum over the image divided by its number of values. Every step is
    followed by a projection on [0, 1]. All images start as the same grey with the same slight
    noise, so that what is found for one does not depend on the others.

    Args:
        vectors_of: Maps images (N, C, H, W) in [0, 1] to their vectors (N, D), each image on its
            own: a classifier in evaluation mode. Vectors should be standardised, so that no entry
            outweighs the others.
        vectors: float (N, D); images have their dtype and device.
        image_shape: (C, H, W).
        steps: Steps of Adam, at least 1.
        step_size: Its step size in pixel units of [0, 1], above 0.
        smoothness: Weight of the total variation, 0 or more.
        seed: Seed of the noise.

    Raises:
        ValueError: if a number is out of range, the shapes do not fit, or a vector has a value that
            is not finite.
    """
    for name, value, fits, allowed in (
        ("steps", steps, steps >= 1, "1 or more"),
        ("step_size", step_size, 0 < step_size < math.inf, "above 0"),
        ("smoothness", smoothness, 0 <= smoothness < math.inf, "0 or more"),
    ):
        if not fits:
            raise ValueError(f"`{name}` must be finite and {allowed}, got {value}")
    if vectors.ndim != 2 or not len(vectors):
        raise ValueError(f"`vectors` must be (N, D) with an image, got {tuple(vectors.shape)}")
    _check_finite("vectors", vectors)
    noise = torch.randn(image_shape, generator=named_generator(seed, "start of an inversion"))
    images = (0.5 + NOISE * noise).clamp(0, 1).to(vectors).repeat(len(vectors), 1, 1, 1)
    with torch.inference_mode(False), torch.enable_grad():
        images, vectors = images.clone().requires_grad_(), vectors.detach().clone()
        first = vectors_of(images.detach())
        if first.shape != vectors.shape:
            raise ValueError(
                f"`vectors_of` must return {tuple(vectors.shape)}, the shape of `vectors`, got "
                f"{tuple(first.shape)}"
            )
        _check_finite("vectors_of", first)
        adam = torch.optim.Adam([images], step_size)
        for _ in range(steps):
            loss = (vectors_of(images) - vectors).square().mean(1).sum()
            loss = loss + smoothness * total_variation(images) / images[0].numel()
            (images.grad,) = torch.autograd.grad(loss, images)
            adam.step()
            with torch.no_grad():
                images.clamp_(0, 1)
    _check_finite("vectors_of", images)
    return images.detach()


def _check_finite(name: str, values: Tensor) -> None:
    broken = ~values.isfinite().flatten(1).all(1)
    if broken.any():
        row = int(broken.nonzero()[0])
        raise ValueError(f"`{name}` must be finite; for image {row} it is not")
