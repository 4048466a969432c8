"""PatternSet: the result of a search, everything a later reader needs, in one safe file."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from iscp_lightning.classifiers.subject import Subject
from iscp_lightning.data.images import ImageSet, MemoryImages, as_eight_bits
from iscp_lightning.data.stamps import Stamp
from iscp_lightning.data.testset import require_same
from iscp_lightning.patterns.format1 import from_format_1
from iscp_lightning.patterns.pasting import measure_power
from iscp_lightning.patterns.power import Controls, MeasuredOn, PatternPower
from iscp_lightning.patterns.variants.base import Variant, variant_named
from iscp_lightning.ranks import in_order
from iscp_lightning.runs import atomic_path

FORMAT_VERSION = 2
PATTERN_SIZES = (0.01, 0.02, 0.03, 0.05, 0.1)
TENSORS = ("targets", "canvas_indices", "canvases", "objectives", "search_indices")
MEASURED = ("attack_success_rate", "shown", "clean_accuracy", "images")
NOT_PER_PROBLEM = ("search_indices", "power.clean_accuracy", "power.images")


@dataclass(frozen=True)
class PatternSet:
    """What a search found for P (class, canvas) problems, with its origin and what was measured.

    Attributes:
        targets: (P,) int64 target class.
        canvas_indices: (P,) int64 canvas position in the test set; -1 is the white canvas, below it
            are images from elsewhere.
        canvases: uint8 (P, C, H, W).
        variables: By name what was optimised, each (P, ...); Algorithm 1's `mask` is float32
            (P, H, W) in [0, 1].
        means: Of the variables that patterns of a given size are cut from, the mean over the last
            pass.
        objectives: (P,) float32, mean over the search images at the end of what was minimised, or
            of the pasted patterns' cross-entropy: see `winner_size` of `SearchSettings`.
        search_indices: (n,) int64, the test images that the search used.
        class_names: Name of every class of the data set.
        settings: The search's settings as plain values.
        provenance: Versions, time, hash of the classifier, fingerprint of the test set, what the
            searched copy of the classifier was changed in for speed, ...
        power: What was measured of each pattern, None before a measurement.
    """

    targets: Tensor
    canvas_indices: Tensor
    canvases: Tensor
    variables: dict[str, Tensor]
    means: dict[str, Tensor]
    objectives: Tensor
    search_indices: Tensor
    class_names: tuple[str, ...]
    settings: dict[str, Any]
    provenance: dict[str, Any] = field(default_factory=dict)
    power: PatternPower | None = None

    def __repr__(self) -> str:
        height, width = self.canvases.shape[2:]
        return (
            f"PatternSet({len(self)} patterns of {len(self.targets.unique())} classes, "
            f"{height} x {width}, {self.settings.get('canvas')} canvases)"
        )

    def __len__(self) -> int:
        return len(self.targets)

    @property
    def masks(self) -> Tensor:
        """(P, H, W) float32 in [0, 1], the final masks of Algorithm 1."""
        return self.variables["mask"]

    @property
    def mask_means(self) -> Tensor:
        """(P, H, W) float32, their mean over the last pass."""
        return self.means["mask"]

    @property
    def variant(self) -> Variant:
        """How the patterns were searched."""
        return variant_named(self.settings.get("variant", {"name": "Algorithm1"}))

    @property
    def winners(self) -> Tensor:
        """(classes searched,) problem with the lowest objective of each class, by class."""
        return winners_of(self.targets, self.objectives)

    def __getitem__(self, rows: Tensor) -> PatternSet:
        """Return the chosen problems as a set of their own, with their own measurements."""
        return replace(
            self,
            targets=self.targets[rows],
            canvas_indices=self.canvas_indices[rows],
            canvases=self.canvases[rows],
            variables={name: value[rows] for name, value in self.variables.items()},
            means={name: value[rows] for name, value in self.means.items()},
            objectives=self.objectives[rows],
            power=None if self.power is None else self.power[rows],
        )

    @classmethod
    def joined(cls, shares: Sequence[tuple[Tensor, PatternSet]]) -> PatternSet:
        """Return the processes' shares of one search, all measured or none, as one set.

        Args:
            shares: The numbers of the problems, int64, and their patterns.
        """
        first = shares[0][1]
        powers = [(rows, part.power) for rows, part in shares if part.power is not None]

        def whole(of: Callable[[PatternSet], Tensor]) -> Tensor:
            return in_order([(rows, of(part)) for rows, part in shares])

        return replace(
            first,
            targets=whole(lambda part: part.targets),
            canvas_indices=whole(lambda part: part.canvas_indices),
            canvases=whole(lambda part: part.canvases),
            objectives=whole(lambda part: part.objectives),
            variables={
                n: in_order([(r, p.variables[n]) for r, p in shares]) for n in first.variables
            },
            means={n: in_order([(r, p.means[n]) for r, p in shares]) for n in first.means},
            power=PatternPower.joined(powers) if powers else None,
        )

    def stamps(self, pattern_sizes: Sequence[float]) -> Stamp:
        """Return the patterns of S sizes: mask (P, S, 1, H, W), pixels (P, S, C, H, W), views.

        Raises:
            ValueError: if a size is out of range or selects no pixel.
        """
        stamp = self.variant.pasted(self.variables, self.means, self.canvases, pattern_sizes)
        mask, pixels = (
            part.expand(len(self), len(pattern_sizes), *part.shape[2:])
            for part in (stamp.mask, stamp.pixels)
        )
        return stamp._replace(mask=mask, pixels=pixels)

    @property
    def cut_from(self) -> Tensor:
        """uint8 (P, C, H, W), the images that patterns are cut from: canvases, learned ones too."""
        stamps = self.stamps([1.0])
        return self.canvases if stamps.additive else as_eight_bits(stamps.pixels[:, 0], "pixels")

    def selected(self, pattern_size: float) -> Tensor:
        """Return which pixels the patterns of this size touch, bool (P, H, W)."""
        return self.stamps([pattern_size]).mask[:, 0, 0] > 0

    def measured(
        self,
        subject: Subject,
        pattern_sizes: Sequence[float] = PATTERN_SIZES,
        measure_on: MeasuredOn = "held_out",
        rows: Tensor | None = None,
        controlled: Tensor | None = None,
        images: int | None = None,
    ) -> PatternSet:
        """Return the set with its predictive power on the test images that were searched.

        Args:
            subject: The classifier and the test images.
            pattern_sizes: Sizes as shares of the pixels.
            measure_on: The images that the search has not seen, those that it has, or all.
            rows: (n,) int64, which patterns are measured; None means all.
            controlled: (m,) int64, for which of them the controls are measured, too; None is the
                winners.
            images: How many images, as many of each class; None means all.

        Raises:
            ValueError: if the images are not those that were searched, or none is held out.
        """
        require_same(self.provenance, subject.images)
        sizes = tuple(sorted(set(pattern_sizes)))
        rows = torch.arange(len(self)) if rows is None else rows
        chosen = self[rows]
        power = measure_power(
            subject,
            chosen.targets,
            chosen.canvas_indices,
            chosen.stamps(sizes),
            sizes,
            measure_on,
            self.search_indices,
            torch.isin(rows, self.winners if controlled is None else controlled),
            images,
        )
        return replace(self, power=power.spread(rows, self.targets))

    def predictive_power(
        self,
        classifier: nn.Module,
        images: Tensor | ImageSet,
        labels: Tensor | None = None,
        *,
        pattern_sizes: Sequence[float] = PATTERN_SIZES,
        measure_on: MeasuredOn = "held_out",
        progress: bool = False,
    ) -> PatternPower:
        """Return predictive power and clean accuracy on the test set that was searched.

        Args:
            classifier: Any classifier of the same classes; it is copied, never changed.
            images: The test set: uint8 or float in [0, 1] (N, C, H, W), or an image set.
            labels: (N,) class indices, for a tensor of images.
            pattern_sizes: Sizes as shares of the pixels.
            measure_on: The images the search has not seen, those that it has, or all.
            progress: Whether to show a progress bar.

        Raises:
            ValueError: if the images are not those that were searched, or none is held out.
        """
        if isinstance(images, Tensor):
            if labels is None:
                raise ValueError("`labels` must be given with a tensor of `images`")
            images = MemoryImages(images, labels)
        subject = Subject(
            classifier, images, self.class_names, self.search_indices, progress=progress
        )
        power = self.measured(subject, pattern_sizes, measure_on).power
        assert power is not None
        return power

    def save(self, path: str | Path) -> None:
        """Write a safetensors file with JSON metadata, atomically."""
        metadata = {
            "format_version": FORMAT_VERSION,
            "class_names": self.class_names,
            "settings": self.settings,
            "provenance": self.provenance,
        }
        tensors = {name: getattr(self, name) for name in TENSORS}
        tensors |= {f"variables.{name}": value for name, value in self.variables.items()}
        tensors |= {f"means.{name}": value for name, value in self.means.items()}
        if self.power is not None:
            tensors |= {f"power.{name}": getattr(self.power, name) for name in MEASURED}
            controls = self.power.controls
            tensors |= {
                f"power.{n}": v for n, v in (controls._asdict() if controls else {}).items()
            }
            metadata["pattern_sizes"] = self.power.pattern_sizes
            metadata["measured_on"] = self.power.measured_on
        tensors = {name: value.contiguous().cpu() for name, value in tensors.items()}
        with atomic_path(Path(path)) as temporary:
            save_file(tensors, temporary, {"patterns": json.dumps(metadata)})

    @classmethod
    def load(
        cls, path: str | Path, winners: bool = False, classes: Sequence[int] | None = None
    ) -> PatternSet:
        """Read a file that `save` wrote.

        Args:
            path: The file.
            winners: Whether to read the winners alone, which needs less memory.
            classes: Target classes that are read, likewise; None means all.

        Raises:
            ValueError: if the file is no pattern file or of a newer format.
        """
        try:
            with safe_open(path, "pt") as file:
                metadata = json.loads((file.metadata() or {}).get("patterns", "{}"))
                require_format(path, metadata)
                names = set(file.keys())
                targets, objectives = (file.get_tensor(n) for n in ("targets", "objectives"))
                rows = winners_of(targets, objectives) if winners else torch.arange(len(targets))
                if classes is not None:
                    rows = rows[torch.isin(targets[rows], torch.tensor(classes).long())]
                part = None if len(rows) == len(targets) else rows
                tensors = {name: _read(file, name, part) for name in names}
        except SafetensorError as error:
            raise ValueError(f"{path} is not a safetensors file: {error}") from error
        if metadata["format_version"] == 1:
            return cls(**from_format_1(tensors, metadata))
        power = None
        if "pattern_sizes" in metadata:
            power = PatternPower(
                targets=tensors["targets"],
                pattern_sizes=tuple(metadata["pattern_sizes"]),
                measured_on=metadata["measured_on"],
                controls=Controls(*(tensors[f"power.{name}"] for name in Controls._fields))
                if "power.base_rate" in names
                else None,
                **{name: tensors[f"power.{name}"] for name in MEASURED},
            )
        return cls(
            **{name: tensors[name] for name in TENSORS},
            variables=_named(tensors, "variables."),
            means=_named(tensors, "means."),
            class_names=tuple(metadata["class_names"]),
            settings=metadata["settings"],
            provenance=metadata["provenance"],
            power=power,
        )


def stored_targets(path: str | Path) -> Tensor:
    """Return the target class of each pattern in a file, (P,) int64, without reading the rest."""
    with safe_open(path, "pt") as file:
        targets: Tensor = file.get_tensor("targets")
    return targets


def require_format(path: str | Path, metadata: dict[str, Any]) -> None:
    """Raise a ValueError unless the metadata are those of a pattern file that can be read."""
    version = metadata.get("format_version", 0)
    if not 1 <= version <= FORMAT_VERSION:
        raise ValueError(
            f"{path} is not a pattern file of format 1 to {FORMAT_VERSION}: "
            f"it says {metadata.get('format_version')}"
        )


def winners_of(targets: Tensor, objectives: Tensor) -> Tensor:
    """Return the problem with the lowest objective of each class, by class, (classes,) int64."""
    rows = [(targets == target).nonzero().flatten() for target in targets.unique()]
    best = [row[objectives[row].argmin()] for row in rows]
    return torch.stack(best) if best else targets[:0]


def _read(file: Any, name: str, rows: Tensor | None) -> Tensor:  # noqa: ANN401
    if rows is None or name in NOT_PER_PROBLEM:
        tensor: Tensor = file.get_tensor(name)
        return tensor
    kept = file.get_slice(name)
    if len(rows) == 0:
        return torch.as_tensor(kept[0:0])
    return torch.cat([kept[row : row + 1] for row in rows.tolist()])


def _named(tensors: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {n.removeprefix(prefix): v for n, v in tensors.items() if n.startswith(prefix)}
