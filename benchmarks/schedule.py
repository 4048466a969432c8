"""Fewer evaluations for the same pattern: predictive power against what a search costs.

    python benchmarks/schedule.py OUT [--cifar10 FOLDER] [--seeds 3]

Each schedule searches every class on one positive canvas, for three classifiers and some seeds (of
split, canvas and image order; some schedules for the first seed only), and is measured on 600
held-out images. Passes, batch size, step
size and its fall differ, all else is the same, bf16 included; what counts is the mean predictive
power (mPW) against that of the paper's schedule, paired by seed and class, with a 95 % bootstrap
interval over these pairs. Early stopping is read off the paper's schedule: a problem is settled
when a pass lowers its mean loss by less than 1 %. OUT gets schedule.json, schedule.md and
schedule.png; searches that are already in schedule.json are not made again. Without the image
folder of CIFAR-10 only shapes are searched. The last line is JSON: of each schedule with at most
41 % of the evaluations, the ratio, mean over sizes, of the classifier where it is smallest.
"""

import argparse
import json
from dataclasses import replace
from itertools import product
from pathlib import Path

import numpy as np
import torch
from matplotlib.figure import Figure

from iscp_lightning import PatternSet, SearchSettings, Shapes, load_classifier
from iscp_lightning.classifiers.subject import Subject
from iscp_lightning.data import ImageFolder, ImageSource, MemoryImages
from iscp_lightning.data.splits import stratified_choice, stratified_split
from iscp_lightning.patterns.search import run_search
from iscp_lightning.patterns.variants import Algorithm1, Outcome, Variables
from iscp_lightning.runs import save_figure, write_json

CHECKPOINTS = Path(__file__).parents[1] / "checkpoints"
SIZES = (0.01, 0.02, 0.03, 0.05, 0.1)
SEARCHED, MEASURED = 2000, 600  # images
PAPER = "paper: 5 passes, 0.02"
SETTLED = "5 passes, 0.02, stopped when settled"


def falling(passes: int, batch: int, first: float, last: float) -> dict:
    """Return the settings of a schedule whose step size falls."""
    return {
        "search_epochs": passes,
        "search_batch_size": batch,
        "step_size": first,
        "final_step_size": last,
    }


SCHEDULES = {
    PAPER: {},
    "1 pass, B = 2, 0.03 to 0.001": falling(1, 2, 0.03, 0.001),
    "2 passes, 0.02": {"search_epochs": 2},
    "1 pass, 0.02": {"search_epochs": 1},
    "2 passes, 0.04 to 0.004": falling(2, 4, 0.04, 0.004),
    "1 pass, 0.05 to 0.002": falling(1, 4, 0.05, 0.002),
    "2 passes, B = 2, 0.03 to 0.001": falling(2, 2, 0.03, 0.001),
    "1 pass, B = 2, 0.02": {"search_epochs": 1, "search_batch_size": 2},
    "1 pass, B = 1, 0.02 to 0.0005": falling(1, 1, 0.02, 0.0005),
}
MAIN = (PAPER, "1 pass, B = 2, 0.03 to 0.001", "2 passes, B = 2, 0.03 to 0.001")
SHOWN = [PAPER, SETTLED, *(name for name in SCHEDULES if name != PAPER)]
CLASSIFIERS = {
    "shapes": "shapes_resnet20",
    "CIFAR-10, natural": "cifar10_resnet20",
    "CIFAR-10, adversarial": "cifar10_resnet20_fast_linf",
}


def sources(names: list[str], cifar10: str | None) -> dict[str, ImageSource]:
    """Return where the images of each classifier come from."""
    found = {}
    for name in names:
        found[name] = Shapes(test_count=10_000) if name == "shapes" else ImageFolder(str(cifar10))
        found[name].prepare()
    return found


