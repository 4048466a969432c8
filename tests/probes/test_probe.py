"""Probes of classifiers whose answers are known by hand, and what is compared of two."""

import pytest
import torch
from torch import nn
from toys import subject_of

from iscp_lightning.data.images import MemoryImages
from iscp_lightning.metrics.agreement import error_consistency
from iscp_lightning.probes import Clean, Distortion, Saturation
from iscp_lightning.probes.probe import CueConflict, decide, probe_classifier


class Brightness(nn.Module):
    """Says class 1 where the mean is above a threshold."""

    def __init__(self, threshold=0.5):
        super().__init__()
        self.threshold = nn.Parameter(torch.tensor(threshold))

    def forward(self, images):
        above = images.mean((1, 2, 3)) - self.threshold
        return 10 * torch.stack([-above, above], 1)


class Inverse(Distortion):
    name = "inverse"
    strength = 3

    def __call__(self, subject, batch):
        return 1 - batch.image


class TooBright(Distortion):
    name = "too bright"

    def __call__(self, subject, batch):
        return batch.image + 1


LEVELS = torch.tensor([10, 60, 120, 140, 200, 250], dtype=torch.uint8)
IMAGES = MemoryImages(
    LEVELS.view(-1, 1, 1, 1).expand(-1, 3, 4, 4), torch.tensor([0, 0, 1, 1, 1, 1])
)


def value(records, measure, **about):
    (found,) = (r for r in records if r.measure == measure and dict(r.about) == about)
    return found


def test_answers_by_hand():
    probed = probe_classifier(
        subject_of(Brightness(), IMAGES), [Clean(), Inverse(), Saturation(99)]
    )
    assert probed.clean.tolist() == [True, True, False, True, True, True]
    right = {about["distortion"]: found.tolist() for about, found in probed.distorted}
    assert right["clean"] == right["saturation"] == probed.clean.tolist()
    assert right["inverse"] == [False, False, True, False, False, False]
    records = probed.records({"classifier": "a"})
    assert value(records, "clean_accuracy", classifier="a").value == pytest.approx(5 / 6)
    about = {"classifier": "a", "distortion": "inverse", "strength": 3.0}
    assert value(records, "accuracy", **about).value == pytest.approx(1 / 6)
    assert value(records, "generalisation", **about).value == 0
    low, high = value(records, "accuracy", **about).interval
    assert 0 == low < 1 / 6 < high < 1
    assert not any(record.measure == "shape_bias" for record in records)


def test_some_images_in_any_batches_give_the_same():
    indices = torch.tensor([5, 0, 2])
    subject = subject_of(Brightness(), IMAGES)
    probed = probe_classifier(subject, [Inverse()], indices)
    assert probed.clean.tolist() == [True, True, False]
    assert probed.distorted[0][1].tolist() == [False, False, True]
    type(subject).batch_size = property(lambda _: 2)
    try:
        again = probe_classifier(subject_of(Brightness(), IMAGES), [Inverse()], indices)
    finally:
        type(subject).batch_size = BATCH_SIZE
    assert again.distorted[0][1].tolist() == [False, False, True]


BATCH_SIZE = type(subject_of(Brightness(), IMAGES)).batch_size


def test_two_classifiers_are_compared_on_the_same_images():
    one, other = (
        probe_classifier(subject_of(Brightness(level), IMAGES), [Inverse()]) for level in (0.5, 0.2)
    )
    records = one.compared_with(other, {"classifier": "a", "other": "b"})
    about = {"classifier": "a", "other": "b"}
    difference = value(records, "clean_accuracy_difference", **about)
    assert difference.value == pytest.approx(5 / 6 - 5 / 6)
    kappa = float(error_consistency(one.clean, other.clean))
    assert value(records, "error_consistency", **about).value == pytest.approx(kappa)
    about |= {"distortion": "inverse", "strength": 3.0}
    inverse = value(records, "accuracy_difference", **about)
    assert inverse.value == pytest.approx(float(one.distorted[0][1].double().mean()) - 1 / 2)
    assert inverse.interval[0] <= inverse.value <= inverse.interval[1]
    same = one.compared_with(one, about)
    assert {r.value for r in same if r.measure.endswith("_difference")} == {0.0}
    assert {r.interval for r in same if r.measure == "accuracy_difference"} == {(0.0, 0.0)}


def test_decisions_for_shape_and_texture_by_hand():
    shapes, textures = torch.tensor([0, 0, 1, 1, 1, 0]), torch.tensor([1, 1, 0, 0, 0, 0])
    cues = CueConflict(MemoryImages(IMAGES.images, shapes, textures))
    subject = subject_of(Brightness(), IMAGES)
    decided = decide(subject, cues)
    assert decided.decisions.tolist() == [0, 0, 0, 1, 1, 1]
    records = probe_classifier(subject, [], cues=cues).records()
    assert value(records, "shape_bias").value == pytest.approx(4 / 5)
    assert value(records, "cue_share").value == 1
    swapped = CueConflict(cues.images, [[1], [0]])
    assert decide(subject, swapped).decisions.tolist() == [1, 1, 1, 0, 0, 0]
    with pytest.raises(ValueError, match="textures"):
        decide(subject, CueConflict(IMAGES))


def test_a_distortion_that_leaves_the_range_is_named():
    with pytest.raises(ValueError, match=r"`too bright` must return images in \[0, 1\]"):
        probe_classifier(subject_of(Brightness(), IMAGES), [TooBright()])


def test_nan_logits_are_no_answer():
    class Broken(Brightness):
        def forward(self, images):
            logits = super().forward(images)
            return torch.where(images.amax((1, 2, 3), keepdim=True)[:, :, 0, 0] == 1, NAN, logits)

    subject = subject_of(Broken(), IMAGES)
    with pytest.raises(ValueError, match="logits are NaN for images with saturation"):
        probe_classifier(subject, [Saturation(1e9)])
    white = MemoryImages(torch.ones(2, 3, 4, 4), torch.tensor([0, 0]), torch.tensor([1, 1]))
    with pytest.raises(ValueError, match="NaN for images whose cues are in conflict"):
        decide(subject, CueConflict(white))


NAN = torch.tensor(float("nan"))
