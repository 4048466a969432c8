"""Variant: what a search optimises, penalises and pastes; the engine does all the rest."""

from __future__ import annotations

import inspect
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from iscp_lightning.data.stamps import Stamp

Variables = Mapping[str, Tensor]


class Problems(NamedTuple):
    """The (class, canvas) problems of one forward pass.

    Attributes:
        canvases: float32 (r, C, H, W) in [0, 1].
        targets: (r,) int64 target classes.
        sparsity: (r,) float32, alpha.
        progress: Share of the search's steps that are made, in [0, 1); 1 for final objectives.
    """

    canvases: Tensor
    targets: Tensor
    sparsity: Tensor
    progress: float


class Outcome(NamedTuple):
    """How all P problems of a search did in a pass, the same on every process, on the CPU.

    Attributes:
        targets: (P,) int64 target classes.
        losses: (P,) float64, mean of what was minimised; NaN for problems that were dropped.
        successes: (P,) float64, share of the mixtures taken for the target; NaN likewise.
        owned: (n,) int64, the problems whose variables this process holds, in their order.
        progress: Share of the search's steps that are made, in (0, 1].
    """

    targets: Tensor
    losses: Tensor
    successes: Tensor
    owned: Tensor
    progress: float


class Variant(ABC):
    """One way to search patterns.

    A subclass in a file of its own is all that a new way takes; constructor arguments, plain values
    kept in attributes of their names, become options. The engine sums losses over problems, which
    must not influence one another, and keeps the variables of problems that idle or are dropped as
    they are. What an optimiser counts for all problems together, such as Adam's steps, goes on.

    Attributes:
        needs_canvas: Whether there is one problem per class and canvas; otherwise there is one per
            class, whose canvas is white and not used.
        joint: Whether the canvases of a class are one problem; `variables` is given them stacked
            along the channels, (P, n * C, H, W), all else the first of them.
        searched_sizes: The pattern sizes that it searches for, if it does; for another one it only
            ranks pixels, as it does for the nearest of these.
        averaged: Names of the variables whose means over the last pass are kept for `pasted`.
    """

    needs_canvas = True
    joint = False
    searched_sizes: Sequence[float] = ()
    averaged: Sequence[str] = ()

    @abstractmethod
    def variables(self, canvases: Tensor) -> dict[str, Tensor]:
        """Return what the problems start with, by name: float tensors (P, ...), on the device.

        Those that nothing optimises, such as a weight that `react` changes, are among them.

        Args:
            canvases: float32 (P, C, H, W) in [0, 1].
        """

    @abstractmethod
    def stamps(self, variables: Variables, problems: Problems) -> Stamp:
        """Return what turns images into mixtures: M stamps a problem.

        Args:
            variables: Those of the r problems; differentiate through them.
            problems: The problems.

        Returns:
            Mask (r, M, 1, H, W) and pixels (r, M, C, H, W) or what broadcasts to them.
        """

    def loss(self, logits: Tensor, targets: Tensor, progress: float) -> Tensor:
        """Return what is minimised for each mixture, (n,) float32: the cross-entropy.

        Args:
            logits: float32 (n, K), of mixtures.
            targets: (n,) int64 target classes.
            progress: As in `Problems`.
        """
        del progress
        return F.cross_entropy(logits, targets, reduction="none")

    def penalty(self, variables: Variables, problems: Problems) -> Tensor:
        """Return what is added to the loss, (r,) float32."""
        del variables
        return torch.zeros_like(problems.sparsity)

    @abstractmethod
    def optimizer(self, variables: Variables, step_size: float) -> torch.optim.Optimizer:
        """Return what updates the variables and keeps them where they may be.

        Args:
            variables: Of all problems that the process owns.
            step_size: eta; where it falls in the course of the search, the engine lowers the
                learning rate of every group with it.
        """

    def after_step(self, variables: Variables, progress: float) -> None:
        """Change variables in place after an update; those of problems that idle stay as they are.

        Args:
            variables: Those of all problems that the process owns.
            progress: As in `Problems`, of the step that was made.
        """

    def react(self, outcome: Outcome, variables: Variables) -> Tensor | None:
        """React to a pass: change variables in place, or drop problems.

        Args:
            outcome: How all problems did.
            variables: Those of `outcome.owned`.

        Returns:
            Which problems go on, (P,) bool; None for all.
        """

    @abstractmethod
    def pasted(
        self, variables: Variables, means: Variables, canvases: Tensor, sizes: Sequence[float]
    ) -> Stamp:
        """Return the patterns: what is pasted on images once the search is over.

        Args:
            variables: Final variables of P problems.
            means: Of those in `averaged`, the mean over the last pass.
            canvases: uint8 (P, C, H, W).
            sizes: S pattern sizes, shares of the pixels.

        Returns:
            Mask (P, S, 1, H, W) and pixels (P, S, C, H, W) or what broadcasts to them.

        Raises:
            ValueError: if a size selects no pixel.
        """

    def describe(self) -> dict[str, Any]:
        """Return its name and constructor arguments as plain values, for files.

        Every argument is taken from the attribute of its name.
        """
        arguments = inspect.signature(type(self)).parameters
        return {"name": type(self).__name__} | {name: getattr(self, name) for name in arguments}


def variant_named(described: Mapping[str, Any]) -> Variant:
    """Return the variant that `describe` described, from the classes that are loaded.

    Raises:
        ValueError: if no loaded class has the name: nothing is imported because a file says so.
    """
    arguments = dict(described)
    name = arguments.pop("name")
    known = {cls.__name__: cls for cls in _subclasses(Variant)}
    if name not in known:
        raise ValueError(
            f"the search variant {name!r} is not loaded; known are {', '.join(sorted(known))}: "
            "import the file that defines it"
        )
    variant: Variant = known[name](**arguments)
    return variant


def _subclasses(cls: type[Any]) -> list[type[Any]]:
    return [c for child in cls.__subclasses__() for c in (child, *_subclasses(child))]
