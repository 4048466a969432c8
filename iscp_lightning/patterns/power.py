"""Predictive power: how often a pasted pattern makes a classifier say its class."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import torch
from torch import Tensor, nn
from torchmetrics import Metric
from tqdm.auto import tqdm

from iscp_lightning.classifiers.frozen import frozen_copy, full_fp32, module_device
from iscp_lightning.data.images import Batch, ImageSet, to_float
from iscp_lightning.data.testset import require_names, require_same
from iscp_lightning.patterns.mixing import paste, top_pixels
from iscp_lightning.ranks import gather, share

if TYPE_CHECKING:
    from iscp_lightning.patterns.pattern import PatternSet

EVALUATION_BATCH = 256


class PatternPower(NamedTuple):
    """What `PredictivePower` computes.

    Attributes:
        predictive_power: (P, S) float64, NaN where the class is never predicted right.
        clean_accuracy: (K,) float64 share of each class's images predicted right, NaN without any.
        images: (K,) int64 number of each class's images.
    """

    predictive_power: Tensor
    clean_accuracy: Tensor
    images: Tensor

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


class PredictivePower(Metric):
    """PW = acc(pasted non-target images -> y) / acc(clean images of class y), section 4.

    Args:
        patterns: The P patterns to measure.
        pattern_sizes: The S sizes, as shares of the pixels.
        sync_on_compute: Whether `compute` sums over processes.
    """

    is_differentiable = False
    higher_is_better = True
    full_state_update = False
    hits: Tensor
    pasted: Tensor
    correct: Tensor
    seen: Tensor

    def __init__(
        self, patterns: PatternSet, pattern_sizes: Sequence[float], sync_on_compute: bool = True
    ) -> None:
        super().__init__(sync_on_compute=sync_on_compute)
        self.targets = patterns.targets
        self.canvas_indices = patterns.canvas_indices
        self.canvases = patterns.canvases
        masks, means = patterns.masks.cpu(), patterns.mask_means.cpu()
        self.selected = torch.stack([top_pixels(masks, means, s) for s in pattern_sizes], 1)
        classes = len(patterns.class_names)
        shapes = {"hits": self.selected.shape[:2], "pasted": (len(patterns), 1)}
        for name, shape in (shapes | {"correct": (classes,), "seen": (classes,)}).items():
            self.add_state(name, torch.zeros(shape, dtype=torch.int64), dist_reduce_fx="sum")

    @full_fp32()
    def update(self, classifier: nn.Module, batch: Batch) -> None:
        """Classify a batch clean and with every pattern pasted on its non-target images.

        Args:
            classifier: In eval mode, on the batch's device.
            batch: float32 images in [0, 1]; `index` leaves a canvas out of its own measurement.
        """
        image, device = batch.image, batch.image.device
        if len(image) == 0:  # many networks cannot take an empty batch
            return
        with torch.no_grad():
            right = classifier(image).argmax(1) == batch.label
            self.seen += batch.label.bincount(minlength=len(self.seen))
            self.correct += batch.label[right].bincount(minlength=len(self.correct))
            for row in range(len(self.targets)):
                target = self.targets[row].to(device)
                others = batch.label != target
                others &= batch.index != self.canvas_indices[row].to(device)
                images = image[others]
                if len(images) == 0:
                    continue
                self.pasted[row] += len(images)
                canvas = to_float(self.canvases[row].to(device))
                for column, selected in enumerate(self.selected[row].to(device)):
                    predicted = classifier(paste(selected, canvas, images)).argmax(1)
                    self.hits[row, column] += (predicted == target).sum()

    def result(self) -> PatternPower:
        """Return what `compute` does, in full shape: torchmetrics squeezes single values."""
        power, clean, images = self.compute()
        classes = self.seen.shape
        return PatternPower(
            power.reshape(self.hits.shape), clean.reshape(classes), images.reshape(classes)
        )

    def compute(self) -> PatternPower:
        """Return predictive power and clean accuracy over all batches."""
        # on the CPU: not every device has float64
        images = self.seen.cpu()
        clean = self.correct.cpu().double() / images
        success = self.hits.cpu().double() / self.pasted.cpu()
        power = success / clean[self.targets].unsqueeze(1)
        return PatternPower(torch.where(power.isinf(), torch.nan, power), clean, images)


def measure_power(
    patterns: PatternSet,
    classifier: nn.Module,
    images: ImageSet,
    *,
    pattern_sizes: Sequence[float],
    measure_on: Literal["held_out", "full"] = "held_out",
    device: torch.device | None = None,
    progress: bool = False,
) -> PatternPower:
    """Return the patterns' predictive power on the test set that was searched, on the CPU.

    Args:
        patterns: The patterns.
        classifier: Copied to the device and measured in fp32; never changed.
        images: The whole test set.
        pattern_sizes: Sizes as shares of the pixels.
        measure_on: The images that the search has not seen, or all.
        device: Where to compute; None is the classifier's own.
        progress: Whether to show a progress bar.

    Raises:
        ValueError: if no image is held out, a label has no name, or another test set was searched.
    """
    require_same(patterns.provenance, images)
    require_names(images.labels, patterns.class_names)
    device = device or module_device(classifier)
    frozen = frozen_copy(classifier, device)
    indices = measured_indices(patterns, torch.arange(len(images)), measure_on)
    metric = PredictivePower(patterns, pattern_sizes, sync_on_compute=False).to(device)
    chunks = indices.split(EVALUATION_BATCH)
    with tqdm(total=len(chunks), desc="predictive power", disable=not progress) as bar:
        for stored in images.batches(chunks):
            batch = Batch(*(move(tensor, device) for tensor in stored))
            metric.update(frozen, batch._replace(image=to_float(batch.image)))
            bar.update()
    return PatternPower(*(tensor.cpu() for tensor in metric.result()))


def measure_shared(
    patterns: PatternSet,
    classifier: nn.Module,
    images: ImageSet,
    **arguments: Any,  # noqa: ANN401
) -> PatternPower:
    """Return `measure_power` of all patterns, each measured by one rank; a collective."""
    mine = torch.tensor(list(share(range(len(patterns))))).long()
    power = measure_power(patterns[mine], classifier, images, **arguments)
    shares = gather((mine, power.predictive_power))
    values = torch.cat([value for _, value in shares])
    order = torch.cat([index for index, _ in shares]).argsort()
    return power._replace(predictive_power=values[order])


def measured_indices(
    patterns: PatternSet, indices: Tensor, measure_on: Literal["held_out", "full"]
) -> Tensor:
    """Return those of the test images on which predictive power is measured.

    Raises:
        ValueError: if `measure_on` is neither word, or no image is held out.
    """
    if measure_on == "full":
        return indices
    if measure_on != "held_out":
        raise ValueError(f"`measure_on` must be held_out or full, got {measure_on!r}")
    rest = indices[~torch.isin(indices, patterns.search_indices.to(indices.device))]
    if len(rest) == 0:
        raise ValueError(
            "`measure_on`: the search used every test image (`search_fraction` 1), "
            "so only `full` can be measured"
        )
    return rest


def move(tensor: Tensor | None, device: torch.device) -> Any:  # noqa: ANN401
    """Return the tensor on `device`; None stays None."""
    return None if tensor is None else tensor.to(device)
