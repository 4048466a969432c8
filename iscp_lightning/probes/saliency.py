"""Saliency maps of a classifier: SmoothGrad, as Zhang & Zhu 2019 look at it, and others."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable
from functools import partial
from typing import Literal, TypeAlias, get_args

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from iscp_lightning.classifiers.frozen import full_fp32, uncompiled
from iscp_lightning.classifiers.prepared import relative_change
from iscp_lightning.classifiers.subject import Subject
from iscp_lightning.seeds import derived_seed

Method: TypeAlias = Literal["smoothgrad", "gradient", "IntegratedGradients", "InputXGradient"]
Of: TypeAlias = Literal["loss", "logit"]

AT_ONCE = 128  # images of a pass, noisy ones or not
TOGETHER = {"smoothgrad": 1, "IntegratedGradients": 2}  # images that become more; else `AT_ONCE`
EQUAL = 1e-4  # share of the logits' spread that rounding alone may change


class Score(nn.Module):
    """What is attributed to pixels, one number for each image.

    Args:
        network: Takes images (N, C, H, W) in [0, 1].
        of: The cross-entropy at the label, or the label's logit.
    """

    def __init__(self, network: nn.Module, of: Of) -> None:
        super().__init__()
        self.network = network
        self.of = of

    def forward(self, images: Tensor, labels: Tensor) -> Tensor:
        """Return the scores (N,)."""
        logits: Tensor = self.network(images)
        if self.of == "loss":
            return F.cross_entropy(logits, labels, reduction="none")
        return logits.gather(1, labels.unsqueeze(1)).squeeze(1)


@torch.inference_mode(False)
@full_fp32()
def saliency_maps(
    subject: Subject,
    images: Tensor,
    labels: Tensor,
    method: Method = "smoothgrad",
    *,
    samples: int = 100,
    noise: float = 0.1,
    of: Of = "loss",
    indices: Tensor | None = None,
) -> Tensor:
    """Return saliency maps, float32 (n, H, W) on the CPU, none negative.

    What captum attributes to each value is summed over the channels without its sign. SmoothGrad
    (Smilkov et al. 2017) is before that the mean gradient of noisy copies of the image. The noise
    derives from the subject's seed and the image's index: on one kind of device, a map is the same
    whatever other images there are, and distortions of one image have the same noise.

    The fast copy is asked where its logits are the classifier's up to rounding, else the frozen
    one; both are left as they are.

    Args:
        subject: The classifier.
        images: float (n, C, H, W) in [0, 1].
        labels: (n,) int64, the true classes.
        method: `smoothgrad`, the plain `gradient`, or captum's class of this name.
        samples: Number of noisy copies, for SmoothGrad.
        noise: Their standard deviation as a share of the range of each image's values, likewise.
        of: Whether the gradient is that of the cross-entropy (`loss`) or of the label's `logit`.
        indices: (n,) int64, positions in the test set, which name the noise; None is 0 to n - 1.

    Raises:
        ValueError: if an argument is out of range, or a map is not finite.
    """
    for name, value, allowed in (("method", method, get_args(Method)), ("of", of, get_args(Of))):
        if value not in allowed:
            raise ValueError(f"`{name}` must be one of {', '.join(allowed)}, got {value!r}")
    if samples < 1 or not 0 <= noise < math.inf:
        raise ValueError(
            f"`samples` must be 1 or more and `noise` 0 or more, got {samples} and {noise}"
        )
    if len(images) == 0:
        return torch.zeros(0, *images.shape[2:])
    if not (images.is_floating_point() and images.min() >= 0 and images.max() <= 1):
        low, high = images.min().item(), images.max().item()
        raise ValueError(
            f"`images` must be floats in [0, 1], got {images.dtype} from {low:g} to {high:g}"
        )
    classes = len(subject.class_names)
    if labels.shape != images.shape[:1] or not ((labels >= 0) & (labels < classes)).all():
        raise ValueError(
            f"`labels` must be {len(images)} classes from 0 to {classes - 1}, got {labels.tolist()}"
        )
    images, labels = (each.to(subject.device).detach().clone() for each in (images.float(), labels))
    indices = torch.arange(len(images)) if indices is None else indices
    attribute = _attribution(Score(_network(subject, images[:4]), of), method, samples, noise)
    maps = []
    with torch.random.fork_rng(range(torch.cuda.device_count())):  # NoiseTunnel draws from it
        for some in torch.arange(len(images)).split(TOGETHER.get(method, AT_ONCE)):
            torch.manual_seed(derived_seed(subject.seed, "saliency", int(indices[some[0]])))
            found = attribute(images[some].requires_grad_(), additional_forward_args=labels[some])
            maps.append(found.detach().float().abs().sum(1).cpu())
    result = torch.cat(maps)
    if not (finite := result.flatten(1).isfinite().all(1)).all():
        first = int((~finite).nonzero()[0])
        raise ValueError(
            f"`images` have a saliency map that is not finite, first image {first} of class "
            f"{int(labels[first])}: the classifier's weights or normalisation are broken"
        )
    return result


def require_map(subject: Subject, method: Method = "smoothgrad", of: Of = "loss") -> None:
    """Raise a ValueError, before more is measured, if the first test image has no finite map."""
    first = next(iter(subject.batches(torch.tensor([0]))))
    saliency_maps(subject, first.image, first.label.cpu(), method, samples=1, of=of)


@torch.no_grad()
def _network(subject: Subject, some: Tensor) -> nn.Module:
    """Return the fast copy if it computes the same up to rounding, else the frozen one."""
    fast = subject.fast()
    same = relative_change(fast(some), subject.frozen(some)) <= EQUAL
    return fast if same else subject.frozen


def _attribution(score: Score, method: Method, samples: int, noise: float) -> Callable[..., Tensor]:
    """Return what makes attributions (n, C, H, W) of images, as captum's `attribute`."""
    from captum import attr  # seconds to load

    gradient = attr.Saliency(score)
    if method == "gradient":
        return partial(gradient.attribute, abs=False)
    if method != "smoothgrad":
        other: Callable[..., Tensor] = getattr(attr, method)(score).attribute
        return other
    tunnel = attr.NoiseTunnel(gradient)

    def smoothgrad(image: Tensor, additional_forward_args: Tensor) -> Tensor:
        low, high = image.detach().aminmax()
        found: Tensor = tunnel.attribute(
            image,
            nt_samples=samples,
            nt_samples_batch_size=AT_ONCE,
            stdevs=noise * float(high - low),
            abs=False,
            additional_forward_args=additional_forward_args,
        )
        return found

    return smoothgrad


