"""Speed of the pattern search against Algorithm 1 written plainly and against the network's limit.

    python benchmarks/search.py [--architecture resnet20] [--device cuda]
    python benchmarks/search.py --whole
    python benchmarks/search.py --variants [TotalVariation ...]

`--whole` measures a search from start to end, with ranking, final objectives, measuring at five
sizes on every canvas, and drawing. Its last line has `whole_over_bare`, the wall time over that of
the bare forward and gradient of every mixture and the bare forward of every image that must be
classified once, all on the fast copy, timed alternately.

`--variants` measures each search variant of the package, or those named, with its default
arguments, on the same engine and the same canvases. Its last line has for each how many evaluations
(mixed images with their gradient) it makes a second, relative to Algorithm 1, the line before how
long all steps of its search take, likewise.

All contenders run alternately in one process. A ratio is the median over the repeats of the two
rates measured one after the other, which a machine that is slow for a minute disturbs least. The
weights are random but normalised by a few batches, which costs the same time as trained ones.
"""

import argparse
import copy
import importlib
import inspect
import json
import pkgutil
import statistics
import time
from collections.abc import Callable
from dataclasses import replace

import torch
import torch.nn.functional as F

from iscp_lightning import SearchSettings, Subject, create_classifier
from iscp_lightning.classifiers.prepared import Prepared
from iscp_lightning.data import MemoryImages
from iscp_lightning.data.images import to_float
from iscp_lightning.data.splits import stratified_split
from iscp_lightning.patterns import variants
from iscp_lightning.patterns.canvas import joined_canvases
from iscp_lightning.patterns.drawings import search_figures
from iscp_lightning.patterns.engine import PatternSearch
from iscp_lightning.patterns.search import measure_search, problems_of, run_search

CLASSES, CANVASES, BATCH = 10, 5, 4
LIMIT_BATCHES = (16, 32, 64, 100, 128, 200)


def plain(network: torch.nn.Module, canvas, images, target: int, author_style: bool) -> int:
    """Run one pass of Algorithm 1 for one pattern and return how many images it saw."""
    mask = torch.full(images.shape[2:], 0.5, device=images.device, requires_grad=True)
    labels = torch.full((BATCH,), target, device=images.device)
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
    images = work()
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return images / (time.perf_counter() - start)


def alternately(contenders: dict[str, Callable[[], int]], repeats: int) -> dict[str, list[float]]:
    """Return images per second of each contender in each repeat, and print them."""
    rates: dict[str, list[float]] = {name: [] for name in contenders}
    for repeat in range(repeats):
        for name, work in contenders.items():
            rates[name].append(rate(work))
        print(f"repeat {repeat + 1} of {repeats} done", flush=True)
    for name, values in rates.items():
        low, high = min(values), max(values)
        median = statistics.median(values)
        print(f"{name:24s} {median:8.0f} images/s  ({low:.0f} to {high:.0f})")
    return rates


def print_ratios(rates: dict[str, list[float]], pairs: dict[str, tuple[str, str]]) -> None:
    """Print one line of JSON: by name the median ratio of what was measured of two contenders."""
    ratios = {
        name: statistics.median(a / b for a, b in zip(rates[of], rates[to], strict=True))
        for name, (of, to) in pairs.items()
    }
    print(json.dumps({name: round(value, 3) for name, value in ratios.items()}))


def random_subject(args: argparse.Namespace) -> Subject:
    """Return a network of normalised random weights on random images of ten classes."""
    torch.manual_seed(0)
    size = args.image_size
    classifier = create_classifier(args.architecture, CLASSES, size)
    images = torch.randint(0, 256, (5 * args.search_images, 3, size, size), dtype=torch.uint8)
    labels = torch.arange(len(images)) % CLASSES
    with torch.no_grad():
        for rows in range(0, 320, 64):
            classifier.train()(to_float(images[rows : rows + 64]))
    pool, _ = stratified_split(labels, torch.arange(len(images)), 0.2, 0)
    names = [str(k) for k in range(CLASSES)]
    device = torch.device(args.device)
    return Subject(
        classifier.eval().requires_grad_(False),
        MemoryImages(images, labels),
        names,
        pool,
        device=device,
    )


def again(subject: Subject) -> Subject:
    """Return the same subject, which has not asked its classifier anything yet."""
    return Subject(
        subject.classifier,
        subject.images,
        subject.class_names,
        subject.search_indices,
        device=subject.device,
    )


def synchronised(device: torch.device) -> float:
    """Return the time once the device has done what it was given."""
    if device.type == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter()


