"""Tests of AdaIN: its statistics, the published layout, encoders, and a decoder that learns."""

import copy
import math
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from iscp_lightning.classifiers import create_classifier
from iscp_lightning.data import Shapes
from iscp_lightning.data.images import to_float
from iscp_lightning.probes.adain import (
    Encoder,
    StyleNetwork,
    adain,
    decoder_of,
    encoder_of,
    losses_of,
    statistics,
)
from iscp_lightning.probes.style_files import (
    load_published,
    load_style_network,
    published_layers,
    save_style_network,
)


def test_statistics_by_hand():
    """0, 2, 4, 6: the mean is 3, the unbiased variance 20/3."""
    mean, std = statistics(torch.tensor([0.0, 2, 4, 6]).view(1, 1, 2, 2))
    assert mean.item() == 3
    assert std.item() == pytest.approx(math.sqrt(20 / 3 + 1e-5), rel=1e-6)


def test_adain_by_hand():
    """The content's order with the style's mean and spread: 2 of it is half of the content's."""
    content = torch.tensor([0.0, 2, 4, 6]).view(1, 1, 2, 2)
    style = torch.tensor([13.0, 10, 12, 11]).view(1, 1, 2, 2)  # mean 11.5, spread of content / 2
    expected = torch.tensor([10.0, 11, 12, 13]).view(1, 1, 2, 2)
    torch.testing.assert_close(adain(content, style), expected, atol=1e-4, rtol=0)


def test_adain_has_the_statistics_of_the_style():
    generator = torch.Generator().manual_seed(0)
    content = 3 * torch.randn(2, 5, 8, 8, generator=generator) + 7
    style = torch.rand(2, 5, 6, 10, generator=generator)
    for found, wanted in zip(statistics(adain(content, style)), statistics(style), strict=True):
        torch.testing.assert_close(found, wanted, atol=1e-4, rtol=0)


def test_losses_by_hand():
    """Means differ by 3 and 0, deviations by 0: the style loss is (9 + 0) / 2 for the one stage."""
    maps = torch.tensor([0.0, 2]).view(1, 1, 1, 2).repeat(1, 2, 1, 1)
    style = maps + torch.tensor([3.0, 0]).view(1, 2, 1, 1)
    losses = losses_of([maps], maps - 2, [style])
    assert losses.content.item() == 4
    assert losses.style.item() == pytest.approx(4.5)
    assert losses_of([maps, maps], maps, [style, style]).style.item() == pytest.approx(9)


def _files(kind: str) -> tuple[list[str], tuple[nn.Sequential, nn.Sequential]]:
    torch.manual_seed(0)
    layers = published_layers()
    names = [f"{name}.{kind}" for name in ("vgg_normalised", "decoder")]
    for name, part in zip(names, layers, strict=True):
        save = torch.save if kind == "pth" else save_file
        save(part.state_dict(), name)
    return names, layers


def test_published_layout():
    """Keys and shapes of the files of naoto0804/pytorch-AdaIN."""
    vgg, decoder = published_layers()
    assert len(vgg) == 53
    at = [0, 2, 5, 9, 12, 16, 19, 22, 25, 29, 32, 35, 38, 42, 45, 48, 51]
    assert [k for k in vgg.state_dict() if "weight" in k] == [f"{i}.weight" for i in at]
    assert vgg[0].weight.shape == (3, 3, 1, 1)
    assert vgg[29].weight.shape == (512, 256, 3, 3)
    shapes = {k: v.shape[:2] for k, v in decoder.state_dict().items() if "weight" in k}
    assert shapes == {
        **{"1.weight": (256, 512), "5.weight": (256, 256), "8.weight": (256, 256)},
        **{"11.weight": (256, 256), "14.weight": (128, 256), "18.weight": (128, 128)},
        **{"21.weight": (64, 128), "25.weight": (64, 64), "28.weight": (3, 64)},
    }


