"""PatternMeasurement: class-wise patterns as a measurement at chosen epochs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import torch

from iscp_lightning.classifiers.subject import Subject
from iscp_lightning.data.splits import class_indices
from iscp_lightning.data.testset import require_drawable
from iscp_lightning.measurement import Measurement
from iscp_lightning.metrics.overlap import overlap
from iscp_lightning.patterns.canvas import Canvases, require_single_canvases
from iscp_lightning.patterns.drawings import (
    SHOWN_CLASSES,
    SHOWN_SIZE,
    training_figures,
    winner_pictures,
)
from iscp_lightning.patterns.engine import PatternSearch
from iscp_lightning.patterns.findings import search_findings
from iscp_lightning.patterns.pattern import PATTERN_SIZES, PatternSet, stored_targets
from iscp_lightning.patterns.power import MeasuredOn
from iscp_lightning.patterns.search import (
    measure_search,
    require_applicable,
    require_canvas_free,
    run_search,
    winning_problems,
)
from iscp_lightning.patterns.settings import SearchSettings
from iscp_lightning.patterns.work import search_work
from iscp_lightning.ranks import gather, in_order
from iscp_lightning.records import Findings, Record
from iscp_lightning.seeds import derived_seed
from iscp_lightning.work import Work

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from iscp_lightning.data.datamodule import ImageDataModule

EACH_EPOCH, FIRST = "each_epoch", "first"


class PatternMeasurement(Measurement):
    """Searches the patterns of a classifier and measures the winners' predictive power.

    Classes without a canvas, common in early epochs, are left out with a warning. The last one of a
    training also searches the winners' canvases with a second seed: what two searches have in
    common is the most that patterns of different epochs could.

    Args:
        search: Settings of the search.
        classes: Target classes by index or name; None means all.
        pattern_sizes: Sizes at which predictive power is measured; 0.05 is always among them.
        canvases: `each_epoch` chooses them anew, `first` keeps the winners of the first search, so
            that classes without one are left out from then on; anything else is a pattern file,
            whose winners' canvases are used.
    """

    title = "patterns"

    def __init__(
        self,
        search: SearchSettings = SearchSettings(),
        classes: Sequence[int | str] | None = None,
        pattern_sizes: Sequence[float] = PATTERN_SIZES,
        canvases: Literal["each_epoch", "first"] | str = EACH_EPOCH,
    ) -> None:
        self.search = search
        self.classes = classes
        self.pattern_sizes = tuple(sorted({*pattern_sizes, SHOWN_SIZE}))
        self.canvases = canvases
        self.given: Canvases | PatternSet | None = None

    def check(self, data: ImageDataModule) -> None:
        """Refuse unknown classes, images that cannot be drawn, and data without search images.

        Raises:
            ValueError: if it cannot be searched; says why.
        """
        class_indices(self.classes, data.class_names)
        require_drawable(data.test_images)
        self.search.sparsity_of(torch.zeros(1).long(), data.num_classes)
        require_applicable(self.search, data.test_images, self.pattern_sizes)
        self.given = None
        if self.canvases not in (EACH_EPOCH, FIRST) and not Path(self.canvases).is_file():
            raise ValueError(
                f"`canvases` must be {EACH_EPOCH}, {FIRST} or an existing pattern file, "
                f"got {self.canvases!r}"
            )
        if self.canvases == FIRST and self.search.method.joint:
            raise ValueError(
                f"`canvases`={FIRST} keeps one canvas a class, "
                f"{type(self.search.method).__name__} needs several: take {EACH_EPOCH}"
            )
        if self.canvases not in (EACH_EPOCH, FIRST):
            require_canvas_free(self.search.method, self.canvases)
            self.given = PatternSet.load(self.canvases, winners=True)
            require_single_canvases(self.given)
        if len(data.search_labels) == 0:
            raise ValueError(
                f"patterns need search images: `search_fraction`={data.search_fraction} "
                f"of {len(data.test_images)} test images is none of any class"
            )

    def work(
        self, data: ImageDataModule, processes: int, times: int = 1, last: bool = False
    ) -> list[Work]:
        """Return what searches and the measurements of their winners take."""
        held_out, everything = data.held_out_indices, torch.arange(len(data.test_images))

        def searches(canvases: int) -> list[Work]:
            return search_work(
                data.test_images.labels,
                (3, *data.image_size),
                class_indices(self.classes, data.class_names),
                self.search,
                search_labels=data.search_labels,
                canvases=canvases,
                sizes=len(self.pattern_sizes),
                measured=1,
                measured_images=held_out if len(held_out) else everything,
                processes=processes,
            )

        many = {EACH_EPOCH: times, FIRST: min(times, 1)}.get(self.canvases, 0)
        shares = ((self.search.canvases_expected, many), (1, times - many))
        works = [work.times(n) for canvases, n in shares if n for work in searches(canvases)]
        if last:
            works.append(replace(searches(1)[1], stage="two search seeds"))
        return works

    def small(self) -> PatternMeasurement:
        """Return a search of one pass on one canvas a class."""
        search = replace(self.search, search_epochs=1, canvases_per_class=1)
        return PatternMeasurement(search, self.classes, self.pattern_sizes)

    def measure(self, subject: Subject, last: bool = False) -> Findings | None:
        """Return the patterns, measured on held-out images where there are any."""
        settings = self.search.seeded(subject.seed)
        chosen = class_indices(self.classes, subject.class_names)
        search = run_search(subject, settings, chosen, self.given, skip_missing=True)
        if len(search.active) == 0:  # no class has a canvas; the warnings say so
            return None
        if self.canvases == FIRST and self.given is None:
            self.given = search.canvases.chosen(winning_problems(search))
        whole = len(subject.search_indices) == len(subject.images)
        measure_on: MeasuredOn = "full" if whole else "held_out"
        found = measure_search(search, self.pattern_sizes, measure_on, "winners")
        ceiling = seed_overlap(search) if last else None
        if found is None:
            return Findings()
        findings = search_findings(found)
        if ceiling is not None:
            record = Record("seed_overlap", ceiling, {"pattern_size": SHOWN_SIZE})
            findings = replace(findings, records=[*findings.records, record])
        return replace(findings, pictures=winner_pictures(found))

    def go_on(self, folder: Path, past: Sequence[Findings]) -> None:
        """Keep the canvases of the first search."""
        if self.canvases == FIRST and past:
            self.given = PatternSet.load(pattern_file(folder, past[0]), winners=True)

    def history(self, folder: Path, past: Sequence[Findings]) -> dict[str, Figure]:
        """Return the figures of learning dynamics (Figure 4) and of settling patterns."""
        there = [each for each in past if pattern_file(folder, each).is_file()]
        if not there:
            return {}
        paths = [pattern_file(folder, each) for each in there]
        shown = (
            torch.cat([stored_targets(path) for path in paths]).unique()[:SHOWN_CLASSES].tolist()
        )
        snapshots = [PatternSet.load(path, winners=True, classes=shown) for path in paths]
        values = [r.value for r in there[-1].records if r.measure == "seed_overlap"]
        epochs = [each.provenance["epoch"] for each in there]
        return training_figures(snapshots, epochs, values[0] if values else None)


def pattern_file(folder: Path, findings: Findings) -> Path:
    """Return where the patterns of an epoch are in a run folder."""
    return folder / "patterns" / f"{findings.provenance['saved_as']}.safetensors"


def seed_overlap(search: PatternSearch) -> float:
    """Return the mean overlap of the winners with those of another search seed; a collective.

    Same network, same canvases, patterns of 5 %.

    Args:
        search: A finished search.
    """
    won = winning_problems(search)
    seed = derived_seed(search.settings.seed or 0, "ceiling")
    settings = replace(search.settings, seed=seed)
    second = PatternSearch(search.subject, search.canvases.chosen(won), settings)
    for _ in range(second.total_steps):
        second.step()
    problem, row = (won[:, None] == search.owned).nonzero().T
    first = search.patterns()[row].selected(SHOWN_SIZE)
    other = second.patterns().selected(SHOWN_SIZE)
    pair = (in_order(gather(share)) for share in ((problem, first), (second.owned, other)))
    return float(overlap(*pair).mean())
