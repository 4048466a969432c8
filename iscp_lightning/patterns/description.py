"""Everything that is said of patterns in pictures, in numbers, with chance beside each."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from iscp_lightning.classifiers.subject import Subject
from iscp_lightning.data.images import to_float
from iscp_lightning.data.splits import stratified_choice
from iscp_lightning.metrics.overlap import chance_overlap, overlap
from iscp_lightning.patterns.anatomy import (
    Compared,
    beside_random_masks,
    not_blank,
    pixel_measures,
    power_on,
    success_measures,
)
from iscp_lightning.patterns.attribution import (
    attention_shift,
    attention_stamps,
    grad_cam,
    last_feature_map,
)
from iscp_lightning.patterns.by_class import records_by_class
from iscp_lightning.patterns.pasting import scattered
from iscp_lightning.patterns.pattern import PatternSet
from iscp_lightning.patterns.power import among
from iscp_lightning.patterns.tables import table
from iscp_lightning.records import Record
from iscp_lightning.seeds import derived_seed

ATTENDED = 100  # images whose attention is followed


@dataclass(frozen=True)
class Description:
    """What was measured of the winning patterns of K classes at S sizes.

    Attributes:
        class_names: K names.
        pattern_sizes: S shares of the pixels.
        measures: By name.
    """

    class_names: Sequence[str]
    pattern_sizes: Sequence[float]
    measures: Mapping[str, Compared]

    @property
    def records(self) -> list[Record]:
        """Each measure and what chance would give, as `chance_MEASURE`: means, then all classes.

        The means' intervals are over the classes of this one search, those of a class over images.
        """
        sizes = [{"pattern_size": size} for size in self.pattern_sizes]
        records: list[Record] = []
        for name, compared in self.measures.items():
            parts = (
                (name, compared.values, compared.interval),
                (f"chance_{name}", compared.chance, None),
            )
            for measure, part, interval in parts:
                columns, about = (part, sizes) if part.dim() == 2 else (part.unsqueeze(1), [{}])
                records += records_by_class(measure, columns, interval, about, self.class_names)
        return sorted(records, key=lambda record: "class" in record.about)

    @property
    def lines(self) -> list[str]:
        """A table for each size: mean, chance, the lowest and the highest class."""
        lines = []
        for column, size in enumerate(self.pattern_sizes):
            head = [f"patterns of {100 * size:g} %", "mean", "by chance", "lowest", "highest"]
            rows: list[list[str | float]] = []
            for name, compared in self.measures.items():
                values, chance, _ = compared.at(column)
                defined = int((~values.isnan()).sum())
                order = values.argsort()[:defined].tolist()  # NaN comes last
                ends = [f"{values[i]:.3f} {self.class_names[i]}" for i in order[:1] + order[-1:]]
                means = [float(part.nanmean()) for part in (values, chance)]
                rows.append([name.replace("_", " "), *means, *(ends or ["-", "-"])])
            lines += ["", table(head, rows)]
        return lines


def describe_patterns(
    subject: Subject,
    patterns: PatternSet,
    pattern_sizes: Sequence[float],
    indices: Tensor,
    objects: Tensor | None = None,
    attention: bool = True,
) -> Description:
    """Return all measures: `pixel_measures`, `success_measures` and `attention_measures`.

    Args:
        subject: The classifier and the test images.
        patterns: All patterns of a search; its winners are described.
        pattern_sizes: S sizes.
        indices: (n,) int64, test images that are pasted on, best those that no search has used.
        objects: bool (N, H, W), where each test image shows its object, if that is known.
        attention: Whether Grad-CAM is asked, too.

    Raises:
        ValueError: if the classifier has no feature map, or a size selects no pixel.
    """
    if attention:  # raises, before anything is measured
        some = to_float(patterns.canvases[:1].to(subject.device))
        last_feature_map(subject.frozen, some)
    winners = patterns[patterns.winners]
    measures = pixel_measures(patterns, pattern_sizes, objects)
    measures |= success_measures(subject, winners, pattern_sizes, indices)
    if attention:
        measures |= attention_measures(subject, winners, pattern_sizes, indices)
    names = [subject.class_names[int(target)] for target in winners.targets]
    return Description(names, tuple(pattern_sizes), measures)


def attention_measures(
    subject: Subject, winners: PatternSet, pattern_sizes: Sequence[float], indices: Tensor
) -> dict[str, Compared]:
    """Return what Grad-CAM says of patterns and of their canvases (appendix F of the paper).

    `predictive_power_of_attention` is that of the canvas's most attended pixels instead of the
    pattern's, `attention_overlap` the intersection over union of the two; a canvas of one colour
    shows nothing to attend to, and has neither. `attention_before` and `attention_after` are
    those of `AttentionShift`, by chance of as many pixels of the canvas at random places.

    Args:
        subject: The classifier and the test images.
        winners: K patterns.
        pattern_sizes: S sizes.
        indices: (n,) int64, test images that are pasted on; the shift is measured on 100 of them.

    Raises:
        ValueError: if the classifier has no feature map.
    """
    stamps, labels = winners.stamps(pattern_sizes), subject.images.labels[indices]
    sample = stratified_choice(labels, ATTENDED, derived_seed(subject.seed, "attended images"))
    of = winners.targets, winners.canvas_indices
    random = [
        torch.stack(
            [scattered(mask, target, canvas, q) for mask, q in zip(row, pattern_sizes, strict=True)]
        )
        for row, target, canvas in zip(stamps.mask, *(part.tolist() for part in of), strict=True)
    ]
    shift, by_chance = (
        attention_shift(subject, *of, each, indices[sample])
        for each in (stamps, stamps._replace(mask=torch.stack(random)))
    )
    rows = not_blank(winners).nonzero().flatten()
    seen = winners[rows]
    canvases = seen.cut_from
    maps = grad_cam(subject, canvases, seen.targets)
    attended = attention_stamps(maps, canvases, pattern_sizes)
    power = beside_random_masks(power_on(subject, seen, attended, pattern_sizes, indices))
    pairs = [
        overlap(attended.mask[:, column, 0], seen.selected(size)).double()
        for column, size in enumerate(pattern_sizes)
    ]
    alike = torch.stack(pairs, 1)
    shares = stamps.mask[0, :, 0].double().mean((1, 2)).tolist()
    chance = [chance_overlap(share) for share in shares]
    overlaps = Compared(alike, torch.tensor(chance, dtype=torch.float64).expand_as(alike))
    return {
        "predictive_power_of_attention": _among(len(winners), rows, power),
        "attention_overlap": _among(len(winners), rows, overlaps),
        "attention_before": Compared(shift.before, by_chance.before, shift.before_interval),
        "attention_after": Compared(shift.after, by_chance.after, shift.after_interval),
    }


def _among(count: int, rows: Tensor, compared: Compared) -> Compared:
    """Return it as that of `count` patterns, of which only some were measured."""
    interval = compared.interval
    return Compared(
        among(count, rows, compared.values),
        among(count, rows, compared.chance),
        None if interval is None else among(count, rows, interval),
    )
