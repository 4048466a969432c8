"""SearchSettings: how patterns are searched, whatever the variant."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass, replace
from typing import Any, Literal, NamedTuple, get_args

import torch
from torch import Tensor

from iscp_lightning.classifiers.prepared import Precision
from iscp_lightning.patterns.variants.algorithm1 import Algorithm1
from iscp_lightning.patterns.variants.base import Variant

CanvasKind = Literal["positive", "negative", "random", "white"]
ScheduleName = Literal["paper", "quick"]
TOGETHER = {"fp32": 128, "bf16": 256}  # mixtures that a forward pass is fastest with, about


class Schedule(NamedTuple):
    """How far and how often a search steps.

    Attributes:
        search_epochs: T, passes over the search images.
        search_batch_size: B, images per problem and step.
        step_size: eta, what a mask value moves per step.
        final_step_size: What it moves in the last step, with a linear fall up to there; None keeps
            `step_size` to the end.
    """

    search_epochs: int
    search_batch_size: int
    step_size: float
    final_step_size: float | None = None

    def step_size_at(self, progress: float) -> float:
        """Return eta at a share of the search in [0, 1]."""
        if self.final_step_size is None:
            return self.step_size
        return self.step_size + progress * (self.final_step_size - self.step_size)


SCHEDULES: dict[ScheduleName, Schedule] = {
    "paper": Schedule(5, 4, 0.02),
    "quick": Schedule(2, 2, 0.03, 0.001),  # 40 % of the evaluations: docs/method.md
}


@dataclass(frozen=True)
class SearchSettings:
    """Settings of a search; the defaults are the paper's (appendix A).

    Attributes:
        sparsity: alpha, the weight of the mask's mean in Eq. (2): one number, or one per class of
            the data set. The first author's published code amounts to 8.
        schedule: How far and how often it steps: `paper` (five passes over the search images, four
            images a step, a step size of 0.02), or `quick` (two passes, two images, from 0.03 down
            to 0.001), 40 % of the evaluations. The next four change it where they are given.
        step_size: eta, what a mask value moves per step.
        final_step_size: What it moves in the last step, with a linear fall up to there.
        search_epochs: T, passes over the search images.
        search_batch_size: B, images per problem and step.
        canvas: Which images are canvases: `positive`, `negative`, `random` or `white`.
        canvases_per_class: N; the white canvas is one whatever N.
        precision: `fp32`, or `bf16` for speed.
        micro_batch_size: Most images in one forward pass, at least B; bounds the memory. None is
            128 in fp32, 256 in bf16.
        seed: Root seed of image order and random canvases; None is the data module's, else 0.
        variant: What is optimised, penalised and pasted; None is the paper's Algorithm 1.
        winner_size: Pattern size at which the canvases of a class compete: the one whose pattern
            has the lowest cross-entropy for the class when it is pasted on the search images wins.
            None is the paper's rule: the lowest mean of what was minimised, of the whole mask. With
            one canvas, such as the white one, nothing changes but the objective.

    Raises:
        ValueError: if a number is out of its range.
    """

    sparsity: float | list[float] = 0.2
    schedule: ScheduleName = "paper"
    step_size: float | None = None
    final_step_size: float | None = None
    search_epochs: int | None = None
    search_batch_size: int | None = None
    canvas: CanvasKind = "positive"
    canvases_per_class: int = 5
    precision: Precision = "fp32"
    micro_batch_size: int | None = None
    seed: int | None = None
    variant: Variant | None = None
    winner_size: float | None = None

    def __post_init__(self) -> None:
        for name, words in (
            ("canvas", get_args(CanvasKind)),
            ("precision", get_args(Precision)),
            ("schedule", get_args(ScheduleName)),
        ):
            if getattr(self, name) not in words:
                raise ValueError(
                    f"`{name}` must be one of {', '.join(words)}, got {getattr(self, name)!r}"
                )
        for name in (
            "search_epochs",
            "search_batch_size",
            "canvases_per_class",
            "micro_batch_size",
        ):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise ValueError(f"`{name}` must be 1 or more, got {value}")
        if self.images_per_forward < self.course.search_batch_size:
            raise ValueError(
                "`micro_batch_size` must be at least `search_batch_size` "
                f"({self.course.search_batch_size}), got {self.images_per_forward}"
            )
        sparsities = self.sparsity if isinstance(self.sparsity, list) else [self.sparsity]
        if not sparsities or not all(0 <= value < math.inf for value in sparsities):
            raise ValueError(f"`sparsity` must be finite and 0 or more, got {self.sparsity}")
        for name in ("step_size", "final_step_size", "winner_size"):
            value = getattr(self, name)
            if value is not None and not 0 < value <= 1:
                raise ValueError(f"`{name}` must lie in (0, 1], got {value}")
        if not isinstance(self.variant, Variant | None):
            raise ValueError(f"`variant` must be a search variant, got {self.variant!r}")
        if self.seed is not None and self.seed < 0:
            raise ValueError(f"`seed` must be 0 or more, got {self.seed}")

    @property
    def method(self) -> Variant:
        """The variant, Algorithm 1 where none is given."""
        return self.variant or Algorithm1()

    @property
    def course(self) -> Schedule:
        """The named schedule with what was given besides."""
        given = {name: getattr(self, name) for name in Schedule._fields}
        values = {name: value for name, value in given.items() if value is not None}
        return SCHEDULES[self.schedule]._replace(**values)

    @property
    def canvases_expected(self) -> int:
        """How many canvases a class gets, where there are enough."""
        return self.canvases_per_class if self.method.needs_canvas and self.canvas != "white" else 1

    @property
    def images_per_forward(self) -> int:
        """Most images in one forward pass."""
        return self.micro_batch_size or TOGETHER[self.precision]

    def seeded(self, root_seed: int) -> SearchSettings:
        """Return the settings with a seed: their own, or else the given one."""
        return replace(self, seed=root_seed) if self.seed is None else self

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
        chosen = self.course._asdict() | {"micro_batch_size": self.images_per_forward}
        values = asdict(replace(self, variant=None))
        if self.winner_size is None:  # as in files from before there was one
            del values["winner_size"]
        return values | chosen | {"variant": self.method.describe()}
