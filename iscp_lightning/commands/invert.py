"""Ask what is still in a classifier's logits: analyses of trained inversions, with pictures.

Examples:
    python -m iscp_lightning invert runs/NAME
    python -m iscp_lightning invert runs/NAME --analyses LogitScale Iteration --images 200

What follows `invert` are trainings of FeedforwardInversionModule, which are drawn side by side, on
the images of the first.

Options that matter:
    --judge FILE                  a classifier that no generator was trained with, which says what
                                  reconstructions show: a run or a weights file
    --analyses LogitScale TopLogits
                                  what is asked; default everything: Reconstruction, ClassMean,
                                  Optimisation, RightAndWrong, ..., or a class of your own; what
                                  needs a judge is left out without one
    --images 1000                 on how many test images, as many of each class
    -c FILE                       a configuration; of several, the later wins
    --data.source CIFAR10         other images than those of the first inversion
    --data.seed 1                 another choice of images, and other noise
    --trainer.accelerator cpu     where it is computed: cpu, gpu
    --trainer.enable_progress_bar false
                                  no bars
    --run NAME                    the folder under runs/; --overwrite replaces one
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from torch import Tensor

from iscp_lightning.arguments import Parser
from iscp_lightning.classifiers.checkpoints import require_class_names
from iscp_lightning.commands._earlier import Earlier, read_checkpoint, read_earlier
from iscp_lightning.commands._experiment import Experiment
from iscp_lightning.commands._measuring import (
    Measuring,
    build,
    configuration,
    load_network,
    short_names,
)
from iscp_lightning.data.datamodule import ImageDataModule
from iscp_lightning.inversion.analyses import every_analysis
from iscp_lightning.inversion.analysis import SHOWN, Analysis, rows_of
from iscp_lightning.inversion.drawings import beside_each_other, curve_figures, sheet_figure
from iscp_lightning.inversion.examined import Examined
from iscp_lightning.inversion.module import DRY_IMAGES, FeedforwardInversionModule
from iscp_lightning.inversion.report import FIRST, differences, lines_of, of_inversion
from iscp_lightning.messages import fail
from iscp_lightning.patterns.tables import write_records
from iscp_lightning.records import Findings, Record
from iscp_lightning.runs import is_dry, may_write, provenance, save_figure


def base(arguments: Sequence[str], earlier: Earlier | None) -> dict[str, Any]:
    """Return the measuring on the images of the first inversion."""
    if earlier is None and arguments and not arguments[0].startswith("-"):
        earlier = read_earlier(arguments[0], f"invert {arguments[0]}")
    return configuration(earlier)


def invert(
    experiment: Experiment[Measuring],
    inversions: list[str],
    judge: str | None = None,
    analyses: list[Analysis] | None = None,
    images: int = 1000,
) -> None:
    """Analyse inversions.

    Args:
        experiment: Data and Trainer.
        inversions: runs of FeedforwardInversionModule
        judge: a run or a weights file of a classifier that judges reconstructions
        analyses: what is asked; default everything
        images: on how many test images, as many of each class
    """
    if not inversions:
        fail("`invert` takes the runs of inversions: `invert runs/NAME`")
    if images < 1:
        fail(f"`images` must be 1 or more, got {images}")
    if len(set(inversions)) < len(inversions):
        fail(f"inversions must differ from each other, got {' '.join(inversions)}")
    data = build(experiment)
    trainer = experiment.trainer
    device = trainer.strategy.root_device
    names = short_names(inversions)
    modules = {n: load_inversion(place, data) for n, place in zip(names, inversions, strict=True)}
    network = load_network(judge, data, "judge") if judge else None
    for module in modules.values():
        module.to(device)
        if network is not None:
            module.take_judge(network)
    asked = analyses or every_analysis()
    for analysis in asked:
        analysis.check(data)

    def measure() -> Findings:
        folder = experiment.run.folder / "figures"
        records: list[Record] = []
        shown: dict[str, Examined] = {}
        measures: dict[str, dict[str, Tensor]] = {}
        left_out: dict[str, None] = {}
        count = min(DRY_IMAGES if is_dry(trainer) else images, len(data.test_images))
        for name, module in modules.items():
            examined = module.examined(data, count, means=True)
            shown[name] = examined.first(SHOWN)
            if len(modules) > 1:
                measures[name] = examined.fidelity_of(examined.reconstructions)
            for analysis in asked:
                if not analysis.applies(examined):
                    left_out[f"left out: {analysis.name}, which needs {analysis.needs}"] = None
                    continue
                answer = analysis(examined)
                records += [of_inversion(record, name) for record in answer.records]
                for part, sheet in answer.sheets.items() if may_write(trainer) else ():
                    words = [analysis.name, part, name if len(modules) > 1 else ""]
                    file = "_".join(word.replace(" ", "_") for word in words if word)
                    save_figure(folder / f"{file}.png", sheet_figure(sheet))
        if not records:
            fail("; ".join(left_out))
        records += differences(measures)
        if may_write(trainer):
            write_records(experiment.run.folder / "invert.csv", records, FIRST)
            units = {analysis.name: analysis.unit for analysis in asked}
            for name, figure in curve_figures(records, units).items():
                file = f"{name.replace(' ', '_')}_curves.png"
                save_figure(folder / file, figure)
            if len(shown) > 1:
                first = next(iter(shown.values()))
                made = {name: each.reconstructions for name, each in shown.items()}
                figure = beside_each_other(first.images, rows_of(first), made)
                save_figure(folder / "inversions.png", figure)
        return Findings(
            records,
            lines=[*lines_of(records), *left_out],
            provenance=provenance(
                inversions={name: module.inverted for name, module in modules.items()},
                images=count,
                analyses=sorted({str(record.about["analysis"]) for record in records}),
            ),
        )

    experiment.model.measure = measure
    trainer.test(experiment.model, datamodule=data, verbose=False)
    experiment.report()


def load_inversion(place: str, data: ImageDataModule) -> FeedforwardInversionModule:
    """Return a trained inversion from its run, which must fit the data.

    Raises:
        SystemExit: with a message, if the run trained something else.
        ValueError: if its classifier is not there any more, or does not fit the data.
    """
    earlier = read_earlier(place, f"invert {place}")
    kind = earlier.model["class_path"].rpartition(".")[2]
    if kind != FeedforwardInversionModule.__name__ or earlier.checkpoint is None:
        fail(
            f"`invert {place}`: it is a run of {kind}, not of FeedforwardInversionModule "
            "(`fit -c configs/experiment/invert_cifar10.yaml`)"
        )
    parser = Parser()
    parser.add_argument("--model", type=FeedforwardInversionModule)
    sizes = {"num_classes": data.num_classes, "image_size": data.image_size}
    settings = {**(earlier.model.get("init_args") or {}), **sizes}
    given = {"class_path": earlier.model["class_path"], "init_args": settings}
    module: FeedforwardInversionModule = parser.instantiate(
        parser.parse_object({"model": given})
    ).model
    for name, file in module.files.items():
        require_class_names(name, file, data.class_names)
    content = read_checkpoint(f"invert {place}", Path(earlier.checkpoint))
    module.on_load_checkpoint(content)
    module.load_state_dict(content["state_dict"])
    return module.eval()
