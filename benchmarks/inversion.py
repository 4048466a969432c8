"""Cost of a training step of an inversion against that of its bare parts, in one run.

    OMP_NUM_THREADS=2 python benchmarks/inversion.py [--device cuda] [--width 64] [--image_size 32]

The parts: the classifier on a batch, the discriminator on as many images and generated ones forward
and back, the generator forward, and back through the discriminator. Prints images/s of both, the
ratio of the step's time to that of the parts, the peak memory, and the parts' FLOPs of an image, of
which costs on other devices follow.
"""

from __future__ import annotations

import argparse
import json
import resource
import time
from collections.abc import Callable
from statistics import median

import torch
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from iscp_lightning import Shapes
from iscp_lightning.classifiers import create_classifier
from iscp_lightning.data import Batch
from iscp_lightning.data.datamodule import ImageDataModule
from iscp_lightning.inversion.architecture import Architecture
from iscp_lightning.inversion.losses import discriminator_hinge
from iscp_lightning.inversion.module import FeedforwardInversionModule


class Alone:
    """What a module asks of its Trainer, for steps without one."""

    def __init__(self, data: ImageDataModule) -> None:
        self.datamodule = data
        self.current_epoch = self.global_rank = 0
        self.world_size = self.num_training_batches = 1


def main() -> None:
    """Print the ratio."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--image_size", type=int, default=32)
    parser.add_argument("--width", type=int, default=16)
    parser.add_argument("--batch_size", type=int, default=32)
    parser.add_argument("--repeats", type=int, default=7)
    given = parser.parse_args()
    torch.manual_seed(0)
    device, side = torch.device(given.device), given.image_size
    classifier = create_classifier("resnet20", 10, side)
    data = ImageDataModule(Shapes(given.batch_size, 10, side), given.batch_size, val_fraction=0)
    module = FeedforwardInversionModule(
        classifier, architecture=Architecture(given.width), image_size=side
    ).to(device)
    module._frozen[0].to(device)
    optimizers = module.configure_optimizers()
    images = torch.rand(given.batch_size, 3, side, side, device=device)
    batch = Batch(images, torch.zeros(len(images)), torch.arange(len(images)))

    def step() -> None:
        module.training_step(batch, 0)

    def parts() -> None:
        bare_parts(module, optimizers, images)

    module.optimizers = lambda: optimizers  # type: ignore[method-assign,assignment]
    module.manual_backward = Tensor.backward  # type: ignore[method-assign,assignment]
    module.log = module.log_dict = lambda *_, **__: None  # type: ignore[method-assign,assignment]
    module._trainer = Alone(data)  # type: ignore[assignment]
    type(module)._data = property(lambda _: data)  # type: ignore[assignment]
    times: dict[str, list[float]] = {"step": [], "parts": []}
    for repeat in range(given.repeats + 1):  # the first one warms up
        for name, function in (("step", step), ("parts", parts)):
            taken = seconds(function, device)
            times[name] += [taken] if repeat else []
    for name, each in times.items():
        print(f"{name:6} {given.batch_size / median(each):10.1f} images/s")
    with FlopCounterMode(display=False) as counter:
        parts()
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    if device.type == "cuda":
        peak = torch.cuda.max_memory_allocated() / 2**30
    print(
        json.dumps(
            {
                "step_over_parts": round(median(times["step"]) / median(times["parts"]), 3),
                "gflops_per_image": round(counter.get_total_flops() / len(images) / 1e9, 3),
                "peak_gib": round(peak, 2),
            }
        )
    )


def bare_parts(
    module: FeedforwardInversionModule, optimizers: list[torch.optim.Optimizer], images: Tensor
) -> None:
    """Do what a step cannot do without, and nothing else."""
    with torch.no_grad():
        vectors = module.standardise(module._frozen[0](images))
    noise = torch.randn(len(images), module.generator.noise_size, device=images.device)
    fake = module.generator(vectors, noise)
    for_generator, for_discriminator = optimizers
    scores = module.discriminator(torch.cat([images, fake.detach()]), vectors.repeat(2, 1))
    for_discriminator.zero_grad()
    discriminator_hinge(*scores.chunk(2)).backward()
    for_discriminator.step()
    module.discriminator.requires_grad_(False)
    for_generator.zero_grad()
    (-module.discriminator(fake, vectors).mean()).backward()
    for_generator.step()
    module.discriminator.requires_grad_(True)


def seconds(function: Callable[[], None], device: torch.device) -> float:
    """Return how long a call takes."""
    if device.type == "cuda":
        torch.cuda.synchronize()
    start = time.perf_counter()
    function()
    if device.type == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter() - start


if __name__ == "__main__":
    main()
