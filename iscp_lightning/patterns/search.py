"""The pattern search: Algorithm 1 of Zhao et al. 2021 for all (class, canvas) problems together.

A step mixes B images into each of the P canvases, runs one forward over all P x B mixtures and
takes one gradient with respect to the masks alone. The classifier is in eval mode and the losses
are summed, so every problem goes exactly where it would go on its own.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import get_args

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from tqdm.auto import tqdm

from iscp_lightning.classifiers.frozen import full_fp32
from iscp_lightning.classifiers.prepared import Precision, prepare
from iscp_lightning.data.images import to_float
from iscp_lightning.patterns.canvas import Canvases, CanvasKind
from iscp_lightning.patterns.mixing import mix
from iscp_lightning.patterns.pool import SearchPool
from iscp_lightning.seeds import named_generator


@dataclass(frozen=True)
class SearchSettings:
    """Settings of Algorithm 1; the defaults are the paper's (appendix A).

    Attributes:
        sparsity: alpha, the weight of the mask's mean in Eq. (2): one number, or one per class of
            the data set. The first author's published code amounts to 8.
        step_size: eta, what a mask value moves per step.
        search_epochs: T, passes over the search images.
        search_batch_size: B, images per problem and step.
        canvas: Which images are canvases: `positive`, `negative`, `random` or `white`.
        canvases_per_class: N; the white canvas is one whatever N.
        precision: `fp32`, or `bf16` for speed.
        micro_batch_size: Most images in one forward pass, at least `search_batch_size`; bounds the
            memory.
        seed: Root seed of image order and random canvases; None is the data module's, else 0.

    Raises:
        ValueError: if a number is out of its range.
    """

    sparsity: float | list[float] = 0.2
    step_size: float = 0.02
    search_epochs: int = 5
    search_batch_size: int = 4
    canvas: CanvasKind = "positive"
    canvases_per_class: int = 5
    precision: Precision = "fp32"
    micro_batch_size: int = 128
    seed: int | None = None

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
        if not 0 < self.step_size <= 1:
            raise ValueError(f"`step_size` must lie in (0, 1], got {self.step_size}")
        if self.seed is not None and self.seed < 0:
            raise ValueError(f"`seed` must be 0 or more, got {self.seed}")
        for name, kinds in (("canvas", get_args(CanvasKind)), ("precision", get_args(Precision))):
            if getattr(self, name) not in kinds:
                raise ValueError(
                    f"`{name}` must be one of {', '.join(kinds)}, got {getattr(self, name)!r}"
                )

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


class PatternSearch:
    """The batched engine: gradients and objectives of Eq. (2) for the problems a process owns.

    A variant that optimises or penalises something else overrides `losses`.

    Args:
        frozen: Frozen classifier on the device of the pool.
        canvases: All P problems, also those of other processes.
        pool: The search images.
        settings: The search's settings.
        num_classes: Number of classes, for `sparsity` lists.
        owned: Which problems this process optimises; None means all.
        problems_per_forward: Problems in one forward pass; None balances them under
            `micro_batch_size`. In bf16 passes are padded to it, so that results depend on nothing
            else.

    Raises:
        ValueError: if the pool has no image for a problem.
    """

    def __init__(
        self,
        frozen: nn.Module,
        canvases: Canvases,
        pool: SearchPool,
        settings: SearchSettings,
        num_classes: int,
        owned: Sequence[int] | None = None,
        problems_per_forward: int | None = None,
    ) -> None:
        self.device = pool.images.device
        self.network = prepare(frozen, settings.precision, to_float(pool.images[:4]))
        self.settings = settings
        self.pool = pool
        self.canvases = canvases
        self.sparsity = settings.sparsity_of(canvases.targets, num_classes).to(self.device)
        self.targets = canvases.targets.to(self.device)
        self._canvas_pixels = canvases.images.to(self.device)
        count = len(canvases.targets)
        self.owned = torch.tensor(list(range(count)) if owned is None else list(owned)).long()
        fitting = settings.micro_batch_size // settings.search_batch_size
        balanced = math.ceil(count / max(1, math.ceil(count / fitting)))
        self.problems_per_forward = problems_per_forward or max(1, balanced)
        self._candidates = [self._pool_rows(problem) for problem in range(count)]
        batches = [math.ceil(len(c) / settings.search_batch_size) for c in self._candidates]
        if batches and min(batches) == 0:
            target = int(canvases.targets[batches.index(0)])
            raise ValueError(
                f"no search image is left for class {target}: "
                "increase `search_fraction` or the test set"
            )
        self.steps_of_problems = torch.tensor(batches)
        self.steps_per_epoch = max(batches, default=0)
        self._order: tuple[int, Tensor] = (-1, torch.empty(0))

    @property
    def initial_masks(self) -> Tensor:
        """(P, H, W) masks of 0.5."""
        shape = self.canvases.images.shape
        return torch.full((shape[0], *shape[2:]), 0.5, device=self.device)

    @full_fp32()
    def step(
        self,
        masks: Tensor,
        mask_sums: Tensor,
        optimizer: torch.optim.Optimizer,
        at: tuple[int, int],
    ) -> Tensor:
        """Make one step of every owned problem that still has images in this pass.

        Args:
            masks: (P, H, W) leaf tensor held by `optimizer`; owned rows change.
            mask_sums: (P, H, W); after the steps of the last pass the new masks are added to it.
            optimizer: What turns gradients into an update.
            at: (pass, step within the pass), both from 0.

        Returns:
            (number of active problems,) float32 losses per image before the update.

        Raises:
            ValueError: if a loss is NaN; names the class.
        """
        epoch, step = at
        size = self.settings.search_batch_size
        batches = self._pass_order(epoch)[:, step * size : (step + 1) * size]  # (owned, B)
        active = batches[:, 0] >= 0
        rows, batches = self.owned[active], batches[active]
        masks.grad = torch.zeros_like(masks)
        losses = [
            self._gradient(masks, masks.grad, some_rows, some_batches)
            for some_rows, some_batches in zip(
                rows.split(self.problems_per_forward),
                batches.split(self.problems_per_forward),
                strict=True,
            )
            if len(some_rows)
        ]
        loss = torch.cat(losses) if losses else torch.zeros(0, device=self.device)
        self._require_finite(rows, loss)
        optimizer.step()
        if epoch == self.settings.search_epochs - 1:
            mask_sums[rows] += masks.detach()[rows]
        return loss

    def losses(self, masks: Tensor, rows: Tensor, images: Tensor) -> Tensor:
        """Return Eq. (2) for each mixed image.

        Args:
            masks: (r, H, W) masks of the problems `rows`.
            rows: (r,) problem numbers.
            images: float32 (r, B, C, H, W) in [0, 1].

        Returns:
            (r, B) float32: -log f_y(mixture) + alpha * mean(m).
        """
        canvas = to_float(self._canvas_pixels[rows]).unsqueeze(1)
        mixed = mix(masks.unsqueeze(1), canvas, images).flatten(0, 1)  # (r * B, C, H, W)
        targets = self.targets[rows].repeat_interleave(images.shape[1])
        cross_entropy = F.cross_entropy(self.network(mixed).float(), targets, reduction="none")
        penalty = self.sparsity[rows] * masks.mean((1, 2))
        return cross_entropy.view(len(rows), -1) + penalty.unsqueeze(1)

    @full_fp32()
    @torch.no_grad()
    def objectives(self, masks: Tensor, progress: bool = False) -> Tensor:
        """Return the mean of Eq. (2) over each owned problem's search images, float32 (P,).

        Rows of other processes are 0.

        Args:
            masks: (P, H, W).
            progress: Whether to show a progress bar.

        Raises:
            ValueError: if an objective is NaN; names the class.
        """
        result = torch.zeros(len(masks), device=self.device)
        for problem in tqdm(self.owned.tolist(), desc="objectives", disable=not progress):
            row = torch.tensor([problem])
            losses = [
                self.losses(masks.detach()[row], row, to_float(self.pool.images[chunk])[None])
                for chunk in self._candidates[problem].split(self.settings.micro_batch_size)
            ]
            result[problem] = torch.cat(losses, dim=1).cpu().double().mean()
        self._require_finite(self.owned, result[self.owned])
        return result

    def _require_finite(self, rows: Tensor, losses: Tensor) -> None:
        broken = rows[losses.isnan().cpu()]
        if len(broken):
            raise ValueError(
                f"the search for class {int(self.canvases.targets[broken[0]])} met NaN logits: "
                "the classifier is not finite on mixed images"
            )

    def _gradient(self, masks: Tensor, gradient: Tensor, rows: Tensor, batches: Tensor) -> Tensor:
        count = len(rows)
        if self.settings.precision == "bf16":
            padding = self.problems_per_forward - count
            rows = torch.cat([rows, rows[-1:].expand(padding)])
            batches = torch.cat([batches, batches[-1:].expand(padding, -1)])
        images = to_float(self.pool.images[batches.clamp(min=0)])  # (r, B, C, H, W)
        chosen = masks.detach()[rows].requires_grad_()
        with torch.enable_grad():
            losses = self.losses(chosen, rows, images)
            losses = torch.where((batches >= 0).to(self.device), losses, 0)
            (chosen_gradient,) = torch.autograd.grad(losses.sum(), chosen)
        gradient[rows[:count]] = chosen_gradient[:count]
        counts = (batches >= 0).sum(1).to(self.device)
        return (losses.detach().sum(1) / counts)[:count]

    def _pool_rows(self, problem: int) -> Tensor:
        target, canvas = self.canvases.targets[problem], self.canvases.indices[problem]
        allowed = (self.pool.labels != target) & (self.pool.indices != canvas)
        return allowed.nonzero().squeeze(1)

    def _pass_order(self, epoch: int) -> Tensor:
        """Return (owned, steps * B) pool rows of pass `epoch`, -1 where a problem idles."""
        if self._order[0] != epoch:
            width = self.steps_per_epoch * self.settings.search_batch_size
            order = torch.full((len(self.owned), width), -1)
            for row, problem in enumerate(self.owned.tolist()):
                target = int(self.canvases.targets[problem])
                canvas = int(self.canvases.indices[problem]) + 1
                generator = named_generator(
                    self.settings.seed or 0, "search images", target, canvas, epoch
                )
                candidates = self._candidates[problem]
                shuffled = torch.randperm(len(candidates), generator=generator)
                order[row, : len(candidates)] = candidates[shuffled]
            self._order = (epoch, order)
        return self._order[1]