def whole(args: argparse.Namespace) -> None:
    """Time the stages of searches and the bare work in them, alternately."""
    given = random_subject(args)
    settings = SearchSettings(canvas="random", canvases_per_class=CANVASES, seed=0)
    sizes = (0.01, 0.02, 0.03, 0.05, 0.1)
    network = given.fast()
    images = to_float(given.images.images[:100]).to(given.device)
    images = images.contiguous(memory_format=torch.channels_last)
    labels = given.images.labels[:100].to(given.device)
    shares: dict[str, list[float]] = {}
    ratios = []
    for repeat in range(args.repeats):
        subject, times = again(given), [synchronised(given.device)]
        canvases = problems_of(subject, settings, range(CLASSES))
        _ = subject.logits
        times.append(synchronised(given.device))
        search = PatternSearch(subject, canvases, settings)
        for _ in range(search.total_steps):
            search.step()
        times.append(synchronised(given.device))
        search.finish()
        times.append(synchronised(given.device))
        found = measure_search(search, sizes, canvases="all")
        times.append(synchronised(given.device))
        search_figures(found)
        times.append(synchronised(given.device))
        names = ("ranking", "search", "objectives", "measuring", "drawing")
        wall = times[-1] - times[0]
        for name, start, end in zip(names, times, times[1:], strict=False):
            shares.setdefault(name, []).append((end - start) / wall)
        problems = range(len(found))
        mixed = (
            sum(len(search.order.candidates(row)) for row in problems)
            * settings.course.search_epochs
        )
        controls = int(found.power[found.winners].shown.sum()) * (len(sizes) + 1)
        shown = int(found.power.shown.sum()) * len(sizes) + controls + len(subject.images)
        start = synchronised(given.device)
        for _ in range(args.bare):
            bare(network, images, labels)
        middle = synchronised(given.device)
        with torch.no_grad():
            for _ in range(args.bare):
                network(images)
        end = synchronised(given.device)
        per_image = args.bare * len(images)
        least = mixed * (middle - start) / per_image + shown * (end - middle) / per_image
        ratios.append(wall / least)
        print(f"repeat {repeat + 1} of {args.repeats}: {ratios[-1]:.3f}", flush=True)
    for name, values in shares.items():
        print(f"{name:12s} {100 * statistics.median(values):5.1f} % of the time")
    print(json.dumps({"whole_over_bare": round(statistics.median(ratios), 3)}))


def shipped_variants() -> dict[str, type[variants.Variant]]:
    """Return the variants that the package has files of, Algorithm 1 first, by name."""
    found = {"Algorithm1": variants.Algorithm1}
    for info in pkgutil.iter_modules(variants.__path__):
        module = importlib.import_module(f"{variants.__name__}.{info.name}")
        for name, value in inspect.getmembers(module, inspect.isclass):
            own = value.__module__ == module.__name__ and not inspect.isabstract(value)
            if own and issubclass(value, variants.Variant):
                found[name] = value
    return found


def compare_variants(args: argparse.Namespace) -> None:
    """Time the steps of every variant on the same canvases, also of those that need none."""
    given = random_subject(args)
    settings = SearchSettings(canvas="random", canvases_per_class=CANVASES, seed=0)
    canvases = problems_of(given, settings, range(CLASSES))
    evaluated: list[int] = []
    totals: dict[str, int] = {}
    given.fast().register_forward_pre_hook(lambda _, inputs: evaluated.append(len(inputs[0])))

    joined = joined_canvases(given, canvases)

    def searched(kind: type[variants.Variant]) -> int:
        evaluated.clear()
        chosen = joined if kind.joint else canvases
        search = PatternSearch(given, chosen, replace(settings, variant=kind()))
        for _ in range(search.total_steps):
            search.step()
        totals[kind.__name__] = sum(evaluated)
        return totals[kind.__name__]

    contenders = {
        name: lambda kind=kind: searched(kind)
        for name, kind in shipped_variants().items()
        if name == "Algorithm1" or not args.variants or name in args.variants
    }
    rates = alternately(contenders, args.repeats)
    others = [name for name in rates if name != "Algorithm1"]
    times = {
        name: [totals[name] / value for value in values] for name, values in rates.items()
    }  # seconds
    print_ratios(times, {f"{name}_time": (name, "Algorithm1") for name in others})
    print_ratios(rates, {name: (name, "Algorithm1") for name in others})


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--architecture", default="resnet20")
    parser.add_argument("--image_size", type=int, default=32)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--search_images", type=int, default=80, help="size of D_n")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--whole", action="store_true", help="from start to end")
    parser.add_argument("--bare", type=int, default=40, help="bare batches of 100 per repeat")
    parser.add_argument(
        "--variants", nargs="*", choices=shipped_variants(), help="default every variant"
    )
    args = parser.parse_args()
    if args.whole or args.variants is not None:
        (whole if args.whole else compare_variants)(args)
        return

    given = random_subject(args)
    classifier, device = given.frozen, given.device
    images, labels = given.images.images.to(device), given.images.labels.to(device)
    plain_images = to_float(images[: args.search_images])
    canvas = to_float(images[0])
    unfrozen = copy.deepcopy(classifier).requires_grad_(True)
    settings = SearchSettings(canvas="random", canvases_per_class=CANVASES, seed=0)

    def searched(precision: str) -> int:
        search = run_search(again(given), replace(settings, precision=precision), range(CLASSES))
        synchronised(device)
        rows = range(len(search.owned))
        seen = sum(len(search.order.candidates(row)) for row in rows)
        return seen * settings.course.search_epochs

    contenders: dict[str, Callable[[], int]] = {
        "plain": lambda: sum(plain(classifier, canvas, plain_images, k, False) for k in range(5)),
        "author_style": lambda: sum(
            plain(unfrozen, canvas, plain_images, k, True) for k in range(5)
        ),
    }
    for precision in ("fp32", "bf16"):
        network: Prepared = given.fast(precision)
        batch = best_batch(network, images, labels)
        inputs = to_float(images[:batch]).contiguous(memory_format=torch.channels_last)
        print(f"{precision}: the bare network is fastest at batch {batch}", flush=True)
        contenders[f"search_{precision}"] = lambda p=precision: searched(p)
        contenders[f"limit_{precision}"] = lambda n=network, x=inputs, b=batch: sum(
            bare(n, x, labels[:b]) for _ in range(4000 // b)
        )

    print_ratios(
        alternately(contenders, args.repeats),
        {
            "speedup": ("search_fp32", "plain"),
            "speedup_author_style": ("search_fp32", "author_style"),
            "speedup_bf16": ("search_bf16", "plain"),
            "fraction_of_limit": ("search_fp32", "limit_fp32"),
            "fraction_of_limit_bf16": ("search_bf16", "limit_bf16"),
        },
    )


if __name__ == "__main__":
    main()
