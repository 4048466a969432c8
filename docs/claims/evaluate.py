"""What the runs say of the claims.

python docs/claims/evaluate.py [FOLDER] writes docs/claims.md from numbers.json; if a folder is
given, the numbers of its runs first replace those in there.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
import yaml
from scipy.stats import t
from torch import Tensor

from iscp_lightning.data.triggers import Trigger
from iscp_lightning.patterns.recovery import closeness_by_chance

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE))

from on_shapes import MORE_SEEDS, SMALL, TRIGGERS, USUAL  # noqa: E402
from runs import commands, is_made  # noqa: E402
from stored import OF_ATTACKS, OF_NETWORKS, MissingRunError, Stored  # noqa: E402

IN_RECORDS = ("measure", "value", "interval", "class", "inversion")
FEWEST = 3  # values that a verdict takes
SEARCHES = {  # what a search of triggers is called, and what the names of its runs start with
    "positive canvas": "positive",
    "white canvas": "white",
    "inverted": "inversion",
    "longer": "long_inversion",
}
ON_CIFAR10 = {name: kind for name, kind in SEARCHES.items() if name != "inverted"}


def collect(folder: Path) -> dict[str, dict[str, list[float]]]:
    """Return the numbers of all runs by name: one for each class where there are such."""
    found = {}
    for name in commands():
        if is_made(folder, name):
            file = folder / "runs" / name / "results.json"
            found[name] = numbers(json.loads(file.read_text()))
    return found


def numbers(results: Mapping[str, Any]) -> dict[str, list[float]]:
    """Return the numbers of one run that claims are made from."""
    values: dict[str, list[float]] = {}

    def add(name: str, value: float | None) -> None:
        values.setdefault(name, []).append(float("nan") if value is None else round(value, 8))

    wanted = OF_ATTACKS if "robustness" in results else OF_NETWORKS
    for key, value in results.get("test", {}).items():
        if key in wanted:
            add(key, value)
    classes = results.get("classes", [])
    complete = all(c["predictive_power"] for entry in classes for c in entry["canvases"])
    for entry in classes:
        add("canvases/count", len(entry["canvases"]))
        for size, power in entry["predictive_power"].items():
            add(f"predictive_power/{size}", power)
            add(f"attack_success_rate/{size}", entry["attack_success_rate"][size])
            add(f"random_mask_rate/{size}", entry["random_mask_rate"][size])
            every = [(c["predictive_power"] or {}).get(size) for c in entry["canvases"]]
            for value in every:
                add(f"canvases/predictive_power/{size}", value)
            if complete:
                powers = [value for value in every if value is not None]
                add(f"first_canvas/predictive_power/{size}", powers[0])
                add(f"best_canvas/predictive_power/{size}", max(powers))
    for record in results.get("records", []):
        of_inversion = "inversion" in record and "strength" not in record
        if "class" in record or "classifier" in record or of_inversion:
            about = [str(value) for key, value in record.items() if key not in IN_RECORDS]
            if "patterns" not in record:  # the run's only classifier
                about = [value for value in about if value != record.get("classifier")]
            add("/".join([record["measure"], *about]), record["value"])
    for canvas in (results.get("trigger_recovery") or {}).get("canvases", []):
        if canvas["chosen"]:
            for key in ("iou", "shifted_iou", "center_distance"):
                add(key, canvas[key])
    return values


def interval(values: Tensor) -> tuple[float, float]:
    """Return Student's 95 % interval of the mean of independent values, NaN of fewer than two."""
    count = len(values)
    if count < 2:
        return math.nan, math.nan
    half = t.ppf(0.975, count - 1) * float(values.std()) / math.sqrt(count)
    return float(values.mean()) - half, float(values.mean()) + half


def verdict(claim: Mapping[str, Any], low: float, high: float) -> str:
    """Return agrees, contradicts or undecided.

    Args:
        claim: With `above`, `below` or both.
        low: Lower end of the interval.
        high: Upper end.
    """
    above, below = claim.get("above", -torch.inf), claim.get("below", torch.inf)
    if above < low and high < below:
        return "agrees"
    return "contradicts" if high < above or low > below else "undecided"


def table(claims: Sequence[Mapping[str, Any]], stored: Stored) -> list[str]:
    """Return a table of claims, and below it what makes the runs of each."""
    lines = ["| | where | claim | number | bounds | found | |"]
    lines.append("|" + " --- |" * 7)
    repeat = []
    for number, claim in enumerate(claims, 1):
        function, *arguments = claim["value"]
        stored.used = {}
        value: Callable[..., Tensor] = getattr(stored, function)
        try:
            values = value(*arguments)
        except MissingRunError:
            found, said = "", "not run"
        else:
            low, high = interval(values)
            ends = f" [{low:.3f}, {high:.3f}], n = {len(values)}" if len(values) > 1 else ""
            found = f"{values.mean():.3f}{ends}"
            said = verdict(claim, low, high) if len(values) >= FEWEST else "too few"
        bounds = [f"{word} {claim[word]:g}" for word in ("above", "below") if word in claim]
        cells = [str(number), claim["where"], claim["claim"], claim["number"], ", ".join(bounds)]
        lines.append(f"| {' | '.join([*cells, found, f'**{said}**'])} |")
        repeat.append(f"{number}. `--only {' '.join(stored.used)}`")
    return [
        *lines,
        "",
        "To make the runs of a row: `python docs/claims/runs.py FOLDER` and",
        "",
        *repeat,
    ]


