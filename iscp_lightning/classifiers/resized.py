"""Resized: a trained classifier for images of another size than its own."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from iscp_lightning.classifiers.checkpoints import load_trained


class Resized(nn.Module):
    """A trained classifier that is shown images of any size at the size that it was built for.

    Args:
        classifier: A weights file, the name of a timm network with trained weights, or any module
            from images in [0, 1] to logits.
        image_size: Height and width that images get, an int for both; bilinear, and antialiased
            where they shrink.
        num_classes: Number of logits of a network given by name.

    Raises:
        ValueError: if a size is below 1, or as `load_trained`.
    """

    def __init__(
        self,
        classifier: str | nn.Module,
        image_size: int | tuple[int, int] = 224,
        num_classes: int = 1000,
    ) -> None:
        super().__init__()
        self.image_size = (image_size, image_size) if isinstance(image_size, int) else image_size
        if min(self.image_size) < 1:
            raise ValueError(f"`image_size` must be 1 or more, got {image_size}")
        self.classifier = load_trained(classifier, None, num_classes, image_size)

    def forward(self, images: Tensor) -> Tensor:
        """Return logits (N, K) of images (N, C, H, W) in [0, 1]."""
        resized = F.interpolate(
            images.float(),  # on a CPU there is no antialiasing in bf16
            size=self.image_size,
            mode="bilinear",
            align_corners=False,
            antialias=True,
        )
        logits: Tensor = self.classifier(resized.clamp(0, 1).to(images.dtype))
        return logits
