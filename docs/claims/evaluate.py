"""What the runs say of the claims.

python docs/claims/evaluate.py [FOLDER] writes docs/claims.md from numbers.json; if a folder is
given, the numbers of its runs first replace those in there.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
import yaml
from torch import Tensor

from iscp_lightning.metrics.intervals import mean_interval

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE))

from runs import LOCAL, ONE_A_TARGET, SEEDS, TRIGGERS, commands  # noqa: E402

IN_RECORDS = ("measure", "value", "interval", "class", "inversion")
FEWEST = 3  # values that a verdict takes
OF_NETWORKS = ("test/clean_accuracy", "test/attack_success_rate", "test/robust_accuracy")


def collect(folder: Path) -> dict[str, dict[str, list[float]]]:
    """Return the numbers of all runs by name: one for each class where there are such."""
    found = {}
    for name in commands():
        file = folder / "runs" / name / "results.json"
        if file.is_file():
            found[name] = numbers(json.loads(file.read_text()))
    return found


def numbers(results: Mapping[str, Any]) -> dict[str, list[float]]:
    """Return the numbers of one run that claims are made from."""
    values: dict[str, list[float]] = {}

    def add(name: str, value: float | None) -> None:
        values.setdefault(name, []).append(float("nan") if value is None else round(value, 4))

    for key, value in results.get("test", {}).items():
        if key in OF_NETWORKS:
            add(key, value)
    for entry in results.get("classes", []):
        for size, power in entry["predictive_power"].items():
            add(f"predictive_power/{size}", power)
            add(f"attack_success_rate/{size}", entry["attack_success_rate"][size])
            add(f"random_mask_rate/{size}", entry["random_mask_rate"][size])
            powers = [
                c["predictive_power"][size] for c in entry["canvases"] if c["predictive_power"]
            ]
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


class Stored:
    """The numbers of the runs, as `collect` returns them, and what claims are tested with.

    Attributes:
        used: Names of the runs that were asked for.
    """

    def __init__(self, runs: Mapping[str, Mapping[str, Sequence[float]]]) -> None:
        self.runs = runs
        self.used: dict[str, None] = {}

    def of(self, run: str, key: str) -> Tensor:
        """Return a number of one run, float64 (n,).

        Raises:
            KeyError: if the run is not there.
        """
        self.used[run] = None
        return torch.tensor(self.runs[run][key], dtype=torch.float64)

    def seeds(self, *kinds: str) -> list[int]:
        """Return the seeds of which all these runs are there.

        Raises:
            KeyError: if there is none.
        """
        self.used |= dict.fromkeys(f"{kind}_{seed}" for kind in kinds for seed in SEEDS)
        found = [s for s in SEEDS if all(f"{kind}_{s}" in self.runs for kind in kinds)]
        if not found:
            raise KeyError(kinds)
        return found

    def number(self, key: str, kind: str) -> Tensor:
        """Return a number of all seeds and classes."""
        return torch.cat([self.of(f"{kind}_{seed}", key) for seed in self.seeds(kind)])

    def difference(self, key: str, kind: str, other: str, other_key: str | None = None) -> Tensor:
        """Return a number of one kind of runs minus that of another, paired by seed and class."""
        pairs = [
            self.of(f"{kind}_{seed}", key) - self.of(f"{other}_{seed}", other_key or key)
            for seed in self.seeds(kind, other)
        ]
        return torch.cat(pairs)

    def above_chance(self, key: str, kind: str) -> Tensor:
        """Return a measure of `describe` minus what chance gives."""
        return self.difference(key, kind, kind, f"chance_{key}")

    def spread(self, key: str, kind: str) -> Tensor:
        """Return the standard deviation over classes, of each network."""
        values = [self.of(f"{kind}_{seed}", key) for seed in self.seeds(kind)]
        return torch.stack(values).std(1, correction=0)

    def first_is_not_best(self, key: str, kind: str) -> Tensor:
        """Return where the most confident image is not the best canvas, 0 or 1."""
        first, best = (self.number(f"{which}_canvas/{key}", kind) for which in ("first", "best"))
        return (first < best).double()

    def recovered(self, key: str, canvas: str, suffix: str = "") -> Tensor:
        """Return a number about the recovery of each local trigger."""
        runs = [f"{canvas}_badnets_{name}{suffix}" for name in LOCAL]
        return torch.stack([self.of(run, key)[0] for run in runs])

    def triggered(self, key: str, other: str = "") -> Tensor:
        """Return a number of one trigger a target class; minus that of other runs, if named."""
        values = torch.stack([self.of(f"asked_badnets_{name}", key)[0] for name in ONE_A_TARGET])
        if other:
            values -= torch.stack([self.of(f"{other}_{name}", key)[0] for name in ONE_A_TARGET])
        return values

    def shifted_by_augmentation(self, key: str, canvas: str) -> Tensor:
        """Return it with augmentation minus without."""
        return self.recovered(key, canvas, "_augmented") - self.recovered(key, canvas)

    def backdoored_above_natural(self, key: str, canvas: str) -> Tensor:
        """Return a number of the target classes, minus its mean in natural networks, but seed 1."""
        seeds = [seed for seed in self.seeds(canvas) if seed != 1]
        natural = torch.stack([self.of(f"{canvas}_{seed}", key) for seed in seeds]).mean(0)
        backdoored = [self.of(f"{canvas}_badnets_{name}", key)[0] for name in TRIGGERS]
        return torch.stack(backdoored) - natural[[target for target, _ in TRIGGERS.values()]]

    def to_backdoored(self, key: str) -> Tensor:
        """Return a number of `transfer` for natural patterns on backdoored networks."""
        pairs = [f"positive_{seed}/badnets_{name}" for name in TRIGGERS for seed in (0, 2)]
        return torch.cat([self.of("transfer", f"{key}/{pair}") for pair in pairs])

    def to_natural(self, key: str) -> Tensor:
        """Return a number of `transfer` for patterns of backdoored networks on natural ones."""
        pairs = [f"all_badnets_{name}/natural_{seed}" for name in TRIGGERS for seed in (0, 2)]
        return torch.cat([self.of("transfer", f"{key}/{pair}") for pair in pairs])

    def target_stands_out(self, key: str, kind: str) -> Tensor:
        """Return where the target class has the largest number of all, 0 or 1."""
        found = {name: self.of(f"{kind}_badnets_{name}", key) for name in TRIGGERS}
        values = [float(of[TRIGGERS[name][0]] == of.max()) for name, of in found.items()]
        return torch.tensor(values, dtype=torch.float64)

    def inverted_target(self, key: str) -> Tensor:
        """Return a number of the target classes of local triggers, inverted."""
        return torch.stack(
            [self.of(f"inversion_badnets_{name}", key)[TRIGGERS[name][0]] for name in LOCAL]
        )

    def inverted_others(self, key: str) -> Tensor:
        """Return the largest number of another class than the target."""
        largest = []
        for name in LOCAL:
            values = self.of(f"inversion_badnets_{name}", key)
            values[TRIGGERS[name][0]] = -torch.inf
            largest.append(values.max())
        return torch.stack(largest)

    def inverted_natural(self, key: str) -> Tensor:
        """Return the largest number of a class of each natural network."""
        return torch.stack([self.of(f"inversion_{seed}", key).max() for seed in (0, 2)])


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
        except KeyError:  # runs are missing
            found, said = "", "not run"
        else:
            ((low, high),) = mean_interval(values.unsqueeze(1)).tolist()
            ends = f" [{low:.3f}, {high:.3f}], {len(values)} values" if len(values) > 1 else ""
            found = f"{values.nanmean():.3f}{ends}"
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


def networks(stored: Stored) -> list[str]:
    """Return a table of the networks' accuracies."""
    lines = ["| network | accuracy | ASR | accuracy under the training's attack |"]
    lines.append("|" + " --- |" * 4)
    for name, values in stored.runs.items():
        if OF_NETWORKS[0] in values:
            cells = [f"{values[key][0]:.3f}" if key in values else "" for key in OF_NETWORKS]
            lines.append(f"| {' | '.join([name, *cells])} |")
    return lines