@pytest.mark.parametrize("kind", ["pth", "safetensors"])
def test_published_files_are_read(kind: str):
    files, (vgg, decoder) = _files(kind)
    network = load_published(*files)
    images, styles = torch.rand(2, 2, 3, 20, 28)  # 8 divides neither side
    with torch.no_grad():
        maps = network.encoder(images)
        assert [m.shape[1:] for m in maps] == [
            (64, 20, 28),
            (128, 10, 14),
            (256, 5, 7),
            (512, 3, 4),
        ]
        torch.testing.assert_close(maps[-1], vgg[:31](images))
        raw = decoder(adain(vgg[:31](images), vgg[:31](styles)))
        assert raw.shape == (2, 3, 24, 32)
        found = network.stylise(images, styles)
        assert found.shape == images.shape
        expected = nn.functional.interpolate(raw, (20, 28), mode="bilinear").clamp(0, 1)
        torch.testing.assert_close(found, expected)
    assert network.channels == 3


def test_published_files_that_are_others():
    (vgg, decoder), _ = _files("safetensors")
    with pytest.raises(ValueError, match=r"`weights`=no\.pth is not an existing file"):
        load_published(vgg, "no.pth")
    with pytest.raises(ValueError, match=r"(?s)decoder\.safetensors does not fit .*30 missing"):
        load_published(decoder, vgg)
    with open("page.pth", "w") as file:  # noqa: PTH123
        file.write("<html>")
    with pytest.raises(ValueError, match=r"page\.pth cannot be read .*: it is a web page"):
        load_published(vgg, "page.pth")
    torch.save(nn.Linear(1, 1), "module.pth")
    with pytest.raises(ValueError, match=r"module\.pth cannot be read .*other objects"):
        load_published(vgg, "module.pth")


def _network(size: int = 16) -> StyleNetwork:
    torch.manual_seed(0)
    images = torch.zeros(1, 3, size, size)
    encoder = encoder_of(create_classifier("resnet20", 10, size), images)
    return StyleNetwork(encoder, decoder_of(encoder, images))


@pytest.mark.parametrize(
    ("size", "stages"),
    [
        (32, ["network.blocks.2", "network.blocks.5"]),
        (16, ["network.blocks.2", "network.blocks.5"]),
        (64, ["network.blocks.2", "network.blocks.5", "network.blocks"]),
    ],
)
def test_stages_of_resnet20(size: int, stages: list[str]):
    network = _network(size)
    assert list(network.encoder.stages) == stages
    widths = [m.shape[1] for m in network.encoder(torch.rand(2, 3, size, size))]
    assert widths == [16, 32, 64][: len(stages)]
    found = network.stylise(*torch.rand(2, 2, 3, size, size))
    assert found.shape == (2, 3, size, size)


def test_stages_of_a_timm_network():
    """1/8 of the sides is its second stage, though the third begins at the same resolution."""
    classifier = create_classifier("resnet26", 10, 112)
    encoder = encoder_of(classifier, torch.zeros(1, 3, 112, 112))
    assert list(encoder.stages) == ["network.act1", "network.layer1", "network.layer2"]
    assert encoder(torch.rand(1, 3, 112, 112))[-1].shape == (1, 512, 14, 14)


