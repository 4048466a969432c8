"""Inputs that are no test images: noise, greys, other images, patterns, triggers."""

from __future__ import annotations

from typing import TYPE_CHECKING

from torch import Tensor

from iscp_lightning.data.sources import ImageSource
from iscp_lightning.data.splits import class_index
from iscp_lightning.data.triggers import Trigger
from iscp_lightning.inversion.analysis import (
    SHOWN,
    Analysis,
    Answer,
    Sheet,
    difference,
    side_by_side,
)
from iscp_lightning.inversion.conditioning import Answers
from iscp_lightning.inversion.examined import Examined
from iscp_lightning.inversion.foreign import (
    Foreign,
    elsewhere,
    greys,
    images_of,
    patterns_alone,
    patterns_pasted,
    triggered,
    uniform_noise,
)
from iscp_lightning.patterns.stored import load_patterns
from iscp_lightning.records import Record

if TYPE_CHECKING:
    from iscp_lightning.data.datamodule import ImageDataModule


class ForeignInputs(Analysis):
    """Shows the generator's view of inputs that neither it nor the classifier was trained with.

    Of each `kind`, means over its inputs: test images, the control; uniform noise; greys from black
    to white; images of another source; patterns alone, on black and on grey, and pasted on test
    images of other classes; test images of other classes with a trigger.

    - `mse`, of the reconstruction from the input.
    - `confidence`, the classifier's largest softmax probability for the input.
    - `class_agreement`, whether the classifier says of the reconstruction what it says of the
      input; with a judge also `judge_agreement`, whether that says it, of the `pictures` `input`
      and `reconstruction`.
    - Where there is a target, the pattern's class or that of the trigger: `says_target`, the share
      of which the classifier says the target, and with a judge `shows_target`, of which that says
      it, of the `pictures` `input` and `reconstruction`, and `original`, without pattern or
      trigger.

    On the command line, where a YAML file with a list `analyses` does as well:

        invert runs/NAME --analyses '{class_path: ForeignInputs, init_args: {patterns: FILE}}'

    Args:
        source: Where other images come from: its test images, else its training images, as many as
            are examined; resized to the size of the data.
        patterns: A pattern file or the run of a search, of the same classes; each class's best is
            taken. They are pasted on images that the search has not seen.
        pattern_size: Of the patterns, as a share of the pixels.
        trigger: What is stamped.
        target: The class that the trigger is to be taken for, by index or name; None where nobody
            knows.

    Raises:
        ValueError: if `pattern_size` is not in (0, 1], or `target` is given without a trigger.
    """

    name = "foreign inputs"

    def __init__(
        self,
        source: ImageSource | None = None,
        patterns: str | None = None,
        pattern_size: float = 0.05,
        trigger: Trigger | None = None,
        target: int | str | None = None,
    ) -> None:
        if not 0 < pattern_size <= 1:
            raise ValueError(f"`pattern_size` must lie in (0, 1], got {pattern_size}")
        if target is not None and trigger is None:
            raise ValueError(f"`target` goes with `trigger`, got {target} without one")
        self.source = source
        self.patterns = patterns
        self.pattern_size = pattern_size
        self.trigger = trigger
        self.target = target

    def check(self, data: ImageDataModule) -> None:
        """Refuse patterns of other data, a trigger too large, and a source without images."""
        if self.patterns is not None:
            load_patterns(self.patterns, data.test_images, data.class_names, winners=True)
        if self.trigger is not None:
            self.trigger.draw(data.image_size)
        if self.target is not None:
            class_index(self.target, data.class_names, "`target` is")
        if self.source is not None:
            images_of(self.source, data.seed)

    def __call__(self, examined: Examined) -> Answer:
        """Return what is said and shown of each kind."""
        found: list[Record] = []
        sheets = {}
        for kind in self.kinds(examined):
            answers = examined.inverter.answers(kind.images)
            made = [examined.inverter.images(answers.vectors, draw) for draw in (0, 1)]
            found += self.records(examined, kind, answers, made[0])
            sheets[kind.name] = Sheet(
                side_by_side(kind.images, *made),
                rows(examined, kind, answers.logits),
                ["input", "reconstruction", "other noise"],
            )
        return Answer(found, sheets)

    def kinds(self, examined: Examined) -> list[Foreign]:
        """Return the inputs, by kind."""
        kinds = [Foreign("test images", examined.images), uniform_noise(examined), greys(examined)]
        if self.source is not None:
            kinds.append(elsewhere(examined, self.source))
        if self.patterns is not None:
            names, images = examined.subject.class_names, examined.subject.images
            patterns = load_patterns(self.patterns, images, names, winners=True)
            kinds += patterns_alone(patterns, self.pattern_size)
            kinds += patterns_pasted(examined, patterns, self.pattern_size)
        if self.trigger is not None:
            kinds += triggered(examined, self.trigger, self.target)
        return kinds

    def records(
        self, examined: Examined, kind: Foreign, answers: Answers, reconstructions: Tensor
    ) -> list[Record]:
        """Return what is said and shown of one kind."""
        said = answers.logits.argmax(1)
        again = examined.inverter.answers(reconstructions).logits.argmax(1)
        measures = {
            "mse": difference(reconstructions, kind.images),
            "confidence": answers.logits.softmax(1).amax(1),
            "class_agreement": again == said,
        }
        found = [self.mean(name, values, kind=kind.name) for name, values in measures.items()]
        pictures = {"input": kind.images, "reconstruction": reconstructions}
        says = {"input": said, "reconstruction": again}
        if kind.originals is not None:
            pictures["original"] = kind.originals
            says["original"] = examined.inverter.answers(kind.originals).logits.argmax(1)
        for name, images in pictures.items():
            about = {"kind": kind.name, "pictures": name}
            if kind.targets is not None and examined.same_classes:
                found.append(self.mean("says_target", says[name] == kind.targets, **about))
            if examined.judge is None:
                continue
            seen = examined.judged(images).logits.argmax(1)
            if examined.same_classes and name != "original":
                found.append(self.mean("judge_agreement", seen == said, **about))
            if kind.targets is not None:
                found.append(self.mean("shows_target", seen == kind.targets, **about))
        return found


def rows(examined: Examined, kind: Foreign, logits: Tensor) -> list[str]:
    """Return labels of the first inputs of a kind: their targets, and what they are taken for."""
    names = examined.subject.class_names
    labels = []
    for row, one in enumerate(logits.argmax(1)[:SHOWN].tolist()):
        parts = [] if kind.targets is None else [f"target {names[int(kind.targets[row])]}"]
        parts += [f"taken for {names[one]}"] if examined.same_classes else []
        labels.append("\n".join(parts) or str(row + 1))
    return labels
