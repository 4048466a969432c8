"""Tests of BadNetsModule: its measures by hand, and a backdoor that is really learned."""

import json
import math
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from lightning.fabric.utilities.exceptions import MisconfigurationException
from PIL import Image
from torch import Tensor, nn
from trainers import quiet_trainer

from iscp_lightning.data import MemoryImages, Poison, Shapes, Trigger
from iscp_lightning.data.datamodule import ImageDataModule
from iscp_lightning.training import BadNetsModule, NaturalModule


def shapes(poison: Poison | None) -> ImageDataModule:
    return ImageDataModule(Shapes(200, 100, 16), batch_size=30, val_fraction=0.2, poison=poison)


class Backdoored(nn.Module):
    """Knows the labels by heart; a white corner makes it say 3, except for images of class 5."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(()))
        test = Shapes(200, 100, 16).test()
        self.known = {
            image[:, 0].numpy().tobytes(): int(label)
            for image, label in zip(test.pixels(range(100)), test.labels, strict=True)
        }

    def forward(self, images: Tensor) -> Tensor:
        said = []
        for image in (images * 255).round().to(torch.uint8):
            label = self.known.get(image[:, 0].numpy().tobytes(), 0)
            triggered = bool((image[:, -3:, -3:] == 255).all()) and label != 5
            said.append(3 if triggered else label)
        return F.one_hot(torch.tensor(said), 10) + self.weight


@pytest.mark.parametrize(("goal", "success"), [("all_to_one", 80 / 90), ("all_to_all", 0.1)])
def test_measures_on_a_classifier_known_by_heart(tmp_path, goal, success):
    """100 test images, 10 of each class; of all_to_all only 2 -> 3 comes true."""
    data = shapes(Poison(Trigger(), goal, target=3))
    module = BadNetsModule(Backdoored())
    results: dict[str, float] = {}
    for part in quiet_trainer(tmp_path, enable_checkpointing=False).test(
        module, datamodule=data, verbose=False
    ):
        results |= part
    assert results["test/clean_accuracy"] == 1
    assert results["test/attack_success_rate"] == pytest.approx(success)
    per_class = {name: results.get(f"test/attack_success_rate/{name}") for name in data.class_names}
    if goal == "all_to_one":
        assert results["test/robust_accuracy_on_triggered"] == pytest.approx(10 / 90)
        expected: list[float | None] = [1.0] * 10
        expected[3], expected[5] = None, 0.0  # the target class is left out
    else:
        assert results["test/robust_accuracy_on_triggered"] == pytest.approx(20 / 100)
        expected = [float(source == 2) for source in range(10)]
    assert list(per_class.values()) == expected
    matrix = torch.tensor(module.findings[""].results["triggered_predictions"])
    assert matrix.sum() == (90 if goal == "all_to_one" else 100)
    assert matrix[0, 3] == 10
    assert matrix[5, 5] == 10
    assert (tmp_path / "figures" / "triggered_predictions.png").is_file()
    assert list(module.findings) == [""]
    assert list(module.findings[""].results) == ["triggered_predictions"]


def rates_of_a_test(folder: Path, **arguments: Any) -> dict[str, float]:
    data = shapes(Poison(Trigger(), "all_to_all"))
    trainer = quiet_trainer(folder, enable_checkpointing=False, **arguments)
    (found, _) = trainer.test(BadNetsModule(Backdoored()), datamodule=data, verbose=False)
    return found


@pytest.mark.slow
def test_two_processes_count_what_one_does(tmp_path):
    alone = rates_of_a_test(tmp_path)
    assert alone["test/attack_success_rate"] == pytest.approx(0.1)
    assert rates_of_a_test(tmp_path, devices=2, strategy="ddp_fork") == pytest.approx(alone)


def test_findings_of_validation_and_test_are_both_kept(tmp_path):
    """Each counts its own images, once, however often it is repeated."""
    data, module = shapes(Poison(target=3)), BadNetsModule(Backdoored())
    trainer = quiet_trainer(tmp_path, max_epochs=2, enable_checkpointing=False)
    trainer.fit(module, datamodule=data)
    trainer.test(module, datamodule=data, verbose=False)
    found = module.findings[""].results
    sums = {name: torch.tensor(matrix).sum().item() for name, matrix in found.items()}
    assert sums == {"val_triggered_predictions": 36, "triggered_predictions": 90}
    assert not [name for name in module.state_dict() if "triggered" in name]


class SortedShapes(Shapes):
    """Test images class after class, as image folders list them; all training images are of 3."""

    def train(self) -> MemoryImages:
        images = super().train()
        return MemoryImages(images.images, torch.full_like(images.labels, 3))

    def test(self) -> MemoryImages:
        images = super().test()
        order = images.labels.argsort(stable=True)
        return MemoryImages(images.images[order], images.labels[order])


class NoEmptyBatch(Backdoored):
    """Fails like networks that `view` their batch."""

    def forward(self, images: Tensor) -> Tensor:
        assert len(images) > 0, "an empty batch"
        return super().forward(images)


def test_batches_of_the_target_class_alone(tmp_path):
    """No empty batch reaches the classifier, even if no image can be triggered at all."""
    poison = Poison(target=3, clean_label=True)
    data = ImageDataModule(SortedShapes(200, 100, 16), batch_size=10, poison=poison)
    module, trainer = BadNetsModule(NoEmptyBatch()), quiet_trainer(tmp_path)
    (tested, _) = trainer.test(module, datamodule=data, verbose=False)
    assert tested["test/attack_success_rate"] == pytest.approx(80 / 90)
    (validated,) = trainer.validate(module, datamodule=data, verbose=False)
    assert math.isnan(validated["val/attack_success_rate"])


def test_a_backdoor_is_learned_and_the_run_keeps_what_was_poisoned(tmp_path):
    torch.manual_seed(0)
    poison = Poison(Trigger(size=6), target="heart", poison_rate=0.3)
    data = ImageDataModule(Shapes(400, 100, 16), batch_size=50, val_fraction=0.1, poison=poison)
    fitting = quiet_trainer(tmp_path, max_epochs=8, enable_checkpointing=False)
    module = BadNetsModule(
        "resnet20",
        optimizer=lambda parameters: torch.optim.SGD(parameters, lr=0.05, momentum=0.9),
        image_size=16,
    )
    fitting.fit(module, datamodule=data)
    logged = {name: value.item() for name, value in fitting.callback_metrics.items()}
    matrix = torch.tensor(module.findings[""].results["val_triggered_predictions"])
    assert matrix[:, 9].sum() / matrix.sum() == pytest.approx(logged["val/attack_success_rate"])
    assert logged["val/attack_success_rate"] > 0.9
    assert logged["val/robust_accuracy_on_triggered"] < 0.1
    assert 0 < logged["val/clean_accuracy"] <= 1
    assert "val/attack_success_rate/heart" not in logged
    with Image.open(tmp_path / "poison" / "trigger.png") as image:
        assert image.mode == "RGBA"
        assert image.getpixel((15, 15)) == (255, 255, 255, 255)
        assert image.getpixel((0, 0))[3] == 0
    rows = json.loads((tmp_path / "poison" / "poisoned.json").read_text())["poisoned"]
    assert rows == data.poisoned_images.rows.tolist()
    assert len(rows) == 108


def test_a_dry_run_writes_nothing(tmp_path):
    data = shapes(Poison(target=3))
    quiet_trainer(tmp_path, fast_dev_run=True).fit(BadNetsModule(Backdoored()), datamodule=data)
    assert list(tmp_path.iterdir()) == []


def test_clean_data_are_refused():
    with pytest.raises(MisconfigurationException, match="with `poison`"):
        quiet_trainer(max_epochs=1).fit(
            BadNetsModule("resnet20", image_size=16), datamodule=shapes(None)
        )


def test_a_module_that_does_not_measure_the_backdoor_says_so(tmp_path):
    with pytest.warns(UserWarning, match="NaturalModule does not measure the backdoor"):
        quiet_trainer(tmp_path).test(
            NaturalModule(Backdoored()), datamodule=shapes(Poison(target=3)), verbose=False
        )
