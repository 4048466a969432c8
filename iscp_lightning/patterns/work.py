"""What a search takes, known from numbers of images, classes and canvases alone."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from iscp_lightning.patterns.settings import SearchSettings
from iscp_lightning.patterns.variants.algorithm1 import Algorithm1
from iscp_lightning.work import Work

FLOAT = 4  # bytes


def search_work(
    labels: Tensor,
    shape: Sequence[int],
    targets: Sequence[int],
    settings: SearchSettings,
    *,
    search_labels: Tensor,
    canvases: int,
    sizes: int,
    measured: int,
    measured_images: Tensor,
    processes: int = 1,
) -> list[Work]:
    """Return the work of a search, stage by stage, as Algorithm 1 has it.

    Args:
        labels: (N,) int64, of the test images.
        shape: (C, H, W) of an image.
        targets: Target classes.
        settings: Settings of the search.
        search_labels: (m,) int64, of the search images; -1 for none of the classes.
        canvases: Canvases of a class.
        sizes: Number of pattern sizes that are measured.
        measured: Of how many canvases of a class they are measured.
        measured_images: (n,) int64, the images on which they are measured.
        processes: How many share the work.
    """
    chosen = torch.tensor(list(targets))
    per_pass = canvases * _of_other_classes(search_labels, chosen)
    problems, pixels = len(chosen) * canvases, math.prod(shape[1:])
    owned = math.ceil(problems / processes)
    canvas, mask = math.prod(shape), FLOAT * pixels
    pool = len(search_labels) * canvas
    searched = owned * (canvas + 3 * mask) + pool  # mask, gradient, sum over the last pass
    patterns = problems * (canvas + 2 * mask)
    controls = sizes + 1  # of the winner: random masks, and the whole canvas
    other = "" if type(settings.method) is Algorithm1 else ", as Algorithm 1 takes it"
    stamps = math.ceil(len(chosen) * measured / processes) * ((sizes + controls) * pixels + canvas)
    return [
        Work("ranking canvases", forwards=len(labels), host_bytes=FLOAT * len(labels)),
        Work(
            f"searching{other}",
            gradients=settings.course.search_epochs * per_pass,
            device_bytes=searched,
            host_bytes=pool + FLOAT * owned * len(search_labels),
        ),
        Work("final objectives", forwards=per_pass, device_bytes=searched),
        Work(
            "measuring",
            forwards=(sizes * measured + controls)
            * _of_other_classes(labels[measured_images], chosen),
            device_bytes=searched + stamps,
            # as they come from the processes, and in one set
            host_bytes=patterns * (2 if processes > 1 else 1),
        ),
    ]


def _of_other_classes(labels: Tensor, targets: Tensor) -> int:
    """Return the number of images that do not show the target, summed over the targets."""
    of_class = (labels + 1).bincount(minlength=int(targets.max()) + 2)  # the first: of no class
    return int((len(labels) - of_class[targets + 1]).sum())
