"""Speed of PGD against the network's own limit and foolbox, and of an adversarial training step.

    python benchmarks/attack.py [--architecture resnet20]

All contenders run alternately in one process; a ratio is the median of those of the rounds.
"""

import argparse
import json
import statistics
import time
from collections.abc import Callable

import foolbox
import torch
import torch.nn.functional as F

from iscp_lightning import MadryModule, create_classifier
from iscp_lightning.attacks import PGD
from iscp_lightning.data import Batch

EPSILON, STEP_SIZE, STEPS = 8 / 255, 2 / 255, 7


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--architecture", default="resnet20")
    parser.add_argument("--image_size", type=int, default=32)
    parser.add_argument("--batch", type=int, default=128)
    parser.add_argument("--repeats", type=int, default=9)
    args = parser.parse_args()

    torch.manual_seed(0)
    size = args.image_size
    images, labels = torch.rand(args.batch, 3, size, size), torch.arange(args.batch) % 10
    classifier = create_classifier(args.architecture, 10, size)
    with torch.no_grad():
        classifier.train()(images)
    module = MadryModule(classifier, attack=PGD(EPSILON, STEP_SIZE, STEPS), image_size=size)
    module._noise = torch.Generator()
    module.log = lambda *_, **__: None
    optimizer = torch.optim.SGD(classifier.parameters(), lr=0.1, momentum=0.9, weight_decay=5e-4)
    batch = Batch(images, labels, torch.arange(args.batch))
    ours = PGD(EPSILON, STEP_SIZE, STEPS, random_start=False)
    theirs = foolbox.attacks.LinfPGD(abs_stepsize=STEP_SIZE, steps=STEPS, random_start=False)

    def limit() -> None:
        for _ in range(STEPS):
            inputs = images.detach().requires_grad_()
            loss = F.cross_entropy(classifier(inputs), labels, reduction="sum")
            torch.autograd.grad(loss, inputs)

    def attack() -> None:
        ours(classifier, images, labels)

    def foolbox_attack() -> None:
        model = foolbox.PyTorchModel(classifier, bounds=(0, 1), device="cpu")
        theirs.run(model, images, foolbox.criteria.Misclassification(labels), epsilon=EPSILON)

    def train() -> None:
        optimizer.zero_grad()
        F.cross_entropy(classifier(images), labels).backward()
        optimizer.step()

    def madry() -> None:
        optimizer.zero_grad()
        module.training_step(batch, 0).backward()
        optimizer.step()

    contenders: dict[str, tuple[Callable[[], None], bool]] = {
        "limit": (limit, False),
        "pgd": (attack, False),
        "foolbox": (foolbox_attack, False),
        "train": (train, True),
        "madry": (madry, True),
    }
    seconds: dict[str, list[float]] = {name: [] for name in contenders}
    for repeat in range(args.repeats + 1):
        for name, (work, training) in contenders.items():
            classifier.train(training)
            start = time.perf_counter()
            work()
            if repeat:  # the first round warms up
                seconds[name].append(time.perf_counter() - start)
    median = {name: statistics.median(values) for name, values in seconds.items()}
    for name, value in median.items():
        low, high = min(seconds[name]), max(seconds[name])
        print(f"{name:10s} {value:7.3f} s  ({low:.3f} to {high:.3f})")
    rounds = list(zip(*seconds.values(), strict=True))
    ratios = {
        "step_over_limit": statistics.median(pgd / limit for limit, pgd, *_ in rounds),
        "step_over_foolbox": statistics.median(pgd / other for _, pgd, other, *_ in rounds),
        "madry_over_parts": statistics.median(
            madry / (limit + train) for limit, _, _, train, madry in rounds
        ),
    }
    print(json.dumps({name: round(value, 3) for name, value in ratios.items()}))


if __name__ == "__main__":
    main()
