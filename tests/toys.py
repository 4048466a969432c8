"""Classifiers whose best pattern is known by hand."""

from collections.abc import Callable

import torch
from torch import Tensor, nn

from iscp_lightning.classifiers.subject import Subject
from iscp_lightning.data.images import ImageSet
from iscp_lightning.patterns import PatternSearch


class Linear(nn.Module):
    """Logits (N, K) = scale * sum of the pixels weighed by K maps (K, H, W)."""

    def __init__(self, maps: Tensor, scale: float = 1.0) -> None:
        super().__init__()
        self.maps = nn.Parameter(maps)
        self.scale = scale

    def forward(self, images: Tensor) -> Tensor:
        return self.scale * torch.einsum("nchw,khw->nk", images, self.maps)


def planted_trigger(size: int = 8) -> tuple[nn.Module, Tensor]:
    """A two-class model that says class 1 when the 2 x 2 corner is bright, and the corner."""
    corner = torch.zeros(size, size)
    corner[-2:, -2:] = 1
    maps = torch.stack([torch.full((size, size), 0.02), corner])
    return Linear(maps, scale=0.5), corner.bool()


def grey_images(count: int = 40, size: int = 8, classes: int = 2) -> tuple[Tensor, Tensor]:
    """Dark random images with balanced labels."""
    generator = torch.Generator().manual_seed(0)
    images = torch.randint(0, 120, (count, 3, size, size), generator=generator)
    return images.to(torch.uint8), torch.arange(count) % classes


def subject_of(classifier: nn.Module, images: ImageSet, seed: int = 0) -> Subject:
    """A classifier on images whose classes are numbered."""
    return Subject(
        classifier, images, list(map(str, range(int(images.labels.max()) + 1))), seed=seed
    )


def require_resumable(begin: Callable[[], PatternSearch], after: int) -> PatternSearch:
    """Check that a search goes on from its state after some steps; return one that went through."""
    whole, broken, resumed = begin(), begin(), begin()
    for _ in range(whole.total_steps):
        whole.step()
    for _ in range(after):
        broken.step()
    resumed.restore(broken.state())
    for _ in range(whole.total_steps - after):
        resumed.step()
    for search in (whole, resumed):
        search.finish()
    one, other = whole.patterns(), resumed.patterns()
    for name in ("masks", "mask_means", "objectives"):
        assert torch.equal(getattr(one, name), getattr(other, name)), name
    return whole
