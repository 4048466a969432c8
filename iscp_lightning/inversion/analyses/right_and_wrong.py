"""Images that the classifier gets wrong: do reconstructions show what they are or what it says?"""

from __future__ import annotations

from torch import Tensor

from iscp_lightning.inversion.analysis import Analysis, Answer, Sheet, rows_of, side_by_side
from iscp_lightning.inversion.examined import Examined
from iscp_lightning.records import Record


class RightAndWrong(Analysis):
    """What a judge sees in reconstructions, by whether the inverted classifier is right.

    Records by `split`, for the `pictures` that the judge sees, `original` (the control) and
    `reconstruction`: `shows_label`, the share in which it sees the true class; for wrong images
    also `shows_prediction`, the share in which it sees the predicted one, and `shows_neither`. NaN
    where the classifier is never wrong.
    """

    name = "right and wrong"
    needs = "a judge and a classifier of the same classes"

    def applies(self, examined: Examined) -> bool:
        """Return whether there is a judge, and the classifier knows the classes of the labels."""
        return examined.judge is not None and examined.same_classes

    def __call__(self, examined: Examined) -> Answer:
        """Return the shares, and the first wrong images beside their reconstructions."""
        wrong = ~examined.right
        seen = {
            "original": examined.judged_images.logits.argmax(1),
            "reconstruction": examined.judged(examined.reconstructions).logits.argmax(1),
        }
        found = [self.count("right", ~wrong), self.count("wrong", wrong)]
        said = examined.answers.logits.argmax(1)
        for pictures, classes in seen.items():
            label, prediction = classes == examined.labels, classes == said
            shares = {
                "shows_label": label,
                "shows_prediction": prediction,
                "shows_neither": ~(label | prediction),
            }
            about = {"pictures": pictures}
            found.append(self.mean("shows_label", label[~wrong], split="right", **about))
            found += [self.mean(m, v[wrong], split="wrong", **about) for m, v in shares.items()]
        if not wrong.any():
            return Answer(found)
        labels = rows_of(examined, len(wrong))
        rows = [labels[i] for i in wrong.nonzero().flatten().tolist()]
        images = side_by_side(examined.images[wrong], examined.reconstructions[wrong])
        return Answer(
            found, {"": Sheet(images, rows[: len(images)], ["original", "reconstruction"])}
        )

    def count(self, split: str, rows: Tensor) -> Record:
        """Return how many images a split has."""
        return Record("images", int(rows.sum()), {"analysis": self.name, "split": split})
