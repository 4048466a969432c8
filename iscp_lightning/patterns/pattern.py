"""PatternSet: the result of a search, everything a later reader needs, in one safe file."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from iscp_lightning.data.images import ImageSet, MemoryImages
from iscp_lightning.patterns.mixing import top_pixels
from iscp_lightning.patterns.power import PatternPower, measure_power
from iscp_lightning.runs import atomic_path, finite

FORMAT_VERSION = 1
PATTERN_SIZES = (0.01, 0.02, 0.03, 0.05, 0.1)
TENSORS = (
    "targets",
    "canvas_indices",
    "canvases",
    "masks",
    "mask_means",
    "objectives",
    "search_indices",
)


@dataclass(frozen=True)
class PatternSet:
    """Masks of P (class, canvas) problems with their canvases and origin.

    Attributes:
        targets: (P,) int64 target class.
        canvas_indices: (P,) int64 canvas position in the test set; -1 is the white canvas.
        canvases: uint8 (P, C, H, W).
        masks: float32 (P, H, W) in [0, 1], final masks.
        mask_means: float32 (P, H, W), their mean over the last pass.
        objectives: (P,) float32, mean of Eq. (2) over the search images at the final mask.
        search_indices: (n,) int64, the test images that the search used.
        class_names: Name of every class of the data set.
        settings: The search's settings as plain values.
        provenance: Versions, time, hash of the classifier, fingerprint of the test set, what the
            searched copy of the classifier was changed in for speed, ...
        results: What was measured, as in `results.json`; empty before a measurement.
    """

    targets: Tensor
    canvas_indices: Tensor
    canvases: Tensor
    masks: Tensor
    mask_means: Tensor
    objectives: Tensor
    search_indices: Tensor
    class_names: tuple[str, ...]
    settings: dict[str, Any]
    provenance: dict[str, Any] = field(default_factory=dict)
    results: dict[str, Any] = field(default_factory=dict)

    def __repr__(self) -> str:
        height, width = self.masks.shape[1:]
        return (
            f"PatternSet({len(self)} patterns of {len(self.targets.unique())} classes, "
            f"{height} x {width}, {self.settings.get('canvas')} canvases)"
        )

    def __len__(self) -> int:
        return len(self.targets)

    @property
    def winners(self) -> Tensor:
        """(classes searched,) problem with the lowest objective of each class, by class."""
        rows = [(self.targets == target).nonzero().flatten() for target in self.targets.unique()]
        best = [row[self.objectives[row].argmin()] for row in rows]
        return torch.stack(best) if best else self.targets[:0]

    def __getitem__(self, rows: Tensor) -> PatternSet:
        """Return the chosen problems as a set of their own."""
        per_problem = {n: getattr(self, n)[rows] for n in TENSORS if n != "search_indices"}
        return PatternSet(
            **per_problem,
            search_indices=self.search_indices,
            class_names=self.class_names,
            settings=self.settings,
            provenance=self.provenance,
            results=self.results,
        )

    def selected(self, pattern_size: float) -> Tensor:
        """Return which pixels the patterns of this size keep, bool (P, H, W)."""
        return top_pixels(self.masks, self.mask_means, pattern_size)

    def predictive_power(
        self,
        classifier: nn.Module,
        images: Tensor | ImageSet,
        labels: Tensor | None = None,
        *,
        pattern_sizes: Sequence[float] = PATTERN_SIZES,
        measure_on: Literal["held_out", "full"] = "held_out",
        progress: bool = False,
    ) -> PatternPower:
        """Return predictive power and clean accuracy on the test set that was searched.

        Args:
            classifier: Any classifier of the same classes; it is copied, never changed.
            images: The test set: uint8 or float in [0, 1] (N, C, H, W), or an image set.
            labels: (N,) class indices, for a tensor of images.
            pattern_sizes: Sizes as shares of the pixels.
            measure_on: The images the search has not seen, or all.
            progress: Whether to show a progress bar.

        Raises:
            ValueError: if the images are not those that were searched, or none is held out.
        """
        if isinstance(images, Tensor):
            if labels is None:
                raise ValueError("`labels` must be given with a tensor of `images`")
            images = MemoryImages(images, labels)
        return measure_power(
            self,
            classifier,
            images,
            pattern_sizes=pattern_sizes,
            measure_on=measure_on,
            progress=progress,
        )

    def save(self, path: str | Path) -> None:
        """Write a safetensors file with JSON metadata, atomically."""
        metadata = {
            "format_version": FORMAT_VERSION,
            "class_names": self.class_names,
            "settings": self.settings,
            "provenance": self.provenance,
            "results": finite(self.results),
        }
        tensors = {name: getattr(self, name).contiguous().cpu() for name in TENSORS}
        with atomic_path(Path(path)) as temporary:
            save_file(tensors, temporary, {"patterns": json.dumps(metadata)})

    @classmethod
    def load(cls, path: str | Path) -> PatternSet:
        """Read a file that `save` wrote.

        Raises:
            ValueError: if the file is no pattern file or of a newer format.
        """
        try:
            with safe_open(path, "pt") as file:
                metadata = json.loads((file.metadata() or {}).get("patterns", "{}"))
            tensors = load_file(path)
        except SafetensorError as error:
            raise ValueError(f"{path} is not a safetensors file: {error}") from error
        if not 1 <= metadata.get("format_version", 0) <= FORMAT_VERSION:
            raise ValueError(
                f"{path} is not a pattern file of format 1 to {FORMAT_VERSION}: "
                f"it says {metadata.get('format_version')}"
            )
        return cls(
            **{name: tensors[name] for name in TENSORS},
            class_names=tuple(metadata["class_names"]),
            settings=metadata["settings"],
            provenance=metadata["provenance"],
            results=metadata["results"],
        )
