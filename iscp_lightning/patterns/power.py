"""Predictive power: how often a pasted pattern makes a classifier say its class."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from operator import attrgetter
from typing import Literal, NamedTuple

import torch
from torch import Tensor

from iscp_lightning.classifiers.subject import Subject
from iscp_lightning.data.splits import stratified_choice
from iscp_lightning.data.stamps import Stamp
from iscp_lightning.metrics.intervals import mean_interval, ratio_interval
from iscp_lightning.metrics.success import StampSuccess, count_success
from iscp_lightning.ranks import in_order
from iscp_lightning.seeds import derived_seed, named_generator

MeasuredOn = Literal["held_out", "searched", "full"]
MeasuredCanvases = Literal["all", "winners"]


class Controls(NamedTuple):
    """What P patterns have to be compared with; NaN where it was not measured.

    A perturbation has neither canvas nor mask: of it there is the base rate alone.

    All are shares of the same images of other classes that are taken for the target.

    Attributes:
        base_rate: (P,) float64, with nothing pasted.
        random_mask_rate: (P, S) float64, with as many pixels of the same canvas at random places.
        whole_canvas_rate: (P,) float64, of the whole canvas.
    """

    base_rate: Tensor
    random_mask_rate: Tensor
    whole_canvas_rate: Tensor


@dataclass(frozen=True)
class PatternPower:
    """What was measured of P patterns at S sizes; a subset of patterns has a subset of it.

    PW = acc(pasted non-target images -> y) / acc(clean images of class y), section 4 of the paper.

    Attributes:
        targets: (P,) int64 target classes.
        pattern_sizes: The S sizes, shares of the pixels.
        attack_success_rate: (P, S) float64, share of the images of other classes that became the
            target, NaN where it was not measured.
        shown: (P,) int64, how many images that is a share of; 0 where it is not known.
        clean_accuracy: (K,) float64 share of each class's images predicted right, NaN without any.
        images: (K,) int64 number of each class's images.
        measured_on: `held_out`, `searched` or `full`.
        controls: What they are compared with; None in files of earlier versions.
    """

    targets: Tensor
    pattern_sizes: tuple[float, ...]
    attack_success_rate: Tensor
    shown: Tensor
    clean_accuracy: Tensor
    images: Tensor
    measured_on: MeasuredOn = "held_out"
    controls: Controls | None = None

    def __getitem__(self, rows: Tensor) -> PatternPower:
        """Return what was measured of some of the patterns."""
        return replace(
            self,
            targets=self.targets[rows],
            attack_success_rate=self.attack_success_rate[rows],
            shown=self.shown[rows],
            controls=self.controls and Controls(*(part[rows] for part in self.controls)),
        )

    @property
    def predictive_power(self) -> Tensor:
        """(P, S) float64, NaN where the class is never predicted right."""
        return self.over_accuracy(self.attack_success_rate)

    def over_accuracy(self, rates: Tensor) -> Tensor:
        """Return success rates (P, n) over the clean accuracy of their class, NaN where it is 0."""
        clean = self.clean_accuracy[self.targets].unsqueeze(1)
        return torch.where(clean > 0, rates / clean, torch.nan)

    @property
    def overall_clean_accuracy(self) -> Tensor:
        """() share of all images predicted right, whatever their class."""
        right = (self.clean_accuracy.nan_to_num(0) * self.images).round()
        return right.sum() / self.images.sum()

    @property
    def mean(self) -> Tensor:
        """(S,) mean predictive power (mPW) over the patterns where it is defined."""
        return self.predictive_power.nanmean(0)

    @property
    def std(self) -> Tensor:
        """(S,) population standard deviation over the patterns where it is defined."""
        deviation = self.predictive_power - self.mean
        return deviation.square().nanmean(0).sqrt()

    @property
    def defined(self) -> Tensor:
        """(S,) number of patterns whose predictive power is defined."""
        return (~self.predictive_power.isnan()).sum(0)

    @property
    def interval(self) -> Tensor:
        """(P, S, 2) ends of the predictive power's 95 % interval over images; see `metrics`."""
        shown = self.shown.unsqueeze(1).expand(self.attack_success_rate.shape)
        hits = (self.attack_success_rate * shown).nan_to_num(0).round().long()
        right = (self.clean_accuracy * self.images).nan_to_num(0).round().long()
        ends = ratio_interval(hits, shown, right[self.targets], self.images[self.targets])
        return torch.where(self.predictive_power.isnan().unsqueeze(2), torch.nan, ends)

    @property
    def mean_interval(self) -> Tensor:
        """(S, 2) ends of the mean's 95 % interval over the patterns: of one search, one network."""
        return mean_interval(self.predictive_power)

    def spread(self, rows: Tensor, targets: Tensor) -> PatternPower:
        """Return it as that of a larger set, of which only some patterns were measured.

        Args:
            rows: (n,) int64, where the measured patterns stand in it.
            targets: (P,) int64 target classes of the whole set.
        """

        def among_all(part: Tensor) -> Tensor:
            whole = part.new_full((len(targets), *part.shape[1:]), torch.nan)
            whole[rows] = part
            return whole

        shown = torch.zeros_like(targets)
        shown[rows] = self.shown
        return replace(
            self,
            targets=targets,
            attack_success_rate=among_all(self.attack_success_rate),
            shown=shown,
            controls=self.controls and Controls(*map(among_all, self.controls)),
        )

    @classmethod
    def joined(cls, shares: Sequence[tuple[Tensor, PatternPower]]) -> PatternPower:
        """Return what processes measured of their shares of one set, on the same images, as one."""

        def whole(of: Callable[[PatternPower], Tensor]) -> Tensor:
            return in_order([(rows, of(part)) for rows, part in shares])

        return replace(
            shares[0][1],
            targets=whole(lambda part: part.targets),
            attack_success_rate=whole(lambda part: part.attack_success_rate),
            shown=whole(lambda part: part.shown),
            controls=shares[0][1].controls
            and Controls(*(whole(attrgetter(f"controls.{name}")) for name in Controls._fields)),
        )


