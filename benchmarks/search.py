"""Speed of the pattern search against Algorithm 1 written plainly and against the network's limit.

    python benchmarks/search.py [--architecture resnet20]

All contenders run alternately in one process; the medians over the repeats are compared. The
weights are random but normalised by a few batches, which costs the same time as trained ones.
"""

import argparse
import json
import statistics
import time
from collections.abc import Callable
from dataclasses import replace

import torch
import torch.nn.functional as F

from iscp_lightning import SearchSettings, create_classifier, search_patterns
from iscp_lightning.data.images import to_float
from iscp_lightning.frozen import frozen_copy
from iscp_lightning.patterns.prepared import prepare

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


def rate(work: Callable[[], int]) -> float:
    """Return images per second of one call."""
    start = time.perf_counter()
    return work() / (time.perf_counter() - start)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--architecture", default="resnet20")
    parser.add_argument("--image_size", type=int, default=32)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--search_images", type=int, default=100, help="size of D_n")
    args = parser.parse_args()

    torch.manual_seed(0)
    size = args.image_size
    classifier = create_classifier(args.architecture, CLASSES, size)
    images = torch.randint(0, 256, (5 * args.search_images, 3, size, size), dtype=torch.uint8)
    labels = torch.arange(len(images)) % CLASSES
    with torch.no_grad():
        for rows in range(0, 320, 64):
            classifier.train()(to_float(images[rows : rows + 64]))
    classifier.eval()
    plain_images = to_float(images[: args.search_images])
    canvas = to_float(images[0])
    frozen = frozen_copy(classifier, torch.device("cpu"))
    unfrozen = frozen_copy(classifier, torch.device("cpu")).requires_grad_(True)

    settings = SearchSettings(canvas="random", canvases_per_class=CANVASES)

    def searched(precision: str) -> int:
        chosen = replace(settings, precision=precision)
        found = search_patterns(classifier, images, labels, chosen, progress=False)
        others = (labels[found.search_indices][None] != found.targets[:, None]).sum()
        return int(others) * settings.search_epochs

    contenders: dict[str, Callable[[], int]] = {
        "plain": lambda: plain(frozen, canvas, plain_images, 0, False),
        "author_style": lambda: plain(unfrozen, canvas, plain_images, 0, True),
        "search_fp32": lambda: searched("fp32"),
        "search_bf16": lambda: searched("bf16"),
    }
    for precision in ("fp32", "bf16"):
        network = prepare(frozen, precision, plain_images[:4])
        for batch in LIMIT_BATCHES:
            inputs = to_float(images[:batch]).contiguous(memory_format=torch.channels_last)
            contenders[f"limit_{precision}_{batch}"] = lambda n=network, x=inputs, b=batch: sum(
                bare(n, x, labels[:b]) for _ in range(max(1, 400 // b))
            )

    rates: dict[str, list[float]] = {name: [] for name in contenders}
    for name, work in contenders.items():
        if not name.startswith("search"):
            work()  # warm up kernels and allocator
    for repeat in range(args.repeats):
        for name, work in contenders.items():
            rates[name].append(rate(work))
        print(f"repeat {repeat + 1} of {args.repeats} done", flush=True)
    median = {name: statistics.median(values) for name, values in rates.items()}
    for name, value in median.items():
        low, high = min(rates[name]), max(rates[name])
        print(f"{name:20s} {value:8.0f} images/s  ({low:.0f} to {high:.0f})")
    limit = {
        precision: max(v for name, v in median.items() if name.startswith(f"limit_{precision}"))
        for precision in ("fp32", "bf16")
    }
    ratios = {
        "speedup": median["search_fp32"] / median["plain"],
        "speedup_author_style": median["search_fp32"] / median["author_style"],
        "speedup_bf16": median["search_bf16"] / median["plain"],
        "fraction_of_limit": median["search_fp32"] / limit["fp32"],
        "fraction_of_limit_bf16": median["search_bf16"] / limit["bf16"],
    }
    print(json.dumps({name: round(value, 3) for name, value in ratios.items()}))


if __name__ == "__main__":
    main()
