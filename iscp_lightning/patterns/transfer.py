"""Transfer: what the patterns of one classifier make of another (section 4.3, Figure 8)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn

from iscp_lightning.classifiers.subject import Subject
from iscp_lightning.data.splits import stratified_choice
from iscp_lightning.data.stamps import Stamp
from iscp_lightning.metrics.intervals import mean_ratio_interval, share_interval
from iscp_lightning.patterns.anatomy import power_on
from iscp_lightning.patterns.by_class import records_by_class
from iscp_lightning.patterns.pattern import PatternSet
from iscp_lightning.patterns.power import PatternPower
from iscp_lightning.records import Record
from iscp_lightning.seeds import derived_seed

RELATED = 0.1  # correlation of weights; 0.00 between networks of different initial weights
FEW_WEIGHTS = 1000  # of fewer, the correlation says nothing


class Transferred(NamedTuple):
    """What K patterns make of a classifier at S sizes.

    Attributes:
        power: Predictive power, success rate and controls of each pattern.
        clean_accuracy: () float64, share of the images classified right with nothing pasted.
        withstood: (S,) int64, how many of the images are classified right as they are and under
            every pattern whose class they do not show.
        images: () int64, how many there are.
    """

    power: PatternPower
    clean_accuracy: Tensor
    withstood: Tensor
    images: Tensor

    @property
    def robust_accuracy(self) -> Tensor:
        """(S,) float64, share of the images that withstand."""
        return self.withstood.double() / self.images


def unseen_images(
    labels: Tensor, searches: Sequence[PatternSet], seed: int, images: int | None = None
) -> Tensor:
    """Return test images that none of the searches has used, (n,) int64, sorted.

    Args:
        labels: (N,) int64, of all test images.
        searches: Patterns of all searches.
        seed: Root seed, which fixes the choice.
        images: How many, as many of each class; None means all.

    Raises:
        ValueError: if there is none, or `images` is below 1.
    """
    if images is not None and images < 1:
        raise ValueError(f"`images` must be 1 or more, got {images}")
    used = torch.cat([patterns.search_indices for patterns in searches])
    every = torch.arange(len(labels))
    rest = every[~torch.isin(every, used)]
    if len(rest) == 0:
        raise ValueError("`patterns`: every test image was used by one of the searches")
    drawn = derived_seed(seed, "pasted images")
    return rest[stratified_choice(labels[rest], images or len(rest), drawn)]


def measure_transfer(
    subject: Subject, winners: PatternSet, pattern_sizes: Sequence[float], indices: Tensor
) -> Transferred:
    """Return what patterns, searched in any classifier, make of this one.

    Args:
        subject: The classifier and the test images.
        winners: K patterns.
        pattern_sizes: S sizes.
        indices: (n,) int64, test images that are pasted on.

    Raises:
        ValueError: if a size is out of range or selects no pixel.
    """
    stamps = winners.stamps(pattern_sizes)
    power = power_on(subject, winners, stamps, pattern_sizes, indices)
    kept = withstood(subject, winners.targets, stamps, indices)
    clean = power.overall_clean_accuracy.double()
    return Transferred(power, clean, kept.sum(1), torch.tensor(len(indices)))


def withstood(subject: Subject, targets: Tensor, stamps: Stamp, indices: Tensor) -> Tensor:
    """Return which images are classified right, whatever pattern of a size is pasted: bool (S, n).

    An untargeted attack with all patterns, of which an attacker takes the best for each image. One
    that is classified wrong as it is, or under a pattern of another class than it shows, does not
    withstand.

    Args:
        subject: The classifier and the test images.
        targets: (K,) int64, the patterns' classes.
        stamps: The patterns: mask (K, S, 1, H, W), pixels (K, S, C, H, W).
        indices: (n,) int64, test images that are pasted on.
    """
    labels = subject.images.labels[indices]
    right = (subject.predictions[indices] == labels).to(subject.device)
    kept = right.repeat(stamps.mask.shape[1], 1)
    on_device = [part.to(subject.device) for part in (stamps.mask, stamps.pixels)]
    singles = [
        [Stamp(mask, pixels, stamps.additive) for mask, pixels in zip(*row, strict=True)]
        for row in zip(*on_device, strict=True)
    ]
    parts = kept.split(subject.batch_size, dim=1)  # views
    with subject.bar(len(indices), "all patterns on each image") as bar:
        batches = subject.batches(indices, subject.batch_size)
        for part, batch in zip(parts, batches, strict=True):
            for target, by_size in zip(targets.tolist(), singles, strict=True):
                for left, stamp in zip(part, by_size, strict=True):
                    tried = left & (batch.label != target)
                    if tried.any():  # many networks cannot take an empty batch
                        said = subject.classify(stamp(batch.image[tried]))
                        left[tried] = said == batch.label[tried]
            bar.update(len(batch.label))
    return kept.cpu()


def transfer_rate(source: PatternPower, target: PatternPower) -> tuple[Tensor, Tensor]:
    """Return mPW on the target classifier / mPW on the source, float64, and its interval.

    The source is the classifier that the patterns were searched in; means are over the classes
    where both are defined. The paper prints the ratio the other way round, but calls a large one
    good transfer. NaN where the patterns have no power on the source.

    Returns:
        (S,) the ratio; (S, 2) ends of its 95 % interval over the classes, which are drawn anew for
        both classifiers together.
    """
    powers = torch.stack([source.predictive_power, target.predictive_power])
    powers = torch.where(powers.isnan().any(0), torch.nan, powers)
    of_source, of_target = powers.nanmean(1)
    known = of_source > 0
    ends = mean_ratio_interval(powers[1], powers[0])
    rates = torch.where(known, of_target / of_source, torch.nan)
    return rates, torch.where(known.unsqueeze(1), ends, torch.nan)


def transfer_records(
    found: Mapping[tuple[str, str], Transferred],
    sources: Mapping[str, str],
    class_names: Sequence[str],
) -> list[Record]:
    """Return the numbers of all pairs: means over classes first, then those of each class.

    Intervals of means are over the classes, all others over images.

    Args:
        found: By the names of a pattern set and of a classifier.
        sources: For each pattern set the classifier that it was searched in, where that is there.
        class_names: Name of every class.
    """
    records: list[Record] = []
    for (of, on), transferred in found.items():
        power, clean, kept, images = transferred
        pair: dict[str, str | float] = {"patterns": of, "classifier": on}
        by_size = [{"pattern_size": size, **pair} for size in power.pattern_sizes]
        right = (clean * images).round().long()
        ((low, high),) = share_interval(right.unsqueeze(0), images).tolist()
        records.append(Record("clean_accuracy", float(clean), pair, (low, high)))
        robust = transferred.robust_accuracy
        of_all = {"robust_accuracy": (robust, share_interval(kept, images))}
        unknown = torch.full_like(robust, torch.nan)
        of_all["transfer_rate"] = unknown, unknown.unsqueeze(1).expand(-1, 2)
        if of in sources:
            of_all["transfer_rate"] = transfer_rate(found[of, sources[of]].power, power)
        for name, (values, ends) in of_all.items():
            for column, about in enumerate(by_size):
                low, high = ends[column].tolist()
                records.append(Record(name, float(values[column]), about, (low, high)))
        assert power.controls is not None
        base, random, whole = power.controls
        names = [class_names[target] for target in power.targets.tolist()]
        powers = power.predictive_power, power.interval
        records += records_by_class("predictive_power", *powers, by_size, names)
        for name, rates, columns in (
            ("attack_success_rate", power.attack_success_rate, by_size),
            ("random_mask_rate", random, by_size),
            ("base_rate", base.unsqueeze(1), [pair]),
            ("whole_canvas_rate", whole.unsqueeze(1), [pair]),
        ):
            ends = power.rate_interval(rates)
            records += records_by_class(name, rates, ends, columns, names)
    return sorted(records, key=lambda record: "class" in record.about)


def weight_correlation(first: nn.Module, second: nn.Module) -> float:
    """Return the median correlation of two networks' weight tensors, in [-1, 1].

    It is about 0 where the initial weights were drawn independently, whatever both were trained
    on, and above it where one was trained further from the other or both from a third, the less the
    longer. Compared are weights (not biases or scales) of the same name and shape; with fewer than
    1,000 of them, or another structure, nothing can be said, and it is 0.
    """
    others = dict(second.named_parameters())
    pairs = [
        torch.stack([weight.detach().cpu().flatten(), others[name].detach().cpu().flatten()])
        for name, weight in first.named_parameters()
        if weight.ndim > 1 and name in others and others[name].shape == weight.shape
    ]
    if sum(pair.shape[1] for pair in pairs) < FEW_WEIGHTS:
        return 0.0
    return float(torch.stack([pair.double().corrcoef()[0, 1] for pair in pairs]).nanmedian())
