"""What searches and trainings take: the table of docs/scaling.md, from throughput measured here.

    python benchmarks/scaling.py docs/scaling.md [--device cuda] [--batch 16]

Numbers of images and bytes are arithmetic (`search_work`); times are these over the rates of a
ResNet-50 on one device, at 32 and at 224 pixels, measured in this run, and an eighth of them for
eight devices: communication, reading and augmenting images are not counted. The last line is JSON:
the rates.
"""

import argparse
import json
import platform
from pathlib import Path

import torch

from iscp_lightning import SearchSettings, Subject, create_classifier
from iscp_lightning.classifiers.rates import Rates, measure_rates
from iscp_lightning.commands._estimate import duration, seconds, size
from iscp_lightning.data import MemoryImages
from iscp_lightning.data.splits import stratified_split
from iscp_lightning.patterns.work import search_work
from iscp_lightning.runs import atomic_path
from iscp_lightning.work import Work

SIZES = 5  # pattern sizes
TEXT = """\
# What it takes

Made by `python benchmarks/scaling.py docs/scaling.md` on {device}, torch {version}: a ResNet-50,
five positive canvases a class, five pattern sizes, `search_fraction` 0.2. Counts and bytes are
arithmetic; times are counts over the rates of the fast copy measured in that run, for eight devices
an eighth of them. Attacks and D_R run the network itself, which is somewhat slower. Reading and
augmenting images, communication and figures are not counted. `--estimate` prints the same for a
`fit`, `search` or `predict` of yours, with the rates of your classifier on your device; it does not
look at Trainer options that limit the batches.

{rates}
{gpu}
Data on a device are canvases, masks, their gradients and sums, and the search images, of the
problems that one process owns; the network and its activations come on top, and follow from
`micro_batch_size`. The first process also holds all patterns at the end.

{table}
More than 50 classes have only their winners measured unless `measure_canvases: all` is given, which
says what it costs. `schedule: quick` takes 40 % of the searching ([method.md](method.md)).
"""
UNPROVEN = """
**No GPU has been at hand: times on GPUs, and everything that only a GPU can show, are unproven.**
`make test-gpu` and `python benchmarks/scaling.py docs/scaling.md --device cuda` prove them on one.
"""


def rates_of(image_size: int, args: argparse.Namespace) -> Rates:
    """Return the rates of a ResNet-50 with random weights."""
    network = create_classifier(args.architecture, 10, image_size)
    shape = (args.batch, 3, image_size, image_size)
    images = torch.randint(0, 256, shape, dtype=torch.uint8)
    data = MemoryImages(images, torch.arange(args.batch) % 10)
    names = [str(k) for k in range(10)]
    subject = Subject(network.eval(), data, names, device=torch.device(args.device))
    return measure_rates(subject, batch_size=args.batch)


def search(classes: int, images: int, of: int, side: int, processes: int) -> list[Work]:
    """Return the stages of a search of some classes of a test set."""
    labels = torch.arange(images) % of
    chosen, rest = stratified_split(labels, torch.arange(images), 0.2, 0)
    return search_work(
        labels,
        (3, side, side),
        range(classes),
        SearchSettings(),
        search_labels=labels[chosen],
        canvases=5,
        sizes=SIZES,
        measured=5 if classes <= 50 else 1,
        measured_images=rest,
        processes=processes,
    )


def training(images: int, epochs: int) -> list[Work]:
    """Return the trainings of a set, and D_R from its images."""
    updates = images * epochs
    return [
        Work(f"natural training, {epochs} epochs", updates=updates),
        Work(f"PGD-7 training, {epochs} epochs", updates=updates, gradients=7 * updates),
        Work("D_R, 1,000 steps", forwards=images, gradients=1000 * images),
    ]


def rows(title: str, one: list[Work], eight: list[Work], rates: Rates) -> list[str]:
    """Return a table row for each stage."""
    lines = []
    for work, shared in zip(one, eight, strict=True):
        counts = [f"{n:,}" if n else "-" for n in (work.forwards, work.gradients, work.updates)]
        time = seconds(work, rates)
        memory = [size(w.device_bytes) if w.device_bytes else "-" for w in (work, shared)]
        cells = [title, work.stage, *counts, duration(time), duration(time / 8), *memory]
        lines.append(f"| {' | '.join(cells)} |")
    return lines


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("out", type=Path)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--architecture", default="resnet50")
    parser.add_argument("--sizes", type=int, nargs=2, default=(32, 224), help="of the images")
    args = parser.parse_args()
    small, large = args.sizes
    rates = {side: rates_of(side, args) for side in args.sizes}
    head = ["data", "stage", "forward", "gradient", "update", "1 device", "8 devices"]
    head += ["data on each of 1", "on each of 8"]
    lines = [f"| {' | '.join(head)} |", f"|{' --- |' * len(head)}"]
    for title, classes, images, of, side in (
        ("CIFAR-10", 10, 10_000, 10, small),
        ("ImageNet, 50 classes", 50, 50_000, 1000, large),
        ("ImageNet, 1,000 classes", 1000, 50_000, 1000, large),
    ):
        one, eight = (search(classes, images, of, side, n) for n in (1, 8))
        lines += rows(title, one, eight, rates[side])
    for title, images, epochs, side in (
        ("CIFAR-10", 50_000, 100, small),
        ("ImageNet", 1_281_167, 90, large),
    ):
        works = training(images, epochs)
        lines += rows(title, works, works, rates[side])
    device = torch.device(args.device)
    gpu = device.type == "cuda"
    here = torch.cuda.get_device_name() if gpu else f"{torch.get_num_threads()} CPU cores"
    words = "\n".join(
        f"* at {side} pixels {r.forwards:,.1f} images a second forward, {r.gradients:,.1f} with "
        f"gradient, {r.updates:,.1f} updates"
        for side, r in rates.items()
    )
    text = TEXT.format(
        device=f"{here} ({platform.machine()})",
        version=torch.__version__,
        rates=words,
        gpu="" if gpu else UNPROVEN,
        table="\n".join(lines) + "\n",
    )
    with atomic_path(args.out) as temporary:
        temporary.write_text(text)
    print(text)
    numbers = {
        f"{name}_{side}": round(rate, 2)
        for side, r in rates.items()
        for name, rate in r._asdict().items()
        if name != "peak_bytes"
    }
    print(json.dumps(numbers))


if __name__ == "__main__":
    main()