def untested(claims: Sequence[Mapping[str, str]]) -> list[str]:
    """Return a list of what was not tested, and why."""
    return ["Not tested:", "", *(f"- {each['where']}: {each['why']}." for each in claims), ""]


def networks(stored: Stored) -> list[str]:
    """Return a table of the networks' accuracies."""
    lines = ["| network | accuracy | ASR | accuracy under the training's attack |"]
    lines.append("|" + " --- |" * 4)
    for name, values in stored.runs.items():
        if OF_NETWORKS[0] in values:
            cells = [f"{values[key][0]:.3f}" if key in values else "" for key in OF_NETWORKS]
            lines.append(f"| {' | '.join([name, *cells])} |")
    return lines


def triggers(stored: Stored, searches: Mapping[str, str], on: str = "") -> list[str]:
    """Return a table of how each search finds each trigger.

    Args:
        stored: The numbers.
        searches: What a search is called, and what its runs' names start with.
        on: What the names of all runs start with.
    """
    inversions = {name: kind for name, kind in searches.items() if "inversion" in kind}
    lines = ["| trigger | its own ASR |"]
    for name in searches:
        lines[0] += f" {name}: ASR | IoU | IoU, shifted |"
    lines[0] += " random pixels: IoU | IoU, shifted |"
    for name in inversions:
        lines[0] += f" largest ASR of another class, {name} |"
    lines.append("|" + " --- |" * (lines[0].count("|") - 1))
    for name, (target, (trigger, place)) in TRIGGERS.items():
        cells = [f"{name} ({target})", _cell(stored, f"{on}badnets_{name}", OF_NETWORKS[1])]
        for kind in searches.values():
            run = f"{on}{kind}_badnets_{name}"
            rows = {run: target if "inversion" in kind else 0}
            rows |= {f"{run}_{seed}": 0 for seed in MORE_SEEDS}
            for key in (f"attack_success_rate/{SMALL}", "iou", "shifted_iou"):
                of_seeds = [
                    _cell(stored, each, key, row if "rate" in key else 0)
                    for each, row in rows.items()
                ]
                cells.append(", ".join(filter(None, of_seeds)))
        mask = Trigger(name=trigger, place=yaml.safe_load(place)).draw((32, 32)).mask[0] > 0
        chance = {} if mask.all() else closeness_by_chance(mask, SMALL)
        cells += [f"{chance[key]:.3f}" if chance else "" for key in ("iou", "shifted_iou")]
        for kind in inversions.values():
            found = stored.runs.get(f"{on}{kind}_badnets_{name}", {})
            rates = found.get(f"attack_success_rate/{SMALL}")
            others = [rate for row, rate in enumerate(rates or ()) if row != target]
            cells.append(f"{max(others):.3f}" if others else "")
        lines.append(f"| {' | '.join(cells)} |")
    return lines


def selection(stored: Stored) -> list[str]:
    """Return a table of mean predictive powers by the rule that chooses a class's canvas."""
    key = f"predictive_power/{USUAL}"

    def above(kind: str, more: Tensor) -> Tensor:
        own = stored.number(key, kind)
        if len(own) != len(more):
            raise MissingRunError(kind)
        return own + more

    rules: dict[str, Callable[[str, str], Tensor]] = {
        "the lowest objective": lambda kind, on: stored.number(key, kind),
        "the lowest cross-entropy of its pattern on the search images": lambda kind, on: above(
            kind, stored.chosen_by_hard_loss(key, kind, f"{on}hard_loss")
        ),
        "the largest power on the search images": lambda kind, on: above(
            kind, stored.chosen_by_power(key, kind, f"{on}on_searched")
        ),
        "the largest power on the held-out images": lambda kind, on: stored.number(
            f"best_canvas/{key}", kind
        ),
    }
    heads = ("mPW at 5 % of the canvas with", "`Shapes`, of three, networks 0, 1, 2")
    lines = [f"| {' | '.join([*heads, 'CIFAR-10, of five, network 0'])} |", "| --- | --- | --- |"]
    for rule, value in rules.items():
        cells = []
        for kind, on in (("positive", ""), ("cifar10_five_canvases", "cifar10_")):
            try:
                cells.append(", ".join(f"{each:.3f}" for each in value(kind, on)))
            except MissingRunError:
                cells.append("-")
        lines.append(f"| {' | '.join([rule, *cells])} |")
    return lines


