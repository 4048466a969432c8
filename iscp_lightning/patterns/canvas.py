"""Canvas sampling (section 3 of the paper): which images the patterns are searched on."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import Literal, NamedTuple

import torch
from torch import Tensor, nn
from tqdm.auto import tqdm

from iscp_lightning.classifiers.frozen import full_fp32
from iscp_lightning.classifiers.outputs import require_logits
from iscp_lightning.data.images import ImageSet, to_float
from iscp_lightning.ranks import rank_and_size, share, sum_over_ranks
from iscp_lightning.seeds import named_generator

CanvasKind = Literal["positive", "negative", "random", "white"]
WHITE = -1
CHUNK = 256  # ranking never depends on how many processes share it: chunks are handed out whole


class Predictions(NamedTuple):
    """What a classifier says about every image of a set.

    Attributes:
        label: (N,) int64 predicted class.
        logit: (N,) float32 logit of that class.
    """

    label: Tensor
    logit: Tensor


class Canvases(NamedTuple):
    """The P search problems: one (class, canvas) pair each.

    Attributes:
        targets: (P,) int64 target class.
        indices: (P,) int64 canvas position in the test set; -1 is the white canvas.
        images: (P, C, H, W) uint8 canvases.
    """

    targets: Tensor
    indices: Tensor
    images: Tensor


class MissingCanvasError(ValueError):
    """A class has no image that could be its canvas."""


@full_fp32()
def predict(
    classifier: nn.Module,
    images: ImageSet,
    device: torch.device,
    num_classes: int,
    progress: bool = False,
) -> Predictions:
    """Return the classifier's predictions on all images, on the CPU; ranks share the work.

    Args:
        classifier: Images in [0, 1] to logits (N, K); should be in eval mode, on `device`.
        images: Images to classify.
        device: Where to compute.
        num_classes: Number of classes of the data set.
        progress: Whether to show a progress bar.

    Raises:
        ValueError: if there are fewer logits than classes, the classifier returns
            probabilities, or a logit is NaN; names the label of the first such image.
    """
    count = len(images)
    label, logit = torch.zeros(count, dtype=torch.int64), torch.zeros(count)
    chunks = share(torch.arange(count).split(CHUNK))
    bar = tqdm(total=len(chunks), desc="ranking canvases", disable=not progress)
    with torch.no_grad(), bar:
        for batch in images.batches(chunks):
            logits = classifier(to_float(batch.image.to(device))).float().cpu()
            if logits.shape[1] < num_classes:
                raise ValueError(
                    f"`classifier` has {logits.shape[1]} logits for {num_classes} classes"
                )
            if len(logits) > 1:  # a single row may look like probabilities by chance
                require_logits(logits)
            logit[batch.index], label[batch.index] = logits.max(1)
            bar.update()
    label, logit = sum_over_ranks(label), sum_over_ranks(logit)
    if logit.isnan().any():
        first = int(logit.isnan().nonzero()[0])
        raise ValueError(
            f"the classifier's logits are NaN, first for an image of class "
            f"{int(images.labels[first])} (index {first}): its weights or normalisation are broken"
        )
    return Predictions(label, logit)


def choose_canvases(
    predictions: Predictions,
    images: ImageSet,
    classes: Sequence[int],
    kind: CanvasKind,
    number: int,
    seed: int,
    class_names: Sequence[str],
    skip_missing: bool = False,
    progress: bool = False,
) -> Canvases:
    """Return up to `number` canvases for each class, most confident first.

    `positive`: images of the class predicted right; `negative`: other classes' images taken for
    it, both by the class's logit; `random`: any images, drawn by (seed, class); `white`: one
    canvas of ones. Fewer candidates than `number` are used with a warning.

    Args:
        predictions: The classifier's predictions on `images`.
        images: The test set.
        classes: Target classes.
        kind: Where canvases come from.
        number: N of the paper.
        seed: Fixes the random canvases.
        class_names: For messages.
        skip_missing: Leave classes without any candidate out, with a warning.
        progress: Whether to show a progress bar.

    Raises:
        MissingCanvasError: if a class has no candidate; names the class and kinds that would work.
    """
    targets: list[int] = []
    indices: list[int] = []
    left_out: list[str] = []
    few: list[str] = []
    for target in classes:
        candidates = _candidates(predictions, images.labels, target, kind, seed)[:number]
        name = class_names[target]
        if len(candidates) == 0:
            if not skip_missing:
                raise MissingCanvasError(_missing(predictions, images.labels, target, kind, name))
            left_out.append(name)
        elif len(candidates) < number and kind != "white":
            few.append(f"{name} ({len(candidates)})")
        targets += [target] * len(candidates)
        indices += candidates
    if left_out and rank_and_size()[0] == 0:
        warnings.warn(f"no {kind} canvas, so left out: {', '.join(left_out)}", stacklevel=2)
    if few and rank_and_size()[0] == 0:
        warnings.warn(
            f"fewer than {number} {kind} canvases, so only these are searched: {', '.join(few)}",
            stacklevel=2,
        )
    return Canvases(
        torch.tensor(targets, dtype=torch.int64),
        torch.tensor(indices, dtype=torch.int64),
        _pixels(images, torch.tensor(indices, dtype=torch.int64), progress),
    )


def _candidates(
    predictions: Predictions, labels: Tensor, target: int, kind: CanvasKind, seed: int
) -> list[int]:
    if kind == "white":
        return [WHITE]
    if kind == "random":
        generator = named_generator(seed, "random canvases", target)
        return torch.randperm(len(labels), generator=generator).tolist()
    same = labels == target if kind == "positive" else labels != target
    members = (same & (predictions.label == target)).nonzero().squeeze(1)
    order = predictions.logit[members].argsort(descending=True, stable=True)
    return members[order].tolist()


def _missing(
    predictions: Predictions, labels: Tensor, target: int, kind: CanvasKind, name: str
) -> str:
    reason = (
        "no image of the class is predicted right"
        if kind == "positive"
        else "no image of another class is taken for it"
    )
    other: CanvasKind = "negative" if kind == "positive" else "positive"
    working = [other] if _candidates(predictions, labels, target, other, 0) else []
    kinds = ", ".join([*working, "random", "white"])
    return f"class {target} ({name}) has no {kind} canvas: {reason}; `canvas` can be {kinds}"


def _pixels(images: ImageSet, indices: Tensor, progress: bool) -> Tensor:
    shape = images.pixels([0]).shape[1:]
    canvases = torch.full((len(indices), *shape), 255, dtype=torch.uint8)
    from_set = indices != WHITE
    if from_set.any():
        title = "reading canvases" if progress else None
        canvases[from_set] = images.read(indices[from_set], title)
    return canvases
