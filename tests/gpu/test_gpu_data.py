"""Images on the GPU: augmented, stamped and counted as on the CPU, and D_R built there."""

import json
from pathlib import Path

import pytest
import torch
from colours import colours, noise, small_net
from safetensors.torch import load_file
from toys import grey_images, planted_trigger

from iscp_lightning.attacks.robust_data import RobustDataSettings
from iscp_lightning.classifiers.subject import Subject
from iscp_lightning.data import Augmentation, MemoryImages
from iscp_lightning.data.images import to_float
from iscp_lightning.data.stamps import Stamp
from iscp_lightning.metrics.success import StampSuccess, count_success
from iscp_lightning.training import RobustDataWriter


def test_every_value_of_a_stored_image_is_a_float_in_0_1(device):
    """Within the last bit: a GPU multiplies by 1 / 255."""
    stored = torch.arange(256, dtype=torch.uint8)
    found = to_float(stored.to(device)).cpu()
    torch.testing.assert_close(found, stored / 255, rtol=2e-7, atol=0)
    assert (found.min(), found.max()) == (0, 1)
    assert torch.equal((found * 255).round().to(torch.uint8), stored)


def test_augmentation_draws_the_same_everywhere(device):
    images = torch.rand(20, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    augment = Augmentation(crop_padding=2, shift=1, horizontal_flip=True)
    found = augment(images.to(device), torch.Generator().manual_seed(1))
    assert found.device.type == device.type
    expected = augment(images, torch.Generator().manual_seed(1))
    assert torch.equal(found.cpu(), expected)
    assert not torch.equal(expected, images)


@pytest.mark.parametrize("additive", [True, False])
def test_stamps_are_put_and_counted_as_on_the_cpu(device, additive):
    classifier, corner = planted_trigger()
    images, labels = grey_images()
    bright, dark = torch.ones(3, 8, 8), torch.full((3, 8, 8), 0.1)
    stamps = [Stamp(corner[None], pixels, additive) for pixels in (bright, dark)]
    wanted = torch.tensor([[1, 1], [0, 0]])
    for stamp in stamps:
        found = stamp(images.to(device))
        assert found.device.type == device.type
        assert torch.equal(found.cpu(), stamp(images))
    counts = []
    for where in (device, torch.device("cpu")):
        subject = Subject(classifier, MemoryImages(images, labels), "ab", device=where)
        metric = StampSuccess(wanted)
        count_success(metric, subject, stamps, torch.arange(3, 40), left_out=[4, 5])
        counts.append([part.tolist() for part in metric.compute()])
    assert counts[0] == counts[1]
    hits, _, shown = counts[0]
    assert hits[0] == shown[0] == [17, 0]  # the even numbers from 4 to 38, but for 4 itself
    assert shown[1] == [0, 18]


def built(new_trainer, folder: str, **settings) -> torch.Tensor:
    chosen = RobustDataSettings(steps=20, step_size=0.1, batch_size=20)
    writer = RobustDataWriter(small_net(), folder, chosen)
    new_trainer(**settings).predict(writer, datamodule=colours(val_fraction=0.0))
    assert json.loads((Path(folder) / "build.json").read_text())["images"] == 96
    return load_file(Path(folder) / "train.safetensors")["images"]


@pytest.mark.usefixtures("deterministic")
def test_a_robust_set_is_built_as_on_the_cpu(new_trainer):
    one, same, cpus = (
        built(new_trainer, folder, **settings)
        for folder, settings in (("one", {}), ("same", {}), ("cpu", {"accelerator": "cpu"}))
    )
    assert torch.equal(one, same)
    assert (one.int() - cpus.int()).abs().double().mean() < 1  # of 255
    originals, features = noise(96, 0).images, small_net().eval()[:4]
    wanted, found, others = (
        features(to_float(images)) for images in (originals, one, originals.roll(1, 0))
    )
    assert (found - wanted).norm() < 0.5 * (others - wanted).norm()
