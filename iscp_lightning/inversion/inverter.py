"""Inverter: a frozen classifier, and a generator that turns what it says back into images."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from iscp_lightning.classifiers.frozen import full_fp32, module_device
from iscp_lightning.inversion.conditioning import (
    CHUNK,
    Answers,
    Condition,
    Standardisation,
    answers_of,
    answers_to,
)
from iscp_lightning.inversion.generator import Generator
from iscp_lightning.seeds import named_generator


@dataclass(frozen=True)
class Inverter:
    """A trained inversion of a classifier; everything in eval mode.

    Attributes:
        classifier: The frozen classifier.
        generator: Makes images of standardised vectors and noise.
        standardise: Brings the classifier's vectors into the generator's units.
        condition: Which vectors: `logits`, `features` or `one_hot`.
        seed: Root seed of the noise.
    """

    classifier: nn.Module
    generator: Generator
    standardise: Standardisation
    condition: Condition = "logits"
    seed: int = 0

    @property
    def device(self) -> torch.device:
        """Where it computes."""
        return module_device(self.generator)

    def answers(self, images: Tensor) -> Answers:
        """Return what the classifier says of float images (N, C, H, W) in [0, 1], on the CPU."""
        return Answers(*(e.cpu() for e in answers_to(self.classifier, images, self.condition)))

    def standardised_vectors(self, images: Tensor) -> Tensor:
        """Return vectors as the generator gets them, on the device; gradients flow."""
        vectors: Tensor = self.standardise(
            answers_of(self.classifier, images, self.condition).vectors
        )
        return vectors

    @torch.no_grad()
    @full_fp32()
    def images(self, vectors: Tensor, draw: int = 0) -> Tensor:
        """Return the images of raw vectors, float (N, C, H, W) in [0, 1], on the CPU.

        Args:
            vectors: float (N, D), as `answers` returns them, or changed.
            draw: Which noise: vectors at the same position get the same of the same draw.
        """
        noise = self.noise(len(vectors), draw)
        with torch.autocast(self.device.type, enabled=False):
            return torch.cat(
                [
                    self.generator(self.standardise(v.to(self.device)), n.to(self.device)).cpu()
                    for v, n in zip(vectors.split(CHUNK), noise.split(CHUNK), strict=True)
                ]
            )

    def reconstruct(self, images: Tensor, draw: int = 0) -> Tensor:
        """Return what images (N, C, H, W) in [0, 1] become through the classifier and back."""
        return self.images(self.answers(images).vectors, draw)

    def noise(self, count: int, draw: int = 0) -> Tensor:
        """Return noise, standard normal (count, noise_size); a smaller count has its beginning."""
        generator, size = named_generator(self.seed, "inversion", draw), self.generator.noise_size
        chunks = range(0, count, CHUNK)  # of one size each: what is drawn depends on how much is
        return torch.cat([torch.randn(CHUNK, size, generator=generator) for _ in chunks])[:count]
