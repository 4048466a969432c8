"""Tests of generator and discriminator: sizes, what they depend on, what they are refused."""

import pytest
import torch
from small import SMALL
from torch import nn

from iscp_lightning.inversion.architecture import Architecture
from iscp_lightning.inversion.discriminator import Discriminator
from iscp_lightning.inversion.generator import Generator
from iscp_lightning.inversion.layers import ConditionalBatchNorm, SelfAttention, conv, linear


def _parameters(module: nn.Module) -> int:
    return sum(each.numel() for each in module.parameters())


def test_parameter_counts_are_those_published_for_imagenet(monkeypatch):
    # compare_gan and BigGAN-PyTorch count 70,433,988 and 87,982,370 for 1,000 classes, 128 pixels
    monkeypatch.setattr(nn.init, "orthogonal_", lambda weight: weight)  # takes half a minute
    architecture = Architecture(width=96, attention=64)
    generator = Generator(1000, architecture, 128)
    assert generator.noise_size == 120
    of_the_embedding_in_the_first_layer = 128 * 4 * 4 * 16 * 96
    assert _parameters(generator) == 70_433_988 + of_the_embedding_in_the_first_layer
    assert _parameters(Discriminator(1000, architecture, 128)) == 87_982_370


@pytest.mark.parametrize("side", [32, 64, 128])
def test_sizes_of_the_published_stages(side):
    architecture = Architecture(width=1, embedding_size=4, noise_per_stage=2)
    generator = Generator(5, architecture, side).eval()
    vectors, noise = torch.randn(2, 5), torch.randn(2, generator.noise_size)
    images = generator(vectors, noise)
    assert images.shape == (2, 3, side, side)
    assert images.min() >= 0
    assert images.max() <= 1
    assert Discriminator(5, architecture, side)(images, vectors).shape == (2,)


def test_an_image_depends_on_its_own_vector_and_every_part_of_its_noise():
    generator = Generator(5, SMALL, 16).eval()
    vectors, noise = torch.randn(3, 5), torch.randn(3, generator.noise_size)
    images = generator(vectors, noise)
    assert torch.allclose(generator(vectors[1:2], noise[1:2]), images[1:2], atol=1e-6)
    assert not torch.allclose(generator(vectors + 1, noise), images, atol=1e-3)
    for stage in noise.split(SMALL.noise_per_stage, 1):
        before = stage.clone()
        stage += 3
        assert not torch.allclose(generator(vectors, noise), images, atol=1e-3)
        stage.copy_(before)


def test_the_projection_tells_vectors_apart():
    discriminator = Discriminator(5, SMALL, 16).eval()
    images, vectors = torch.rand(2, 3, 16, 16), torch.randn(2, 5)
    score = discriminator(images, vectors)
    without = discriminator(images, torch.zeros(2, 5))
    hidden = discriminator.blocks(2 * images - 1).relu().sum((2, 3))
    projected = (discriminator.projection(vectors) * hidden).sum(1) / 5**0.5
    assert torch.allclose(score, without + projected, atol=1e-4)
    assert torch.allclose(discriminator(images, -vectors) + score, 2 * without, atol=1e-4)
    assert not torch.allclose(score, without, atol=1e-3)


def test_layers_have_a_largest_singular_value_of_one():
    for layer in (conv(6, 4), linear(7, 3)):
        with torch.no_grad():
            layer.parametrizations.weight.original.mul_(5)
        for _ in range(200):  # power iterations
            weight = layer.weight
        assert torch.linalg.matrix_norm(weight.flatten(1), 2).item() == pytest.approx(1, abs=1e-3)


def test_conditional_normalisation_without_a_condition_is_plain():
    maps, layer = torch.randn(4, 3, 5, 5), ConditionalBatchNorm(3, 2)
    plain = nn.BatchNorm2d(3, affine=False)(maps)
    assert torch.allclose(layer(maps, torch.zeros(4, 2)), plain)
    condition = torch.randn(4, 2)
    gain, bias = (each(condition)[..., None, None] for each in (layer.gain, layer.bias))
    assert torch.allclose(layer(maps, condition), (1 + gain) * plain + bias, atol=1e-6)


def test_attention_adds_nothing_at_first_and_weighs_values_then():
    maps, layer = torch.randn(2, 8, 4, 4), SelfAttention(8).eval()
    assert torch.equal(layer(maps), maps)
    with torch.no_grad():
        layer.strength.fill_(2)
    pooled = [nn.functional.max_pool2d(each(maps), 2) for each in (layer.key, layer.value)]
    key, value = (each.flatten(2) for each in pooled)
    weights = (layer.query(maps).flatten(2).transpose(1, 2) @ key).softmax(2)  # (N, place, seen)
    seen = torch.einsum("nps,ncs->ncp", weights, value).view(2, 4, 4, 4)
    assert torch.allclose(layer(maps), maps + 2 * layer.out(seen), atol=1e-5)


def test_attention_stands_where_its_side_is():
    architecture = Architecture(8, [2, 1, 1], [1, 1, 2], attention=8)
    generator, discriminator = Generator(3, architecture, 16), Discriminator(3, architecture, 16)
    seen = []
    for network in (generator, discriminator):
        (layer,) = (part for part in network.modules() if isinstance(part, SelfAttention))
        layer.register_forward_hook(lambda _, inputs, __: seen.append(inputs[0].shape[2]))
    discriminator(
        generator(torch.randn(2, 3), torch.randn(2, generator.noise_size)), torch.ones(2, 3)
    )
    assert seen == [8, 8]


@pytest.mark.parametrize(
    ("options", "size", "message"),
    [
        ({}, 48, "images must be square with a side of 16, 32, 64, .* got 48 x 48"),
        ({}, (32, 64), "got 32 x 64"),
        ({}, 4, "got 4 x 4"),
        ({}, 256, "`generator_stages` must be given for images of 256 pixels: 7 numbers"),
        ({"generator_stages": [4, 4]}, 32, r"`generator_stages` must be 4 numbers .* got \[4, 4\]"),
        (
            {"discriminator_stages": [1, 0, 1, 1]},
            32,
            "`discriminator_stages` must be 4 numbers of 1",
        ),
        ({"attention": 12}, 32, "`attention` must be a side of maps between 8 and 16, .* got 12"),
        ({"attention": 4}, 32, "got 4"),
    ],
)
def test_stages_that_do_not_lead_to_the_size_are_refused(options, size, message):
    with pytest.raises(ValueError, match=message):
        Architecture(**options).stages(size)


@pytest.mark.parametrize("name", ["width", "embedding_size", "noise_per_stage"])
def test_sizes_below_one_are_refused(name):
    with pytest.raises(ValueError, match=f"`{name}` must be 1 or more, got 0"):
        Architecture(**{name: 0})


def test_attention_needs_channels():
    architecture = Architecture(4, [2, 1, 1], [1, 1, 2], attention=8)
    with pytest.raises(ValueError, match="`attention` needs maps of 8 channels or more, got 4"):
        Generator(3, architecture, 16)