def document(stored: Stored) -> str:
    """Return docs/claims.md."""
    claims = yaml.safe_load((HERE / "claims.yaml").read_text())
    lines = [
        "# Claims, tested",
        "",
        "Written by `python docs/claims/evaluate.py` from [numbers.json](claims/numbers.json): "
        f"{len(stored.runs)} of {len(commands())} runs. `python docs/claims/runs.py FOLDER` makes "
        "them all, `evaluate.py FOLDER` reads those that are there.",
        "",
        "## Protocol",
        "",
        (HERE / "protocol.md").read_text(),
        "## Claims of the paper",
        "",
        *table(claims["paper"], stored),
        "",
        "Not tested:",
        "",
        *(f"- {each['where']}: {each['why']}." for each in claims["untested"]),
        "",
        "## Shape or texture: claims of Zhang and Zhu 2019",
        "",
        "Theirs are ResNet-18 on Caltech-256 and others; only abstract and code were at hand.",
        "",
        *table(claims["probes"], stored),
        "",
        "## What is still in the logits: claims of Teterwak et al. 2021",
        "",
        "Theirs are ResNet-152 on ImageNet; of the paper only the abstract was at hand.",
        "",
        *table(claims["inversions"], stored),
        "",
        "## Ours",
        "",
        *table(claims["ours"], stored),
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
