"""SearchSettings: how patterns are searched, whatever the variant."""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from typing import Any, Literal, get_args

import torch
from torch import Tensor

from iscp_lightning.classifiers.prepared import Precision
from iscp_lightning.patterns.variants.algorithm1 import Algorithm1
from iscp_lightning.patterns.variants.base import Variant

CanvasKind = Literal["positive", "negative", "random", "white"]


@dataclass(frozen=True)
class SearchSettings:
    """Settings of a search; the defaults are the paper's (appendix A).

    Attributes:
        sparsity: alpha, the weight of the mask's mean in Eq. (2): one number, or one per class of
            the data set. The first author's published code amounts to 8.
        step_size: eta, what a mask value moves per step.
        final_step_size: What it moves in the last step, with a linear fall up to there; None keeps
            `step_size` to the end. The fall counts the steps of the problem that has most, so that
            with it masks depend a little on which classes are searched together.
        search_epochs: T, passes over the search images.
        search_batch_size: B, images per problem and step.
        canvas: Which images are canvases: `positive`, `negative`, `random` or `white`.
        canvases_per_class: N; the white canvas is one whatever N.
        precision: `fp32`, or `bf16` for speed.
        micro_batch_size: Most images in one forward pass, at least `search_batch_size`; bounds the
            memory.
        seed: Root seed of image order and random canvases; None is the data module's, else 0.
        variant: What is optimised, penalised and pasted; None is the paper's Algorithm 1.

    Raises:
        ValueError: if a number is out of its range.
    """

    sparsity: float | list[float] = 0.2
    step_size: float = 0.02
    final_step_size: float | None = None
    search_epochs: int = 5
    search_batch_size: int = 4
    canvas: CanvasKind = "positive"
    canvases_per_class: int = 5
    precision: Precision = "fp32"
    micro_batch_size: int = 128
    seed: int | None = None
    variant: Variant | None = None

    def __post_init__(self) -> None:
        for name in (
            "search_epochs",
            "search_batch_size",
            "canvases_per_class",
            "micro_batch_size",
        ):
            if getattr(self, name) < 1:
                raise ValueError(f"`{name}` must be 1 or more, got {getattr(self, name)}")
        if self.micro_batch_size < self.search_batch_size:
            raise ValueError(
                "`micro_batch_size` must be at least `search_batch_size` "
                f"({self.search_batch_size}), got {self.micro_batch_size}"
            )
        sparsities = self.sparsity if isinstance(self.sparsity, list) else [self.sparsity]
        if not sparsities or any(value < 0 for value in sparsities):
            raise ValueError(f"`sparsity` must be 0 or more, got {self.sparsity}")
        for name in ("step_size", "final_step_size"):
            value = getattr(self, name)
            if value is not None and not 0 < value <= 1:
                raise ValueError(f"`{name}` must lie in (0, 1], got {value}")
        if self.seed is not None and self.seed < 0:
            raise ValueError(f"`seed` must be 0 or more, got {self.seed}")
        for name, kinds in (("canvas", get_args(CanvasKind)), ("precision", get_args(Precision))):
            if getattr(self, name) not in kinds:
                raise ValueError(
                    f"`{name}` must be one of {', '.join(kinds)}, got {getattr(self, name)!r}"
                )

    @property
    def method(self) -> Variant:
        """The variant, Algorithm 1 where none is given."""
        return self.variant or Algorithm1()

    def seeded(self, root_seed: int) -> SearchSettings:
        """Return the settings with a seed: their own, or else the given one."""
        return replace(self, seed=root_seed) if self.seed is None else self

    def step_size_at(self, progress: float) -> float:
        """Return eta at a share of the search in [0, 1]."""
        if self.final_step_size is None:
            return self.step_size
        return self.step_size + progress * (self.final_step_size - self.step_size)

    def sparsity_of(self, targets: Tensor, num_classes: int) -> Tensor:
        """Return alpha for each target class, float32, same shape as `targets`.

        Raises:
            ValueError: if `sparsity` lists another number of values than there are classes.
        """
        if not isinstance(self.sparsity, list):
            return torch.full(targets.shape, float(self.sparsity))
        if len(self.sparsity) != num_classes:
            raise ValueError(
                f"`sparsity` must be one number or one per class ({num_classes}), "
                f"got {len(self.sparsity)}"
            )
        return torch.tensor(self.sparsity)[targets]

    def plain(self) -> dict[str, Any]:
        """Return the settings as plain values, the variant by its name and what it was given."""
        return asdict(replace(self, variant=None)) | {"variant": self.method.describe()}