def measure_power(
    subject: Subject,
    targets: Tensor,
    canvas_indices: Tensor,
    stamps: Stamp,
    pattern_sizes: Sequence[float],
    measure_on: MeasuredOn = "held_out",
    searched: Tensor | None = None,
    controlled: Tensor | None = None,
    images: int | None = None,
) -> PatternPower:
    """Return the predictive power of patterns on a subject's test images, on the CPU.

    Args:
        subject: The classifier and the images.
        targets: (P,) int64 target classes.
        canvas_indices: (P,) int64, canvas positions in the test set: a pattern is not pasted on
            its own canvas.
        stamps: The patterns: mask (P, S, 1, H, W), pixels what broadcasts to (P, S, C, H, W).
        pattern_sizes: Their S sizes.
        measure_on: The images that no search may look at, the others, or all.
        searched: (n,) int64, the images that are not held out; None is the subject's.
        controlled: (P,) bool, for which of them the controls are measured, too; None means all.
        images: How many images, as many of each class; None means all.

    Raises:
        ValueError: as `measured_indices`.
    """
    seen_before = subject.search_indices if searched is None else searched
    labels = subject.images.labels
    indices = measured_indices(labels, seen_before, measure_on, images, subject.seed)
    sizes = tuple(pattern_sizes)
    controlled = torch.ones_like(targets) > 0 if controlled is None else controlled
    mask, pixels = stamps.mask.to(subject.device), stamps.pixels
    if pixels.stride(1) == 0:  # the same for all sizes, so that one of them travels
        pixels = pixels[:, :1]
    pixels = pixels.to(subject.device).expand(*stamps.pixels.shape)
    single: list[Stamp] = []
    places: list[tuple[int, int]] = []  # row and column; the controls' follow the patterns'
    for row in range(len(targets)):
        of_row = [
            Stamp(*each, stamps.additive) for each in zip(mask[row], pixels[row], strict=True)
        ]
        if controlled[row] and not stamps.additive:
            key = int(targets[row]), int(canvas_indices[row])
            of_row += [_scattered(each, *key, q) for each, q in zip(of_row, sizes, strict=True)]
            of_row.append(of_row[0]._replace(mask=torch.ones_like(of_row[0].mask)))
        single += of_row
        places += [(row, column) for column in range(len(of_row))]
    rates = torch.full((len(targets), 2 * len(sizes) + 1), torch.nan, dtype=torch.float64)
    shown = torch.zeros_like(targets)
    if single:  # a rank may have none
        rows, columns = torch.tensor(places).T
        wanted = targets[rows].unsqueeze(1).expand(-1, len(subject.class_names))
        metric = StampSuccess(wanted, sync_on_compute=False)
        count_success(metric, subject, single, indices, canvas_indices[rows].tolist())
        success = metric.compute()
        rates[rows, columns] = success.rate
        shown[rows] = success.shown.sum(1)
    correct, seen = subject.correct_and_seen(indices)
    return PatternPower(
        targets,
        sizes,
        rates[:, : len(sizes)],
        shown,
        correct.double() / seen,
        seen,
        measure_on,
        Controls(
            _base_rate(subject, indices, targets, canvas_indices),
            rates[:, len(sizes) : -1],
            rates[:, -1],
        ),
    )


