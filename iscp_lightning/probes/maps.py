"""Saliency maps of distorted images, in numbers."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from iscp_lightning.classifiers.subject import Subject
from iscp_lightning.data.images import Batch, as_eight_bits
from iscp_lightning.data.splits import stratified_choice
from iscp_lightning.metrics.intervals import mean_interval
from iscp_lightning.metrics.overlap import chance_overlap
from iscp_lightning.metrics.saliency import correlation, edge_of, gini, top_overlap
from iscp_lightning.patterns.attribution import attention_within
from iscp_lightning.patterns.pattern import PatternSet
from iscp_lightning.probes.distortion import Distortion
from iscp_lightning.probes.distortions import Clean
from iscp_lightning.probes.probe import About
from iscp_lightning.probes.saliency import Method, Of, randomised, saliency_maps
from iscp_lightning.ranks import share, sum_over_ranks
from iscp_lightning.records import Record
from iscp_lightning.seeds import derived_seed

IMAGES = 20  # by default
DISTORTED_TOGETHER = 10  # images; ranks share such parts


@dataclass(frozen=True)
class Mapped:
    """Saliency maps of one classifier for n images under D distortions, the first being none.

    Attributes:
        labels: (n,) int64, the images' classes.
        class_names: Name of each class of the data.
        abouts: What each distortion is, D of them.
        images: uint8 (D, n, C, H, W), what was distorted.
        maps: float32 (D, n, H, W), none negative.
        values: By measure, float64 (D, n), NaN where it is undefined.
        chance: Likewise what chance would give, for some measures.
    """

    labels: Tensor
    class_names: Sequence[str]
    abouts: Sequence[About]
    images: Tensor
    maps: Tensor
    values: Mapping[str, Tensor]
    chance: Mapping[str, Tensor]

    def records(self, about: About | None = None) -> list[Record]:
        """Return means over the images with 95 % bootstrap intervals, and chance as `chance_...`.

        Measures are those of `measure_maps`.

        Args:
            about: What all of them are about besides, such as the classifier.
        """
        found = []
        named = {**self.values, **{f"chance_{name}": value for name, value in self.chance.items()}}
        for row, of in enumerate(self.abouts):
            for name, values in named.items():
                low, high = mean_interval(values[row, :, None])[0].tolist()
                mean = float(values[row].nanmean())
                found.append(Record(name, mean, {**(about or {}), **of}, (low, high)))
        return found

    def compared_with(self, other: Mapped, about: About) -> list[Record]:
        """Return mean differences to another classifier, `saliency_gini_difference` and so on.

        A difference is of this one minus the other; its 95 % interval is of images that are drawn
        together for both.

        Args:
            other: Its maps of the same images.
            about: What all of them are about, such as both classifiers' names.
        """
        found = []
        for row, of in enumerate(self.abouts):
            for name in self.values.keys() & other.values.keys():
                differences = self.values[name][row] - other.values[name][row]
                low, high = mean_interval(differences[:, None])[0].tolist()
                mean = float(differences.nanmean())
                found.append(Record(f"{name}_difference", mean, {**about, **of}, (low, high)))
        return sorted(found, key=lambda record: record.measure)


def measure_maps(
    subject: Subject,
    distortions: Sequence[Distortion],
    indices: Tensor | None = None,
    *,
    objects: Tensor | None = None,
    patterns: PatternSet | None = None,
    pattern_size: float = 0.05,
    samples: int = 100,
    noise: float = 0.1,
    method: Method = "smoothgrad",
    of: Of = "loss",
) -> Mapped:
    """Return saliency maps of images as they are and distorted, and what is measured of them.

    `saliency_gini` is how sparse a map is, `saliency_on_object` and `saliency_on_edge` its share on
    the object and on the object's edge, by chance their shares of the pixels; where patches are
    shuffled, those of the object are looked for where they have gone. `saliency_overlap` is that of
    the most salient pixels with the pattern of the image's class. `correlation_with_clean` is
    Spearman's with the map of the image as it is, shuffled as the image;
    `correlation_with_random` that with the map of the same network with random weights: a map of
    what was learned has none. Ranks share the work; each gets the same.

    Args:
        subject: The classifier and the test images.
        distortions: What is done to the images; those that need it have seen their data (`check`).
        indices: (n,) int64, which test images; None draws 20, as many of each class.
        objects: bool (N, H, W), where each test image shows its object, if known: `objects_of`.
        patterns: Of this classifier on images of this size; each class's winner is taken.
        pattern_size: Share of the pixels that a pattern has.
        samples: As for `saliency_maps`.
        noise: Likewise.
        method: Likewise.
        of: Likewise.

    Raises:
        ValueError: if `objects` or `patterns` are not of such images, a pattern selects no pixel,
            a map is not finite or the network has no weights to draw.
    """
    labels = subject.images.labels
    indices = mapped_images(subject) if indices is None else indices
    shape = tuple(subject.images.pixels([0]).shape[1:])
    _require_fitting(subject, shape, objects, patterns)
    distortions = [Clean(), *(each for each in distortions if not isinstance(each, Clean))]
    random = Subject(
        randomised(subject.classifier, derived_seed(subject.seed, "random weights")),
        subject.images,
        subject.class_names,
        device=subject.device,
        seed=subject.seed,
    )
    size = (len(distortions), len(indices))
    images = torch.zeros(*size, *shape, dtype=torch.uint8)
    maps, random_maps = torch.zeros(2, *size, *shape[1:])
    parts = share(torch.arange(len(indices)).split(DISTORTED_TOGETHER))
    mine = indices[torch.cat([indices[:0], *parts])]
    with subject.bar(len(parts) * len(distortions), "saliency maps") as bar:
        batches = subject.batches(mine, DISTORTED_TOGETHER)
        for part, batch in zip(parts, batches, strict=True):
            for row, distortion in enumerate(distortions):
                distorted = distortion(subject, batch)
                images[row, part] = as_eight_bits(distorted, distortion.name).cpu()
                for one, found in ((subject, maps), (random, random_maps)):
                    found[row, part] = saliency_maps(
                        *(one, distorted, batch.label, method),
                        samples=samples,
                        noise=noise,
                        of=of,
                        indices=batch.index,
                    )
                bar.update()
    images, maps, random_maps = map(sum_over_ranks, (images, maps, random_maps))

    clean = maps[0] / maps[0].max().clamp(min=torch.finfo(maps.dtype).tiny)
    clean = _shuffled(clean, subject, distortions, indices)
    values = {
        "saliency_gini": _of_each(gini, maps),
        "correlation_with_clean": _of_each(correlation, maps, clean),
        "correlation_with_random": _of_each(correlation, maps, random_maps),
    }
    chance = {}
    if objects is not None:
        inside = objects[indices]
        for place, area in (("object", inside), ("edge", edge_of(inside))):
            there = _shuffled(area.float(), subject, distortions, indices) > 0
            values[f"saliency_on_{place}"] = _of_each(attention_within, maps, there)
            chance[f"saliency_on_{place}"] = there.double().mean((2, 3))
    if patterns is not None:
        selected = _selected(patterns, pattern_size, labels[indices]).expand(maps.shape)
        values["saliency_overlap"] = _of_each(top_overlap, maps, selected)
        shares = selected.double().mean((2, 3))
        by_chance = shares.apply_(chance_overlap)
        chance["saliency_overlap"] = by_chance.where(by_chance > 0, torch.nan)
    abouts = [each.about for each in distortions]
    return Mapped(labels[indices], subject.class_names, abouts, images, maps, values, chance)


def mapped_images(subject: Subject, count: int = IMAGES) -> Tensor:
    """Return test images whose saliency is mapped, as many of each class, (n,) int64."""
    drawn = derived_seed(subject.seed, "saliency maps")
    return stratified_choice(subject.images.labels, count, drawn)


def _require_fitting(
    subject: Subject,
    shape: Sequence[int],
    objects: Tensor | None,
    patterns: PatternSet | None,
) -> None:
    expected = (len(subject.images), *shape[1:])
    if objects is not None and (objects.dtype, tuple(objects.shape)) != (torch.bool, expected):
        raise ValueError(
            f"`objects` must be bool {expected}, one mask for each test image, got "
            f"{objects.dtype} {tuple(objects.shape)}"
        )
    if patterns is not None:
        given = (patterns.class_names, tuple(patterns.canvases.shape[2:]))
        if given != (subject.class_names, expected[1:]):
            raise ValueError(
                f"`patterns` must be of the {len(subject.class_names)} classes and {expected[1:]} "
                f"pixels of the test images, got {len(given[0])} classes and {given[1]} pixels"
            )


def _of_each(measure: Callable[..., Tensor], *sets: Tensor) -> Tensor:
    """Return a measure (D, n) of sets (D, n, H, W)."""
    return measure(*(each.flatten(0, 1) for each in sets)).view(sets[0].shape[:2])


def _shuffled(
    areas: Tensor, subject: Subject, distortions: Sequence[Distortion], indices: Tensor
) -> Tensor:
    """Return areas as they lie in what each distortion makes of the images, (D, n, H, W).

    Args:
        areas: float (n, H, W) in [0, 1].
        subject: The test images.
        distortions: D of them.
        indices: (n,) int64, which test images.
    """
    batch = Batch(areas.unsqueeze(1), subject.images.labels[indices], indices)
    return torch.stack([distortion.moved(subject, batch).squeeze(1) for distortion in distortions])


def _selected(patterns: PatternSet, pattern_size: float, labels: Tensor) -> Tensor:
    """Return the pixels of each label's winner, bool (n, H, W); none where there is no pattern."""
    winners = patterns[patterns.winners]
    selected = winners.selected(pattern_size)
    of_class = selected.new_zeros(len(patterns.class_names), *selected.shape[1:])
    of_class[winners.targets] = selected
    return of_class[labels]
