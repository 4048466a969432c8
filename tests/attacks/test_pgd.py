"""Tests of PGD: closed forms, the budget for every shape and norm, and foolbox as reference."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from toys import Linear

from iscp_lightning.attacks import PGD, Epsilon, fgsm
from iscp_lightning.attacks.pgd import l2_norm, project, random_start
from iscp_lightning.classifiers.outputs import eval_mode, require_logits


def images(count: int = 3, channels: int = 3, size: int = 4, seed: int = 0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.rand(count, channels, size, size, generator=generator)


def two_class() -> tuple[nn.Module, torch.Tensor]:
    """Logit of class 1 minus that of class 0 is the weighted sum with w, of known sign."""
    weights = torch.linspace(-1, 1, 16).view(4, 4)
    return Linear(torch.stack([torch.zeros(4, 4), weights])), weights


def test_linf_on_a_linear_model_goes_to_the_corner_of_the_ball():
    model, weights = two_class()
    given = 0.3 + 0.4 * images()
    expected = given + 0.1 * weights.sign()  # away from label 0 is up the weights
    found = PGD(0.1, 0.025, steps=4, random_start=False)(model, given, torch.zeros(3).long())
    torch.testing.assert_close(found, expected)
    torch.testing.assert_close(fgsm(0.1)(model, given, torch.zeros(3).long()), expected)
    started = PGD(0.1, 0.2, steps=1)(model, given, torch.zeros(3).long())
    torch.testing.assert_close(started, expected)


def test_l2_on_a_linear_model_goes_along_the_weights():
    model, weights = two_class()
    given = 0.3 + 0.4 * images()
    direction = -weights.expand(3, 3, 4, 4) / (weights.norm() * 3**0.5)  # label 1: down
    found = PGD(0.2, 0.1, steps=2, norm="l2", random_start=False)(
        model, given, torch.ones(3).long()
    )
    torch.testing.assert_close(found, given + 0.2 * direction)


@settings(max_examples=60, deadline=None)
@given(
    count=st.integers(1, 3),
    channels=st.integers(1, 3),
    size=st.integers(1, 6),
    norm=st.sampled_from(["linf", "l2"]),
    epsilon=st.floats(0, 1),
    step=st.floats(0, 1),
    steps=st.integers(1, 3),
    start=st.booleans(),
    seed=st.integers(0, 5),
)
def test_adversarial_images_keep_the_budget(
    count, channels, size, norm, epsilon, step, steps, start, seed
):
    given_images = images(count, channels, size, seed)
    model = Linear(torch.randn(3, size, size, generator=torch.Generator().manual_seed(seed)))
    attack = PGD(epsilon, step, steps, norm, start)
    found = attack(model, given_images, torch.arange(count) % 3)
    assert found.shape == given_images.shape
    assert not found.requires_grad
    assert bool(((found >= 0) & (found <= 1)).all())
    change = found - given_images
    reach = change.abs().max() if norm == "linf" else l2_norm(change).max()
    assert reach <= epsilon + 1e-6


@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_random_starts_fill_the_ball(norm):
    centre = torch.full((4000, 1, 1, 2), 0.5)
    found = random_start(centre, 0.1, norm, torch.Generator().manual_seed(0)) - centre
    inner = found.abs().amax((1, 2, 3)) if norm == "linf" else l2_norm(found).flatten()
    assert inner.max() <= 0.1 + 1e-6
    assert (inner < 0.05).double().mean() == pytest.approx(0.25, abs=0.03)  # area of half radius


def test_the_model_and_the_random_state_are_left_alone():
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Flatten(), nn.Linear(16, 2))
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    labels, state = torch.zeros(3).long(), torch.get_rng_state()
    with eval_mode(model):
        assert not any(part.training for part in model.modules())
        PGD()(model, images(), labels, torch.Generator().manual_seed(0))
    assert all(part.training for part in model.modules())
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())
    assert all(parameter.grad is None for parameter in model.parameters())
    assert torch.equal(torch.get_rng_state(), state)


def test_eval_mode_restores_every_part_as_it_was():
    model = nn.Sequential(nn.BatchNorm2d(3), nn.BatchNorm2d(3).eval())
    with eval_mode(model, enabled=False):
        assert model[0].training
    with eval_mode(model):
        pass
    assert [part.training for part in model.modules()] == [True, True, False]


def test_it_works_where_gradients_are_off():
    model, _ = two_class()
    attack, labels = PGD(random_start=False), torch.zeros(3).long()
    expected = attack(model, images(), labels)
    with torch.inference_mode():
        assert torch.equal(attack(model, images(), labels), expected)
    with torch.no_grad():
        assert torch.equal(attack(model, images(), labels), expected)


def test_a_zero_gradient_moves_nothing():
    model = Linear(torch.zeros(2, 4, 4))
    for norm in ("linf", "l2"):
        found = PGD(norm=norm, random_start=False)(model, images(), torch.zeros(3).long())
        assert torch.equal(found, images())


def test_no_ball_is_only_clipped():
    far = images() * 3 - 1
    assert torch.equal(project(far, images(), None, "l2"), far.clamp(0, 1))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"epsilon": 8}, r"`epsilon` must lie in \[0, 1\].*8/255"),
        ({"epsilon": "8/0"}, "not a number"),
        ({"step_size": 2}, r"`step_size` must lie in \[0, 1\].*2/255"),
        ({"epsilon": -0.1}, "negative"),
        ({"steps": 0}, "`steps`"),
        ({"norm": "l1"}, "`norm`"),
    ],
)
def test_wrong_settings_are_named(arguments, message):
    with pytest.raises(ValueError, match=message):
        PGD(**arguments)
    assert PGD(epsilon=3.0, norm="l2").epsilon == 3


def test_probabilities_are_refused():
    model, _ = two_class()
    require_logits(model(images()))
    with pytest.raises(ValueError, match="returns probabilities"):
        require_logits(nn.Sequential(model, nn.Softmax(1))(images()))


@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_it_equals_foolbox(trained, norm):
    foolbox = pytest.importorskip("foolbox")
    given, labels = images(4, size=32), torch.arange(4)
    attack_class = {"linf": foolbox.attacks.LinfPGD, "l2": foolbox.attacks.L2PGD}[norm]
    epsilon, step = (8 / 255, 2 / 255) if norm == "linf" else (0.5, 0.1)
    theirs = attack_class(abs_stepsize=step, steps=5, random_start=False)
    wrapped = foolbox.PyTorchModel(trained, bounds=(0, 1))
    _, expected, _ = theirs(wrapped, given, labels, epsilons=epsilon)
    found = PGD(Epsilon(epsilon), Epsilon(step), 5, norm, random_start=False)(
        trained, given, labels
    )
    assert not torch.equal(found, given)
    if norm == "l2":
        torch.testing.assert_close(found, expected, rtol=0, atol=1e-4)
    else:  # where a gradient is nearly zero, rounding may choose its sign
        assert ((found - expected).abs() < 1e-5).double().mean() > 0.99


@pytest.mark.parametrize("norm", ["linf", "l2"])
@pytest.mark.parametrize("value", [0.0, 1.0])
def test_random_starts_stay_images(norm, value):
    found = random_start(torch.full((50, 1, 2, 2), value), 0.1, norm)
    assert 0 <= found.min() < found.max() <= 1