def displayed(maps: Tensor) -> Tensor:
    """Return maps for the eye, float (n, H, W) in [0, 1]: over their 99th percentile, cut off.

    A map whose 99th percentile is 0 is divided by its maximum.

    Args:
        maps: float (n, H, W), none negative.
    """
    shown = []
    for each in maps:
        percentile = each.flatten().quantile(0.99)
        scale = torch.where(percentile > 0, percentile, each.max())
        shown.append((each / scale).clamp(max=1).nan_to_num(0))
    return torch.stack(shown) if shown else maps


@torch.inference_mode(False)
def randomised(classifier: nn.Module, seed: int) -> nn.Module:
    """Return a copy with new random weights, for the sanity check of Adebayo et al. 2018.

    A map that a classifier shares with it says nothing of what was learned. What cannot draw its
    weights anew, such as the position embedding of a transformer, keeps them.

    Args:
        classifier: Any classifier; it is left as it is.
        seed: Of the weights.

    Raises:
        ValueError: if no part can.
    """
    random = copy.deepcopy(uncompiled(classifier))
    draws: list[Callable[[], None]] = [
        getattr(part, name)
        for part in random.modules()
        for name in ("reset_parameters", "_reset_parameters")  # the latter is that of attention
        if hasattr(part, name)
    ]
    if not draws:
        raise ValueError(
            f"`classifier` is a {type(classifier).__name__} without a part that can draw new "
            "weights (`reset_parameters`)"
        )
    with torch.random.fork_rng(range(torch.cuda.device_count())):
        torch.manual_seed(seed)
        for draw in draws:
            draw()
    return random
