"""Speed of SmoothGrad maps against the network's own limit and captum's plain loop.

    python benchmarks/saliency.py [--architecture resnet20]

All contenders run alternately in one process; a ratio is one of images/s, the median over the
rounds.
"""

import argparse
import json
import statistics
import time

import torch
import torch.nn.functional as F
from captum.attr import NoiseTunnel, Saliency

from iscp_lightning import create_classifier
from iscp_lightning.classifiers.subject import Subject
from iscp_lightning.data import MemoryImages
from iscp_lightning.data.images import to_float
from iscp_lightning.probes.saliency import AT_ONCE, saliency_maps


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--architecture", default="resnet20")
    parser.add_argument("--image_size", type=int, default=32)
    parser.add_argument("--images", type=int, default=2)
    parser.add_argument("--samples", type=int, default=100)
    parser.add_argument("--repeats", type=int, default=9)
    args = parser.parse_args()

    torch.manual_seed(0)
    shape = (args.images, 3, args.image_size, args.image_size)
    stored = torch.randint(0, 256, shape, dtype=torch.uint8)
    images, labels = to_float(stored), torch.arange(args.images) % 10
    classifier = create_classifier(args.architecture, 10, args.image_size)
    with torch.no_grad():
        classifier.train()(images)
    classifier.eval()
    subject = Subject(classifier, MemoryImages(stored, labels), list("0123456789"))
    fast = subject.fast()
    noisy = images.repeat_interleave(args.samples, 0)
    noisy += 0.1 * torch.randn_like(noisy)

    def limit() -> None:
        of = labels.repeat_interleave(args.samples).split(AT_ONCE)
        for part, wanted in zip(noisy.split(AT_ONCE), of, strict=True):
            inputs = part.detach().requires_grad_()
            loss = F.cross_entropy(fast(inputs), wanted, reduction="sum")
            torch.autograd.grad(loss, inputs)

    def ours() -> None:
        saliency_maps(subject, images, labels, samples=args.samples)

    def captum() -> None:
        tunnel = NoiseTunnel(Saliency(classifier))
        tunnel.attribute(images, nt_samples=args.samples, stdevs=0.1, abs=False, target=labels)

    contenders = {"limit": limit, "smoothgrad": ours, "captum": captum}
    seconds: dict[str, list[float]] = {name: [] for name in contenders}
    for repeat in range(args.repeats + 1):
        for name, work in contenders.items():
            start = time.perf_counter()
            work()
            if repeat:  # the first round warms up
                seconds[name].append(time.perf_counter() - start)
    for name, values in seconds.items():
        low, middle, high = (args.images / f(values) for f in (max, statistics.median, min))
        print(f"{name:10s} {middle:7.2f} images/s  ({low:.2f} to {high:.2f})")
    rounds = list(zip(*seconds.values(), strict=True))
    ratios = {
        "smoothgrad_over_limit": statistics.median(limit / ours for limit, ours, _ in rounds),
        "smoothgrad_over_captum": statistics.median(other / ours for _, ours, other in rounds),
    }
    print(json.dumps({name: round(value, 3) for name, value in ratios.items()}))


if __name__ == "__main__":
    main()
