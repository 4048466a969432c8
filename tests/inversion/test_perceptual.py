"""Tests of measures that need networks of ImageNet, without their weights."""

from typing import Any
from urllib.error import URLError

import pytest
import torch
import torchvision
from torchmetrics.functional.image import learned_perceptual_image_patch_similarity

from iscp_lightning.inversion.perceptual import inception_fid, lpips

IMAGES = torch.rand(70, 3, 32, 32, generator=torch.Generator().manual_seed(0))  # more than a chunk


@pytest.fixture
def _random_alexnet(monkeypatch: pytest.MonkeyPatch) -> None:
    real = torchvision.models.alexnet

    def alexnet(weights: Any) -> torch.nn.Module:
        assert weights is not None
        torch.manual_seed(0)
        return real(weights=None)

    monkeypatch.setattr(torchvision.models, "alexnet", alexnet)


@pytest.mark.usefixtures("_random_alexnet")
def test_lpips_is_that_of_torchmetrics_image_by_image():
    state = torch.get_rng_state()
    found = lpips(IMAGES, IMAGES.flip(0))
    assert torch.equal(torch.get_rng_state(), state)
    expected = learned_perceptual_image_patch_similarity(
        IMAGES, IMAGES.flip(0), normalize=True, reduction="none"
    )
    torch.testing.assert_close(found, expected.detach())
    assert found.min() > 0
    assert torch.equal(lpips(IMAGES[:1], IMAGES[:1]), torch.zeros(1))


def test_weights_that_cannot_be_downloaded(monkeypatch: pytest.MonkeyPatch):
    def unreachable(*_: Any, **__: Any) -> None:
        raise URLError("no network")

    monkeypatch.setattr(torchvision.models, "alexnet", unreachable)
    with pytest.raises(ValueError, match=r"LPIPS needs pip install 'iscp-lightning\[images\]'"):
        lpips(IMAGES, IMAGES)


def test_a_package_that_is_missing(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("torchmetrics.image.fid._TORCH_FIDELITY_AVAILABLE", False)
    with pytest.raises(ValueError, match=r"FID in the features of Inception needs pip install"):
        inception_fid(IMAGES, IMAGES)


@pytest.mark.parametrize("measure", [lpips, inception_fid])
def test_images_that_do_not_fit(measure: Any):
    with pytest.raises(ValueError, match=r"`originals` must be \(N, 3, H, W\) of 32 x 32 pixels"):
        measure(IMAGES[:, :1], IMAGES[:, :1])
    with pytest.raises(ValueError, match=r"`reconstructions` must be \(70, 3, 32, 32\), got \(69,"):
        measure(IMAGES, IMAGES[1:])