def _scattered(stamp: Stamp, target: int, canvas: int, size: float) -> Stamp:
    """Return the stamp with the same mask values at random places."""
    generator = named_generator(0, "random mask", target, canvas + 1, round(size * 1e6))
    flat = stamp.mask.flatten()
    order = torch.randperm(len(flat), generator=generator).to(flat.device)
    return stamp._replace(mask=flat[order].view_as(stamp.mask))


def _base_rate(
    subject: Subject, indices: Tensor, targets: Tensor, canvas_indices: Tensor
) -> Tensor:
    """Return (P,) float64, the share of the images of other classes taken for each target."""
    labels, predicted = subject.images.labels[indices], subject.predictions[indices]
    rates = []
    for target, canvas in zip(targets, canvas_indices, strict=True):
        others = (labels != target) & (indices != canvas)
        rates.append((predicted[others] == target).double().mean())
    return torch.stack(rates) if rates else torch.zeros(0, dtype=torch.float64)


def measured_indices(
    labels: Tensor,
    searched: Tensor,
    measure_on: MeasuredOn,
    images: int | None = None,
    seed: int = 0,
) -> Tensor:
    """Return the test images on which predictive power is measured, (n,) int64, sorted.

    Args:
        labels: (N,) int64, of all test images.
        searched: (n,) int64, those that the search has seen.
        measure_on: `held_out`, `searched` or `full`.
        images: How many of those, as many of each class; None means all.
        seed: Root seed, which fixes the choice.

    Raises:
        ValueError: if `measure_on` is another word, no image is held out, the search has seen
            none, or `images` is below 1.
    """
    if images is not None and images < 1:
        raise ValueError(f"`measure_images` must be 1 or more, got {images}")
    rest = _measurable(torch.arange(len(labels)), searched, measure_on)
    if images is None:
        return rest
    return rest[stratified_choice(labels[rest], images, derived_seed(seed, "measured images"))]


def _measurable(indices: Tensor, searched: Tensor, measure_on: MeasuredOn) -> Tensor:
    if measure_on == "full":
        return indices
    if measure_on == "searched":
        if len(searched) == 0:
            raise ValueError("`measure_on`: the search has used no test image")
        return searched.sort().values
    if measure_on != "held_out":
        raise ValueError(f"`measure_on` must be held_out, searched or full, got {measure_on!r}")
    rest = indices[~torch.isin(indices, searched)]
    if len(rest) == 0:
        raise ValueError(
            "`measure_on`: the search used every test image (`search_fraction` 1), "
            "so only `full` can be measured"
        )
    return rest
