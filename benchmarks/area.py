"""The best pattern of a given size: ways to search it, with as many evaluations as Algorithm 1.

    python benchmarks/area.py OUT [--cifar10 FOLDER] [--seeds 3]

Each way searches every class on one positive canvas, for three classifiers and some seeds (of
split, canvas and image order), and is measured on 600 held-out images; same classifier, canvases,
images and number of evaluations, in fp32. Besides Algorithm 1 and `AreaConstrained` there
are that one with one part exchanged, a sigmoid around the k-th largest score with a falling
temperature, a penalty on the sorted mask's distance from a step (Fong et al. 2019), and Algorithm 1
with a sparsity that adapts to the size. What counts is the mean predictive power (mPW) against
Algorithm 1's, paired by seed and class, with a 95 % bootstrap interval over these pairs. OUT gets
area.json, area.md and area.png; searches that are in area.json are not made again. The last line is
JSON: the smallest ratio of `AreaConstrained` over the classifiers at each size.
"""

import json
from itertools import product

import torch
from schedule import SIZES, begun, compare, draw, result, subject_of, table
from torch import Tensor

from iscp_lightning import SearchSettings
from iscp_lightning.classifiers.subject import Subject
from iscp_lightning.data.stamps import Stamp
from iscp_lightning.patterns.search import run_search
from iscp_lightning.patterns.variants import Algorithm1, AreaConstrained, Variant
from iscp_lightning.patterns.variants.descent import SignDescent
from iscp_lightning.runs import save_figure, write_json

REFERENCE, OURS = "Algorithm 1", "AreaConstrained"


class BySign(AreaConstrained):
    """Sign steps instead of ranks."""

    def optimizer(self, variables, step_size: float) -> torch.optim.Optimizer:
        return SignDescent([variables["scores"]], step_size, (-torch.inf, torch.inf))


class CrossEntropy(AreaConstrained):
    """The cross-entropy instead of 1 - p_y."""

    def loss(self, logits: Tensor, targets: Tensor, progress: float) -> Tensor:
        return Variant.loss(self, logits, targets, progress)


class Sigmoid(CrossEntropy):
    """A sigmoid around the k-th largest score, temperature from 0.33 to 0.03, RMSprop."""

    def optimizer(self, variables, step_size: float) -> torch.optim.Optimizer:
        return torch.optim.RMSprop([variables["scores"]], lr=0.01, alpha=0.99, momentum=0.9)

    def stamps(self, variables, problems) -> Stamp:
        hard = super().stamps({n: v.detach() for n, v in variables.items()}, problems)
        if problems.progress == 1 or self._soft(problems.progress):
            return super().stamps(variables, problems)
        scores, count = variables["scores"], int(hard.mask[0].sum())
        best = scores.flatten(1).topk(count + 1, dim=1).values
        temperature = 0.33 * (0.03 / 0.33) ** problems.progress
        mask = ((scores - best[:, -2:].mean(1)[:, None, None]) / temperature).sigmoid()
        return hard._replace(mask=mask[:, None, None])


class Soft(CrossEntropy):
    """A soft mask all along, by sign steps within [0, 1]; subclasses say what makes it small."""

    def optimizer(self, variables, step_size: float) -> torch.optim.Optimizer:
        return SignDescent([variables["scores"]], 2 * step_size, (-1.0, 1.0))

    def stamps(self, variables, problems) -> Stamp:
        if problems.progress == 1:
            return super().stamps(variables, problems)
        mask = (1 + variables["scores"]) / 2
        return Stamp(mask[:, None, None], problems.canvases.unsqueeze(1))

    def size_at(self, progress: float) -> float:
        """Return the size whose turn it is."""
        return (0.1, *self.pattern_sizes)[self._turn(progress)[0]]


class Step(Soft):
    """A penalty, 30 times the mean squared distance of the sorted mask from a step."""

    def penalty(self, variables, problems) -> Tensor:
        if problems.progress == 1:
            return torch.zeros_like(problems.sparsity)
        ordered = ((1 + variables["scores"]) / 2).flatten(1).sort(dim=1, descending=True).values
        step = torch.zeros_like(ordered)
        step[:, : round(self.size_at(problems.progress) * step.shape[1])] = 1
        return 30 * (ordered - step).square().mean(1)


class Adaptive(Soft):
    """A sparsity that grows by 2 % in a step as long as the mask's mean is above the size."""

    def variables(self, canvases: Tensor) -> dict[str, Tensor]:
        return super().variables(canvases) | {"weight": canvases.new_ones(len(canvases))}

    def penalty(self, variables, problems) -> Tensor:
        if problems.progress == 1:
            return torch.zeros_like(problems.sparsity)
        weight = problems.sparsity * variables["weight"].detach()
        return weight * (1 + variables["scores"]).mean((1, 2)) / 2

    def after_step(self, variables, progress: float) -> None:
        super().after_step(variables, progress)
        large = (1 + variables["scores"]).mean((1, 2)) / 2 > self.size_at(progress)
        variables["weight"] *= torch.where(large, 1.02, 1 / 1.02)


WAYS = {
    REFERENCE: {"variant": Algorithm1()},
    "Algorithm 1, two images a step": {"variant": Algorithm1(), "search_batch_size": 2},
    OURS: {"variant": AreaConstrained(), "search_batch_size": 2},
    "signs instead of ranks": {"variant": BySign(), "search_batch_size": 2},
    "cross-entropy instead of 1 - p": {"variant": CrossEntropy(), "search_batch_size": 2},
    "sigmoid": {"variant": Sigmoid(), "search_batch_size": 2},
    "distance from a step": {"variant": Step(), "search_batch_size": 2},
    "adaptive sparsity": {"variant": Adaptive(), "search_batch_size": 2},
}


def search(subject: Subject, way: str) -> dict:
    """Return what was measured of a way's patterns."""
    settings = SearchSettings(canvases_per_class=1, seed=subject.seed, **WAYS[way])
    classes = range(len(subject.class_names))
    found = run_search(subject, settings, classes, skip_missing=True).gathered()
    return result(subject, found, settings.course.search_epochs)


def main() -> None:
    args, names, images, path, found = begun(__doc__.splitlines()[0], "area")
    for seed, name in product(range(args.seeds), names):
        subject = subject_of(name, images[name], seed, args.searched, args.measured)
        done = found.setdefault(name, {}).setdefault(str(seed), {})
        for way in WAYS:
            if way not in done:
                done[way] = search(subject, way)
                write_json(path, {"found": found})
                print(f"{name}, seed {seed}: {way}", flush=True)
    rows = compare({name: found[name] for name in names}, list(WAYS), REFERENCE)
    write_json(path, {"found": found, "rows": rows})
    (args.out / "area.md").write_text(table(rows))
    save_figure(args.out / "area.png", draw(rows, list(WAYS), REFERENCE))
    print(table(rows))
    ratios = [row["ratio"] for row in rows if row["schedule"] == OURS]
    smallest = torch.tensor(ratios).amin(0).tolist()
    keys = [f"smallest_ratio_at_{100 * size:g}_%" for size in SIZES]
    print(json.dumps({k: round(v, 3) for k, v in zip(keys, smallest, strict=True)}))


if __name__ == "__main__":
    main()
