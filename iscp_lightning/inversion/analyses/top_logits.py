"""Only the largest logits kept: how many of them the image is in."""

from __future__ import annotations

from torch import Tensor

from iscp_lightning.inversion.analysis import SHOWN, Analysis, Answer, Sheet, rows_of, side_by_side
from iscp_lightning.inversion.examined import Examined
from iscp_lightning.records import Record

MEASURES = (
    *("mse", "ssim", "class_agreement", "judge_agreement"),
    *("pixel_retrieval_rank", "retrieval_rank"),
)


class TopLogits(Analysis):
    """Keeps the largest entries of each raw vector; the others become their mean in training.

    Records, means over images for each number of entries, 0, 1, 2, 4, ... and all: the measures of
    `fidelity` in `MEASURES`.
    """

    name = "top logits"
    unit = "largest logits kept"

    def __call__(self, examined: Examined) -> Answer:
        """Return how well images are kept by so many entries."""
        vectors = examined.answers.vectors
        mean = examined.inverter.standardise.mean.cpu()
        found: list[Record] = []
        made = []
        numbers = numbers_up_to(vectors.shape[1])
        for number in numbers:
            images = examined.inverter.images(largest_kept(vectors, mean, number))
            made.append(images[:SHOWN])
            measures = examined.fidelity_of(images)
            found += [
                self.mean(name, measures[name], strength=number)
                for name in MEASURES
                if name in measures
            ]
        columns = ["original", *map(str, numbers)]
        sheet = Sheet(side_by_side(examined.images, *made), rows_of(examined), columns)
        return Answer(found, {"": sheet})


def numbers_up_to(size: int) -> list[int]:
    """Return 0, the powers of 2 below size, and size."""
    return [0, *(2**power for power in range((size - 1).bit_length())), size]


def largest_kept(vectors: Tensor, others: Tensor, number: int) -> Tensor:
    """Return vectors (N, D) with their largest entries, and `others` (D,) elsewhere."""
    places = vectors.topk(number, dim=1).indices
    return others.expand_as(vectors).scatter(1, places, vectors.gather(1, places))