def subject_of(name: str, source: ImageSource, seed: int, searched: int, measured: int) -> Subject:
    """Return a classifier with the images that a seed searches and those that it measures."""
    images = source.test()
    pool = torch.arange(len(images))
    first, rest = stratified_split(images.labels, pool, searched / len(images), seed)
    rest = rest[stratified_choice(images.labels[rest], measured, seed)]
    chosen = torch.cat([first, rest])
    path = CHECKPOINTS / f"{CLASSIFIERS[name]}.safetensors"
    return Subject(
        load_classifier(str(path)),
        MemoryImages(images.read(chosen), images.labels[chosen]),
        source.class_names,
        torch.arange(len(first)),
        seed=seed,
    )


class Settling(Algorithm1):
    """Algorithm 1 that remembers each mask as it was when its problem had settled."""

    def __init__(self) -> None:
        self.masks, self.passes, self.open, self.before = None, 0.0, True, torch.inf

    def react(self, outcome: Outcome, variables: Variables) -> None:
        mask = variables["mask"]
        self.masks = mask if self.masks is None else self.masks
        going_on = torch.as_tensor(self.open).expand(len(mask))
        self.masks = torch.where(going_on[:, None, None], mask, self.masks)
        self.passes += going_on.double().mean().item()
        self.open = going_on & (outcome.losses < 0.99 * self.before)
        self.before = outcome.losses


def search(subject: Subject, schedule: str) -> dict:
    """Return by name of the schedule what `result` does."""
    variant = Settling()
    settings = SearchSettings(
        canvases_per_class=1, precision="bf16", seed=subject.seed, variant=variant
    )
    settings = replace(settings, **SCHEDULES[schedule])
    classes = range(len(subject.class_names))
    found = run_search(subject, settings, classes, skip_missing=True).gathered()
    results = {schedule: result(subject, found, settings.course.search_epochs)}
    if schedule == PAPER:
        settled = replace(found, variables={"mask": variant.masks})
        results[SETTLED] = result(subject, settled, variant.passes)
    return results


def result(subject: Subject, found: PatternSet, passes: float) -> dict:
    """Return the predictive power by class and size, and the images mixed per problem."""
    power = found.measured(subject, SIZES, controlled=torch.zeros(0).long()).power
    labels = subject.images.labels[subject.search_indices]
    mixed = sum(int((labels != t).sum()) for t in found.targets) / len(found)
    return {
        "classes": found.targets.tolist(),
        "predictive_power": power.predictive_power.tolist(),
        "evaluations": mixed * passes,
    }


def compare(found: dict, shown: list[str] = SHOWN, reference: str = PAPER) -> list[dict]:
    """Return for each classifier and schedule its cost and mPW against the reference's."""
    rows, generator = [], np.random.default_rng(0)
    for name, of_seeds in found.items():
        for schedule in shown:
            both = {seed: found for seed, found in of_seeds.items() if schedule in found}
            values, paper = _joined(both, schedule), _joined(both, reference)
            picks = generator.integers(len(values), size=(2000, len(values)))
            means = np.nanmean(values[picks], 1) / np.nanmean(paper[picks], 1)
            cost = np.mean([s[schedule]["evaluations"] for s in both.values()])
            full = np.mean([s[reference]["evaluations"] for s in both.values()])
            rows.append(
                {
                    "classifier": name,
                    "schedule": schedule,
                    "evaluations": cost,
                    "share": cost / full,
                    "mean_predictive_power": np.nanmean(values, 0).tolist(),
                    "ratio": (np.nanmean(values, 0) / np.nanmean(paper, 0)).tolist(),
                    "low": np.percentile(means, 2.5, 0).tolist(),
                    "high": np.percentile(means, 97.5, 0).tolist(),
                    "pairs": len(values),
                }
            )
    return rows


def _joined(of_seeds: dict, schedule: str) -> np.ndarray:
    """Return (seeds * classes, S)."""
    parts = [np.array(s[schedule]["predictive_power"], dtype=float) for s in of_seeds.values()]
    return np.concatenate(parts)


