"""Probe how much classifiers lean on shape and on texture, with intervals and pictures.

Examples:
    python -m iscp_lightning probe --classifiers runs/NAME
    python -m iscp_lightning probe -c configs/experiment/probe_cifar10.yaml --classifiers runs/NAME

Options that matter:
    --classifiers runs/NAME FILE  runs, or weights files; they are compared with each other
    --from runs/NAME              a run, or a weights file, that says the images; else the first run
    -c FILE                       a configuration; of several, the later wins
    --distortions Greyscale Edges
                                  Saturation, PatchShuffle, LowPass, HighPass, Greyscale, Edges,
                                  Silhouette, Stylised, Adversarial, or a class of your own
    --images 1000                 on how many test images, as many of each class
    --maps 20                     on how many images saliency maps are measured and drawn; 0: none
    --patterns runs/SEARCH        a search in each of the classifiers, to compare the maps with
    --cue_conflict DIR            images <shape>/<shape>N-<texture>M.jpg; Shapes draws its own
    --categories FILE             JSON file with the classes of each of their categories
    --data.source CIFAR10         the images: Shapes, CIFAR10, ImageFolder with its .root, ...
    --run NAME                    the folder under runs/; --overwrite replaces one
"""

from __future__ import annotations

import csv
from collections.abc import Mapping, Sequence
from itertools import combinations
from pathlib import Path
from typing import Any

from torch import Tensor

from iscp_lightning.classifiers import classifier_hash
from iscp_lightning.classifiers.subject import Subject
from iscp_lightning.commands._earlier import Earlier, read_earlier
from iscp_lightning.commands._experiment import Experiment
from iscp_lightning.commands._measuring import (
    Measuring,
    build,
    configuration,
    load_network,
    load_patterns,
    run_of,
    short_names,
)
from iscp_lightning.data.objects import objects_of
from iscp_lightning.data.splits import stratified_choice
from iscp_lightning.messages import fail
from iscp_lightning.patterns.tables import markdown, number, table
from iscp_lightning.probes import Distortion
from iscp_lightning.probes.drawings import plane_figure, strength_figures, words
from iscp_lightning.probes.maps import Mapped, measure_maps
from iscp_lightning.probes.measurement import ShapeAndTexture
from iscp_lightning.probes.portraits import saliency_grid
from iscp_lightning.probes.probe import Probed
from iscp_lightning.probes.saliency import Method, randomised
from iscp_lightning.records import Findings, Record
from iscp_lightning.runs import atomic_path, is_dry, may_write, provenance, save_figure
from iscp_lightning.seeds import derived_seed

FIRST = ("classifier", "other", "distortion", "strength")  # columns of the table
SAMPLES, DRY_SAMPLES = 100, 2  # of SmoothGrad
SHOWN_IMAGES = 4
SHOWN = ("clean_accuracy", "generalisation", "shape_bias", "cue_share")  # on the screen
LAST = ("measure", "value", "low", "high")


def base(arguments: Sequence[str], earlier: Earlier | None) -> dict[str, Any]:
    """Return the measuring on the images of `--from`, or of the first run among the classifiers."""
    given = list(arguments)
    if earlier is None and "--classifiers" in given:
        place = next(iter(given[given.index("--classifiers") + 1 :]), "")
        earlier = run_of(place) if Path(place).exists() else None
        if earlier is None and Path(place).is_file() and "--data.source" not in given:
            earlier = read_earlier(place)
    return configuration(earlier)