class Reused(nn.Module):
    """One activation for two resolutions."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(3, 4, 3, padding=1)
        self.second = nn.Conv2d(4, 6, 3, 2, padding=1)
        self.relu = nn.ReLU()

    def forward(self, images: Tensor) -> Tensor:
        return self.relu(self.second(self.relu(self.first(images)))).mean((2, 3))


def test_a_layer_of_several_resolutions_is_no_stage():
    encoder = encoder_of(Reused(), torch.zeros(1, 3, 16, 16))
    assert list(encoder.stages) == ["first", "second"]


def test_a_classifier_without_maps_is_refused():
    linear = nn.Sequential(nn.Flatten(), nn.Linear(3 * 256, 10))
    with pytest.raises(ValueError, match="no feature map of 8 x 8 pixels or more"):
        encoder_of(linear, torch.zeros(1, 3, 16, 16))


def test_the_encoder_is_a_frozen_copy():
    classifier = create_classifier("resnet20", 10, 16).train()
    encoder = encoder_of(classifier, torch.zeros(1, 3, 16, 16))
    network = StyleNetwork(encoder, decoder_of(encoder, torch.zeros(1, 3, 16, 16))).train()
    assert classifier.training
    assert all(p.requires_grad for p in classifier.parameters())
    assert network.decoder.training
    assert not any(part.training for part in network.encoder.modules())
    assert {name for name, p in network.named_parameters() if p.requires_grad} == {
        f"decoder.{name}" for name, _ in network.decoder.named_parameters()
    }
    assert all(not part._forward_hooks for part in encoder.modules())


def test_alpha_mixes_encodings():
    network = _network()
    content, style = torch.rand(2, 3, 3, 16, 16)
    own, full = network.encoder(content)[-1], network.target(content, style)
    torch.testing.assert_close(network.target(content, style, 0.0), own)
    torch.testing.assert_close(network.target(content, style, 0.25), 0.75 * own + 0.25 * full)
    assert not torch.allclose(own, full)


def test_a_decoder_learns_a_handful_of_images():
    network = _network()
    images = to_float(Shapes(8, 8, 16).test().pixels(range(8)))
    before = copy.deepcopy(network.encoder.state_dict())
    optimizer = torch.optim.Adam(network.decoder.parameters(), lr=3e-3)
    history = []
    for _ in range(40):
        losses = network.losses(images, images.roll(1, 0))
        loss = losses.content + losses.style
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        history.append(loss.item())
    assert history[-1] < history[0] / 2
    after = network.encoder.state_dict()
    assert all(torch.equal(before[name], after[name]) for name in before)
    found = network.stylise(images, images.roll(1, 0))
    assert found.min() >= 0
    assert found.max() <= 1


def test_a_saved_network_comes_back():
    network, images = _network(), torch.rand(2, 2, 3, 16, 16)
    save_style_network("net.safetensors", network, (3, 16, 16))
    loaded = load_style_network("net.safetensors")
    assert isinstance(loaded.encoder, Encoder)
    assert loaded.encoder.stages == network.encoder.stages
    with torch.no_grad():
        assert torch.equal(loaded.stylise(*images), network.stylise(*images))


def test_an_encoder_without_a_name_needs_its_structure():
    torch.manual_seed(0)
    zeros = torch.zeros(1, 3, 16, 16)
    encoder = encoder_of(Reused(), zeros)
    network = StyleNetwork(encoder, decoder_of(encoder, zeros))
    save_style_network("net.safetensors", network, (3, 16, 16))
    with pytest.raises(ValueError, match=r"net\.safetensors has an encoder .*`classifier`"):
        load_style_network("net.safetensors")
    loaded, images = load_style_network("net.safetensors", Reused()), torch.rand(2, 2, 3, 16, 16)
    with torch.no_grad():
        assert torch.equal(loaded.stylise(*images), network.stylise(*images))
    with pytest.raises(ValueError, match=r"net\.safetensors .*cannot be built"):
        load_style_network("net.safetensors", nn.Sequential(nn.Flatten()))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "is not an existing file"),
        (b"", "no file of `save_style_network`: it is empty"),
        (b"<html>", "no file of `save_style_network`: it is a web page"),
    ],
)
def test_files_of_others_are_refused(tmp_path: Any, content: bytes | None, message: str):
    if content is not None:
        (tmp_path / "net.safetensors").write_bytes(content)
    with pytest.raises(ValueError, match=f"net.safetensors is {message}|net.safetensors {message}"):
        load_style_network(tmp_path / "net.safetensors")


def test_a_classifier_is_no_style_network():
    save_file({"weight": torch.zeros(1)}, "net.safetensors", {"other": "{}"})
    with pytest.raises(ValueError, match=r"no file of `save_style_network`: it has no"):
        load_style_network("net.safetensors")