def table(rows: list[dict]) -> str:
    """Return the rows as Markdown."""
    head = ["classifier", "schedule", "pairs", "images per problem"]
    head += [f"mPW {100 * size:g} % (ratio, 95 %)" for size in SIZES]
    lines = [" | ".join(head), " | ".join("---" for _ in head)]
    for row in rows:
        cells = [row["classifier"], row["schedule"], str(row["pairs"]), f"{row['evaluations']:.0f}"]
        for i in range(len(SIZES)):
            mean, ratio = row["mean_predictive_power"][i], row["ratio"][i]
            cells.append(f"{mean:.3f} ({ratio:.2f}, {row['low'][i]:.2f} to {row['high'][i]:.2f})")
        lines.append(" | ".join(cells))
    return "\n".join(f"| {line} |" for line in lines) + "\n"


def draw(rows: list[dict], shown: list[str] = SHOWN, reference: str = "the paper's") -> Figure:
    """Return ratios to the reference by pattern size."""
    names = list(dict.fromkeys(row["classifier"] for row in rows))
    figure = Figure(figsize=(4 * len(names) + 3, 3.8), dpi=150, layout="constrained")
    for axes, name in zip(figure.subplots(1, len(names), squeeze=False)[0], names, strict=True):
        for at, schedule in enumerate(shown):
            (row,) = (r for r in rows if (r["classifier"], r["schedule"]) == (name, schedule))
            ratio = np.array(row["ratio"])
            errors = [ratio - row["low"], np.array(row["high"]) - ratio]
            x = np.arange(len(SIZES)) + (at - len(shown) / 2) * 0.08
            label = f"{schedule} ({100 * row['share']:.0f} %)"
            axes.errorbar(x, ratio, np.abs(errors), fmt="o", ms=3, lw=1, label=label)
        axes.axhline(1, color="0.3", lw=0.8)
        axes.set_xticks(range(len(SIZES)), [f"{100 * size:g} %" for size in SIZES])
        axes.set(title=name, xlabel="pattern size", ylabel=f"mPW against {reference}")
    handles, labels = axes.get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside right center", fontsize=7)
    return figure


def begun(
    description: str, name: str
) -> tuple[argparse.Namespace, list[str], dict[str, ImageSource], Path, dict]:
    """Return options, classifiers, their images, the file of results and what it holds already.

    Args:
        description: What the command does.
        name: Of the file.
    """
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("out", type=Path)
    parser.add_argument("--cifar10", help="folder with test/<class>/*")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--searched", type=int, default=SEARCHED)
    parser.add_argument("--measured", type=int, default=MEASURED)
    args = parser.parse_args()
    names = [name for name in CLASSIFIERS if name == "shapes" or args.cifar10]
    path = args.out / f"{name}.json"
    found = json.loads(path.read_text())["found"] if path.exists() else {}
    return args, names, sources(names, args.cifar10), path, found


def main() -> None:
    args, names, images, path, found = begun(__doc__.splitlines()[0], "schedule")
    for seed, name in product(range(args.seeds), names):
        subject = subject_of(name, images[name], seed, args.searched, args.measured)
        done = found.setdefault(name, {}).setdefault(str(seed), {})
        for schedule in SCHEDULES if seed == 0 else MAIN:
            if schedule not in done:
                done |= search(subject, schedule)
                write_json(path, {"found": found})
                print(f"{name}, seed {seed}: {schedule}", flush=True)
    rows = compare({name: found[name] for name in names})
    write_json(path, {"found": found, "rows": rows})
    (args.out / "schedule.md").write_text(table(rows))
    save_figure(args.out / "schedule.png", draw(rows))
    print(table(rows))
    quick = [row for row in rows if row["share"] <= 0.41 and row["schedule"] != PAPER]
    means = {
        name: min(float(np.nanmean(row["ratio"])) for row in quick if row["schedule"] == name)
        for name in dict.fromkeys(row["schedule"] for row in quick)
    }
    print(json.dumps({f"mean_ratio, {name}": round(mean, 3) for name, mean in means.items()}))


if __name__ == "__main__":
    main()
