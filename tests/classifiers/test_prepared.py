"""The faster copy of a classifier: equal to it, and silent about what does not matter."""

import sys
import warnings

import pytest
import torch
from torch import Tensor, fx, nn
from toys import Linear, grey_images

from iscp_lightning.classifiers import create_classifier
from iscp_lightning.classifiers.frozen import frozen_copy
from iscp_lightning.classifiers.prepared import prepare, relative_change
from iscp_lightning.patterns import SearchSettings, search_patterns

CPU = torch.device("cpu")


@pytest.mark.parametrize("architecture", ["resnet20", "test_resnet", "resnet18", "test_vit"])
def test_prepared_networks_agree_with_the_given(architecture):
    torch.manual_seed(0)
    classifier = create_classifier(architecture, 5, 32)
    images = torch.rand(6, 3, 32, 32)
    with torch.no_grad():
        classifier.train()(images)  # running statistics that folding must not lose
        frozen = frozen_copy(classifier, torch.device("cpu"))
        fast = prepare(frozen, "fp32", images)
        torch.testing.assert_close(fast(images), frozen(images), rtol=1e-3, atol=1e-4)
        coarse = prepare(frozen, "bf16", images)(images)
    assert coarse.dtype == torch.bfloat16
    torch.testing.assert_close(coarse.float(), frozen(images), rtol=0.1, atol=0.1)
    if architecture != "test_vit":
        assert not any(isinstance(m, nn.BatchNorm2d) for m in fast.modules())


class Scaled(nn.Module):
    """A trained-like network whose logits are large; one of them is near 0 for one image."""

    def __init__(self, images: Tensor, scale: float) -> None:
        super().__init__()
        torch.manual_seed(2)
        self.network = create_classifier("resnet20", 10, 32).train()
        with torch.no_grad():
            self.network(torch.rand(32, 3, 32, 32))
            shift = self.network.eval()(images)[:, 0].mean() * torch.eye(10)[0]
        self.register_buffer("shift", shift)
        self.scale = scale

    def forward(self, images: Tensor) -> Tensor:
        return self.scale * (self.network(images) - self.shift)


@pytest.mark.parametrize("scale", [1.0, 1e4, 1e5])
def test_large_logits_are_folded_too(scale):
    images = torch.rand((1, 3, 32, 32), generator=torch.Generator().manual_seed(1))
    frozen = frozen_copy(Scaled(images, scale), CPU)
    fast = prepare(frozen, "fp32", images)
    assert not any(isinstance(m, nn.BatchNorm2d) for m in fast.modules())
    assert fast.changes == ("folded", "channels_last")
    assert (fast(images) - frozen(images)).abs().max() < 1e-4 * scale


class Shared(nn.Module):
    """One convolution, two batch normalisations: folding them would apply both twice."""

    def __init__(self, scale: float) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.scale = scale
        self.conv, self.fc = nn.Conv2d(3, 3, 3, padding=1), nn.Linear(3, 2)
        self.norms = nn.ModuleList(nn.BatchNorm2d(3) for _ in range(2))
        for norm in self.norms:
            norm.running_var.fill_(0.05)
            norm.running_mean.fill_(0.7)

    def forward(self, images: Tensor) -> Tensor:
        for norm in self.norms:
            images = norm(self.conv(images))
        return self.scale * self.fc(images.mean((2, 3)))


@pytest.mark.parametrize("scale", [1e-4, 1.0, 1e4])
def test_a_wrong_folding_is_not_used_and_told(scale):
    frozen, images = frozen_copy(Shared(scale), CPU), torch.rand(4, 3, 8, 8)
    with pytest.warns(UserWarning, match=r"one speed-up \(folded\).*% of their spread"):
        fast = prepare(frozen, "fp32", images)
    assert fast.changes == ("channels_last",)
    torch.testing.assert_close(fast(images), frozen(images), rtol=1e-4, atol=1e-5 * scale)


class Viewing(nn.Module):
    """`view` refuses channels-last features."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.norm, self.linear = nn.Conv2d(3, 3, 3), nn.BatchNorm2d(3), nn.Linear(108, 2)

    def forward(self, images: Tensor) -> Tensor:
        features = self.norm(self.conv(images))
        return self.linear(features.view(features.size(0), -1))


class Branching(Viewing):
    """Cannot be traced: what it does depends on the images."""

    def forward(self, images: Tensor) -> Tensor:
        return super().forward(images if images.sum() > 0 else images * 2)


class Retraced(nn.Module):
    """Holds a traced network, and cannot be traced itself within it."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = fx.symbolic_trace(nn.Sequential(nn.Flatten(), nn.Linear(192, 2)))

    def forward(self, images: Tensor) -> Tensor:
        return self.inner(images if isinstance(images, Tensor) else None)


class OfAnotherShape(Viewing):
    """Traced, it makes other shapes than run."""

    def forward(self, images: Tensor) -> Tensor:
        logits = super().forward(images)
        return logits if isinstance(images, Tensor) else logits + torch.zeros(7)


@pytest.mark.parametrize(
    ("network", "changes"),
    [
        (Viewing, ("folded",)),
        (Branching, ()),
        (Retraced, ("channels_last",)),
        (OfAnotherShape, ()),
    ],
)
def test_a_change_that_cannot_be_made_is_left_out_in_silence(network, changes, capfd):
    torch.manual_seed(0)
    frozen, images = frozen_copy(network(), CPU), torch.rand(4, 3, 8, 8)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        fast = prepare(frozen, "fp32", images)
    assert capfd.readouterr() == ("", "")
    torch.testing.assert_close(fast(images), frozen(images))
    assert fast.changes == changes


def test_other_messages_are_printed(capfd):
    class Talking(Linear):
        def forward(self, images: Tensor) -> Tensor:
            if len(images) > 1:
                sys.stderr.write("said by the classifier\n")
            return super().forward(images)

    prepare(frozen_copy(Talking(torch.ones(2, 8, 8)), CPU), "fp32", torch.rand(4, 3, 8, 8))
    assert "said by the classifier" in capfd.readouterr().err


def test_nan_and_constant_logits_are_no_difference():
    class Part(Linear):
        def forward(self, images: Tensor) -> Tensor:
            logits = super().forward(images)
            return torch.where(images.amax((1, 2, 3))[:, None] > 0.5, torch.nan, logits)

    images = torch.rand(3, 3, 8, 8) * torch.tensor([0.4, 0.4, 1]).view(-1, 1, 1, 1)
    for maps in (torch.zeros(2, 8, 8), torch.rand(2, 8, 8)):
        fast = prepare(frozen_copy(Part(maps), CPU), "fp32", images)
        assert fast.changes == ("folded", "channels_last")


@pytest.mark.parametrize(
    ("network", "said"),
    [(Viewing, "folded"), (Branching, "unchanged")],
)
def test_patterns_say_how_they_were_searched(network, said):
    settings = SearchSettings(canvas="white", search_epochs=1)
    found = search_patterns(network(), *grey_images(20), settings, progress=False)
    assert found.provenance["fast_copy"] == said


def test_the_worst_image_decides_about_a_change():
    """The same for most images, and half the range of the logits off for one."""
    expected = torch.tensor([[0.0, 1.0], [0.0, 2.0], [0.0, 4.0]])
    logits = expected + torch.tensor([[0.0, 0.0], [0.0, 0.0], [0.0, 2.0]])
    assert relative_change(logits, expected) == 0.5
