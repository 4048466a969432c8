"""Tests of Stylised: which styles are drawn, that batches have no say, and what is refused."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from iscp_lightning.classifiers import Subject, create_classifier
from iscp_lightning.data import Batch, MemoryImages, Shapes
from iscp_lightning.data.datamodule import ImageDataModule
from iscp_lightning.data.shapes import draw_textures
from iscp_lightning.probes.adain import StyleNetwork, decoder_of, encoder_of
from iscp_lightning.probes.style import Stylised, judge_style, patches_of, style_set
from iscp_lightning.probes.style_files import save_style_network

NETWORK = "net.safetensors"


@pytest.fixture(autouse=True)
def network() -> StyleNetwork:
    return _saved(16, 3)


def _saved(size: int, channels: int) -> StyleNetwork:
    torch.manual_seed(0)
    zeros = torch.zeros(1, channels, size, size)
    classifier = create_classifier("resnet20", 10, size, [0.5] * channels, [0.25] * channels)
    encoder = encoder_of(classifier, zeros)
    network = StyleNetwork(encoder, decoder_of(encoder, zeros))
    save_style_network(NETWORK, network, (channels, size, size))
    return network


def _data(count: int = 40) -> ImageDataModule:
    data = ImageDataModule(Shapes(train_count=20, test_count=count, size=16), seed=3)
    data.setup("test")
    return data


def _subject(data: ImageDataModule) -> Subject:
    return Subject.of(create_classifier("resnet20", 10, 16).eval(), data)


def _all(distortion: Stylised, subject: Subject, batch_size: int) -> Tensor:
    indices = torch.arange(len(subject.images))
    return torch.cat([distortion(subject, b) for b in subject.batches(indices, batch_size)])


def _folder(count: int) -> str:
    """Images of one brightness each, two of them a folder deeper, and a file that is no image."""
    deep = Path("paintings") / "monet"
    deep.mkdir(parents=True)
    (deep / "notes.txt").write_text("no image")
    for number in range(count):
        pixels = np.full((20, 40, 3), 10 * number, np.uint8)
        pixels[:, :10] = pixels[:, 30:] = 255  # what the centre crop cuts off
        at = deep if number < 2 else deep.parent
        Image.fromarray(pixels).save(at / f"{number}.PNG")
    return "paintings"


@pytest.mark.parametrize("styles", ["textures", "other_classes", "patches"])
def test_batches_have_no_say(styles: str):
    data = _data()
    distortion, subject = Stylised(NETWORK, styles), _subject(data)
    distortion.check(data)
    found = _all(distortion, subject, 7)
    assert found.shape == (40, 3, 16, 16)
    assert found.dtype == torch.float32
    assert 0 <= found.min() < found.max() <= 1
    assert not found.requires_grad
    torch.testing.assert_close(_all(distortion, subject, 1), found, atol=1e-5, rtol=0)
    unchecked = _all(Stylised(NETWORK, styles), subject, 7)
    assert torch.equal(unchecked, found)
    data.seed = 4
    other = Stylised(NETWORK, styles)
    other.check(data)
    assert not torch.allclose(_all(other, _subject(data), 7), found, atol=1e-3)


def test_images_are_those_of_the_network(network: StyleNetwork):
    data = _data()
    subject, distortion = _subject(data), Stylised(NETWORK, alpha=0.5)
    (batch,) = subject.batches(torch.arange(5), 5)
    with torch.no_grad():
        expected = network.stylise(batch.image, distortion.style_images(subject, batch), 0.5)
    torch.testing.assert_close(distortion(subject, batch), expected)


def test_styles_of_other_classes_have_another_label_and_are_drawn_uniformly():
    """The brightness of an image tells its place: 3 images of class 0, 1 of class 1, 2 of 2."""
    labels = torch.tensor([2, 0, 1, 0, 2, 0])
    images = (40 * torch.arange(6, dtype=torch.uint8)).view(-1, 1, 1, 1).expand(-1, 3, 16, 16)
    subject = Subject(create_classifier("resnet20", 3, 16), MemoryImages(images, labels), "abc")
    distortion = Stylised(NETWORK, "other_classes")
    for label in range(3):
        n = 600
        batch = Batch(torch.zeros(n, 3, 16, 16), torch.full((n,), label), torch.arange(n))
        drawn = (distortion.style_images(subject, batch)[:, 0, 0, 0] * 255 / 40).round().long()
        counts = drawn.bincount(minlength=6)
        others = labels != label
        assert counts[~others].tolist() == [0] * int((~others).sum())
        mean = n / int(others.sum())
        assert (counts[others] - mean).abs().max() < 5 * mean**0.5


def test_a_patch_is_a_quarter_of_an_image_at_any_place_enlarged():
    ramp = torch.arange(8.0).expand(1, 6, 8) + 10 * torch.arange(6.0)[:, None]  # tells the place
    found = patches_of(ramp.expand(400, 1, 6, 8) / 100, range(400)) * 100
    assert found.shape == (400, 1, 6, 8)
    corners = found[:, 0, 0, 0].round().int()  # an enlarged corner is that of the patch
    places = {10 * top + left for top in range(4) for left in range(5)}
    assert set(corners.tolist()) == places
    last = found[:, 0, -1, -1].round().int()
    assert set((last - corners).tolist()) == {10 * 2 + 3}


def test_styles_of_a_folder_are_cropped_and_resized():
    styles = style_set(_folder(4), (16, 16), None, 0)
    assert len(styles) == 4
    pixels = styles.pixels(range(4))
    assert pixels.shape == (4, 3, 16, 16)
    assert sorted(pixels[:, 0, 8, 8].tolist()) == [0, 10, 20, 30]
    assert pixels.max() < 60  # but for a blurred edge, nothing is of the white sides
    chosen = style_set("paintings", (8, 12), 2, 0)
    assert chosen.pixels([0, 1]).shape == (2, 3, 8, 12)
    assert {
        style_set("paintings", (8, 8), 1, s).pixels([0])[0, 0, 4, 4].item() for s in range(20)
    } == {*(0, 10, 20, 30)}


def test_textures_are_drawn():
    textures = style_set("textures", (16, 24), 30, 0)
    assert textures.pixels(range(30)).shape == (30, 3, 16, 24)
    one, other = draw_textures(600, size=16, seed=1), draw_textures(600, size=16, seed=2)
    assert torch.equal(one, draw_textures(600, size=16, seed=1))
    assert not torch.equal(one, other)
    spread = one.float().std((2, 3)).amax(1)  # of the channel that varies most
    assert spread.min() > 5
    with pytest.raises(ValueError, match="`count` is 0"):
        draw_textures(0)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"alpha": 1.5}, r"`alpha` must lie in \[0, 1\], got 1.5"),
        ({"alpha": -0.1}, r"`alpha` must lie in \[0, 1\], got -0.1"),
        ({"styles_count": 0}, "`styles_count` must be 1 or more, got 0"),
        ({"network": ["a"]}, "`network` must be one file or two, got 1"),
        ({"network": "none.safetensors"}, r"`network`=none\.safetensors is not an existing file"),
        ({"network": ["a.pth", "b.pth"]}, r"`weights`=a\.pth is not an existing file"),
        ({"styles": "empty"}, "`styles`=empty is no folder with images"),
        ({"styles": "absent"}, "`styles`=absent is no folder with images"),
        ({"styles": "paintings", "styles_count": 4}, "is 4, but `styles`=paintings are 3 images"),
        ({"styles": "other_classes", "styles_count": 41}, "is 41, but .*other_classes are 40"),
    ],
)
def test_what_is_refused(arguments: dict[str, object], message: str):
    Path("empty").mkdir()
    _folder(3)
    given = {"network": NETWORK} | arguments
    with pytest.raises(ValueError, match=message):
        Stylised(**given).check(_data())


def test_grey_images():
    _saved(16, 1)
    with pytest.raises(ValueError, match="paints images of 1 channels, the test images have 3"):
        Stylised(NETWORK).check(_data())
    labels = torch.arange(4) % 2
    grey = MemoryImages(torch.rand(4, 1, 16, 16), labels)
    subject = Subject(create_classifier("resnet20", 2, 16, [0.5], [0.25]), grey, "ab")
    assert _all(Stylised(NETWORK, "other_classes"), subject, 4).shape == (4, 1, 16, 16)
    with pytest.raises(ValueError, match="`styles`=textures are in colour, the test images have 1"):
        _all(Stylised(NETWORK), subject, 4)


def test_other_classes_need_two():
    images = MemoryImages(torch.rand(4, 3, 16, 16), torch.zeros(4))
    subject = Subject(create_classifier("resnet20", 2, 16), images, "ab")
    with pytest.raises(ValueError, match="needs images of two classes"):
        _all(Stylised(NETWORK, "other_classes"), subject, 4)


def test_about():
    assert Stylised(NETWORK, "a/paintings", alpha=0.5).about == {
        "distortion": "stylised",
        "strength": 0.5,
        "styles": "paintings",
    }


def test_judgement_against_images_left_as_they_are(network: StyleNetwork):
    data = _data(12)
    subject, distortion = _subject(data), Stylised(NETWORK)
    found = judge_style(distortion, subject, torch.arange(10))
    (batch,) = subject.batches(torch.arange(10), 10)
    with torch.no_grad():
        styles = distortion.style_images(subject, batch)
        expected = network.losses(batch.image, styles)
        target, maps = network.target(batch.image, styles), network.encoder(batch.image)[-1]
    assert found.stylised.content.item() == pytest.approx(expected.content.item(), rel=1e-4)
    assert found.stylised.style.item() == pytest.approx(expected.style.item(), rel=1e-4)
    assert found.style.style.item() == 0
    assert found.content.content.item() == pytest.approx(
        (maps - target).square().mean().item(), rel=1e-4
    )
    assert found.content.style.item() > 0
    assert found.style.content.item() > 0
    records = found.records(distortion.about)
    assert [(r.measure, r.about["pictures"]) for r in records] == [
        (f"{loss}_loss", pictures)
        for pictures in ("stylised", "content", "style")
        for loss in ("content", "style")
    ]
    assert records[3].value == found.content.style.item()
    assert records[0].about["styles"] == "textures"
