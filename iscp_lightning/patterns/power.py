"""Predictive power: how often a pasted pattern makes a classifier say its class."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

import torch
from torch import Tensor

from iscp_lightning.classifiers.subject import Subject
from iscp_lightning.data.stamps import Stamp
from iscp_lightning.metrics.success import StampSuccess, Success, count_success
from iscp_lightning.ranks import in_order

MeasuredOn = Literal["held_out", "full"]
MeasuredCanvases = Literal["all", "winners"]


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
        measured_on: `held_out` or `full`.
    """

    targets: Tensor
    pattern_sizes: tuple[float, ...]
    attack_success_rate: Tensor
    shown: Tensor
    clean_accuracy: Tensor
    images: Tensor
    measured_on: MeasuredOn = "held_out"

    def __getitem__(self, rows: Tensor) -> PatternPower:
        """Return what was measured of some of the patterns."""
        return replace(
            self,
            targets=self.targets[rows],
            attack_success_rate=self.attack_success_rate[rows],
            shown=self.shown[rows],
        )

    @property
    def predictive_power(self) -> Tensor:
        """(P, S) float64, NaN where the class is never predicted right."""
        power = self.attack_success_rate / self.clean_accuracy[self.targets].unsqueeze(1)
        return torch.where(power.isinf(), torch.nan, power)

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

    def spread(self, rows: Tensor, targets: Tensor) -> PatternPower:
        """Return it as that of a larger set, of which only some patterns were measured.

        Args:
            rows: (n,) int64, where the measured patterns stand in it.
            targets: (P,) int64 target classes of the whole set.
        """
        rates = self.attack_success_rate.new_full(
            (len(targets), len(self.pattern_sizes)), torch.nan
        )
        shown = torch.zeros_like(targets)
        rates[rows], shown[rows] = self.attack_success_rate, self.shown
        return replace(self, targets=targets, attack_success_rate=rates, shown=shown)

    @classmethod
    def joined(cls, shares: Sequence[tuple[Tensor, PatternPower]]) -> PatternPower:
        """Return what processes measured of their shares of one set, on the same images, as one."""
        return replace(
            shares[0][1],
            targets=in_order([(rows, part.targets) for rows, part in shares]),
            attack_success_rate=in_order([(r, part.attack_success_rate) for r, part in shares]),
            shown=in_order([(rows, part.shown) for rows, part in shares]),
        )


def measure_power(
    subject: Subject,
    targets: Tensor,
    canvas_indices: Tensor,
    stamps: Stamp,
    pattern_sizes: Sequence[float],
    measure_on: MeasuredOn = "held_out",
    searched: Tensor | None = None,
) -> PatternPower:
    """Return the predictive power of patterns on a subject's test images, on the CPU.

    Args:
        subject: The classifier and the images.
        targets: (P,) int64 target classes.
        canvas_indices: (P,) int64, canvas positions in the test set: a pattern is not pasted on
            its own canvas.
        stamps: The patterns: mask (P, S, 1, H, W), pixels what broadcasts to (P, S, C, H, W).
        pattern_sizes: Their S sizes.
        measure_on: The images that no search may look at, or all.
        searched: (n,) int64, the images that are not held out; None is the subject's.

    Raises:
        ValueError: if `measure_on` is neither word, or no image is held out.
    """
    seen_before = subject.search_indices if searched is None else searched
    indices = measured_indices(len(subject.images), seen_before, measure_on)
    sizes, classes = tuple(pattern_sizes), len(subject.class_names)
    mask, pixels = stamps.mask.to(subject.device), stamps.pixels
    if pixels.stride(1) == 0:  # the same for all sizes, so that one of them travels
        pixels = pixels[:, :1]
    pixels = pixels.to(subject.device).expand(*stamps.pixels.shape)
    single = [
        Stamp(mask[row, column], pixels[row, column], stamps.additive)
        for row in range(len(targets))
        for column in range(len(sizes))
    ]
    wanted = targets.repeat_interleave(len(sizes)).unsqueeze(1).expand(-1, classes)
    metric = StampSuccess(wanted, sync_on_compute=False)
    left_out = canvas_indices.repeat_interleave(len(sizes)).tolist()
    if single:  # a rank may have none
        count_success(metric, subject, single, indices, left_out)
    success = metric.compute() if single else Success(*[wanted.new_zeros(0, classes)] * 3)
    correct, seen = subject.correct_and_seen(indices)
    return PatternPower(
        targets,
        sizes,
        success.rate.view(-1, len(sizes)),
        success.shown.sum(1).view(-1, len(sizes))[:, 0],
        correct.double() / seen,
        seen,
        measure_on,
    )


def measured_indices(count: int, searched: Tensor, measure_on: MeasuredOn) -> Tensor:
    """Return the test images on which predictive power is measured, (n,) int64.

    Args:
        count: Number of test images.
        searched: (n,) int64, those that the search has seen.
        measure_on: `held_out` or `full`.

    Raises:
        ValueError: if `measure_on` is neither word, or no image is held out.
    """
    indices = torch.arange(count)
    if measure_on == "full":
        return indices
    if measure_on != "held_out":
        raise ValueError(f"`measure_on` must be held_out or full, got {measure_on!r}")
    rest = indices[~torch.isin(indices, searched)]
    if len(rest) == 0:
        raise ValueError(
            "`measure_on`: the search used every test image (`search_fraction` 1), "
            "so only `full` can be measured"
        )
    return rest
