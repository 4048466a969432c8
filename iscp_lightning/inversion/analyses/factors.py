"""Place, size, rotation and colours of drawn objects: what vectors and reconstructions keep."""

from __future__ import annotations

from math import nan, sqrt

import torch
from torch import Tensor

from iscp_lightning.inversion.analysis import (
    SHOWN,
    Analysis,
    Answer,
    Sheet,
    rows_of,
    side_by_side,
)
from iscp_lightning.inversion.estimates import estimates, objects_in
from iscp_lightning.inversion.examined import Examined
from iscp_lightning.inversion.regression import explained, predicted_by_lines, predicted_by_ridge
from iscp_lightning.metrics.intervals import mean_interval
from iscp_lightning.records import Record

FEWEST = 3  # images, for a regression


class Factors(Analysis):
    """Asks for the factors that images were drawn from: see `ShapeFactors`.

    Records of each `factor`, whose channels are pooled; `color` is the mean of the texture's two:

    - `decodable`: R^2 of ridge regression from the raw vectors, on images it was not fitted to.
    - `kept`: the squared correlation, within shapes, of the factor with what `estimates` finds in
      reconstructions; `ceiling`: the same of the originals. A shape's outline moves its centre and
      changes its area; shapes share neither. Not of `first` and `second`, the texture's colours.
    - `left_open`: the standard deviation of the estimate over noise, for one and the same vector,
      in units of its standard deviation over the originals, within shapes; of the same factors.
      Pixels that flicker at a border move estimates, too, most of all the rotation.

    Images that do not show a factor, such as a circle its rotation, are left out of it. The sheet
    shows what is taken for the object.

    Args:
        samples: Draws of the noise, 2 or more.
    """

    name = "factors"
    needs = "drawn images whose factors are known"

    def __init__(self, samples: int = 8) -> None:
        if samples < 2:
            raise ValueError(f"`samples` must be 2 or more, got {samples}")
        self.samples = samples

    def applies(self, examined: Examined) -> bool:
        """Return whether the factors are known, of enough images."""
        return examined.factors is not None and len(examined.indices) >= FEWEST

    def __call__(self, examined: Examined) -> Answer:
        """Return what is known of each factor."""
        assert examined.factors is not None
        truth = {
            name: values[examined.indices].reshape(len(examined.indices), -1)
            for name, values in examined.factors._asdict().items()
        }
        shapes = truth.pop("shape").squeeze(1)
        plain = truth["second"].isnan()
        truth["color"] = torch.where(plain, truth["first"], (truth["first"] + truth["second"]) / 2)
        vectors = examined.answers.vectors
        found = [self.decodable(name, vectors, values) for name, values in truth.items()]
        pictures = [examined.images, examined.reconstructions]
        given, kept = (estimates(each, shapes) for each in pictures)
        draws = [estimates(examined.drawn(draw), shapes) for draw in range(1, self.samples + 1)]
        for name in given:
            shown = (truth[name] + given[name]).isfinite().all(1)
            if shown.sum() < FEWEST:
                about = {"analysis": self.name, "factor": name}
                found += [Record(each, nan, about) for each in ("kept", "ceiling", "left_open")]
                continue
            drawn_as = shapes[shown]
            factor = within(truth[name][shown], drawn_as)
            for measure, seen in (("kept", kept[name]), ("ceiling", given[name])):
                lines = predicted_by_lines(within(seen[shown], drawn_as), factor)
                found.append(self.share(measure, name, factor, lines))
            noise = torch.stack([each[name][shown] for each in draws]).double().var(0).sum(1)
            seen = within(given[name][shown], drawn_as)
            found.append(self.left_open(name, noise, seen, drawn_as))
        masks = [
            objects_in(each[:SHOWN]).float()[:, None].expand(-1, 3, -1, -1) for each in pictures
        ]
        columns = ["original", "its object", "reconstruction", "its object"]
        images = side_by_side(pictures[0], masks[0], pictures[1], masks[1])
        return Answer(found, {"": Sheet(images, rows_of(examined), columns)})

    def decodable(self, factor: str, vectors: Tensor, values: Tensor) -> Record:
        """Return what the raw vectors say of a factor, over the images that show it."""
        shown = values.isfinite().all(1)
        if shown.sum() < FEWEST:
            return Record("decodable", nan, {"analysis": self.name, "factor": factor})
        predicted = predicted_by_ridge(vectors[shown], values[shown])
        return self.share("decodable", factor, values[shown], predicted)

    def share(self, measure: str, factor: str, values: Tensor, predicted: Tensor) -> Record:
        """Return the share of a factor's variance that predictions explain."""
        value, interval = explained(values, predicted)
        return Record(measure, value, {"analysis": self.name, "factor": factor}, interval)

    def left_open(self, factor: str, noise: Tensor, given: Tensor, shapes: Tensor) -> Record:
        """Return variances over noise (N,) against estimates (N, C), as standard deviations."""
        about = {"analysis": self.name, "factor": factor}
        spread = float(given.square().sum()) / max(1, len(shapes) - len(shapes.unique()))
        if spread == 0:
            return Record("left_open", nan, about)
        low, high = mean_interval(noise.unsqueeze(1))[0].tolist()
        value, low, high = (sqrt(each / spread) for each in (float(noise.mean()), low, high))
        return Record("left_open", value, about, (low, high))


def within(values: Tensor, shapes: Tensor) -> Tensor:
    """Return values (N, C) minus their mean over the images of the same shape, float64."""
    values, number = values.double(), int(shapes.max()) + 1
    sums = values.new_zeros(number, values.shape[1]).index_add_(0, shapes, values)
    return values - (sums / shapes.bincount(minlength=number).unsqueeze(1))[shapes]
