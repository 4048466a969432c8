"""Paste the patterns of searches on other classifiers: do they transfer, and who withstands them?

Examples:
    python -m iscp_lightning transfer --patterns runs/NAME runs/OTHER
    python -m iscp_lightning transfer --patterns runs/NAME --classifiers runs/OTHER a.safetensors

Options that matter:
    --patterns runs/NAME runs/OTHER
                                  searches, or pattern files; the images are those of the first run
    --classifiers runs/NAME FILE  runs, or weights files; otherwise those that were searched in
    --from runs/NAME              a run, or a weights file, that says the images
    -c FILE                       a configuration; of several, the later wins
    --pattern_sizes 0.01 0.05     shares of the pixels; otherwise those that all searches measured
    --images 1000                 on how many test images patterns are pasted, as many of each class
    --data.source CIFAR10         the images: Shapes, CIFAR10, ImageFolder with its .root, ...
    --seed_everything 1           another seed, and so another choice of images
    --trainer.accelerator cpu     where it is computed: cpu, gpu
    --run NAME                    the folder under runs/; --overwrite replaces one
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from itertools import combinations
from typing import Any

from torch import nn

from iscp_lightning.classifiers import classifier_hash
from iscp_lightning.classifiers.subject import Subject
from iscp_lightning.commands._earlier import Earlier
from iscp_lightning.commands._experiment import Experiment
from iscp_lightning.commands._measuring import (
    Measuring,
    build,
    chosen_images,
    configuration,
    load_network,
    run_of,
    short_names,
    source_of,
)
from iscp_lightning.messages import fail
from iscp_lightning.patterns.pattern import PatternSet
from iscp_lightning.patterns.portraits import transfer_figures
from iscp_lightning.patterns.search import warn_of_unsearched
from iscp_lightning.patterns.stored import load_patterns, measured_sizes
from iscp_lightning.patterns.tables import by_row, ends_of, table, write_csv
from iscp_lightning.patterns.transfer import (
    RELATED,
    measure_transfer,
    transfer_records,
    weight_correlation,
)
from iscp_lightning.records import Findings
from iscp_lightning.runs import may_write, provenance, save_figure

KEYS = ("patterns", "classifier", "pattern_size")
COLUMNS = {  # of the table on the screen
    "mean_predictive_power": "mPW",
    "transfer_rate": "rate",
    "mean_attack_success_rate": "ASR",
    "mean_base_rate": "without",
    "mean_random_mask_rate": "random",
    "mean_whole_canvas_rate": "canvas",
    "robust_accuracy": "robust",
    "clean_accuracy": "clean",
}


def base(arguments: Sequence[str], earlier: Earlier | None) -> dict[str, Any]:
    """Return the measuring on the images of `--from`, or of the first run of patterns."""
    return configuration(source_of(arguments, earlier))


def transfer(
    experiment: Experiment[Measuring],
    patterns: list[str] | None = None,
    classifiers: list[str] | None = None,
    pattern_sizes: list[float] | None = None,
    images: int | None = None,
    from_: str | None = None,
) -> None:
    """Paste the patterns of searches on the images of classifiers.

    Args:
        experiment: Data and Trainer.
        patterns: runs of searches, or pattern files
        classifiers: runs or weights files; default the classifiers that the runs have searched in
        pattern_sizes: shares of the pixels, default those that all searches measured
        images: on how many test images patterns are pasted, as many of each class; default all
            that no search has used
        from_: run folder or weights file whose images are taken
    """
    del from_
    if not patterns:
        fail("`--patterns` names one or more runs of searches, or pattern files")
    data = build(experiment)
    model, trainer = experiment.model, experiment.trainer
    places = dict(zip(short_names(patterns), patterns, strict=True))
    sets = {
        name: load_patterns(place, data.test_images, data.class_names, winners=True)
        for name, place in places.items()
    }
    found = list(sets.values())
    sizes = sorted(set(pattern_sizes or measured_sizes(found)))
    for winners in found:
        winners[winners.winners[:1]].stamps(sizes)  # raises where a size does not fit
        warn_of_unsearched(winners.variant, sizes)
    given = classifiers or searched_in(patterns)
    networks = {
        name: load_network(place, data)
        for name, place in zip(short_names(given), given, strict=True)
    }
    hashes = {name: classifier_hash(network) for name, network in networks.items()}
    warn_if_related(networks, hashes)
    indices = chosen_images(experiment, found, images)
    show = trainer.progress_bar_callback is not None
    sources = {
        of: on
        for of, found in sets.items()
        for on, digest in hashes.items()
        if digest == found.provenance.get("classifier_hash")
    }

    def measure() -> Findings:
        measured = {}
        for on, network in networks.items():
            subject = Subject.of(network, data, trainer.strategy.root_device, show)
            for of, winners in sets.items():
                measured[of, on] = measure_transfer(subject, winners, sizes, indices)
        records = transfer_records(measured, sources, data.class_names)
        rows = by_row(records, KEYS)
        if may_write(trainer):
            folder = experiment.run.folder
            ends = [end for name in COLUMNS for end in ends_of(name) if end in rows[0]]
            write_csv(folder / "transfer.csv", [*KEYS, *COLUMNS, *ends], rows)
            for name, figure in transfer_figures(rows).items():
                save_figure(folder / "figures" / f"{name}.png", figure)
        return Findings(
            records,
            lines=lines_of(rows, sets, sources, len(indices)),
            provenance=provenance(
                patterns={of: places[of] for of in sets},
                classifiers=hashes,
                searched_in=sources,
                images=len(indices),
            ),
        )

    model.measure = measure
    trainer.test(model, datamodule=data, verbose=False)
    experiment.report()


def lines_of(
    rows: Sequence[Mapping[str, Any]],
    sets: Mapping[str, PatternSet],
    sources: Mapping[str, str],
    images: int,
) -> list[str]:
    """Return the table on the screen, and what it is of.

    Args:
        rows: One for each pattern set, classifier and size.
        sets: Patterns by name.
        sources: For each the classifier that was searched in, where that is there.
        images: How many are pasted on.
    """
    cells = [
        [row["patterns"], row["classifier"], f"{100 * row['pattern_size']:g} %"]
        + [row[name] for name in COLUMNS]
        for row in rows
    ]
    counts = ", ".join(f"{len(winners)} patterns of {of}" for of, winners in sets.items())
    lines = [table(["patterns", "classifier", "size", *COLUMNS.values()], cells)]
    lines.append(f"{counts}; {images} images that no search has used")
    if unknown := [of for of in sets if of not in sources]:
        lines.append(
            f"no rate of {', '.join(unknown)}: the classifier that was searched in is not among "
            "`classifiers`"
        )
    return lines


def searched_in(patterns: Sequence[str]) -> list[str]:
    """Return the weights files of the classifiers that runs have searched in, each once.

    Raises:
        SystemExit: with a message, for patterns of no run, or a run whose classifier is in no file.
    """
    found = []
    for place in patterns:
        run = run_of(place)
        given = run.classifier.get("classifier") if run else None
        if not isinstance(given, str):
            fail(f"`--classifiers` must be given: `--patterns {place}` names no weights file")
        found.append(given)
    return list(dict.fromkeys(found))


def warn_if_related(networks: Mapping[str, nn.Module], hashes: Mapping[str, str]) -> None:
    """Warn of classifiers that are the same, or of which one descends from another."""
    words = []
    for one, other in combinations(networks, 2):
        if hashes[one] == hashes[other]:
            words.append(f"{one} and {other} (the same)")
        elif (correlation := weight_correlation(networks[one], networks[other])) > RELATED:
            words.append(f"{one} and {other} ({correlation:.2f})")
    if words:
        warnings.warn(
            "one classifier descends from the other, or both from a third, as the correlation of "
            f"their weights says: {', '.join(words)}; what transfers between them need not "
            "transfer between others",
            stacklevel=2,
        )
