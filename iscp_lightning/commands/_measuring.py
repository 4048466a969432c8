"""What the commands share that only classify: nothing is trained, one device does it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import lightning as L
import torch
from lightning.fabric.utilities.exceptions import MisconfigurationException
from torch import Tensor, nn

from iscp_lightning.arguments import Parser, typed
from iscp_lightning.classifiers import load_trained, require_class_names, require_image_size
from iscp_lightning.classifiers.outputs import outputs_in_eval_mode
from iscp_lightning.commands._earlier import Earlier, read_earlier
from iscp_lightning.commands._experiment import Experiment
from iscp_lightning.data.datamodule import ImageDataModule
from iscp_lightning.data.images import to_float
from iscp_lightning.data.splits import stratified_choice
from iscp_lightning.data.testset import require_drawable
from iscp_lightning.internals import take_loader_from
from iscp_lightning.messages import fail
from iscp_lightning.patterns.pattern import PatternSet
from iscp_lightning.patterns.transfer import unseen_images
from iscp_lightning.records import Findings
from iscp_lightning.runs import is_dry

IMAGES_WHEN_DRY = 10


class Measuring(L.LightningModule):
    """Carries one measurement through a Trainer's test, so that a run begins and ends as all do.

    Args:
        classifier: A weights file, the name of a timm network with trained weights, or any module
            from images in [0, 1] to logits; None where the command has several of its own.
        weights: Weights file for a classifier given as a module.
        num_classes: Number of classes; the command line takes it from the data.
        image_size: Image size of a network given by name, likewise.

    Attributes:
        measure: What is measured; a command sets it.
    """

    measure: Callable[[], Findings]

    def __init__(
        self,
        classifier: str | nn.Module | None = None,
        weights: str | None = None,
        num_classes: int = 10,
        image_size: int | tuple[int, int] = 32,
    ) -> None:
        super().__init__()
        self.classifier: nn.Module | None = None
        if classifier is not None:
            self.classifier = load_trained(classifier, weights, num_classes, image_size)
        self.findings: dict[str, Findings] = {}

    def setup(self, stage: str) -> None:
        """Take the loader from here: no batch of images is needed.

        Raises:
            MisconfigurationException: for a Trainer precision other than fp32.
        """
        del stage
        if self.trainer.precision != "32-true":  # which would hold in the measurement, too
            raise MisconfigurationException(
                f"`trainer.precision` must be 32-true to measure, got {self.trainer.precision}"
            )
        take_loader_from(self.trainer.test_loop, self)

    def test_dataloader(self) -> range:
        """Return one item."""
        return range(1)

    def test_step(self, batch: int, batch_idx: int) -> None:
        """Measure."""
        del batch, batch_idx
        self.findings = {"": self.measure()}


def run_of(place: str) -> Earlier | None:
    """Return the run that a place is, or of which it is a pattern file; None for other places."""
    path = Path(place)
    run = path.parent.parent if path.is_file() else path
    return read_earlier(str(run)) if (run / "config.yaml").is_file() else None


def source_of(arguments: Sequence[str], earlier: Earlier | None) -> Earlier | None:
    """Return what `--from` names, else the run of which `--patterns` names the patterns first.

    Args:
        arguments: What was typed.
        earlier: What `--from` names.
    """
    place = typed("patterns", arguments)
    return earlier or (run_of(place) if place else None)


def configuration(earlier: Earlier | None) -> dict[str, Any]:
    """Return what lies below: images, one device, and no logger, since there are no steps to log.

    Args:
        earlier: What says the images.
    """
    model = {"class_path": f"{Measuring.__module__}.{Measuring.__name__}"}
    images = earlier.images if earlier else {}
    return {"model": model, "trainer": {"devices": 1, "logger": False}} | images


def build(experiment: Experiment[Measuring]) -> ImageDataModule:
    """Build the experiment on one device, and return its images.

    Raises:
        SystemExit: with a message, for several processes.
    """
    if experiment.processes > 1:
        fail(f"`{experiment.name}` works on one device: `--trainer.devices 1`")
    experiment.build()
    data = experiment.datamodule
    data.prepare_data()
    require_drawable(data.test_images)
    return data


def chosen_images(
    experiment: Experiment[Measuring], searches: Sequence[PatternSet], images: int | None
) -> Tensor:
    """Return the test images that are pasted on, (n,) int64; a few in a dry run.

    Args:
        experiment: With its images.
        searches: Patterns; what their searches have used is left out.
        images: How many, as many of each class; None means all.

    Raises:
        ValueError: as `unseen_images` does.
    """
    data = experiment.datamodule
    labels = data.test_images.labels
    chosen = unseen_images(labels, searches, data.seed, images)
    if is_dry(experiment.trainer):
        chosen = chosen[stratified_choice(labels[chosen], IMAGES_WHEN_DRY, 0)]
    return chosen


def load_network(place: str, data: ImageDataModule, option: str = "classifiers") -> nn.Module:
    """Return the classifier of a run or of a weights file, which must fit the data.

    Args:
        place: The run folder or the file.
        data: The images.
        option: Which option named it.

    Raises:
        SystemExit: with a message, if the place is neither.
        ValueError: if the numbers or the names of classes, or the image sizes differ.
    """
    given: dict[str, Any] = {"classifier": place}
    if not Path(place).is_file():
        if not Path(place).is_dir():
            fail(f"`--{option} {place}` is neither a run folder nor a weights file")
        given = read_earlier(place, f"--{option} {place}").classifier
    network, weights = given["classifier"], given.get("weights")
    if isinstance(network, dict):  # one that no table knows
        parser = Parser()
        parser.add_argument("--classifier", type=nn.Module)
        network = parser.instantiate(parser.parse_object({"classifier": network})).classifier
    loaded = load_trained(network, weights, data.num_classes, data.image_size)
    file = weights or given["classifier"]
    require_fitting(place, loaded, data, file if isinstance(file, str) else None)
    return loaded


def require_fitting(
    place: str, network: nn.Module, data: ImageDataModule, file: str | None
) -> None:
    """Check that a classifier has the classes of the data, and is made for their image size.

    Args:
        place: What it is called in a message.
        network: The classifier.
        data: The images.
        file: Where its weights are from, which may say the names of its classes; None for no file.

    Raises:
        ValueError: if not.
    """
    require_image_size(f"`classifier`={place}", network, data.image_size)
    with torch.no_grad():
        logits = outputs_in_eval_mode(network, to_float(data.test_images.pixels([0])))
    if logits.shape[1] != data.num_classes:
        raise ValueError(
            f"`classifier`={place} knows {logits.shape[1]} classes, the data have "
            f"{data.num_classes}"
        )
    if file:
        require_class_names("classifier", file, data.class_names)


def short_names(places: Sequence[str]) -> list[str]:
    """Return names for figures and tables: of a run or a file, as typed where these are not unique.

    >>> short_names(["runs/a", "weights/b.safetensors"])
    ['a', 'b']
    """
    names = [Path(place).name for place in places]
    names = [name.removesuffix(".safetensors").removesuffix(".ckpt") for name in names]
    runs = [Path(place).parent.parent for place in places]
    names = [
        f"{run.name}/{name}" if (run / "config.yaml").is_file() else name
        for run, name in zip(runs, names, strict=True)
    ]
    return names if len(set(names)) == len(names) else list(places)
