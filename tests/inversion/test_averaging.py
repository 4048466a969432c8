"""Tests of the averaged generator."""

import copy

import pytest
import torch
from small import SMALL
from torch import nn
from torch.nn.utils import parametrize

from iscp_lightning.inversion.averaging import Average
from iscp_lightning.inversion.generator import Generator


def test_it_forgets_faster_in_the_first_steps():
    network = nn.Linear(1, 1, bias=False)
    nn.init.zeros_(network.weight)
    average = Average(network, 0.2)
    nn.init.ones_(network.weight)
    found = []
    for _ in range(3):
        average.update(network)
        found.append(1 - average.module.weight.item())  # what is left of the start
    assert found == pytest.approx([1 / 10, 1 / 10 * 2 / 11, 1 / 10 * 2 / 11 * 0.2])
    assert network.weight.requires_grad
    assert not average.module.weight.requires_grad


def test_averaged_layers_keep_a_largest_singular_value_of_one():
    generator = Generator(5, SMALL, 16)
    average = Average(generator, 0.9)
    draws = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for _ in range(200):  # weights and their singular vectors turn around
            for weight in generator.parameters():
                weight.add_(0.05 * torch.randn(weight.shape, generator=draws))
            generator(torch.randn(4, 5), torch.randn(4, generator.noise_size))
            average.update(generator)
    average.eval()
    layers = [m for m in average.modules() if parametrize.is_parametrized(m, "weight")]
    assert layers
    for layer in layers:
        assert torch.linalg.matrix_norm(layer.weight.flatten(1), 2).item() == pytest.approx(
            1, abs=0.05
        )


def test_statistics_are_averaged_and_the_mode_stays():
    network = nn.BatchNorm1d(1, affine=False)
    average = Average(network, 0.0)
    network(torch.tensor([[10.0], [30.0]]))
    before = copy.deepcopy(average.module.state_dict())
    average.update(network)
    after = average.module.state_dict()
    assert before["running_mean"] == 0
    assert after["running_mean"] == network.running_mean != 0
    assert after["num_batches_tracked"] == 1
    assert average.module.training
