"""ShapeAndTexture: probes as a measurement, at chosen epochs of a training too."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from iscp_lightning.classifiers.subject import Subject
from iscp_lightning.data.cue_conflict import CueConflictImages, read_categories
from iscp_lightning.data.drawn import Shapes
from iscp_lightning.data.images import MemoryImages
from iscp_lightning.data.shapes import draw_shapes
from iscp_lightning.data.splits import stratified_choice
from iscp_lightning.measurement import Measurement
from iscp_lightning.probes.distortion import Distortion
from iscp_lightning.probes.distortions import PatchShuffle, Saturation
from iscp_lightning.probes.drawings import course
from iscp_lightning.probes.probe import CueConflict, Probed, probe_classifier
from iscp_lightning.records import Findings
from iscp_lightning.runs import provenance
from iscp_lightning.seeds import derived_seed
from iscp_lightning.work import Work

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from iscp_lightning.data.datamodule import ImageDataModule

SMALL_IMAGES = 10
CONFLICTING = 1000  # images of `Shapes` whose cues are in conflict


class ShapeAndTexture(Measurement):
    """Measures how much a classifier leans on shape and on texture (Zhang & Zhu 2019).

    Args:
        distortions: What is done to the test images; none means saturation 8, 64 and 1024 and
            patch-shuffle with 2 and 4 tiles a side.
        images: Number of test images, as many of each class; None means all.
        cue_conflict: Folder of images `<shape>/<shape>N-<texture>M.jpg`; None for those that
            `Shapes` draws where its classes are shapes, and none for other data.
        categories: JSON file {category: [class indices]} for the folder; None where the folder's
            categories are the names of classes.

    Raises:
        ValueError: if `images` is below 1, or two distortions are the same.
    """

    title = "probe"

    def __init__(
        self,
        distortions: Sequence[Distortion] = (),
        images: int | None = None,
        cue_conflict: str | None = None,
        categories: str | None = None,
    ) -> None:
        if images is not None and images < 1:
            raise ValueError(f"`images` must be 1 or more, got {images}")
        self.distortions = tuple(distortions) or default_distortions()
        abouts = [tuple(each.about.items()) for each in self.distortions]
        if len(set(abouts)) < len(abouts):
            raise ValueError(f"`distortions` must differ from each other, got {abouts}")
        self.images = images
        self.cue_conflict = cue_conflict
        self.categories = categories
        self.cues: CueConflict | None = None

    def check(self, data: ImageDataModule) -> None:
        """Refuse data that cannot be distorted, and cues that do not fit; keep the cues.

        Raises:
            ValueError: if so.
        """
        for distortion in self.distortions:
            distortion.check(data)
        self.cues = conflicting_cues(data, self.cue_conflict, self.categories)

    def chosen(self, subject: Subject) -> Tensor:
        """Return the test images that are distorted, (n,) int64."""
        labels = subject.images.labels
        drawn = derived_seed(subject.seed, "distorted images")
        return stratified_choice(labels, self.images or len(labels), drawn)

    def probe(self, subject: Subject) -> Probed:
        """Return what a classifier says, for comparisons with others."""
        return probe_classifier(subject, self.distortions, self.chosen(subject), self.cues)

    def measure(self, subject: Subject, last: bool = False) -> Findings:
        """Return accuracies, generalisation and shape bias."""
        del last
        found = self.probe(subject)
        return Findings(
            found.records(),
            lines=[f"distorted: {len(found.clean)} images"],
            provenance=provenance(classifier_hash=subject.hash, images=len(found.clean)),
        )

    def work(
        self, data: ImageDataModule, processes: int, times: int = 1, last: bool = False
    ) -> list[Work]:
        """Return what it takes, without what painting in other styles takes."""
        del processes, last
        total = data.count("test")
        count = min(self.images or total, total)
        forwards = count * (1 + len(self.distortions)) + len(self.cues.images if self.cues else ())
        gradients = count * sum(distortion.gradients for distortion in self.distortions)
        return [Work("distorted images", forwards=forwards, gradients=gradients).times(times)]

    def small(self) -> ShapeAndTexture:
        """Return the same on a few images."""
        small = copy.copy(self)
        small.images = SMALL_IMAGES
        return small

    def history(self, folder: Path, past: Sequence[Findings]) -> dict[str, Figure]:
        """Return accuracy and shape bias against epochs."""
        del folder
        return course(past)


def default_distortions() -> tuple[Distortion, ...]:
    """Return the paper's, at few strengths."""
    return (*(Saturation(p) for p in (8, 64, 1024)), *(PatchShuffle(k) for k in (2, 4)))


def conflicting_cues(
    data: ImageDataModule, folder: str | None, categories: str | None
) -> CueConflict | None:
    """Return images whose cues are in conflict: of a folder, or drawn by `Shapes`; else None.

    `Shapes` draws them where its classes are shapes.

    Args:
        data: The images that the classifier is made for.
        folder: Images in the published naming.
        categories: JSON file with the classes of each category.

    Raises:
        ValueError: if the folder or the file does not fit, or its categories are no classes.
    """
    if folder is None:
        if categories is not None:
            raise ValueError("`categories` goes with `cue_conflict`, a folder of images")
        source = data.source
        if not isinstance(source, Shapes) or source.labels != "shape":
            return None
        drawn = draw_shapes(
            CONFLICTING, size=source.image_size[0], seed=3 * source.seed + 2, cue_conflict=True
        )
        return CueConflict(MemoryImages(drawn.images, drawn.labels, drawn.textures))
    images = CueConflictImages(folder, data.image_size)
    given, wanted = (each.pixels([0]).shape[1] for each in (images, data.test_images))
    if given != wanted:
        raise ValueError(
            f"`cue_conflict`={folder} has images of {given} channels, the data have {wanted}"
        )
    if categories is not None:
        classes = read_categories(categories, images.categories)
        if (largest := max(map(max, classes))) >= data.num_classes:
            raise ValueError(
                f"`categories`={categories} names class {largest}, the data have "
                f"{data.num_classes} classes"
            )
        return CueConflict(images, classes)
    if unknown := sorted(set(images.categories) - set(data.class_names)):
        raise ValueError(
            f"`cue_conflict`={folder} has categories that are no classes ({', '.join(unknown)}): "
            "`categories` names a JSON file {category: [class indices]}"
        )
    position = torch.tensor([data.class_names.index(name) for name in images.categories])
    images.labels, images.textures = position[images.labels], position[images.textures]
    return CueConflict(images)
