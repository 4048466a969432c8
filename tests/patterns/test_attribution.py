"""Tests of Grad-CAM, on networks whose maps are known by hand and whose weights must not move."""

import math

import pytest
import timm
import torch
from torch import Tensor, nn
from toys import Linear, subject_of

from iscp_lightning.classifiers import classifier_hash, create_classifier
from iscp_lightning.classifiers.subject import Subject
from iscp_lightning.data import MemoryImages
from iscp_lightning.data.images import to_float
from iscp_lightning.data.stamps import Stamp
from iscp_lightning.patterns import attribution
from iscp_lightning.patterns.attribution import (
    attention_shift,
    attention_stamps,
    attention_within,
    grad_cam,
    last_feature_map,
    predictions,
)

GENERATOR = torch.Generator().manual_seed(0)
IMAGES = torch.randint(0, 256, (5, 3, 6, 8), generator=GENERATOR).to(torch.uint8)
LABELS = torch.tensor([0, 1, 2, 0, 1])
CHANNELS = torch.tensor([[1.0, 0, -1], [0, 2, 0]])  # of the convolution, (2, 3)
WEIGHTS = torch.tensor([[1.0, -1], [0, 3], [-2, 0]])  # of the classes, (3, 2)


class Pooled(nn.Module):
    """Logits: two mixtures of the colours, averaged over the image, weighed for three classes."""

    def __init__(self, *after: nn.Module) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 2, 1, bias=False)
        self.conv.weight.data = CHANNELS[..., None, None].clone()
        self.after = nn.Sequential(*after)
        self.fc = nn.Linear(2, 3, bias=False)
        self.fc.weight.data = WEIGHTS.clone()

    def forward(self, images: Tensor) -> Tensor:
        logits: Tensor = self.fc(self.after(self.conv(images)).mean((2, 3)))
        return logits


def hooks(module: nn.Module) -> int:
    kinds = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")
    return sum(len(getattr(part, kind)) for part in module.modules() for kind in kinds)


@pytest.mark.parametrize("inference", [False, True])
def test_the_map_of_one_convolution_by_hand(inference, monkeypatch):
    monkeypatch.setattr("iscp_lightning.patterns.attribution.ATTENDED_TOGETHER", 2)
    given = Pooled()
    subject = subject_of(given, MemoryImages(IMAGES, LABELS))
    before = classifier_hash(given), classifier_hash(subject.frozen)
    targets = torch.tensor([0, 1, 2, 1, 0])
    with torch.inference_mode(inference):
        maps = grad_cam(subject, IMAGES, targets)
    features = torch.einsum("nchw,dc->ndhw", IMAGES / 255, CHANNELS)
    expected = torch.einsum("ndhw,nd->nhw", features, WEIGHTS[targets]) / (6 * 8)
    torch.testing.assert_close(maps, expected)
    assert not maps.requires_grad
    assert not maps.is_inference()
    assert (classifier_hash(given), classifier_hash(subject.frozen)) == before
    assert hooks(given) == hooks(subject.frozen) == 0
    assert not any(p.requires_grad or p.grad is not None for p in subject.frozen.parameters())
    assert all(p.requires_grad and p.grad is None for p in given.parameters())


def test_an_activation_in_place_does_not_change_the_map():
    """Gradients are those behind the ReLU, activations those of the convolution."""
    features = torch.einsum("nchw,dc->ndhw", IMAGES / 255, CHANNELS)
    targets = torch.zeros(5).long()
    positive = (features > 0).float().mean((2, 3))  # share of the pixels that a gradient reaches
    expected = torch.einsum("ndhw,nd->nhw", features, positive * WEIGHTS[0]) / (6 * 8)
    subject = subject_of(Pooled(nn.ReLU(inplace=True)), MemoryImages(IMAGES, LABELS))
    torch.testing.assert_close(grad_cam(subject, IMAGES, targets), expected)


def test_small_maps_are_enlarged():
    """Each of 2 x 2 means is that of a quarter of the image; bilinear, so that it fades."""
    images = torch.zeros(1, 3, 4, 4, dtype=torch.uint8)
    images[:, 1, :2, :2] = 255
    subject = subject_of(Pooled(nn.AvgPool2d(2)), MemoryImages(IMAGES[:, :, :4, :4], LABELS))
    assert last_feature_map(subject.frozen, to_float(images)) is subject.frozen.conv
    network = nn.Sequential(
        nn.Sequential(nn.Conv2d(3, 1, 2, 2, bias=False)), nn.Flatten(), nn.Linear(4, 3)
    )
    network[0][0].weight.data.fill_(1 / 4)
    network[2].weight.data.fill_(1)
    maps = grad_cam(subject_of(network, MemoryImages(IMAGES, LABELS)), images, LABELS[:1])
    fade = torch.tensor([1, 0.75, 0.25, 0])
    torch.testing.assert_close(maps[0], torch.outer(fade, fade))


@pytest.mark.parametrize(
    ("name", "place"), [("resnet20", "network.blocks"), ("test_resnet", "network.layer4")]
)
def test_the_last_feature_map_of_a_resnet_is_its_last_stage(name, place):
    network = create_classifier(name).eval()
    assert last_feature_map(network, torch.rand(2, 3, 32, 32)) is network.get_submodule(place)
    assert hooks(network) == 0


