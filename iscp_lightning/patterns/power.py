"""Predictive power: how often a pasted pattern makes a classifier say its class."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from operator import attrgetter
from typing import Literal, NamedTuple

import torch
from torch import Tensor

from iscp_lightning.metrics.intervals import mean_interval, ratio_interval, share_interval
from iscp_lightning.ranks import in_order

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


def among(count: int, rows: Tensor, part: Tensor) -> Tensor:
    """Return values (n, ...) as those of `count` rows, of which only some have one; else NaN.

    Args:
        count: Of all rows.
        rows: (n,) int64, those that have a value.
        part: (n, ...) float64, their values.
    """
    whole = part.new_full((count, *part.shape[1:]), torch.nan)
    whole[rows] = part
    return whole


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
        right = (self.clean_accuracy * self.images).nan_to_num(0).round().long()
        hits, seen = self._hits(self.attack_success_rate), self.images[self.targets]
        ends = ratio_interval(hits, shown, right[self.targets], seen)
        return torch.where(self.predictive_power.isnan().unsqueeze(2), torch.nan, ends)

    def rate_interval(self, rates: Tensor) -> Tensor:
        """Return the ends of the 95 % intervals over images of success rates; see `metrics`.

        Args:
            rates: (P, n) float64, shares of `shown`.

        Returns:
            (P, n, 2) float64, NaN where the rate is.
        """
        rows = zip(self._hits(rates), self.shown, strict=True)
        ends = torch.stack([share_interval(*row) for row in rows])
        return torch.where(rates.isnan().unsqueeze(2), torch.nan, ends)

    def _hits(self, rates: Tensor) -> Tensor:
        """Return how many images rates (P, n) are, int64, 0 for NaN."""
        return (rates * self.shown.unsqueeze(1)).nan_to_num(0).round().long()

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
            return among(len(targets), rows, part)

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
