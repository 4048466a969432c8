"""Distorted images: do reconstructions show the distortion, or the image as it was?"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from iscp_lightning.inversion.analysis import (
    Analysis,
    Answer,
    Sheet,
    difference,
    rows_of,
    side_by_side,
)
from iscp_lightning.inversion.examined import Examined
from iscp_lightning.probes.distortion import Distortion
from iscp_lightning.probes.distortions import Clean, Greyscale, LowPass, PatchShuffle, Saturation
from iscp_lightning.probes.geometry import Occlusion, Rotation, Translation
from iscp_lightning.records import Record

if TYPE_CHECKING:
    from iscp_lightning.data.datamodule import ImageDataModule

DISTORTIONS = (
    *(Rotation(30), Translation(0.125), Occlusion(0.1)),
    *(Saturation(1024), PatchShuffle(4), LowPass(4), Greyscale()),
)


class DistortedInputs(Analysis):
    """Passes distorted images, which the generator has not seen, through classifier and back.

    Records, means over the images for each `distortion` of a `level`, its strength, and for `clean`
    images, the control:

    - `mse_to_distorted` and `mse_to_original`, of the reconstruction of the distorted image;
      `mse_of_distortion`, of the distorted image from the original.
    - `class_agreement`, whether the inverted classifier says what it says of the original, of the
      `pictures` `distorted` and `reconstruction`; with a judge also `judge_agreement`, whether that
      says it.

    Args:
        distortions: What is done to images; none means `DISTORTIONS`.

    Raises:
        ValueError: if two distortions are the same.
    """

    name = "distorted inputs"

    def __init__(self, distortions: Sequence[Distortion] = ()) -> None:
        self.distortions = tuple(distortions) or DISTORTIONS
        labels = [label_of(each) for each in (Clean(), *self.distortions)]
        if len(set(labels)) < len(labels):
            raise ValueError(f"`distortions` must differ from each other, got {', '.join(labels)}")

    def check(self, data: ImageDataModule) -> None:
        """Refuse data that one of the distortions cannot distort."""
        for distortion in self.distortions:
            distortion.check(data)

    def __call__(self, examined: Examined) -> Answer:
        """Return what becomes of distorted images."""
        found: list[Record] = []
        made: list[Tensor] = []
        columns: list[str] = []
        for distortion in (Clean(), *self.distortions):
            batches = examined.subject.batches(examined.indices)
            distorted = torch.cat([distortion(examined.subject, each).cpu() for each in batches])
            answers = examined.inverter.answers(distorted)
            reconstructions = examined.inverter.images(answers.vectors)
            about = dict(distortion.about)
            if "strength" in about:  # would be drawn as a curve, and units differ
                about["level"] = about.pop("strength")
            measures = {
                "mse_to_distorted": difference(reconstructions, distorted),
                "mse_to_original": difference(reconstructions, examined.images),
                "mse_of_distortion": difference(distorted, examined.images),
            }
            found += [self.mean(name, values, **about) for name, values in measures.items()]
            logits = examined.inverter.answers(reconstructions).logits
            for pictures, images, said in (
                ("distorted", distorted, answers.logits),
                ("reconstruction", reconstructions, logits),
            ):
                agreement = examined.agreement(images, said)
                found += [
                    self.mean(name, values, **about, pictures=pictures)
                    for name, values in agreement.items()
                ]
            made += [distorted, reconstructions]
            columns += [label_of(distortion), "reconstruction"]
        return Answer(found, {"": Sheet(side_by_side(*made), rows_of(examined), columns)})


def label_of(distortion: Distortion) -> str:
    """Return a distortion's name with its strength."""
    if distortion.strength is None:
        return distortion.name
    return f"{distortion.name} {distortion.strength:g}"
