"""Tests of BackdoorSuccess: rates by hand, and those of BadNetsModule."""

import math
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from trainers import quiet_trainer

from iscp_lightning.callbacks import backdoor
from iscp_lightning.callbacks.at_epochs import AtEpochs
from iscp_lightning.callbacks.backdoor import BackdoorSuccess
from iscp_lightning.callbacks.history import read_history
from iscp_lightning.classifiers import classifier_hash, create_classifier
from iscp_lightning.classifiers.subject import Subject
from iscp_lightning.data import MemoryImages, Poison, Shapes, Trigger
from iscp_lightning.data.datamodule import ImageDataModule
from iscp_lightning.records import Findings
from iscp_lightning.training import BadNetsModule, NaturalModule


class Marked(Shapes):
    """Test images whose first pixel says their class."""

    def test(self) -> MemoryImages:
        labels = torch.arange(self.test_count) % 10
        images = torch.zeros(len(labels), 3, 16, 16, dtype=torch.uint8)
        images[:, :, 0, 0] = 20 * labels.unsqueeze(1)
        return MemoryImages(images, labels)


class Backdoored(nn.Module):
    """Reads the class in the first pixel; a white corner makes it say 3, unless that says 5."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(()))

    def forward(self, images: Tensor) -> Tensor:
        label = (images[:, 0, 0, 0] * 255 / 20).round().long().clamp(max=9)
        triggered = (images[:, :, -3:, -3:] == 1).all(3).all(2).all(1) & (label != 5)
        return 5.0 * F.one_hot(torch.where(triggered, 3, label), 10) + self.weight


def marked(poison: Poison | None, count: int = 100) -> ImageDataModule:
    return ImageDataModule(Marked(60, count, 16), batch_size=20, val_fraction=0, poison=poison)


def measured(
    data: ImageDataModule, poison: Poison | None = None, classifier: nn.Module | None = None
) -> Findings:
    measurement = BackdoorSuccess(poison)
    measurement.check(data)
    return measurement.measure(Subject.of(classifier or Backdoored(), data))


def values(found: Findings) -> dict[str, float]:
    return {record.name: record.value for record in found.records}


ALL_TO_ONE = {
    "attack_success_rate": 80 / 90,
    "robust_accuracy_on_triggered": 10 / 90,
    "clean_accuracy": 1.0,
}
ALL_TO_ALL = {
    "attack_success_rate": 0.1,  # only 2 -> 3 comes true
    "robust_accuracy_on_triggered": 0.2,
    "clean_accuracy": 1.0,
}


@pytest.mark.parametrize("of_the_data", [True, False])
@pytest.mark.parametrize(
    ("goal", "overall"), [("all_to_one", ALL_TO_ONE), ("all_to_all", ALL_TO_ALL)]
)
def test_rates_known_by_hand(goal, overall, of_the_data):
    """100 test images, 10 of each class."""
    poison = Poison(Trigger(), goal, target=3)
    found = measured(marked(poison)) if of_the_data else measured(marked(None), poison)
    numbers = values(found)
    assert {name: numbers.pop(name) for name in overall} == pytest.approx(overall)
    names = marked(None).class_names
    rates = {k: numbers[f"attack_success_rate/{name}"] for k, name in enumerate(names)}
    assert len(numbers) == 10
    if goal == "all_to_one":
        assert math.isnan(rates.pop(3))  # the target class is left out
        assert rates == {k: float(k != 5) for k in range(10) if k != 3}
    else:
        assert rates == {k: float(k == 2) for k in range(10)}


def test_a_rank_counts_every_second_image(monkeypatch):
    """The second of two has the images of 1, 3 (the target), 5 (never taken in), 7 and 9."""
    monkeypatch.setattr(backdoor, "rank_and_size", lambda: (1, 2))
    numbers = values(measured(marked(Poison(target=3))))
    assert numbers["attack_success_rate"] == 0.75
    assert math.isnan(numbers["attack_success_rate/circle"])


def test_its_own_poison_goes_first():
    found = measured(marked(Poison(target=3)), Poison(target=5))
    assert values(found)["attack_success_rate"] == 0
    assert found.provenance["poison"]["target"] == 5


def test_says_what_it_measured():
    network = Backdoored()
    found = measured(marked(Poison(target=3)), classifier=network)
    assert found.lines == [
        *("attack_success_rate: 0.889", "robust_accuracy_on_triggered: 0.111"),
        "clean_accuracy: 1.000",
    ]
    assert found.provenance["classifier_hash"] == classifier_hash(network)
    assert found.provenance["poison"]["trigger"]["name"] == "white_square"
    assert found.results["records"][0]["measure"] == "attack_success_rate"


@pytest.mark.parametrize(
    ("poison", "message"),
    [
        (None, "BackdoorSuccess needs data with `poison`, or a `poison` of its own"),
        (Poison(target="cat"), "`target` is 'cat'"),
        (Poison(Trigger(size=17)), "does not fit into images of 16 x 16"),
    ],
)
def test_what_cannot_be_measured_is_refused(poison, message):
    with pytest.raises(ValueError, match=message):
        BackdoorSuccess(poison).check(marked(None))


@pytest.mark.parametrize("goal", ["all_to_one", "all_to_all"])
def test_a_test_of_badnets_counts_the_same(goal, tmp_path):
    poison = Poison(Trigger(size=8), goal, target=8)
    data = ImageDataModule(Shapes(60, 100, 16), batch_size=30, poison=poison)
    torch.manual_seed(1)
    network = create_classifier("resnet20", 10, 16)
    with torch.no_grad():
        network.train()(data.test_images.pixels(range(100)) / 255)
    network.eval()
    module, trainer = BadNetsModule(network), quiet_trainer(tmp_path)
    trainer.test(module, datamodule=data, verbose=False)
    logged = {name: value.item() for name, value in trainer.callback_metrics.items()}
    found = {k: v for k, v in values(measured(data, classifier=network)).items() if v == v}
    assert len(found) == (12 if goal == "all_to_one" else 13)
    assert found == pytest.approx({name: logged[f"test/{name}"] for name in found})
    assert 0 < found["attack_success_rate"] < 1
    assert len(set(found.values())) > 4  # the comparison says something


def fitted(folder: Path, count: int, **arguments: Any) -> list[Findings]:
    callback = AtEpochs(BackdoorSuccess(), [1])
    settings = {"max_epochs": 1, "enable_checkpointing": False, **arguments}
    run = quiet_trainer(folder, callbacks=[callback], **settings)
    run.fit(BadNetsModule(Backdoored()), datamodule=marked(Poison(target=3), count))
    return read_history(folder / "measurements" / "backdoor.json")


def test_it_is_measured_in_the_course_of_a_training(tmp_path):
    past = fitted(tmp_path, 100, max_epochs=2)
    assert [found.provenance["epoch"] for found in past] == [1, 2]
    for found in past:
        numbers = values(found)
        assert {name: numbers[name] for name in ALL_TO_ONE} == pytest.approx(ALL_TO_ONE)


@pytest.mark.slow
@pytest.mark.parametrize("count", [100, 550])
def test_two_processes_share_the_images(count, tmp_path):
    (alone,) = fitted(tmp_path / "one", count)
    (both,) = fitted(tmp_path / "two", count, devices=2, strategy="ddp_fork")
    assert values(both) == pytest.approx(values(alone), nan_ok=True)
    assert values(both)["attack_success_rate"] == pytest.approx(8 / 9)


def test_data_without_poison_stop_before_the_training(tmp_path):
    class Untrainable(NaturalModule):
        def training_step(self, batch: Any, batch_idx: int) -> Tensor:
            raise AssertionError("training has started")

    run = quiet_trainer(tmp_path, max_epochs=1, callbacks=[AtEpochs(BackdoorSuccess())])
    with pytest.raises(ValueError, match="needs data with `poison`"):
        run.fit(Untrainable(Backdoored()), datamodule=marked(None))
