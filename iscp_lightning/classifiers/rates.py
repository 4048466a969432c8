"""How many images a second a classifier takes on a device."""

from __future__ import annotations

import copy
import statistics
import time
from collections.abc import Callable
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from iscp_lightning.classifiers.frozen import full_fp32
from iscp_lightning.classifiers.prepared import Precision
from iscp_lightning.classifiers.subject import Subject

REPEATS = 5


class Rates(NamedTuple):
    """Images a second of one process.

    Attributes:
        forwards: Classified by the fast copy in fp32.
        gradients: Classified by the fast copy, with the gradient of the image.
        updates: Trained on in fp32, without reading and augmenting them.
        peak_bytes: Memory of the device that this took, network included; 0 on a CPU, where it is
            not known.
    """

    forwards: float
    gradients: float
    updates: float
    peak_bytes: int = 0


def measure_rates(subject: Subject, precision: Precision = "fp32", batch_size: int = 128) -> Rates:
    """Return a classifier's rates on the subject's device: medians of a few batches.

    Args:
        subject: The classifier and the test images.
        precision: Of the fast copy that gives gradients.
        batch_size: Images taken together.
    """
    device = subject.device
    indices = torch.arange(batch_size) % len(subject.images)
    (batch,) = subject.batches(indices, batch_size)
    searched, fast = subject.fast(precision), subject.fast()
    trained = copy.deepcopy(subject.frozen).train().requires_grad_(True)
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)

    @full_fp32()
    @torch.no_grad()
    def forward() -> None:
        fast(batch.image)

    @full_fp32()
    def gradient() -> None:
        images = batch.image.requires_grad_()
        torch.autograd.grad(_loss(searched, images, batch.label), images)

    def update() -> None:
        loss = _loss(trained, batch.image.detach(), batch.label)
        if loss.requires_grad:  # it has weights
            loss.backward()

    forwards, gradients, updates = (
        batch_size / _seconds(work, device) for work in (forward, gradient, update)
    )
    peak = torch.cuda.max_memory_allocated(device) if device.type == "cuda" else 0
    return Rates(forwards, gradients, updates, peak)


def _loss(network: nn.Module, images: Tensor, labels: Tensor) -> Tensor:
    return F.cross_entropy(network(images).float(), labels, reduction="sum")


def _seconds(work: Callable[[], None], device: torch.device) -> float:
    times = []
    for _ in range(REPEATS + 1):
        start = time.perf_counter()
        work()
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        times.append(time.perf_counter() - start)
    return statistics.median(times[1:])
