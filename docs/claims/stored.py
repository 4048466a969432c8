"""The numbers of the runs, and what claims are tested with."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence

import torch
from on_shapes import LOCAL, ONE_A_TARGET, SEEDS, TRIGGERS, USUAL
from torch import Tensor

OF_NETWORKS = ("test/clean_accuracy", "test/attack_success_rate", "test/robust_accuracy")
OF_ATTACKS = ("attacks/pgd20", "attacks/stadv")
LEARNED = 0.5  # ASR from which on a network is taken to have learned its trigger
INDEPENDENT = {  # networks that no backdoored one descends from, by what names of runs start with
    "": {0: "natural_0", 2: "natural_2"},
    "cifar10_": {0: "cifar10_resnet20", 2: "cifar10_natural_2"},
}


class MissingRunError(Exception):
    """A run that a number is made from is not there."""


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
            MissingRunError: if it is not there.
        """
        self.used[run] = None
        if run not in self.runs:
            raise MissingRunError(run)
        return torch.tensor(self.runs[run][key], dtype=torch.float64)

    def seeds(self, *kinds: str) -> list[int]:
        """Return the seeds of which all these runs are there.

        Raises:
            MissingRunError: if there is none.
        """
        self.used |= dict.fromkeys(f"{kind}_{seed}" for kind in kinds for seed in SEEDS)
        found = [s for s in SEEDS if all(f"{kind}_{s}" in self.runs for kind in kinds)]
        if not found:
            raise MissingRunError(kinds)
        return found

    def number(self, key: str, kind: str) -> Tensor:
        """Return a number of each seed, the mean over its classes."""
        return _means(self.of(f"{kind}_{seed}", key) for seed in self.seeds(kind))

    def difference(self, key: str, kind: str, other: str, other_key: str | None = None) -> Tensor:
        """Return a number of one kind of runs minus that of another, paired by seed and class."""
        return _means(
            self.of(f"{kind}_{seed}", key) - self.of(f"{other}_{seed}", other_key or key)
            for seed in self.seeds(kind, other)
        )

    def above_chance(self, key: str, kind: str) -> Tensor:
        """Return a measure of `describe` minus what chance gives."""
        return self.difference(key, kind, kind, f"chance_{key}")

    def attention_drawn(self, size: str, kind: str) -> Tensor:
        """Return what patterns add to the attention where they are, minus what random pixels do."""
        of_patterns, of_random = (
            self.difference(
                f"{chance}attention_after/{size}", kind, kind, f"{chance}attention_before/{size}"
            )
            for chance in ("", "chance_")
        )
        return of_patterns - of_random

    def spread(self, key: str, kind: str) -> Tensor:
        """Return the standard deviation over classes, of each network."""
        values = [self.of(f"{kind}_{seed}", key) for seed in self.seeds(kind)]
        return torch.stack(values).std(1, correction=0)

    def first_is_not_best(self, key: str, kind: str) -> Tensor:
        """Return the share of classes whose best canvas is not the most confident image."""
        runs = [f"{kind}_{seed}" for seed in self.seeds(kind)]
        keys = (f"first_canvas/{key}", f"best_canvas/{key}")
        return _means((self.of(run, keys[0]) < self.of(run, keys[1])).double() for run in runs)

    def chosen_by_power(self, key: str, kind: str, on: str) -> Tensor:
        """Return a number of the canvases that have the largest one in other runs, minus `kind`'s.

        Args:
            key: The number.
            kind: Runs whose canvas is that with the lowest objective.
            on: The same searches, measured on the images that they have searched on.
        """
        return self._chosen(key, kind, lambda seed: self.of(f"{on}_{seed}", f"canvases/{key}"), on)

    def chosen_by_hard_loss(self, key: str, kind: str, on: str) -> Tensor:
        """Return a number of the canvases of the lowest hard loss, in runs `on`, minus `kind`'s."""
        lost = f"hard_loss/{USUAL}"
        return self._chosen(key, kind, lambda seed: -self.of(f"{on}_{seed}", lost), on)

    def _chosen(self, key: str, kind: str, merits: Callable[[int], Tensor], on: str) -> Tensor:
        found = []
        for seed in self.seeds(kind, on):
            counts = self.of(f"{kind}_{seed}", "canvases/count").long().tolist()
            powers = self.of(f"{kind}_{seed}", f"canvases/{key}").split(counts)
            rows = [each.nan_to_num(-torch.inf).argmax() for each in merits(seed).split(counts)]
            chosen = torch.stack([each[row] for each, row in zip(powers, rows, strict=True)])
            found.append(chosen - self.of(f"{kind}_{seed}", key))
        return _means(found)

    def recovered(self, key: str, canvas: str, suffix: str = "") -> Tensor:
        """Return a number about the recovery of each local trigger."""
        runs = [f"{canvas}_badnets_{name}{suffix}" for name in LOCAL]
        return torch.stack([self.of(run, key)[0] for run in runs])

    def triggered(self, key: str, other: str = "") -> Tensor:
        """Return a number of one trigger a target class; minus that of other runs, if named."""
        kinds = ["asked_badnets", *([other] if other else [])]
        self.used |= dict.fromkeys(f"{kind}_{name}" for kind in kinds for name in ONE_A_TARGET)
        found = [
            torch.stack([self.of(f"{kind}_{name}", key)[0] for name in ONE_A_TARGET])
            for kind in kinds
        ]
        return found[0] - found[1] if other else found[0]

    def shifted_by_augmentation(self, key: str, canvas: str, of: str = "badnets") -> Tensor:
        """Return it with augmentation minus without, where that network has learned its trigger."""
        moved = self.recovered(key, canvas, "_augmented") - self.recovered(key, canvas)
        rates = [self.of(f"{of}_{name}_augmented", OF_NETWORKS[1]) for name in LOCAL]
        return moved[torch.cat(rates) >= LEARNED]

    def backdoored_above_natural(self, key: str, canvas: str) -> Tensor:
        """Return a number of the target classes, minus its mean in natural networks, but seed 1."""
        values = [self.of(f"{canvas}_{seed}", key) for seed in INDEPENDENT[""]]
        natural = torch.stack(values).mean(0)
        backdoored = [self.of(f"{canvas}_badnets_{name}", key)[0] for name in TRIGGERS]
        return torch.stack(backdoored) - natural[[target for target, _ in TRIGGERS.values()]]

    def to_backdoored(self, key: str, on: str = "") -> Tensor:
        """Return a number of `transfer` for natural patterns on each backdoored network."""
        return _means(
            torch.cat(
                [
                    self.of(f"{on}transfer", f"{key}/{on}positive_{seed}/{on}badnets_{name}")
                    for seed in INDEPENDENT[on]
                ]
            )
            for name in TRIGGERS
        )

    def to_natural(self, key: str, on: str = "") -> Tensor:
        """Return a number of `transfer` for patterns of each backdoored network on natural ones."""
        return _means(
            torch.cat(
                [
                    self.of(f"{on}transfer", f"{key}/{on}all_badnets_{name}/{natural}")
                    for natural in INDEPENDENT[on].values()
                ]
            )
            for name in TRIGGERS
        )

    def to_backdoored_above_to_natural(self, key: str, on: str = "") -> Tensor:
        """Return their difference, of each trigger."""
        return self.to_backdoored(key, on) - self.to_natural(key, on)

    def to_backdoored_above_twins(self, key: str, on: str = "") -> Tensor:
        """Return a number of natural patterns on backdoored networks minus on natural twins."""
        natural = INDEPENDENT[on]
        twins = [
            self.of(f"{on}transfer", f"{key}/{on}positive_{seed}/{natural[other]}")
            for seed, other in ((0, 2), (2, 0))
        ]
        return self.to_backdoored(key, on) - torch.cat(twins).mean()

    def to_backdoored_above_start(self, key: str, on: str) -> Tensor:
        """Return natural patterns' number on them minus on the network that they start from."""
        start = [
            self.of(f"{on}transfer", f"{key}/{on}positive_{seed}/{on}natural_1")
            for seed in INDEPENDENT[on]
        ]
        return self.to_backdoored(key, on) - torch.cat(start).mean()

    def to_natural_above_start(self, key: str, on: str) -> Tensor:
        """Return their patterns' number on natural networks minus that of where they start from."""
        start = [
            self.of(f"{on}transfer", f"{key}/{on}positive_1/{natural}")
            for natural in INDEPENDENT[on].values()
        ]
        return self.to_natural(key, on) - torch.cat(start).mean()

    def target_stands_out(self, key: str, kind: str) -> Tensor:
        """Return the target's number minus the largest of another class."""
        leads = []
        for name, (target, _) in TRIGGERS.items():
            values = self.of(f"{kind}_badnets_{name}", key)
            others = torch.arange(len(values)) != target
            leads.append(values[target] - values[others].max())
        return torch.stack(leads)

    def inverted_target(self, key: str, kind: str) -> Tensor:
        """Return a number of the target classes of local triggers, inverted."""
        return torch.stack(
            [self.of(f"{kind}_badnets_{name}", key)[TRIGGERS[name][0]] for name in LOCAL]
        )

    def inverted_others(self, key: str, kind: str) -> Tensor:
        """Return the largest number of another class than the target."""
        largest = []
        for name in LOCAL:
            values = self.of(f"{kind}_badnets_{name}", key)
            values[TRIGGERS[name][0]] = -torch.inf
            largest.append(values.max())
        return torch.stack(largest)

    def inverted_natural(self, key: str, kind: str) -> Tensor:
        """Return the largest number of a class of each natural network."""
        return torch.stack([self.of(f"{kind}_{seed}", key).max() for seed in self.seeds(kind)])


def _means(values: Iterable[Tensor]) -> Tensor:
    return torch.stack([each.nanmean() for each in values])
