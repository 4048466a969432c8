import pytest
import torch
from PIL import Image
from torch import nn
from torchvision.transforms.functional import pil_to_tensor, to_pil_image

from iscp_lightning.classifiers import create_classifier, save_classifier
from iscp_lightning.classifiers.frozen import frozen_copy
from iscp_lightning.classifiers.prepared import prepare
from iscp_lightning.classifiers.resized import Resized


class Seen(nn.Module):
    """Keeps the images that it is shown."""

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        self.images = images
        return images.mean((2, 3))


def test_images_are_resized_as_pillow_does_it():
    images = torch.randint(256, (2, 3, 20, 24), generator=torch.Generator().manual_seed(0))
    images = images.to(torch.uint8)
    for size in ((48, 50), (9, 7), (20, 24)):
        seen = Seen()
        logits = Resized(seen, size)(images / 255)
        assert logits.shape == (2, 3)
        for image, given in zip(images, seen.images, strict=True):
            other = to_pil_image(image).resize(size[::-1], Image.Resampling.BILINEAR)
            torch.testing.assert_close(given, pil_to_tensor(other) / 255, atol=2 / 255, rtol=0)


def test_a_file_is_asked_at_its_own_size(tmp_path):
    network = create_classifier("resnet20", 7, 32).eval()
    save_classifier(tmp_path / "w.safetensors", network)
    small = torch.rand(4, 3, 8, 8)
    resized = Resized(str(tmp_path / "w.safetensors"), 32).eval()
    large = nn.functional.interpolate(small, size=(32, 32), mode="bilinear", antialias=True)
    torch.testing.assert_close(resized(small), network(large))
    small.requires_grad_(True)
    resized(small).sum().backward()
    assert small.grad is not None
    assert small.grad.abs().max() > 0


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_its_fast_copy_says_the_same(precision):
    frozen = frozen_copy(Resized(create_classifier("resnet20", 7, 32), 32), torch.device("cpu"))
    images = torch.rand(4, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    fast = prepare(frozen, precision, images)
    assert "folded" in fast.changes
    with torch.no_grad():
        difference = (fast(images).float() - frozen(images)).abs().max()
    assert difference < (1e-4 if precision == "fp32" else 0.05)


def test_bad_sizes_and_random_weights_are_refused():
    with pytest.raises(ValueError, match="`image_size` must be 1 or more, got 0"):
        Resized(Seen(), 0)
    with pytest.raises(ValueError, match="random weights"):
        Resized("resnet18")