def attacks(stored: Stored, run: str, sizes: Sequence[str]) -> list[str]:
    """Return a table of what patterns make of networks, from a run of `transfer`."""
    if (found := stored.runs.get(run)) is None:
        return [f"`{run}`: **not run**"]
    pairs = [key.split("/")[1:] for key in found if key.startswith("clean_accuracy/")]
    every, networks = (list(dict.fromkeys(names)) for names in zip(*pairs, strict=True))
    measures = ("mean_attack_success_rate", "transfer_rate", "robust_accuracy")
    keys = {
        (of, f"{100 * float(size):g} %"): [f"{measure}/{size}/{of}" for measure in measures]
        for of in every
        for size in sizes
    }
    nothing = {("nothing", ""): [f"{m}/{every[0]}" for m in ("mean_base_rate", "clean_accuracy")]}
    lines = ["| patterns of | size |" + "".join(f" {name} |" for name in networks)]
    lines.append("|" + " --- |" * (2 + len(networks)))
    for about, row in (nothing | keys).items():
        cells = [", ".join(_cell(stored, run, f"{key}/{on}") for key in row) for on in networks]
        lines.append(f"| {' | '.join([*about, *cells])} |")
    return lines


def _cell(stored: Stored, run: str, key: str, row: int = 0) -> str:
    values = stored.runs.get(run, {}).get(key)
    return "" if values is None else f"{values[row]:.3f}"


def document(stored: Stored) -> str:
    """Return docs/claims.md."""
    claims = yaml.safe_load((HERE / "claims.yaml").read_text())
    lines = [
        "# Claims, tested",
        "",
        "Written by `python docs/claims/evaluate.py` from [numbers.json](claims/numbers.json): "
        f"{len(stored.runs)} of {len(commands())} runs. `python docs/claims/runs.py FOLDER` makes "
        "them all (those on CIFAR-10 from image files in FOLDER/cifar10), `evaluate.py FOLDER` "
        "reads those that are there.",
        "",
        "## Protocol",
        "",
        (HERE / "protocol.md").read_text(),
        "## Claims of the paper",
        "",
        *table(claims["paper"], stored),
        "",
        *untested(claims["untested"]),
        "### Which canvas",
        "",
        "Ours is the first rule; the last one needs images that a search does not see (-: not "
        "measured).",
        "",
        *selection(stored),
        "",
        "## Shape or texture: claims of Zhang and Zhu 2019",
        "",
        "Theirs are ResNet-18 on Caltech-256 and others; only abstract and code were at hand.",
        "",
        *table(claims["probes"], stored),
        "",
        *untested(claims["untested_probes"]),
        "## What is still in the logits: claims of Teterwak et al. 2021",
        "",
        "Theirs are ResNet-152 on ImageNet; of the paper only the abstract was at hand.",
        "",
        *table(claims["inversions"], stored),
        "",
        *untested(claims["untested_inversions"]),
        "## Ours",
        "",
        *table(claims["ours"], stored),
        "",
        "## Triggers, one by one",
        "",
        "Patterns of 1 %, found with positive and white canvases and with `TriggerInversion` "
        "(inverted: 360 evaluations a class; longer: 1,800, larger steps); the target in brackets. "
        "Several numbers are of search seeds 1, 2 and 3, the last two of the target alone.",
        "",
        *triggers(stored, SEARCHES),
        "",
        "## On CIFAR-10",
        "",
        "A selection of the rows above, and what `Shapes` cannot say.",
        "",
        *table(claims["cifar10"], stored),
        "",
        "Patterns of 1 %, found with positive and white canvases (3,600 evaluations a canvas) and "
        "with the longer `TriggerInversion` (1,800 a class; search seeds 1, 2 and 3, the last two "
        "of the target alone):",
        "",
        *triggers(stored, ON_CIFAR10, "cifar10_"),
        "",
        "## Patterns as attacks",
        "",
        "Mean ASR over the ten classes; mPW over that in the network searched in (the paper's "
        "ratio); and the share of 200 images classified right under every "
        "pattern of another class: an attacker takes the best of nine. Of nothing: what is taken "
        "for a class all the same, and accuracy. Ratios of patterns that do next to nothing at "
        "home say nothing. `another_architecture` (timm's `test_resnet`, six epochs) is far less "
        "accurate.",
        "",
        *attacks(stored, "attacks", ("0.01", "0.02", "0.05")),
        "",
        *attacks(stored, "cifar10_transfer", ("0.01", "0.02", "0.05")),
        "",
        "## Networks",
        "",
        *networks(stored),
    ]
    return "\n".join(lines) + "\n"


def main() -> None:
    """Collect and write."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path, nargs="?")
    folder = parser.parse_args().folder
    file = HERE / "numbers.json"
    if folder is not None:
        stored = json.loads(file.read_text()) | collect(folder)
        known = {name: stored[name] for name in commands() if name in stored}
        rows = [f"{json.dumps(name)}: {json.dumps(of)}" for name, of in known.items()]
        file.write_text("{\n" + ",\n".join(rows) + "\n}\n")
    (HERE.parent / "claims.md").write_text(document(Stored(json.loads(file.read_text()))))


if __name__ == "__main__":
    main()