def probe(
    experiment: Experiment[Measuring],
    classifiers: list[str] | None = None,
    distortions: list[Distortion] | None = None,
    images: int | None = None,
    cue_conflict: str | None = None,
    categories: str | None = None,
    maps: int = 20,
    saliency: Method = "smoothgrad",
    noise: float = 0.1,
    patterns: list[str] | None = None,
    from_: str | None = None,
) -> None:
    """Probe classifiers.

    Args:
        experiment: Data and Trainer.
        classifiers: runs or weights files
        distortions: what is done to the test images; default saturation and patch-shuffle
        images: on how many test images, as many of each class; default all
        cue_conflict: folder of images with the shape of one category and the texture of another
        categories: JSON file {category: [class indices]} for that folder
        maps: on how many test images saliency maps are measured, as many of each class; 0: none
        saliency: how maps are made: SmoothGrad or another method of captum
        noise: standard deviation of SmoothGrad's noise, as a share of an image's range
        patterns: for each classifier a search in it, whose patterns maps are compared with
        from_: run folder or weights file whose images are taken
    """
    del from_
    if not classifiers:
        fail("`--classifiers` names one or more runs or weights files")
    if maps < 0:
        fail(f"`maps` must be 0 or more, got {maps}")
    if patterns and len(patterns) != len(classifiers):
        fail(f"`--patterns` names {len(patterns)} searches for {len(classifiers)} classifiers")
    data = build(experiment)
    model, trainer = experiment.model, experiment.trainer
    measurement = ShapeAndTexture(distortions or (), images, cue_conflict, categories)
    measurement.check(data)
    if is_dry(trainer):
        measurement, maps = measurement.small(), min(maps, 1)
    if len(set(classifiers)) < len(classifiers):
        fail(f"`--classifiers` must differ from each other, got {' '.join(classifiers)}")
    names = short_names(classifiers)
    networks = {
        name: load_network(place, data) for name, place in zip(names, classifiers, strict=True)
    }
    sets = [load_patterns(place, data, winners=True) for place in patterns or ()]
    searched = dict(zip(names, sets, strict=False))
    for name, found in searched.items():
        if found.provenance.get("classifier_hash") != classifier_hash(networks[name]):
            fail(f"`--patterns`: those given for {name} were searched in another classifier")
    for network in networks.values() if maps else ():
        randomised(network, 0)  # raises, before anything is measured
    show = trainer.progress_bar_callback is not None

    def measure() -> Findings:
        found: dict[str, Probed] = {}
        mapped: dict[str, Mapped] = {}
        for name, network in networks.items():
            subject = Subject.of(network, data, trainer.strategy.root_device, show)
            found[name] = measurement.probe(subject)
            if maps:
                mapped[name] = measure_maps(
                    subject,
                    strongest(measurement.distortions),
                    mapped_images(subject, maps),
                    objects=objects_of(data),
                    patterns=searched.get(name),
                    samples=DRY_SAMPLES if is_dry(trainer) else SAMPLES,
                    noise=noise,
                    method=saliency,
                )
        records = records_of(found)
        records += [
            record for name, each in mapped.items() for record in each.records({"classifier": name})
        ]
        if may_write(trainer):
            folder = experiment.run.folder
            write_table(folder / "probe.csv", records)
            with atomic_path(folder / "probe.md") as temporary:
                temporary.write_text(markdown(*overview(found, records)))
            drawn = strength_figures(records, "accuracy")
            drawn |= strength_figures(records, "generalisation")
            if mapped:
                shown = range(min(maps, SHOWN_IMAGES))
                drawn["saliency"] = saliency_grid(mapped, shown)
            if plane := plane_figure(records):
                drawn["shape_texture_plane"] = plane
            for name, figure in drawn.items():
                save_figure(folder / "figures" / f"{name}.png", figure)
        return Findings(
            records,
            lines=lines_of(found, records),
            provenance=provenance(
                classifiers={name: classifier_hash(network) for name, network in networks.items()},
                images=len(next(iter(found.values())).clean),
            ),
        )

    model.measure = measure
    trainer.test(model, datamodule=data, verbose=False)
    experiment.report()


def mapped_images(subject: Subject, count: int) -> Tensor:
    """Return the test images whose saliency is mapped, (n,) int64."""
    return stratified_choice(
        subject.images.labels, count, derived_seed(subject.seed, "saliency maps")
    )


def strongest(distortions: Sequence[Distortion]) -> list[Distortion]:
    """Return the last listed distortion of each kind: saliency is mapped under few of them."""
    kinds = {
        tuple(item for item in distortion.about.items() if item[0] != "strength"): distortion
        for distortion in distortions
    }
    return list(kinds.values())


def records_of(found: Mapping[str, Probed]) -> list[Record]:
    """Return the numbers of every classifier, then those of every pair."""
    records = [
        record for name, probed in found.items() for record in probed.records({"classifier": name})
    ]
    for one, other in combinations(found, 2):
        about = {"classifier": one, "other": other}
        records += found[one].compared_with(found[other], about)
    return records


def lines_of(found: Mapping[str, Probed], records: Sequence[Record]) -> list[str]:
    """Return the tables on the screen: accuracy and generalisation, and what differs surely."""
    lines = [table(*overview(found, records))]
    images = len(next(iter(found.values())).clean)
    lines.append(f"* share still right, of the images that are right as they are; {images} images")
    lines.append("95 % intervals over the images")
    for record in records:
        low, high = record.interval or (0, 0)
        if record.measure.endswith("_difference") and (low > 0 or high < 0):
            sides = f"{record.about['classifier']} - {record.about['other']}"
            what = record.measure.removesuffix("_difference").replace("_", " ")
            of = f", {words(record)}" if "distortion" in record.about else ""
            lines.append(f"{what}{of}: {sides} = {with_interval(record)}")
    return lines


def overview(
    found: Mapping[str, Probed], records: Sequence[Record]
) -> tuple[list[str], list[list[str]]]:
    """Return head and rows of the table of classifiers; `*` marks generalisation."""
    rows: dict[str, dict[str, str]] = {}
    for record in records:
        if "other" not in record.about and record.measure in SHOWN:
            name = f"{words(record)}{' *' if record.measure == 'generalisation' else ''}"
            rows.setdefault(name, {})[str(record.about["classifier"])] = with_interval(record)
    return ["", *found], [[name, *(of[each] for each in found)] for name, of in rows.items()]


def with_interval(record: Record) -> str:
    """Return a value and its interval."""
    low, high = record.interval or (None, None)
    return f"{number(record.value)} ({number(low)} to {number(high)})"


def write_table(path: Path, records: Sequence[Record]) -> None:
    """Write records as a CSV table, atomically; NaN becomes an empty cell."""
    columns = dict.fromkeys([*FIRST, *(key for record in records for key in record.about), *LAST])
    with atomic_path(path) as temporary, temporary.open("w", newline="") as file:
        writer = csv.DictWriter(file, list(columns))
        writer.writeheader()
        for record in records:
            low, high = record.interval or ("", "")
            row = {**record.about, "measure": record.measure, "value": record.value}
            row |= {"low": low, "high": high}
            writer.writerow({key: "" if value != value else value for key, value in row.items()})
