"""Tests of what images are made from: vectors, their standardisation, the noise beside them."""

import pytest
import torch
from small import SMALL, Colours

from iscp_lightning.data.images import MemoryImages, to_float
from iscp_lightning.inversion.conditioning import (
    Standardisation,
    answers_about,
    answers_of,
    require_condition,
)
from iscp_lightning.inversion.generator import Generator
from iscp_lightning.inversion.inverter import Inverter


def test_each_condition_reads_its_own_vectors():
    images = torch.rand(4, 3, 5, 5)
    means = images.mean((2, 3))
    found = {
        kind: answers_of(Colours(), images, kind) for kind in ("logits", "features", "one_hot")
    }
    assert all(torch.allclose(each.logits, 2 * means) for each in found.values())
    assert torch.allclose(found["logits"].vectors, 2 * means)
    assert torch.allclose(found["features"].vectors, means)
    assert torch.equal(found["one_hot"].vectors, torch.eye(3)[means.argmax(1)])


def test_what_is_said_of_some_images_is_in_their_order():
    pixels = torch.randint(256, (300, 3, 4, 4), dtype=torch.uint8)
    images, chosen = MemoryImages(pixels, torch.zeros(300)), torch.randperm(300)[:200]
    found = answers_about(Colours(), images, chosen)
    assert torch.allclose(found.logits, 2 * to_float(pixels[chosen]).mean((2, 3)), atol=1e-6)


@pytest.mark.parametrize("value", [torch.nan, torch.inf])
def test_broken_logits_name_the_first_image(value):
    class Broken(Colours):
        def forward(self, images):
            return torch.where(images[:, :1, 0, 0] > 0.5, value, super().forward(images))

    pixels = torch.zeros(5, 3, 4, 4, dtype=torch.uint8)
    pixels[3] = 255
    with pytest.raises(ValueError, match="NaN or infinite, first for the image of index 3"):
        answers_about(Broken(), MemoryImages(pixels, torch.zeros(5)), torch.tensor([0, 3, 4]))


def test_standardised_vectors_have_the_spread_of_noise():
    vectors = torch.randn(1000, 16) * torch.arange(1, 17) + 5
    layer = Standardisation(16)
    layer.fit(vectors)
    found = layer(vectors)
    assert torch.allclose(found.mean(0), torch.zeros(16), atol=1e-5)
    assert torch.allclose(found.std(0), torch.ones(16), atol=1e-5)
    shifted = layer(vectors + layer.deviation)  # a shift of the raw ones is seen
    assert torch.allclose(shifted - found, torch.ones_like(found), atol=1e-5)


def test_an_entry_that_never_changes_stays_zero():
    layer = Standardisation(2)
    layer.fit(torch.tensor([[1.0, 7.0], [3.0, 7.0]]))
    assert layer(torch.tensor([[1.0, 7.0]]))[0, 1] == 0


def test_other_conditions_are_refused():
    with pytest.raises(ValueError, match="`condition` must be one of logits, features, one_hot"):
        require_condition("pixels")


def test_an_inverter_gives_the_same_position_the_same_noise():
    generator = Generator(3, SMALL, 16).eval()
    inverter = Inverter(Colours(), generator, Standardisation(3), seed=5)
    images = torch.rand(7, 3, 16, 16)
    first = inverter.reconstruct(images)
    assert first.shape == images.shape
    assert torch.equal(inverter.noise(3), inverter.noise(7)[:3])
    assert torch.allclose(inverter.reconstruct(images[:3]), first[:3], atol=1e-6)
    assert not torch.allclose(inverter.reconstruct(images, draw=1), first, atol=1e-4)
    assert torch.allclose(inverter.answers(images).vectors, Colours()(images))
