"""Tests of the evaluation: closed forms on a linear model, and every sign of masked gradients."""

import copy
import re
from dataclasses import replace

import pytest
import torch
from torch import nn
from toys import Linear, subject_of

from iscp_lightning.attacks import ATTACKS, Epsilon, Robustness, evaluate_robustness, robustness
from iscp_lightning.attacks.robustness import build_attacks
from iscp_lightning.classifiers import classifier_hash
from iscp_lightning.data import MemoryImages, Shapes
from iscp_lightning.data.images import to_float
from iscp_lightning.seeds import named_generator


def one_pixel(margins: list[float]) -> tuple[nn.Module, MemoryImages]:
    """A model that says 1 when the pixel is above 0.5, and images `margin` above that."""
    weights = torch.tensor([[[-1.0]], [[1.0]]])

    class Shifted(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.linear = Linear(weights)

        def forward(self, images: torch.Tensor) -> torch.Tensor:
            return self.linear(images - 0.5)

    pixels = (0.5 + torch.tensor(margins)).view(-1, 1, 1, 1)
    return Shifted(), MemoryImages(pixels, torch.ones(len(margins)).long())


def test_a_linear_model_withstands_exactly_its_margin():
    margins = [-0.1, 0.02, 0.06, 0.15, 0.25]
    model, images = one_pixel(margins)
    with torch.inference_mode():  # as in Lightning's tests
        found = evaluate_robustness(
            subject_of(model, images), torch.arange(5), ["fgsm"], epsilon="1/10", batch_size=2
        )
    assert found.clean.tolist() == [False, True, True, True, True]
    for kept in found.withstood.values():
        assert kept.tolist() == [False, False, False, True, True]
    assert list(found.withstood) == ["fgsm", "pgd20"]
    assert found.sanity["pgd20 at x0.5"].tolist() == [False, False, True, True, True]
    assert found.sanity["pgd20 at x2"].tolist() == [False, False, False, False, True]
    assert found.robust_accuracy == 0.4
    assert found.flags == []
    summary = found.summary(["zero", "one"])
    assert summary["accuracy"]["pgd20"] == 0.4
    assert summary["per_class"]["one"]["clean"] == 0.8
    assert summary["per_class"]["one"]["robust_accuracy"] == 0.4
    assert summary["per_class"]["zero"]["clean"] != summary["per_class"]["zero"]["clean"]  # NaN


def test_the_worst_case_is_per_image():
    labels, yes = torch.zeros(4).long(), torch.tensor([True] * 4)
    withstood = {
        "fgsm": torch.tensor([True, False, True, True]),
        "pgd20": torch.tensor([False, True, True, True]),
    }
    sanity = {"noise": yes, "pgd20 at x0.5": yes, "pgd20 at x2": withstood["fgsm"] & False}
    found = Robustness(labels, torch.tensor([True, True, True, False]), withstood, sanity, "l2", 1)
    assert found.robust_accuracy == 0.25


def rates(fgsm: int, pgd20: int, noise: int, half: int, double: int) -> Robustness:
    def kept(count: int) -> torch.Tensor:
        return torch.arange(100) < count

    return Robustness(
        torch.zeros(100).long(),
        kept(100),
        {"fgsm": kept(fgsm), "pgd20": kept(pgd20)},
        {"noise": kept(noise), "pgd20 at x0.5": kept(half), "pgd20 at x2": kept(double)},
        "linf",
        8 / 255,
    )


@pytest.mark.parametrize(
    ("numbers", "message"),
    [
        ((40, 30, 90, 60, 10), None),
        ((30, 31, 90, 60, 10), None),  # no more than the tolerance
        ((40, 39, 39, 60, 10), None),
        ((30, 40, 90, 60, 10), "weaker fgsm .* beats pgd20"),
        ((40, 30, 35, 60, 10), "noise .* hurts more than fgsm"),
        ((40, 30, 90, 60, 50), "rises with epsilon, from 0.300 to 0.500"),
        ((40, 30, 90, 20, 10), "rises with epsilon, from 0.200 to 0.300"),
    ],
)
def test_masked_gradients_are_flagged(numbers, message):
    flags = rates(*numbers).flags
    if message is None:
        assert flags == []
    else:
        (flag,) = flags
        assert flag.startswith("gradient masking suspected")
        assert re.search(message, flag)


@pytest.mark.parametrize(("right", "expected"), [(100, True), (99, False), (0, False)])
def test_one_of_fewer_than_100_images_is_more_than_the_tolerance(right, expected):
    clean = torch.arange(300) < right
    found = Robustness(torch.zeros(300).long(), clean, {}, {}, "linf", 8 / 255)
    assert found.conclusive == expected


class Masked(nn.Module):
    """Right everywhere near the images, with a gradient that points nowhere."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return self.network((images * 20).round() / 20 + 0 * images)


def test_a_model_with_rounded_inputs_is_caught():
    model, images = one_pixel([0.01 * i for i in range(1, 11)] * 10)
    found = evaluate_robustness(subject_of(Masked(model), images), torch.arange(100), epsilon=0.05)
    assert found.robust_accuracy > 0.5  # an illusion: every image is within 0.1 of the border
    assert any("noise" in flag for flag in found.flags)


def test_neither_processes_nor_other_attacks_change_a_result(trained, monkeypatch):
    subject, rows = subject_of(trained, Shapes(60, 40).test()), torch.arange(40)
    alone = evaluate_robustness(subject, rows, ["fgsm"], epsilon=0.01, batch_size=4)
    assert all(0 < kept.sum() < 40 for kept in alone.withstood.values())
    pgd_only = evaluate_robustness(subject, rows, ["pgd20"], epsilon=0.01, batch_size=4)
    assert torch.equal(alone.withstood["pgd20"], pgd_only.withstood["pgd20"])
    parts: list = []
    for rank in range(2):
        monkeypatch.setattr(robustness, "share", lambda items, r=rank: items[r::2])
        monkeypatch.setattr(robustness, "gather", lambda item: parts.append(item) or [item])
        evaluate_robustness(subject, rows, ["fgsm"], epsilon=0.01, batch_size=4)
    monkeypatch.setattr(robustness, "gather", lambda item: parts)
    monkeypatch.setattr(robustness, "share", lambda items: [])
    together = evaluate_robustness(subject, rows, ["fgsm"], epsilon=0.01, batch_size=4)
    for name, kept in (alone.withstood | alone.sanity).items():
        assert torch.equal(kept, (together.withstood | together.sanity)[name])


def test_bad_input_is_refused():
    model, images = one_pixel([0.1, 0.2])
    with pytest.raises(ValueError, match=r"among fgsm, pgd20.*'pdg'"):
        build_attacks(["pdg"], 0.1, "linf", 10)
    with pytest.raises(ValueError, match="at least 4 classes, the data have 3"):
        build_attacks(["autoattack"], 0.1, "linf", 3)
    subject = subject_of(nn.Sequential(model, nn.Softmax(1)), images)
    with pytest.raises(ValueError, match="returns probabilities"):
        evaluate_robustness(subject, torch.arange(2))


@pytest.mark.parametrize("name", [name for name in ATTACKS if name != "autoattack"])
def test_every_attack_returns_images_and_leaves_the_classifier_alone(name, trained):
    test = Shapes(20, 6).test()
    images, labels = to_float(test.pixels(range(6))), test.labels
    classifier = copy.deepcopy(trained)  # other tests may have left gradients
    classifier.zero_grad()
    before = classifier_hash(classifier)
    attack = ATTACKS[name](Epsilon("4/255"), "linf")
    found, again = (
        attack(classifier, images, labels, torch.Generator().manual_seed(0)) for _ in range(2)
    )
    assert torch.equal(found, again)
    assert (found.shape, found.dtype) == (images.shape, images.dtype)
    assert 0 <= found.min() < found.max() <= 1
    assert not found.requires_grad
    assert not torch.equal(found, images)
    assert classifier_hash(classifier) == before
    assert all(parameter.grad is None for parameter in classifier.parameters())
    with torch.inference_mode():
        inside = attack(trained, images, labels, torch.Generator().manual_seed(0))
    torch.testing.assert_close(inside, found)


def test_attacks_without_a_ball_say_nothing_of_masked_gradients():
    found = rates(40, 30, 90, 60, 10)
    weak, strong = (torch.arange(100) < count for count in (95, 5))
    for kept in (weak, strong):
        with_flows = replace(found, withstood={**found.withstood, "stadv": kept})
        assert with_flows.flags == []
    assert with_flows.robust_accuracy == 0.05


def test_the_seed_reaches_every_attack(monkeypatch):
    model, images = one_pixel([0.1, 0.2])
    drawn: dict[int, list[int]] = {}
    for seed in (0, 1):
        seeds = drawn[seed] = []

        def spy(*name, seeds=seeds, **kwargs):
            generator = named_generator(*name, **kwargs)
            seeds.append(generator.initial_seed())
            return generator

        monkeypatch.setattr(robustness, "named_generator", spy)
        subject = subject_of(model, images, seed)
        evaluate_robustness(subject, torch.arange(2), ["fgsm"], batch_size=1)
    assert len(drawn[0]) == 2 * 5  # two batches, two attacks and three checks
    assert len({*drawn[0], *drawn[1]}) == 20


@pytest.mark.parametrize(("norm", "epsilon", "double"), [("l2", 0.8, 1.6), ("linf", 0.8, 1.0)])
def test_the_doubled_radius_is_one_of_the_norm(norm, epsilon, double):
    attacks = build_attacks(["fgsm"], epsilon, norm, 10)
    assert attacks["pgd20 at x2"].epsilon == pytest.approx(double)
    assert attacks["pgd20 at x0.5"].epsilon == pytest.approx(0.4)


def test_a_classifier_in_training_is_measured_in_eval_mode_and_left_alone():
    torch.manual_seed(0)
    classifier = nn.Sequential(nn.BatchNorm2d(3), nn.Flatten(), nn.Dropout(0.9), nn.Linear(48, 2))
    images = MemoryImages(torch.rand(20, 3, 4, 4), torch.arange(20) % 2)
    before = {name: value.clone() for name, value in classifier.state_dict().items()}
    found = evaluate_robustness(subject_of(classifier.train(), images), torch.arange(20), ["fgsm"])
    assert classifier.training
    for name, value in classifier.state_dict().items():
        assert torch.equal(value, before[name]), name
    evaluated = evaluate_robustness(
        subject_of(classifier.eval(), images), torch.arange(20), ["fgsm"]
    )
    assert torch.equal(found.clean, evaluated.clean)
