"""Tests of networks by name: their stems, their sizes, and the normalisation inside."""

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from iscp_lightning.classifiers import Classifier, ClassifierSpec, ResNet20, create_classifier
from iscp_lightning.classifiers.architectures import BasicBlock, is_architecture


def _images(*shape: int) -> Tensor:
    return torch.rand(shape, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize(
    ("num_classes", "channels", "expected"), [(10, 3, 269_722), (100, 3, 275_572), (10, 1, 269_434)]
)
def test_resnet20_has_its_published_size(num_classes: int, channels: int, expected: int):
    network = ResNet20(num_classes, channels)
    assert sum(parameter.numel() for parameter in network.parameters()) == expected
    weighted = [m for m in network.modules() if isinstance(m, nn.Conv2d | nn.Linear)]
    assert len(weighted) == 20


def test_shortcuts_take_every_second_pixel_and_add_zero_channels():
    block = BasicBlock(16, 32).eval()
    nn.init.zeros_(block.bn2.weight)  # leaves the shortcut alone
    inputs = _images(2, 16, 7, 6)
    outputs = block(inputs)
    assert torch.equal(outputs[:, 8:24], inputs[:, :, ::2, ::2])
    assert not outputs[:, :8].any()
    assert not outputs[:, 24:].any()


@pytest.mark.parametrize(
    ("name", "size"),
    [
        ("resnet20", 32),
        ("resnet20", 28),
        ("resnet20", (17, 23)),
        ("test_resnet", (17, 23)),
        ("test_vit", 32),
        ("test_vit", (32, 64)),
        ("test_efficientnet", 32),
    ],
)
def test_logits_have_one_column_per_class(name: str, size: int | tuple[int, int]):
    height, width = (size, size) if isinstance(size, int) else size
    classifier = create_classifier(name, 7, size).eval()
    assert classifier.spec == ClassifierSpec(
        name, 7, (height, width), (0.5, 0.5, 0.5), (0.25, 0.25, 0.25)
    )
    logits = classifier(_images(2, 3, height, width))
    assert logits.shape == (2, 7)
    assert logits.isfinite().all()
    assert (logits[0] - logits[1]).abs().max() > 0


@pytest.mark.parametrize(
    ("name", "size", "small"),
    [
        ("test_resnet", 64, True),
        ("test_resnet", (32, 48), True),
        ("test_resnet", 65, False),
        ("test_resnet", (32, 96), False),
        ("test_resnet.r160_in1k", 32, False),  # trained with its own stem
    ],
)
def test_small_images_get_a_small_stem(name: str, size: Any, small: bool):
    network: Any = create_classifier(name, 10, size, trained=False).network
    if small:
        assert (network.conv1.kernel_size, network.conv1.stride) == ((3, 3), (1, 1))
        assert isinstance(network.maxpool, nn.Identity)
        features = nn.Sequential(network.conv1, network.bn1, network.act1, network.maxpool)
        assert features(_images(2, 3, 9, 9)).shape[2:] == (9, 9)
    else:
        assert network.conv1[0].stride == (2, 2)
        assert isinstance(network.maxpool, nn.MaxPool2d)


def test_normalisation_is_inside():
    mean, std = (0.1, 0.4, 0.7), (0.2, 0.3, 0.5)
    classifier = create_classifier("resnet20", 10, 32, mean, std).eval()
    images = _images(2, 3, 32, 32)
    channels = [(images[:, c] - mean[c]) / std[c] for c in range(3)]
    assert torch.equal(classifier(images), classifier.network(torch.stack(channels, 1)))
    assert (classifier.spec.mean, classifier.spec.std) == (mean, std)
    assert {"mean", "std"} <= set(classifier.state_dict())  # saved and moved with the weights


@pytest.mark.parametrize("name", ["resnet20", "test_resnet", "test_vit"])
def test_grey_images(name: str):
    classifier = create_classifier(name, 4, 32, mean=(0.3,), std=(0.2,)).eval()
    images = _images(2, 1, 32, 32)
    assert classifier(images).shape == (2, 4)
    assert torch.equal(classifier(images), classifier.network((images - 0.3) / 0.2))


def test_a_tagged_network_uses_its_own_normalisation():
    classifier = create_classifier("resnet18.a1_in1k", 1000, 224, trained=False)
    assert classifier.spec.mean == pytest.approx((0.485, 0.456, 0.406))
    assert classifier.spec.std == pytest.approx((0.229, 0.224, 0.225))
    assert classifier.std.flatten().tolist() == pytest.approx(classifier.spec.std)


@pytest.mark.parametrize(
    ("name", "hint"),
    [
        ("resnet2O", "; did you mean .*resnet20"),
        ("ResNet20", "; did you mean resnet20"),
        ("resnet18.a1_in2k", r"; did you mean .*resnet18\.a1_in1k"),
        ("hf-hub:timm/resnet18", ""),
        ("hf_hub:timm/resnet18", ""),
        ("timm/resnet18", ""),
        ("local-dir:resnet18", ""),
        ("os.system", "$"),
        ("", "$"),
    ],
)
def test_unknown_names(name: str, hint: str, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("timm.create_model", lambda *_, **__: pytest.fail("created"))
    assert not is_architecture(name)
    message = f"`classifier`='{name}' is neither an existing weights file nor a network name{hint}"
    with pytest.raises(ValueError, match=message):
        create_classifier(name)


def test_a_run_folder_is_no_classifier_but_has_one(tmp_path: Path):
    with pytest.raises(ValueError, match=r"is a folder: give a weights file$"):
        create_classifier(str(tmp_path))
    file = tmp_path / "checkpoints" / "last.ckpt"
    file.parent.mkdir()
    file.touch()
    with pytest.raises(ValueError, match=rf"is a folder: give a weights file, such as {file}$"):
        create_classifier(str(tmp_path))


def test_fresh_weights_depend_on_the_global_seed():
    def first_weight(seed: int) -> Tensor:
        torch.manual_seed(seed)
        classifier: Classifier = create_classifier("resnet20")
        return next(classifier.parameters()).detach()

    assert torch.equal(first_weight(0), first_weight(0))
    assert not torch.equal(first_weight(0), first_weight(1))
