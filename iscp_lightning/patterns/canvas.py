"""Canvas sampling (section 3 of the paper): which images the patterns are searched on."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from iscp_lightning.classifiers.subject import Subject
from iscp_lightning.data.images import as_eight_bits
from iscp_lightning.data.testset import difference
from iscp_lightning.patterns.pattern import PatternSet
from iscp_lightning.patterns.settings import CanvasKind
from iscp_lightning.ranks import rank_and_size
from iscp_lightning.seeds import named_generator

WHITE = -1
OUTSIDE = -2  # and below: images that are not from the test set
GIVEN = "given"


class Canvases(NamedTuple):
    """The P search problems: one (class, canvas) pair each, those of a class together.

    Attributes:
        kind: `positive`, `negative`, `random`, `white` or `given`.
        targets: (P,) int64 target class.
        indices: (P,) int64 canvas position in the test set; -1 is the white canvas, below it are
            images from elsewhere.
        images: uint8 (P, C, H, W), of canvases from elsewhere; None are read from the test set.
        others: (P, n) int64, positions of the other canvases of each problem, -1 for one that it
            has twice; None where a problem has one canvas.
    """

    kind: str
    targets: Tensor
    indices: Tensor
    images: Tensor | None = None
    others: Tensor | None = None

    @property
    def positions(self) -> Tensor:
        """(P, 1 + n) int64, positions of all canvases of each problem."""
        first = self.indices.unsqueeze(1)
        return first if self.others is None else torch.cat([first, self.others], 1)

    def chosen(self, rows: Tensor) -> Canvases:
        """Return some of the problems."""
        images, others = (
            None if part is None else part[rows] for part in (self.images, self.others)
        )
        return Canvases(self.kind, self.targets[rows], self.indices[rows], images, others)

    def read(self, subject: Subject, rows: Tensor) -> Tensor:
        """Return the canvases of some problems, uint8 (len(rows), C, H, W)."""
        if self.images is not None:
            return self.images[rows]
        shape = subject.images.pixels([0]).shape[1:]
        canvases = torch.full((len(rows), *shape), 255, dtype=torch.uint8)
        from_set = self.indices[rows] != WHITE
        if from_set.any():
            title = "reading canvases" if subject.progress else None
            canvases[from_set] = subject.images.read(self.indices[rows][from_set], title)
        return canvases


# What canvases can be given as: positions in the test set or images, which every class gets, or
# those of another search, or a pattern set (or its file), whose classes get their own again.
GivenCanvases = Sequence[int] | Tensor | Canvases | PatternSet | str


class MissingCanvasError(ValueError):
    """A class has no image that could be its canvas."""


def choose_canvases(
    subject: Subject,
    classes: Sequence[int],
    kind: CanvasKind,
    number: int,
    seed: int,
    skip_missing: bool = False,
) -> Canvases:
    """Return up to `number` canvases for each class, most confident first.

    `positive`: images of the class predicted right; `negative`: other classes' images taken for
    it, both by the class's logit; `random`: any images, drawn by (seed, class); `white`: one
    canvas of ones. Fewer candidates than `number` are used with a warning.

    Args:
        subject: The classifier and the test images.
        classes: Target classes.
        kind: Where canvases come from.
        number: N of the paper.
        seed: Fixes the random canvases.
        skip_missing: Leave classes without any candidate out, with a warning.

    Raises:
        MissingCanvasError: if a class has no candidate; names the class and kinds that would work.
    """
    targets: list[int] = []
    indices: list[int] = []
    left_out: list[str] = []
    few: list[str] = []
    for target in classes:
        candidates = _candidates(subject, target, kind, seed)[:number]
        name = subject.class_names[target]
        if len(candidates) == 0:
            if not skip_missing:
                raise MissingCanvasError(_missing(subject, target, kind))
            left_out.append(name)
        elif len(candidates) < number and kind != "white":
            few.append(f"{name} ({len(candidates)})")
        targets += [target] * len(candidates)
        indices += candidates
    _tell(
        (f"no {kind} canvas, so left out", left_out),
        (f"fewer than {number} {kind} canvases, so only these are searched", few),
    )
    return Canvases(kind, torch.tensor(targets).long(), torch.tensor(indices).long())


def joined_canvases(subject: Subject, canvases: Canvases, number: int | None = None) -> Canvases:
    """Return one problem for each class, its canvases stacked along the channels.

    Its position is the first one's. A class with fewer canvases than are stacked has them again and
    again. Those that are stacked already are returned as they are.

    Args:
        subject: The test images.
        canvases: Those of all classes.
        number: How many to stack, whichever classes are there; None means as many as one has.
    """
    if canvases.others is not None or len(canvases.targets) == 0:
        return canvases
    targets, counts = canvases.targets.unique_consecutive(return_counts=True)
    first, stacked = counts.cumsum(0) - counts, torch.arange(number or int(counts.max()))
    rows = first[:, None] + stacked % counts[:, None]  # (classes, canvases)
    images = canvases.read(subject, rows.flatten()).unflatten(0, rows.shape).flatten(1, 2)
    positions = canvases.indices[rows]
    seen = positions.unsqueeze(2) == positions.unsqueeze(1)  # among those before it
    others = positions.masked_fill(seen.tril(-1).any(2), WHITE)[:, 1:]
    return Canvases(canvases.kind, targets, positions[:, 0], images, others)


def given_canvases(
    subject: Subject,
    classes: Sequence[int],
    given: GivenCanvases,
    skip_missing: bool = False,
    joint: bool = False,
) -> Canvases:
    """Return given canvases as the problems of a search.

    Args:
        subject: The classifier and the test images.
        classes: Target classes.
        given: Positions in the test set or images (uint8 or float in [0, 1], (n, C, H, W)): every
            class gets them all; those of another search on these images, a pattern set or its
            file: a class gets its own.
        skip_missing: Leave classes without canvas out, with a warning.
        joint: Whether those of a class are one problem.

    Raises:
        ValueError: if a position or a shape does not fit the test images, or each pattern of a set
            is of several canvases.
        MissingCanvasError: if a pattern set has no canvas for a class.
    """
    shape = tuple(subject.images.pixels([0]).shape[1:])
    if isinstance(given, str):
        given = PatternSet.load(given)
    if isinstance(given, PatternSet):
        given = _canvases_of(given, subject, shape)
    if isinstance(given, Canvases):  # joined with all classes there: which are chosen is no matter
        given = joined_canvases(subject, given) if joint else given
        return _again(subject, classes, given, skip_missing)
    if not isinstance(given, Tensor) or given.ndim == 1:
        indices = torch.as_tensor(given).long().cpu()
        if not ((indices >= 0) & (indices < len(subject.images))).all() or len(indices) == 0:
            raise ValueError(
                f"`canvases` must be positions 0 to {len(subject.images) - 1} in the test set, "
                f"got {indices.tolist()}"
            )
        images = None
    else:
        images = as_eight_bits(given, "canvases").cpu()
        _require_shape(images, shape)
        indices = OUTSIDE - torch.arange(len(images))
        images = images.repeat(len(classes), 1, 1, 1)
    targets = torch.tensor(classes).repeat_interleave(len(indices))
    found = Canvases(GIVEN, targets, indices.repeat(len(classes)), images)
    return joined_canvases(subject, found) if joint else found


def require_single_canvases(patterns: PatternSet) -> None:
    """Raise a ValueError if each pattern is of several canvases, of which a file names only one."""
    if patterns.variant.joint:
        raise ValueError(
            f"`canvases`: a pattern of {type(patterns.variant).__name__} is of several canvases, "
            "of which its file names one; give a file of another variant"
        )


def _canvases_of(patterns: PatternSet, subject: Subject, shape: tuple[int, ...]) -> Canvases:
    """Return the canvases of patterns, which may be of another test set."""
    require_single_canvases(patterns)
    _require_shape(patterns.canvases, shape)
    known: dict[str, Any] = patterns.provenance.get("test_set", {})
    same = bool(known) and not difference(known, subject.test_set)
    indices = patterns.canvas_indices if same else OUTSIDE - torch.arange(len(patterns))
    return Canvases(GIVEN, patterns.targets, indices, patterns.canvases)


def _again(
    subject: Subject, classes: Sequence[int], canvases: Canvases, skip_missing: bool
) -> Canvases:
    order = torch.arange(len(canvases.targets))
    rows = [order[canvases.targets == target] for target in classes]
    missing = [subject.class_names[c] for c, r in zip(classes, rows, strict=True) if len(r) == 0]
    if missing and not skip_missing:
        raise MissingCanvasError(f"`canvases` has none for {', '.join(missing)}")
    _tell(("no given canvas, so left out", missing))
    return canvases.chosen(torch.cat([order[:0], *rows]))._replace(kind=GIVEN)


def _require_shape(images: Tensor, shape: tuple[int, ...]) -> None:
    if tuple(images.shape[1:]) != shape:
        raise ValueError(
            f"`canvases` are {tuple(images.shape[1:])}, the test images {shape}: "
            "(channels, height, width) must agree"
        )


def _tell(*warned: tuple[str, Sequence[str]]) -> None:
    for text, names in warned:
        if names and rank_and_size()[0] == 0:
            warnings.warn(f"{text}: {', '.join(names)}", stacklevel=3)


def _candidates(subject: Subject, target: int, kind: CanvasKind, seed: int) -> list[int]:
    if kind == "white":
        return [WHITE]
    labels = subject.images.labels
    if kind == "random":
        generator = named_generator(seed, "random canvases", target)
        return torch.randperm(len(labels), generator=generator).tolist()
    same = labels == target if kind == "positive" else labels != target
    members = (same & (subject.predictions == target)).nonzero().squeeze(1)
    order = subject.logits[members, target].argsort(descending=True, stable=True)
    return members[order].tolist()


def _missing(subject: Subject, target: int, kind: CanvasKind) -> str:
    reason = (
        "no image of the class is predicted right"
        if kind == "positive"
        else "no image of another class is taken for it"
    )
    other: CanvasKind = "negative" if kind == "positive" else "positive"
    working = [other] if _candidates(subject, target, other, 0) else []
    kinds = ", ".join([*working, "random", "white"])
    name = subject.class_names[target]
    return f"class {target} ({name}) has no {kind} canvas: {reason}; `canvas` can be {kinds}"