@pytest.mark.parametrize(
    "network",
    [
        Linear(torch.rand(3, 6, 8)),
        nn.Sequential(nn.Conv2d(3, 2, (6, 8)), nn.Flatten(), nn.Linear(2, 3)),
    ],
)
def test_networks_without_a_map_are_refused(network):
    subject = subject_of(network, MemoryImages(IMAGES, LABELS))
    line = f"Grad-CAM needs a convolution .* `classifier` is a {type(network).__name__} without one"
    with pytest.raises(ValueError, match=line):
        grad_cam(subject, IMAGES, LABELS)
    assert hooks(subject.frozen) == 0


def test_a_transformer_is_refused():
    network = timm.create_model("test_vit", num_classes=3, img_size=32).eval()
    message = "goes on with tokens after its last convolution, in a PatchEmbed"
    with pytest.raises(ValueError, match=message):
        last_feature_map(network, torch.rand(2, 3, 32, 32))


def test_the_most_attended_pixels_become_stamps():
    maps = torch.zeros(2, 4, 5)
    maps[0, 1, 1:3] = torch.tensor([1.0, 2.0])
    maps[1] = -1
    maps[1, 3, 4] = -0.5  # the least negative goes first
    canvases = torch.randint(0, 256, (2, 3, 4, 5), generator=GENERATOR).to(torch.uint8)
    stamp = attention_stamps(maps, canvases, [0.05, 0.1])
    assert stamp.mask.shape == (2, 2, 1, 4, 5)
    assert stamp.mask[0, :, 0].nonzero().tolist() == [[0, 1, 2], [1, 1, 1], [1, 1, 2]]
    assert stamp.mask[1, 0, 0].nonzero().tolist() == [[3, 4]]
    assert torch.equal(stamp.pixels, canvases[:, None].expand(-1, 2, -1, -1, -1))
    with pytest.raises(ValueError, match="`pattern_size`"):
        attention_stamps(maps, canvases, [0.001])


def test_the_share_of_the_positive_attention():
    maps = torch.tensor([[[3.0, 1], [-5, 0]], [[-1.0, -1], [-1, -1]]])
    area = torch.tensor([[True, False], [True, False]])
    assert attention_within(maps, area).tolist() == pytest.approx([0.75, math.nan], nan_ok=True)


class Bright(nn.Module):
    """Says the second class wherever anything is bright; its map is the brightness."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(1, 1, 1, bias=False)
        self.conv.weight.data.fill_(1)

    def forward(self, images: Tensor) -> Tensor:
        brightness = self.conv(images).mean((2, 3))
        return torch.cat([0 * brightness - 0.01, brightness], 1)


def test_attention_shifts_to_a_bright_pattern():
    images = torch.full((6, 1, 4, 5), 51, dtype=torch.uint8)  # 0.2
    images[0, :, 0] = 255  # the canvas
    images[4, :, 0] = 255  # of the class itself
    labels = torch.tensor([0, 0, 0, 1, 1, 1])
    subject = Subject(Bright(), MemoryImages(images, labels), ["off", "on"])
    mask = torch.zeros(1, 2, 1, 4, 5, dtype=torch.bool)
    mask[0, 0, 0, 0, :2], mask[0, 1, 0, :2] = True, True  # 2 and 10 of 20 pixels
    stamps = Stamp(mask, torch.full((1, 2, 1, 4, 5), 255, dtype=torch.uint8))
    targets, canvas = torch.tensor([1]), torch.tensor([0])
    shift = attention_shift(subject, targets, canvas, stamps, torch.tensor([0, 1, 2, 4]))
    assert shift.before.tolist() == [pytest.approx([2 / 20, 10 / 20])]
    after = [n / (n + 0.2 * (20 - n)) for n in (2, 10)]
    assert shift.after.tolist() == [pytest.approx(after)]


def test_patterns_are_pasted_together_as_one_by_one(monkeypatch):
    generator = torch.Generator().manual_seed(0)
    images = torch.randint(256, (9, 1, 4, 5), generator=generator).to(torch.uint8)
    subject = Subject(Bright(), MemoryImages(images, torch.arange(9) % 2), ["off", "on"])
    mask = torch.rand(3, 2, 1, 4, 5, generator=generator) < 0.4
    pixels = torch.randint(256, (3, 2, 1, 4, 5), generator=generator).to(torch.uint8)
    targets, canvas, indices = torch.tensor([1, 0, 1]), torch.tensor([0, 1, -1]), torch.arange(9)
    monkeypatch.setattr(attribution, "ATTENDED_TOGETHER", 7)  # chunks end within a pattern
    together = attention_shift(subject, targets, canvas, Stamp(mask, pixels), indices)
    for mean, ends in zip(together[:2], together[2:], strict=True):
        assert ((ends[..., 0] < mean) & (mean < ends[..., 1])).all()
    for row in range(3):
        stamp = Stamp(mask[row : row + 1], pixels[row : row + 1])
        alone = attention_shift(
            subject, targets[row : row + 1], canvas[row : row + 1], stamp, indices
        )
        for of_all, of_one in zip(together, alone, strict=True):
            torch.testing.assert_close(of_all[row], of_one[0])


def test_what_is_said_to_other_images():
    subject = subject_of(Pooled(), MemoryImages(IMAGES, LABELS))
    assert torch.equal(predictions(subject, IMAGES), subject.predictions)
    assert predictions(subject, IMAGES[:0]).tolist() == []
