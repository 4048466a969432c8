"""Grad-CAM: where a classifier looks, beside where its patterns are (appendix F of the paper)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from iscp_lightning.classifiers.frozen import full_fp32
from iscp_lightning.classifiers.subject import Subject
from iscp_lightning.data.images import to_float
from iscp_lightning.data.stamps import Stamp
from iscp_lightning.metrics.intervals import mean_interval
from iscp_lightning.patterns.pixels import top_pixels

ATTENDED_TOGETHER = 64  # images; a gradient needs more memory than an answer


class AttentionShift(NamedTuple):
    """Where the classifier looks before and after patterns are pasted (Figure 12).

    Attributes:
        before: (P, S) float64, mean share of the attention to an image that lies where P patterns
            of S sizes will be; by chance the share of their pixels. Images whose map is nowhere
            positive count neither here nor there; NaN without any other.
        after: (P, S) float64, likewise with the pattern pasted.
        before_interval: (P, S, 2) float64, ends of the 95 % interval over the images.
        after_interval: Likewise.
    """

    before: Tensor
    after: Tensor
    before_interval: Tensor
    after_interval: Tensor


@torch.no_grad()
def last_feature_map(classifier: nn.Module, images: Tensor) -> nn.Module:
    """Return the module whose output is a classifier's last feature map.

    It has a convolution in it, and of all such with an output (n, C, h, w) of more than one pixel
    it is done last: in a ResNet the last stage, residual and activation included.

    Args:
        classifier: A frozen classifier.
        images: float32 (n, C, H, W) on its device.

    Raises:
        ValueError: if there is none, or what follows it are tokens, as in a vision transformer or
            with attention pooling.
    """
    done: list[nn.Module] = []
    of_tokens: list[nn.Module] = []

    def note(part: nn.Module, _: object, output: object) -> None:
        if not isinstance(output, Tensor):
            return
        if isinstance(part, nn.Linear):
            of_tokens.extend([part] if output.ndim > 2 else [])
        elif output.ndim == 4 and output.shape[2:].numel() > 1:
            done.append(part)
            of_tokens.clear()

    parts = [
        part
        for part in classifier.modules()
        if any(isinstance(inner, nn.Conv2d) for inner in part.modules())
        or isinstance(part, nn.Linear)
    ]
    handles = [part.register_forward_hook(note) for part in parts]
    try:
        classifier(images)
    finally:
        for handle in handles:
            handle.remove()
    if not done:
        raise ValueError(
            f"Grad-CAM needs a convolution whose output has several pixels; `classifier` is a "
            f"{type(classifier).__name__} without one"
        )
    if of_tokens:
        raise ValueError(
            "Grad-CAM needs feature maps up to the last layers; `classifier` goes on with tokens "
            f"after its last convolution, in a {type(done[-1]).__name__}"
        )
    return done[-1]


@torch.inference_mode(False)
@full_fp32()
def grad_cam(subject: Subject, images: Tensor, targets: Tensor) -> Tensor:
    """Return the Grad-CAM maps of images (Selvaraju et al. 2017), float32 (n, H, W) on the CPU.

    The last feature map's channels are summed, each weighed by the mean gradient of the target's
    logit, and enlarged bilinearly. Negative values, which Grad-CAM cuts off, are kept: they rank
    the pixels where fewer are positive than one asks for.

    Args:
        subject: The classifier; its frozen copy is asked, in fp32, and left as it is.
        images: uint8 (n, C, H, W).
        targets: (n,) int64, the class whose evidence is wanted in each.

    Raises:
        ValueError: if the classifier has no feature map.
    """
    from captum.attr import LayerGradCam  # seconds to load

    frozen, device = subject.frozen, subject.device
    if len(images) == 0:
        return torch.zeros(0, *images.shape[2:])
    method = LayerGradCam(frozen, last_feature_map(frozen, to_float(images[:1].to(device))))
    maps = []
    chunks = [part.split(ATTENDED_TOGETHER) for part in (images, targets)]
    for some, wanted in zip(*chunks, strict=True):
        found = method.attribute(to_float(some.to(device)), wanted.to(device)).detach()
        large = F.interpolate(found, images.shape[2:], mode="bilinear", align_corners=False)
        maps.append(large[:, 0].float().cpu())
    return torch.cat(maps)


def attention_stamps(maps: Tensor, canvases: Tensor, sizes: Sequence[float]) -> Stamp:
    """Return what patterns of the most attended pixels would be, as `PatternSet.stamps` does.

    Args:
        maps: float (P, H, W), what `grad_cam` returned for the canvases.
        canvases: uint8 (P, C, H, W).
        sizes: S sizes, shares of the pixels.

    Raises:
        ValueError: if a size is out of range or selects no pixel.
    """
    mask = top_pixels(maps, maps, sizes).unsqueeze(2)
    return Stamp(mask, canvases.unsqueeze(1).expand(-1, len(sizes), -1, -1, -1))


def attention_within(maps: Tensor, area: Tensor) -> Tensor:
    """Return the share of the positive attention that lies in an area, (n,) float64.

    Args:
        maps: float (n, H, W); a map without positive values has NaN.
        area: bool, broadcast against them.
    """
    positive = maps.clamp(min=0).double()
    return (positive * area).sum((1, 2)) / positive.sum((1, 2))


def attention_shift(
    subject: Subject, targets: Tensor, canvas_indices: Tensor, stamps: Stamp, indices: Tensor
) -> AttentionShift:
    """Return how much the classifier looks at patterns that are pasted on images of other classes.

    Its attention is that to the class which it says, with and without the pattern.

    Args:
        subject: The classifier and the test images.
        targets: (P,) int64 target classes.
        canvas_indices: (P,) int64; a pattern is not pasted on its own canvas.
        stamps: The patterns: mask (P, S, 1, H, W), pixels (P, S, C, H, W).
        indices: (n,) int64, on which test images; of many, a sample is enough.
    """
    images, labels = subject.images.read(indices), subject.images.labels[indices]
    clean = grad_cam(subject, images, subject.predictions[indices])
    others = (labels != targets.unsqueeze(1)) & (indices != canvas_indices.unsqueeze(1))
    pairs = others.unsqueeze(1).expand(-1, stamps.mask.shape[1], -1)  # (P, S, n)
    shares = torch.full((2, *pairs.shape), torch.nan, dtype=torch.float64)
    chunks = pairs.nonzero().split(ATTENDED_TOGETHER)
    with subject.bar(len(chunks), "attention to patterns") as bar:
        for chunk in chunks:
            row, column, image = chunk.unbind(1)
            stamp = Stamp(stamps.mask[row, column], stamps.pixels[row, column], stamps.additive)
            pasted, area = stamp(images[image]), stamp.mask[:, 0] > 0
            maps = grad_cam(subject, pasted, predictions(subject, pasted))
            shares[:, row, column, image] = torch.stack(
                [attention_within(clean[image], area), attention_within(maps, area)]
            )
            bar.update()
    ends = [mean_interval(each.T) for each in shares.flatten(0, 1)]
    intervals = torch.stack(ends).unflatten(0, shares.shape[:2])
    return AttentionShift(*shares.nanmean(3), *intervals)


def predictions(subject: Subject, images: Tensor) -> Tensor:
    """Return what the classifier says to images that are not its test images, (n,) int64, CPU.

    Args:
        subject: The classifier.
        images: uint8 (n, C, H, W).
    """
    chunks = images.split(subject.batch_size) if len(images) else ()
    said = [subject.classify(to_float(part.to(subject.device))).cpu() for part in chunks]
    return torch.cat([torch.zeros(0, dtype=torch.int64), *said])
