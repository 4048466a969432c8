"""Speed of the pattern search against Algorithm 1 written plainly and against the network's limit.

    python benchmarks/search.py [--architecture resnet20]

All contenders run alternately in one process. A ratio is the median over the repeats of the two
rates measured one after the other, which a machine that is slow for a minute disturbs least. The
weights are random but normalised by a few batches, which costs the same time as trained ones.
"""

import argparse
import copy
import json
import statistics
import time
from collections.abc import Callable
from dataclasses import replace

import torch
import torch.nn.functional as F

from iscp_lightning import SearchSettings, create_classifier, search_patterns
from iscp_lightning.classifiers.frozen import frozen_copy
from iscp_lightning.classifiers.prepared import prepare
from iscp_lightning.data.images import to_float

CLASSES, CANVASES, BATCH = 10, 5, 4
LIMIT_BATCHES = (16, 32, 64, 100, 128, 200)


def plain(network: torch.nn.Module, canvas, images, target: int, author_style: bool) -> int:
    """Run one pass of Algorithm 1 for one pattern and return how many images it saw."""
    mask = torch.full(images.shape[2:], 0.5, requires_grad=True)
    labels = torch.full((BATCH,), target)
    for batch in images.split(BATCH):
        mixed = mask * canvas + (1 - mask) * batch
        loss = F.cross_entropy(network(mixed), labels[: len(batch)], reduction="sum")
        loss = loss + len(batch) * 0.2 * mask.mean()
        if author_style:
            network.zero_grad()
            mask.grad = None
            loss.backward()
            gradient = mask.grad
        else:
            (gradient,) = torch.autograd.grad(loss, mask)
        with torch.no_grad():
            mask.sub_(0.02 * gradient.sign()).clamp_(0, 1)
    return len(images)


def bare(network: torch.nn.Module, images: torch.Tensor, labels: torch.Tensor) -> int:
    """Run one forward and input gradient of the prepared network."""
    images = images.detach().requires_grad_()
    loss = F.cross_entropy(network(images).float(), labels, reduction="sum")
    torch.autograd.grad(loss, images)
    return len(images)


def best_batch(network: torch.nn.Module, images: torch.Tensor, labels: torch.Tensor) -> int:
    """Return the batch size at which the bare network is fastest; medians of alternating runs."""
    rates: dict[int, list[float]] = {batch: [] for batch in LIMIT_BATCHES}
    for _ in range(10):
        for batch, values in rates.items():
            inputs = to_float(images[:batch]).contiguous(memory_format=torch.channels_last)
            values.append(rate(lambda x=inputs, b=batch: bare(network, x, labels[:b])))
    return max(rates, key=lambda batch: statistics.median(rates[batch]))


def rate(work: Callable[[], int]) -> float:
    """Return images per second of one call."""
    start = time.perf_counter()
    return work() / (time.perf_counter() - start)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--architecture", default="resnet20")
    parser.add_argument("--image_size", type=int, default=32)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--search_images", type=int, default=80, help="size of D_n")
    args = parser.parse_args()

    torch.manual_seed(0)
    size = args.image_size
    classifier = create_classifier(args.architecture, CLASSES, size)
    images = torch.randint(0, 256, (5 * args.search_images, 3, size, size), dtype=torch.uint8)
    labels = torch.arange(len(images)) % CLASSES
    with torch.no_grad():
        for rows in range(0, 320, 64):
            classifier.train()(to_float(images[rows : rows + 64]))
    classifier.eval().requires_grad_(False)
    plain_images = to_float(images[: args.search_images])
    canvas = to_float(images[0])
    unfrozen = copy.deepcopy(classifier).requires_grad_(True)
    frozen = frozen_copy(classifier, torch.device("cpu"))

    settings = SearchSettings(canvas="random", canvases_per_class=CANVASES)

    def searched(precision: str) -> int:
        chosen = replace(settings, precision=precision)
        found = search_patterns(classifier, images, labels, chosen, progress=False)
        pool, targets, canvases = found.search_indices, found.targets, found.canvas_indices
        seen = (labels[pool] != targets[:, None]) & (pool != canvases[:, None])
        return int(seen.sum()) * settings.search_epochs

    contenders: dict[str, Callable[[], int]] = {
        "plain": lambda: sum(plain(classifier, canvas, plain_images, k, False) for k in range(5)),
        "author_style": lambda: sum(
            plain(unfrozen, canvas, plain_images, k, True) for k in range(5)
        ),
    }
    for precision in ("fp32", "bf16"):
        network = prepare(frozen, precision, plain_images[:4])
        batch = best_batch(network, images, labels)
        inputs = to_float(images[:batch]).contiguous(memory_format=torch.channels_last)
        print(f"{precision}: the bare network is fastest at batch {batch}", flush=True)
        contenders[f"search_{precision}"] = lambda p=precision: searched(p)
        contenders[f"limit_{precision}"] = lambda n=network, x=inputs, b=batch: sum(
            bare(n, x, labels[:b]) for _ in range(4000 // b)
        )

    rates: dict[str, list[float]] = {name: [] for name in contenders}
    for repeat in range(args.repeats):
        for name, work in contenders.items():
            rates[name].append(rate(work))
        print(f"repeat {repeat + 1} of {args.repeats} done", flush=True)
    for name, values in rates.items():
        low, high = min(values), max(values)
        median = statistics.median(values)
        print(f"{name:20s} {median:8.0f} images/s  ({low:.0f} to {high:.0f})")
    ratios = {
        name: statistics.median(a / b for a, b in zip(rates[of], rates[to], strict=True))
        for name, of, to in (
            ("speedup", "search_fp32", "plain"),
            ("speedup_author_style", "search_fp32", "author_style"),
            ("speedup_bf16", "search_bf16", "plain"),
            ("fraction_of_limit", "search_fp32", "limit_fp32"),
            ("fraction_of_limit_bf16", "search_bf16", "limit_bf16"),
        )
    }
    print(json.dumps({name: round(value, 3) for name, value in ratios.items()}))


if __name__ == "__main__":
    main()
