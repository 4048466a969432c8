"""Tests of the adapter to AutoAttack."""

import sys

import pytest
import torch

from iscp_lightning.attacks.autoattack import AutoAttack


def test_a_missing_package_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "pyautoattack", None)
    with pytest.raises(ValueError, match=r"pip install 'iscp-lightning\[attacks\]'"):
        AutoAttack()


@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_it_keeps_the_budget_and_fools_a_standard_model(norm):
    pytest.importorskip("pyautoattack")
    torch.manual_seed(0)
    model = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(27, 4))
    images = torch.rand(6, 3, 3, 3)
    labels = model(images).argmax(1)
    state = torch.get_rng_state()
    epsilon = 0.3 if norm == "linf" else 1.0
    found = AutoAttack(epsilon, norm)(model, images, labels)
    change = (found - images).flatten(1)
    assert change.norm(torch.inf if norm == "linf" else 2, dim=1).max() <= epsilon + 1e-5
    assert bool(((found >= 0) & (found <= 1)).all())
    assert (model(found).argmax(1) == labels).sum() == 0
    assert torch.equal(torch.get_rng_state(), state)
