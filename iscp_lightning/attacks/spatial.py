"""Spatially transformed adversarial examples (stAdv, Xiao et al. 2018): pixels move, not change."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Generator, Tensor, nn

from iscp_lightning.attacks.pgd import Attack

NEARLY_ZERO = 1e-8  # under a square root, whose gradient at zero is infinite


@dataclass(frozen=True)
class StAdv(Attack):
    """A flow field for each image, along which its pixels are read from elsewhere.

    Adam's steps raise the cross-entropy and lower the flow's roughness. The paper takes L-BFGS, no
    limit, and instead of the cross-entropy a margin of logits, whose gradients are larger: hence
    its `smoothness` of 0.05. Images may leave every ball of pixel values, yet look alike.

    Attributes:
        max_flow: The most that a pixel is moved, in pixels.
        smoothness: Weight of the roughness, the paper's tau.
        learning_rate: Of Adam, in pixels.
        steps: Number of steps.

    Raises:
        ValueError: if a number is out of range.
    """

    max_flow: float = 1.0
    smoothness: float = 0.0005
    learning_rate: float = 0.1
    steps: int = 20

    def __post_init__(self) -> None:
        for name, least in (("max_flow", 0), ("smoothness", 0), ("learning_rate", 0), ("steps", 1)):
            value = getattr(self, name)
            if not least <= value < float("inf"):
                raise ValueError(f"`{name}` must be finite and {least} or more, got {value}")

    def __call__(
        self,
        classifier: nn.Module,
        images: Tensor,
        labels: Tensor,
        generator: Generator | None = None,
    ) -> Tensor:
        """Return the images with their pixels moved by at most `max_flow`; nothing is drawn."""
        del generator
        return moved(images, self.flow(classifier, images, labels))

    def flow(self, classifier: nn.Module, images: Tensor, labels: Tensor) -> Tensor:
        """Return where from each pixel is read, (N, 2, H, W): pixels to the right, then down."""
        with torch.inference_mode(False), torch.enable_grad():
            images, labels = images.detach().clone(), labels.clone()
            flow = images.new_zeros(len(images), 2, *images.shape[2:]).requires_grad_()
            optimizer = torch.optim.Adam([flow], lr=self.learning_rate)
            for _ in range(self.steps):
                logits = classifier(moved(images, flow))
                loss = self.smoothness * roughness(flow).sum()
                loss = loss - F.cross_entropy(logits, labels, reduction="sum")
                (flow.grad,) = torch.autograd.grad(loss, flow)
                optimizer.step()
                with torch.no_grad():
                    flow.copy_(limited(flow, self.max_flow))
        return flow.detach()


def moved(images: Tensor, flow: Tensor) -> Tensor:
    """Return each pixel read from where the flow points, bilinearly, from the border outside.

    Args:
        images: float (N, C, H, W) in [0, 1].
        flow: (N, 2, H, W), pixels to the right and down.
    """
    height, width = images.shape[2:]
    identity = torch.eye(2, 3, dtype=flow.dtype, device=flow.device).expand(len(images), 2, 3)
    grid = F.affine_grid(identity, list(images.shape), align_corners=False)
    sides = flow.new_tensor([2 / width, 2 / height])  # of a pixel, in the grid's units
    grid = grid + flow.permute(0, 2, 3, 1) * sides
    read: Tensor = F.grid_sample(images, grid, padding_mode="border", align_corners=False)
    return read.clamp(0, 1)


def limited(flow: Tensor, max_flow: float) -> Tensor:
    """Return the nearest flow (N, 2, H, W) that moves no pixel by more than `max_flow`."""
    lengths: Tensor = torch.linalg.vector_norm(flow, dim=1, keepdim=True)
    return flow * (max_flow / lengths.clamp(min=torch.finfo(flow.dtype).tiny)).clamp(max=1)


def roughness(flow: Tensor) -> Tensor:
    """Return the summed distances of each pixel's flow to that of its four neighbours, (N,)."""
    pairs = [flow.diff(dim=2), flow.diff(dim=3)]  # each counts for both of its pixels
    distances = [(pair.square().sum(1) + NEARLY_ZERO).sqrt().flatten(1).sum(1) for pair in pairs]
    return 2 * (distances[0] + distances[1])
