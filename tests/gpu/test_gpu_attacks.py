"""Attacks on the GPU: the ball, the source of random starts, the CPU's numbers."""

import pytest
import torch
from torch import nn
from toys import Linear

from iscp_lightning.attacks import PGD, evaluate_robustness
from iscp_lightning.attacks.autoattack import AutoAttack
from iscp_lightning.attacks.pgd import l2_norm, random_start
from iscp_lightning.classifiers.subject import Subject
from iscp_lightning.data import MemoryImages, Shapes
from iscp_lightning.seeds import generator_states, named_generator


class Threshold(nn.Module):
    """Says 1 of an image whose only pixel is above 0.5."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = Linear(torch.tensor([[[-1.0]], [[1.0]]]))

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return self.linear(images - 0.5)


@pytest.mark.parametrize(("norm", "epsilon"), [("linf", 0.1), ("l2", 0.5)])
def test_adversarial_images_keep_the_budget(device, norm, epsilon):
    generator = torch.Generator().manual_seed(0)
    images = torch.rand(32, 3, 8, 8, generator=generator).round(decimals=1).to(device)
    model = Linear(torch.randn(4, 8, 8, generator=generator)).to(device)
    labels = torch.arange(32, device=device) % 4
    found = PGD(epsilon, epsilon / 2, steps=5, norm=norm)(model, images, labels)
    assert found.device == images.device
    assert 0 <= found.min() <= found.max() <= 1
    change = found - images
    reach = change.abs().max() if norm == "linf" else l2_norm(change).max()
    assert epsilon / 2 < reach <= epsilon + 1e-6
    assert (model(found).argmax(1) == labels).sum() < (model(images).argmax(1) == labels).sum()


@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_random_starts_are_drawn_from_the_generator_of_the_device(device, norm):
    images, states = torch.full((50, 1, 2, 2), 0.5, device=device), generator_states()
    source = named_generator(0, "attack", device=device)
    drawn = [random_start(images, 0.1, norm, source) for _ in range(2)]
    again = random_start(images, 0.1, norm, named_generator(0, "attack", device=device))
    assert torch.equal(drawn[0], again)
    assert not torch.equal(*drawn)
    after = generator_states()
    assert torch.equal(states["torch"], after["torch"])
    assert all(map(torch.equal, states["cuda"], after["cuda"]))


def test_a_model_withstands_exactly_its_margin(device):
    margins = torch.tensor([-0.1, 0.02, 0.06, 0.15, 0.25])
    images = MemoryImages((0.5 + margins).view(-1, 1, 1, 1), torch.ones(5).long())
    subject = Subject(Threshold(), images, ["low", "high"], device=device)
    with torch.inference_mode():  # as in Lightning's tests
        found = evaluate_robustness(
            subject, torch.arange(5), ["fgsm"], epsilon="1/10", batch_size=2
        )
    assert found.clean.tolist() == [False, True, True, True, True]
    for kept in found.withstood.values():
        assert kept.tolist() == [False, False, False, True, True]
    assert found.sanity["pgd20 at x0.5"].tolist() == [False, False, True, True, True]
    assert found.robust_accuracy == 0.4
    assert found.flags == []


def test_a_real_network_is_as_robust_as_on_the_cpu(device, trained):
    given, rates = Shapes(train_count=10, test_count=20).test(), []
    for where in (device, torch.device("cpu")):
        subject = Subject(trained, given, Shapes().class_names, device=where)
        found = evaluate_robustness(subject, torch.arange(20), ["fgsm"], epsilon=0.02)
        rates.append([kept.double().mean().item() for kept in found.withstood.values()])
    assert rates[0] == pytest.approx(rates[1], abs=0.1)
    assert 0.1 < rates[1][0] < 0.9  # the comparison says something


def test_autoattack_keeps_the_budget_and_the_random_states(device):
    pytest.importorskip("pyautoattack")
    torch.manual_seed(0)
    model = nn.Sequential(nn.Flatten(), nn.Linear(27, 4)).to(device)
    images = torch.rand(6, 3, 3, 3).to(device)
    labels, states = model(images).argmax(1), generator_states()
    source = named_generator(0, "attack", device=device)
    found = AutoAttack(0.3)(model, images, labels, source)
    assert found.device == images.device
    assert (found - images).abs().max() <= 0.3 + 1e-5
    assert 0 <= found.min() <= found.max() <= 1
    assert (model(found).argmax(1) == labels).sum() == 0
    after = generator_states()
    assert torch.equal(states["torch"], after["torch"])
    assert all(map(torch.equal, states["cuda"], after["cuda"]))
