"""Measuring predictive power: patterns are pasted on test images, beside what controls them."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from iscp_lightning.classifiers.subject import Subject
from iscp_lightning.data.splits import stratified_choice
from iscp_lightning.data.stamps import Stamp
from iscp_lightning.metrics.success import StampSuccess, count_success
from iscp_lightning.patterns.power import Controls, MeasuredOn, PatternPower
from iscp_lightning.seeds import derived_seed, named_generator


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
            of_row += [
                each._replace(mask=scattered(each.mask, *key, q))
                for each, q in zip(of_row, sizes, strict=True)
            ]
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


@torch.no_grad()
def pasted_loss(
    network: nn.Module, stamps: Stamp, row: Tensor, target: Tensor, images: Tensor
) -> Tensor:
    """Return the cross-entropy for its class of images with one of P patterns, (n,) float32.

    Args:
        network: From images to logits.
        stamps: The patterns: mask (P, 1, 1, H, W), pixels (P, 1, C, H, W).
        row: (1,) int64, which of them.
        target: (1,) int64, its class, on the device.
        images: float32 (n, C, H, W) in [0, 1], on the device.
    """
    one = stamps._replace(mask=stamps.mask[row, 0], pixels=stamps.pixels[row, 0])
    logits = network(one(images)).float()
    return F.cross_entropy(logits, target.expand(len(images)), reduction="none")


def scattered(mask: Tensor, target: int, canvas: int, size: float) -> Tensor:
    """Return a mask with the same values at random places, which the other arguments fix.

    Args:
        mask: (1, H, W), of a pattern.
        target: Its class.
        canvas: Position of its canvas.
        size: Its size.
    """
    generator = named_generator(0, "random mask", target, canvas + 1, round(size * 1e6))
    flat = mask.flatten()
    order = torch.randperm(len(flat), generator=generator).to(flat.device)
    return flat[order].view_as(mask)


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
