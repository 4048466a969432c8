"""Speed of `fit` against a bare PyTorch loop: same network, batch, precision and augmentation.

    python benchmarks/train.py [--architecture resnet20] [--precision bf16-mixed]

Both train on the same images in turns; the last line is the median ratio of neighbouring turns.
"""

import argparse
import json
import logging
import statistics
import time
import warnings

import lightning as L
import torch
import torch.nn.functional as F

from iscp_lightning import ImageDataModule, NaturalModule, create_classifier
from iscp_lightning.data import Augmentation, ImageSource, MemoryImages
from iscp_lightning.data.images import to_float

BATCH = 128
AUGMENTATION = Augmentation(crop_padding=4, horizontal_flip=True)


class Noise(ImageSource):
    """Random images, whose content does not matter here."""

    num_classes = 10
    image_size = (32, 32)
    class_names = tuple("0123456789")

    def __init__(self, count: int) -> None:
        images = torch.randint(0, 256, (count, 3, 32, 32), dtype=torch.uint8)
        self.images = MemoryImages(images, torch.arange(count) % 10)

    def train(self) -> MemoryImages:
        return self.images

    def test(self) -> MemoryImages:
        return self.images


class Clock(L.Callback):
    """Measures the epochs after the first."""

    def on_train_epoch_start(self, trainer, pl_module) -> None:
        self.start = time.perf_counter()

    def on_train_epoch_end(self, trainer, pl_module) -> None:
        self.seconds = time.perf_counter() - self.start


def fit(source: Noise, architecture: str, precision: str) -> float:
    data = ImageDataModule(source, BATCH, AUGMENTATION, val_fraction=0)
    clock = Clock()
    trainer = L.Trainer(
        max_epochs=1,
        accelerator="cpu",
        precision=precision,
        callbacks=[clock],
        logger=False,
        enable_checkpointing=False,
        enable_model_summary=False,
    )
    trainer.fit(NaturalModule(architecture), datamodule=data)
    return len(source.images) / clock.seconds


def bare(source: Noise, architecture: str, precision: str) -> float:
    network = create_classifier(architecture).train().to(memory_format=torch.channels_last)
    optimizer = torch.optim.SGD(network.parameters(), 0.1, momentum=0.9, weight_decay=5e-4)
    generator = torch.Generator().manual_seed(0)
    images, labels = source.images.images, source.images.labels
    start = time.perf_counter()
    for rows in torch.randperm(len(images), generator=generator).split(BATCH):
        batch = AUGMENTATION(to_float(images[rows]), generator)
        with torch.autocast("cpu", torch.bfloat16, enabled=precision == "bf16-mixed"):
            loss = F.cross_entropy(network(batch), labels[rows])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return len(images) / (time.perf_counter() - start)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--architecture", default="resnet20")
    parser.add_argument("--precision", default="32-true", choices=["32-true", "bf16-mixed"])
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--images", type=int, default=2560)
    args = parser.parse_args()
    warnings.simplefilter("ignore")
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    source = Noise(args.images)
    rates: dict[str, list[float]] = {"fit": [], "bare": []}
    for repeat in range(args.repeats + 1):
        for name, contender in (("fit", fit), ("bare", bare)):
            measured = contender(source, args.architecture, args.precision)
            if repeat:  # the first round warms up
                rates[name].append(measured)
    median = {name: statistics.median(values) for name, values in rates.items()}
    for name, value in median.items():
        print(f"{name:5s} {value:8.0f} images/s")
    pairs = zip(rates["fit"], rates["bare"], strict=True)
    print(json.dumps({"fit_over_bare": round(statistics.median(a / b for a, b in pairs), 3)}))


if __name__ == "__main__":
    main()
