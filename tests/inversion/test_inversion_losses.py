"""Tests of the losses, the differentiable augmentation and the watch over the training."""

import pytest
import torch

from iscp_lightning.inversion.augmentation import augment, require_policies
from iscp_lightning.inversion.collapse import CollapseWatch
from iscp_lightning.inversion.losses import Weights, discriminator_hinge


def _draws(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def test_the_hinge_ends_at_one():
    real, fake = torch.tensor([2.0, 0.0]), torch.tensor([-3.0, 0.5])
    assert discriminator_hinge(real, fake).item() == pytest.approx((0 + 1) / 2 + (0 + 1.5) / 2)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"pixel": -1}, "`pixel` must be 0 or more, got -1"),
        ({"adversarial": 0}, "one of `adversarial`, `pixel` and `feature` must be above 0"),
    ],
)
def test_weights_out_of_range_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        Weights(**options)


def test_no_policy_changes_nothing():
    images = torch.rand(2, 3, 8, 8)
    assert torch.equal(augment(images, [], _draws()), images)


def test_colour_keeps_grey_images_grey_and_flat_ones_flat():
    grey = torch.full((64, 3, 4, 4), 0.5)
    found = augment(grey, ["color"], _draws())
    assert torch.allclose(found, found[:, :1, :1, :1].expand_as(found))
    brightness = found[:, 0, 0, 0] - 0.5  # half of what it is in [-1, 1]
    assert -0.25 <= brightness.min() < -0.2
    assert 0.2 < brightness.max() <= 0.25


def test_translation_shifts_by_an_eighth_of_a_side_at_most():
    images = torch.zeros(200, 1, 16, 16)
    images[:, :, 8, 8] = 1
    found = augment(images, ["translation"], _draws())
    assert set(found.unique().tolist()) == {0, 0.5, 1}  # grey behind
    rows, columns = (found[:, 0] == 1).nonzero()[:, 1:].T
    assert set(rows.tolist()) == set(columns.tolist()) == set(range(6, 11))
    assert len(set(zip(rows.tolist(), columns.tolist(), strict=True))) == 25


def test_cutout_greys_a_square_of_half_a_side():
    hidden = augment(torch.ones(500, 1, 8, 8), ["cutout"], _draws())[:, 0] == 0.5
    sides = torch.stack([hidden.any(2).sum(1), hidden.any(1).sum(1)])
    assert sides.max() == 4
    assert torch.equal(hidden.sum((1, 2)), sides.prod(0))  # a rectangle
    assert hidden.float().mean(0).min() > 0.05  # everywhere


@pytest.mark.parametrize("policy", ["color", "translation", "cutout"])
def test_gradients_flow_and_the_same_draws_repeat(policy):
    images = torch.rand(3, 3, 8, 8, requires_grad=True)
    found = augment(images, [policy], _draws(3))
    (gradient,) = torch.autograd.grad(found.sum(), images)
    assert gradient.abs().sum() > 0
    assert torch.equal(found, augment(images, [policy], _draws(3)))
    assert not torch.equal(found, augment(images, [policy], _draws(4)))


def test_unknown_policies_are_refused():
    with pytest.raises(ValueError, match="must be of color, translation, cutout, got blur"):
        require_policies(["blur"])


def _epoch(watch: CollapseWatch, scores: float, spread: float) -> str:
    images = torch.randn(50, 1, 4, 4)
    watch.update(torch.full((50,), scores), torch.full((50,), -scores), images, spread * images)
    return watch.verdict()


def test_a_saturated_discriminator_ends_it_after_two_epochs_on_end():
    watch = CollapseWatch()
    assert [_epoch(watch, s, 1) for s in (2, 0.5, 2)] == ["", "", ""]
    assert "the discriminator is saturated: 100.0% of its scores" in _epoch(watch, 2, 1)


def test_lost_diversity_ends_it_and_a_resumed_watch_goes_on():
    watch = CollapseWatch()
    assert _epoch(watch, 0, 0.05) == ""
    again = CollapseWatch()
    again.load_state_dict(watch.state_dict())
    assert "their variance is 0.00 of that of the images" in _epoch(again, 0, 0.05)
    assert _epoch(CollapseWatch(), 0, 0.05) == ""


def test_images_that_are_no_numbers_end_it_at_once():
    assert "are not numbers any more" in _epoch(CollapseWatch(), 0, torch.nan)


def test_without_a_discriminator_diversity_decides_nothing():
    watch, images = CollapseWatch(), torch.randn(50, 1, 4, 4)
    for _ in range(3):
        watch.update(torch.zeros(0), torch.zeros(0), images, 0 * images)
        assert watch.verdict() == ""
