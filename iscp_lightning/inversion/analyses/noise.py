"""Other noise for the same vectors: what these leave open."""

from __future__ import annotations

import torch

from iscp_lightning.inversion.analysis import Analysis, Answer, Sheet, rows_of, side_by_side
from iscp_lightning.inversion.examined import Examined
from iscp_lightning.inversion.fidelity import noise_variance


class NoiseResampling(Analysis):
    """Draws several images of each vector.

    Records, means over images: `noise_variance`, how much a pixel varies over the draws;
    `noise_share`, the same in units of how much a pixel varies over the original images, which are
    taken as given; `class_agreement`, the share of the draws of which the inverted classifier says
    what it says of the original; with a judge also `judge_agreement`, the share of which that says
    it.

    Args:
        samples: Draws of each vector, 2 or more.
    """

    name = "noise resampling"

    def __init__(self, samples: int = 8) -> None:
        if samples < 2:
            raise ValueError(f"`samples` must be 2 or more, got {samples}")
        self.samples = samples

    def __call__(self, examined: Examined) -> Answer:
        """Return how much the noise changes."""
        inverter = examined.inverter
        draws = [examined.drawn(draw) for draw in range(1, self.samples + 1)]
        variance = noise_variance(torch.stack(draws))
        of_images = examined.images.var(0).mean()
        agreements = [examined.agreement(d, inverter.answers(d).logits) for d in draws]
        measures = {
            "noise_variance": variance,
            "noise_share": variance / of_images,
            **{
                measure: torch.stack([each[measure] for each in agreements]).double().mean(0)
                for measure in agreements[0]
            },
        }
        columns = ["original", *(f"noise {draw}" for draw in range(1, self.samples + 1))]
        sheet = Sheet(side_by_side(examined.images, *draws), rows_of(examined), columns)
        return Answer([self.mean(name, each) for name, each in measures.items()], {"": sheet})
