"""Probe how much classifiers lean on shape and on texture, with intervals and pictures.

Examples:
    python -m iscp_lightning probe --classifiers runs/NAME
    python -m iscp_lightning probe -c configs/experiment/probe_cifar10.yaml --classifiers runs/NAME

Options that matter:
    --classifiers runs/NAME FILE  runs, or weights files; they are compared with each other
    --from runs/NAME              a run, or a weights file, that says the images; else the first
                                  of the classifiers
    -c FILE                       a configuration; of several, the later wins
    --distortions Greyscale Edges
                                  Saturation, PatchShuffle, LowPass, HighPass, Greyscale, Edges,
                                  Silhouette, Stylised, Adversarial, Rotation, Translation,
                                  Occlusion, or a class of your own; with arguments
                                  '{class_path: Saturation, init_args: {p: 4}}'
    --images 1000                 on how many test images, as many of each class
    --maps 20                     on how many images saliency maps are measured, as they are and
                                  under the last distortion of each kind; four are drawn; 0: none
    --patterns runs/SEARCH        a search in each of the classifiers, to compare the maps with
    --cue_conflict DIR            images <shape>/<shape>N-<texture>M.jpg; Shapes draws its own
    --categories FILE             JSON file with the classes of each of their categories
    --data.source CIFAR10         the images: Shapes, CIFAR10, ImageFolder with its .root, ...
    --run NAME                    the folder under runs/; --overwrite replaces one
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import inf
from pathlib import Path
from typing import Any

from iscp_lightning.arguments import typed
from iscp_lightning.callbacks.history import read_history
from iscp_lightning.classifiers import classifier_hash
from iscp_lightning.classifiers.subject import Subject
from iscp_lightning.commands._earlier import Earlier, read_earlier, require_images
from iscp_lightning.commands._experiment import Experiment
from iscp_lightning.commands._measuring import (
    Measuring,
    build,
    configuration,
    load_network,
    short_names,
)
from iscp_lightning.data.objects import objects_of
from iscp_lightning.messages import fail
from iscp_lightning.patterns.stored import load_patterns
from iscp_lightning.patterns.tables import markdown, write_records
from iscp_lightning.probes import Distortion
from iscp_lightning.probes.drawings import joint_course, plane_figure, strength_figures
from iscp_lightning.probes.maps import Mapped, mapped_images, measure_maps
from iscp_lightning.probes.measurement import ShapeAndTexture
from iscp_lightning.probes.portraits import saliency_grid
from iscp_lightning.probes.probe import Probed
from iscp_lightning.probes.report import (
    FIRST,
    last_of_each_kind,
    lines_of,
    overview,
    records_of,
)
from iscp_lightning.probes.saliency import Method, Of, randomised, require_map
from iscp_lightning.probes.style import Stylised, judge_style
from iscp_lightning.records import Findings
from iscp_lightning.runs import atomic_path, is_dry, may_write, provenance, save_figure

SAMPLES, DRY_SAMPLES = 100, 2  # of SmoothGrad
SHOWN_IMAGES = 4
IMAGES_FROM = ("-c", "--config", "--data", "--data.source")  # options that say which images


def base(arguments: Sequence[str], earlier: Earlier | None) -> dict[str, Any]:
    """Return the measuring on the images of `--from`, else of the first classifier if it says."""
    place = typed("classifiers", arguments)
    if earlier is None and place and Path(place).exists():
        earlier = read_earlier(place, f"--classifiers {place}")
        if not any(item.partition("=")[0] in IMAGES_FROM for item in arguments):
            require_images("classifiers", earlier)
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
    saliency_of: Of = "loss",
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
        saliency_of: whether of the cross-entropy at the true label (loss) or of its logit
        noise: standard deviation of SmoothGrad's noise, as a share of an image's range
        patterns: for each classifier a search in it, whose patterns maps are compared with
        from_: run folder or weights file whose images are taken
    """
    del from_
    if not classifiers:
        fail("`--classifiers` names one or more runs or weights files")
    if maps < 0:
        fail(f"`maps` must be 0 or more, got {maps}")
    if not 0 <= noise < inf:
        fail(f"`noise` must be 0 or more, got {noise}")
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
    trainings = courses(dict(zip(names, classifiers, strict=True)))
    sets = [
        load_patterns(place, data.test_images, data.class_names, winners=True)
        for place in patterns or ()
    ]
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
        subjects = {
            name: Subject.of(network, data, trainer.strategy.root_device, show)
            for name, network in networks.items()
        }
        for subject in subjects.values() if maps else ():
            require_map(subject, saliency, saliency_of)
        for name, subject in subjects.items():
            found[name] = measurement.probe(subject)
            if maps:
                mapped[name] = measure_maps(
                    subject,
                    last_of_each_kind(measurement.distortions),
                    mapped_images(subject, maps),
                    objects=objects_of(data),
                    patterns=searched.get(name),
                    samples=DRY_SAMPLES if is_dry(trainer) else SAMPLES,
                    noise=noise,
                    method=saliency,
                    of=saliency_of,
                )
        records = records_of(found, mapped)
        for each in measurement.distortions:
            if isinstance(each, Stylised):  # the set itself, for which any subject does
                judged = judge_style(each, subject, measurement.chosen(subject))
                records += judged.records(each.about)
        if may_write(trainer):
            folder = experiment.run.folder
            write_records(folder / "probe.csv", records, FIRST)
            with atomic_path(folder / "probe.md") as temporary:
                temporary.write_text(markdown(*overview(found, records)))
            drawn = strength_figures(records, "accuracy")
            drawn |= strength_figures(records, "generalisation")
            if mapped:
                shown = range(min(maps, SHOWN_IMAGES))
                drawn["saliency"] = saliency_grid(mapped, shown)
            if plane := plane_figure(records):
                drawn["shape_texture_plane"] = plane
            for title, past in trainings.items():
                if course := joint_course(past):
                    drawn[f"{title}_course"] = course
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


def courses(places: Mapping[str, str]) -> dict[str, dict[str, list[Findings]]]:
    """Return for each title of the measurement what trainings found at epochs, if two or more did.

    Args:
        places: Runs and weights files by their names; the latter have found nothing.

    Raises:
        ValueError: if a file of a run is no history of measurements.
    """
    found: dict[str, dict[str, list[Findings]]] = {}
    for name, place in places.items():
        for file in sorted((Path(place) / "measurements").glob("*.json")):
            *_, measured = file.stem.rpartition("-")  # after the `name` of an `AtEpochs`
            if measured == ShapeAndTexture.title:
                found.setdefault(file.stem, {})[name] = read_history(file)
    return {title: past for title, past in found.items() if len(past) > 1}
