"""Tests of AtEpochs: when it measures, what it leaves alone, and where its findings go."""

import csv
import json
import random
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import lightning as L
import numpy as np
import pytest
import torch
from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.pytorch.loggers import TensorBoardLogger
from lightning.pytorch.strategies import SingleDeviceStrategy
from matplotlib.figure import Figure
from torch import Tensor, nn
from trainers import quiet_trainer

from iscp_lightning.callbacks import at_epochs
from iscp_lightning.callbacks.at_epochs import AtEpochs, completed_epochs, epoch_name
from iscp_lightning.callbacks.history import read_history
from iscp_lightning.classifiers import classifier_hash
from iscp_lightning.classifiers.subject import Subject
from iscp_lightning.data import Augmentation, MemoryImages, Shapes
from iscp_lightning.data.datamodule import ImageDataModule
from iscp_lightning.loggers import RunCSVLogger
from iscp_lightning.measurement import Measurement
from iscp_lightning.ranks import gather, rank_and_size
from iscp_lightning.records import Findings, Picture, Record
from iscp_lightning.training import NaturalModule


@dataclass(frozen=True)
class Logits(Findings):
    """Findings with an artefact of their own: what they are, by their file name."""

    def save(self, folder: Path, name: str) -> None:
        (folder / "logits").mkdir(parents=True, exist_ok=True)
        (folder / "logits" / f"{name}.json").write_text(json.dumps(dict(self.provenance)))


class MeanLogit(Measurement):
    """The mean logit of each class; draws from every global generator and counts its calls."""

    title = "logit"

    def __init__(self, refused: str = "") -> None:
        self.refused = refused
        self.calls: list[tuple[int, int, bool]] = []
        self.pasts: list[list[Findings]] = []
        self.went_on: list[tuple[Path, list[float]]] = []

    def check(self, data: ImageDataModule) -> None:
        if self.refused:
            raise ValueError(self.refused)
        self.classes = data.num_classes

    def measure(self, subject: Subject, last: bool = False) -> Findings | None:
        torch.rand(1), np.random.rand(), random.random()  # noqa: NPY002 - the global ones
        self.calls.append((len(subject.images), len(subject.search_indices), last))
        means = subject.logits.mean(0)[: self.classes].tolist()
        records = [
            Record("mean", mean, {"class": name})
            for name, mean in zip(subject.class_names, means, strict=True)
        ]
        picture = Picture(np.zeros((16, 16, 3), np.uint8), "nothing")
        undefined = Record("undefined", float("nan"))
        return Logits([*records, undefined], {"black": picture}, ["a line"], {"seed": subject.seed})

    def go_on(self, folder: Path, past: Sequence[Findings]) -> None:
        self.went_on.append((folder, epochs_of(past)))

    def history(self, folder: Path, past: Sequence[Findings]) -> dict[str, Figure]:
        self.pasts.append(list(past))
        return {"means": Figure()}


class Named(MeanLogit):
    """Says what its title is."""

    def __init__(self, title: str) -> None:
        super().__init__()
        self.title = title


class Nothing(MeanLogit):
    def measure(self, subject: Subject, last: bool = False) -> None:
        super().measure(subject, last)


class Smaller(MeanLogit):
    """Keeps itself aside: only its small version may measure."""

    def __init__(self) -> None:
        super().__init__()
        self.little = MeanLogit()

    def small(self) -> MeanLogit:
        return self.little

    def measure(self, subject: Subject, last: bool = False) -> Findings:
        raise AssertionError("the whole measurement")


def sgd(parameters: Any) -> torch.optim.Optimizer:
    return torch.optim.SGD(parameters, lr=0.1, momentum=0.9)


def small_net() -> nn.Module:
    """Batch statistics and dropout: a measurement that touches the live network or RNG shows."""
    return nn.Sequential(
        nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.Dropout(0.3),
        nn.Linear(4 * 14 * 14, 10),
    )  # fmt: skip


class Drawing(nn.Module):
    """Draws from every global generator whenever it is asked, and changes nothing."""

    def forward(self, logits: Tensor) -> Tensor:
        torch.rand(1), np.random.rand(), random.random()  # noqa: NPY002 - the global ones
        return logits


class Untrainable(NaturalModule):
    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        raise AssertionError("training has started")


class Watch(L.Callback):
    """Records the modes of all modules and the weights' hash at the end of every epoch."""

    def __init__(self) -> None:
        self.hashes: list[str] = []
        self.modes: list[dict[str, bool]] = []

    def on_train_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self.modes.append({name: module.training for name, module in pl_module.named_modules()})
        self.hashes.append(classifier_hash(pl_module.classifier))


class Stop(L.Callback):
    """Stops a training after a number of optimiser steps."""

    def __init__(self, steps: int) -> None:
        self.steps = steps

    def on_train_batch_end(self, trainer: L.Trainer, *_: Any) -> None:
        trainer.should_stop = trainer.global_step == self.steps


@pytest.fixture
def data() -> ImageDataModule:
    """60 images in batches of 20, none for validation: an epoch has 3 steps."""
    return ImageDataModule(Shapes(60, 100, 16), batch_size=20, val_fraction=0)


def fit(
    folder: Path,
    data: ImageDataModule,
    *callbacks: L.Callback,
    module: L.LightningModule | None = None,
    resume: str | None = None,
    **arguments: Any,
) -> L.Trainer:
    quiet = {f"enable_{name}": False for name in ("progress_bar", "model_summary", "checkpointing")}
    defaults = {"max_epochs": 1, "logger": False, "accelerator": "cpu"} | quiet
    run = L.Trainer(default_root_dir=folder, callbacks=list(callbacks), **(defaults | arguments))
    module = module or NaturalModule(small_net(), optimizer=sgd)
    run.fit(module, datamodule=data, ckpt_path=resume, weights_only=False)
    return run


def files(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())


def history(folder: Path, title: str = "logit") -> list[Findings]:
    return read_history(folder / "measurements" / f"{title}.json")


def epochs_of(past: Sequence[Findings]) -> list[float]:
    return [each.provenance["epoch"] for each in past]


def metrics(folder: Path) -> list[dict[str, str]]:
    with (folder / "metrics.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def trained_weights(folder: Path, *callbacks: L.Callback, last: Sequence[nn.Module] = ()) -> dict:
    L.seed_everything(3)
    data = ImageDataModule(
        Shapes(60, 100, 16), batch_size=20, augmentation=Augmentation(2, 1, True)
    )
    module = NaturalModule(nn.Sequential(*small_net(), *last), optimizer=sgd)
    fit(folder, data, *callbacks, module=module, max_epochs=2)
    draws = {
        "torch draw": torch.rand(4),
        "numpy draw": torch.tensor(np.random.rand()),  # noqa: NPY002 - the global generator
        "python draw": torch.tensor(random.random()),
    }
    return module.state_dict() | draws


@pytest.mark.parametrize("last", [[], [Drawing()]])
def test_training_is_the_same_to_the_bit(last, tmp_path):
    measurement = MeanLogit()
    plain = trained_weights(tmp_path / "plain", last=last)
    watched = trained_weights(tmp_path / "watched", AtEpochs(measurement, [1], False), last=last)
    assert len(measurement.calls) == 1
    assert plain.keys() == watched.keys()
    for name, value in plain.items():
        assert torch.equal(value, watched[name]), name


@pytest.mark.filterwarnings("ignore:Found 1 module.s. in eval mode")
def test_modes_of_the_module_stay(data, tmp_path):
    module = NaturalModule(small_net(), optimizer=sgd)
    module.classifier[1].eval()  # as in fine-tuning with frozen statistics
    before, after = Watch(), Watch()
    fit(tmp_path, data, before, AtEpochs(MeanLogit(), [1]), after, module=module)
    assert before.modes == after.modes
    assert before.modes[0]["classifier.1"] is False
    assert before.modes[0]["classifier"] is True


@pytest.mark.parametrize(
    ("epochs", "last", "stop", "expected", "lasts"),
    [
        ([2], True, None, [2, 3], [False, True]),
        ([2], False, None, [2], [False]),
        ([1, 3], True, None, [1, 3], [False, True]),
        ([3], False, None, [3], [True]),
        ([3], True, 6, [2], [True]),  # stopped early
        ([2], True, 6, [2], [True]),  # the last one was taken already
        ([3], False, 6, [], []),
    ],
)
def test_epochs_are_completed_epochs(epochs, last, stop, expected, lasts, data, tmp_path):
    measurement, watch = MeanLogit(), Watch()
    callback = AtEpochs(measurement, epochs, last)
    fit(tmp_path, data, watch, callback, *([Stop(stop)] if stop else []), max_epochs=3)
    assert measurement.calls == [(100, 20, is_last) for is_last in lasts]
    past = history(tmp_path)
    assert epochs_of(past) == expected
    hashes = [each.provenance["classifier_hash"] for each in past]
    assert hashes == [watch.hashes[epoch - 1] for epoch in expected]
    assert [each.provenance["seed"] for each in past] == [0] * len(expected)
    once = ["figures/means.png", "measurements/logit.json"] if expected else []
    assert files(tmp_path) == sorted([*once, *(f"logits/epoch{e:03d}.json" for e in expected)])


def test_numbers_are_those_of_the_classifier(data, tmp_path):
    module, callback = NaturalModule(small_net(), optimizer=sgd), AtEpochs(MeanLogit(), [1])
    fit(tmp_path, data, callback, module=module)
    with torch.no_grad():
        images = data.test_images.pixels(range(100)) / 255
        means = module.classifier.eval()(images).mean(0)
    (found,) = history(tmp_path)
    assert [record.about["class"] for record in found.records[:-1]] == list(data.class_names)
    values = torch.tensor([record.value for record in found.records[:-1]])
    torch.testing.assert_close(values, means)
    kept = callback.findings["logit"]
    assert (kept.lines, list(kept.pictures)) == (["a line"], ["black"])
    assert isinstance(kept, Logits)
    assert [record.value for record in kept.records[:-1]] == values.tolist()
    saved = json.loads((tmp_path / "logits" / "epoch001.json").read_text())
    assert saved == kept.provenance == found.provenance
    assert saved == {
        **{"seed": 0, "epoch": 1, "classifier_hash": classifier_hash(module.classifier)},
        "saved_as": "epoch001",
    }


@pytest.mark.parametrize(
    ("epochs", "steps", "expected", "name"),
    [
        ([1, 2], 5, [1, 1.67], "epoch001.67"),
        ([2], 5, [1.67], "epoch001.67"),  # the second epoch was not completed
        ([1], 1, [0.33], "epoch000.33"),
        ([1], 6, [1, 2], "epoch002"),  # no epoch was cut
        ([2], 6, [2], "epoch002"),
        ([3], 3, [1], "epoch001"),
    ],
)
@pytest.mark.parametrize("stopped_by", ["max_steps", "a callback"])
def test_an_epoch_that_was_cut_short_is_not_a_completed_one(
    epochs, steps, expected, name, stopped_by, data, tmp_path
):
    measurement = MeanLogit()
    callbacks: list[L.Callback] = [AtEpochs(measurement, epochs)]
    limits = {"max_steps": steps, "max_epochs": 9}
    if stopped_by == "a callback":
        callbacks.append(Stop(steps))
        del limits["max_steps"]
    fit(tmp_path, data, *callbacks, **limits)
    assert epochs_of(history(tmp_path)) == expected
    assert f"logits/{name}.json" in files(tmp_path)
    if stopped_by == "max_steps":
        assert [call[-1] for call in measurement.calls] == [e == expected[-1] for e in expected]


@pytest.mark.parametrize(
    ("batches", "steps", "expected"), [(300, 299, 0.99), (300, 301, 1.01), (300, 449, 1.5)]
)
def test_a_share_of_an_epoch_is_never_a_whole_one(batches, steps, expected):
    state = SimpleNamespace(current=SimpleNamespace(completed=steps % batches))
    ended = SimpleNamespace(
        is_last_batch=False,
        current_epoch=steps // batches + 1,
        num_training_batches=batches,
        fit_loop=SimpleNamespace(epoch_loop=SimpleNamespace(batch_progress=state)),
    )
    assert completed_epochs(ended) == expected


def test_names_of_files_are_in_the_order_of_epochs():
    assert [epoch_name(epoch) for epoch in (3, 2.5, 1000)] == [
        *("epoch003", "epoch002.50", "epoch1000")
    ]


def test_the_course_of_a_training_is_drawn_from_records_alone(data, tmp_path):
    measurement = MeanLogit()
    fit(tmp_path, data, AtEpochs(measurement, [1, 2]), max_epochs=2)
    assert [epochs_of(past) for past in measurement.pasts] == [[1], [1, 2]]
    for found in measurement.pasts[-1]:
        assert len(found.records) == 11
        assert (type(found), found.pictures, found.lines) == (Findings, {}, ())


def test_titles_of_their_own_stand_side_by_side(data, tmp_path):
    callbacks = [AtEpochs(MeanLogit(), [1]), AtEpochs(MeanLogit(), [1], name="a-second")]
    assert [callback.title for callback in callbacks] == ["logit", "a-second-logit"]
    assert callbacks[0].state_key != callbacks[1].state_key
    fit(tmp_path, data, *callbacks, max_epochs=2, logger=RunCSVLogger(str(tmp_path)))
    plain = {"figures/means.png", "logits/epoch001.json", "logits/epoch002.json"}
    plain |= {"measurements/logit.json"}
    named = {path.replace("/", "/a-second-") for path in plain}
    assert set(files(tmp_path)) == plain | named | {"metrics.csv"}
    assert list(callbacks[1].findings) == ["a-second-logit"]
    names = [f.provenance["saved_as"] for f in history(tmp_path, "a-second-logit")]
    assert names == ["a-second-epoch001", "a-second-epoch002"]
    rows = [row for row in metrics(tmp_path) if row["a-second-logit/epoch"]]
    assert [row["a-second-logit/epoch"] for row in rows] == ["1", "2"]


def resumed(module: NaturalModule) -> NaturalModule:
    """A schedule that does not depend on the length of the training."""
    module.scheduler = lambda optimizer: torch.optim.lr_scheduler.ConstantLR(optimizer, 1.0)
    return module


def test_a_resumed_training_goes_on_with_its_measurements(data, tmp_path):
    def train(epochs: int, resume: str | None = None) -> list[AtEpochs]:
        callbacks = [
            AtEpochs(MeanLogit(), [1, 2, 3], False),
            AtEpochs(MeanLogit(), [2], False, name="later"),
        ]
        module = resumed(NaturalModule(small_net(), optimizer=sgd))
        run = fit(tmp_path, data, *callbacks, module=module, resume=resume, max_epochs=epochs)
        run.save_checkpoint(tmp_path / f"{epochs}.ckpt")
        return callbacks

    first, later = train(1)
    assert first.measurement.went_on == []
    assert (first._taken, later._taken, later.findings) == ([1], [], {})
    saved = torch.load(tmp_path / "1.ckpt", weights_only=True)["callbacks"]
    assert saved[first.state_key] == {"taken": [1]}
    train(3, str(tmp_path / "1.ckpt"))
    assert epochs_of(history(tmp_path)) == [1, 2, 3]
    before = history(tmp_path)[0]
    first, later = train(2, str(tmp_path / "1.ckpt"))  # as after a crash: epoch 3 has not been
    assert (first._taken, later._taken) == ([1, 2], [2])
    assert first.measurement.went_on == [(tmp_path, [1])]
    assert later.measurement.went_on == [(tmp_path, [])]
    assert epochs_of(history(tmp_path)) == [1, 2]
    assert history(tmp_path)[0].provenance == before.provenance
    assert [r.value for r in history(tmp_path)[0].records[:-1]] == [
        r.value for r in before.records[:-1]
    ]


def test_a_resumed_training_without_a_new_epoch_has_its_last_findings(data, tmp_path):
    def train(epochs: int, resume: str | None = None) -> tuple[AtEpochs, L.Trainer]:
        callback = AtEpochs(MeanLogit(), [1], False)
        module = resumed(NaturalModule(small_net(), optimizer=sgd))
        run = fit(tmp_path, data, callback, module=module, resume=resume, max_epochs=epochs)
        run.save_checkpoint(tmp_path / "last.ckpt")
        return callback, run

    known = train(1)[0].findings["logit"]
    callback, run = train(2, str(tmp_path / "last.ckpt"))
    again = callback.findings["logit"]
    assert len(callback.measurement.calls) == 0
    assert again.provenance == known.provenance
    assert [r.name for r in again.records] == [r.name for r in known.records]
    assert [r.value for r in again.records[:-1]] == [r.value for r in known.records[:-1]]
    assert np.isnan(again.records[-1].value)
    assert again.results["records"][0] == known.results["records"][0]
    run.test(run.lightning_module, data, str(tmp_path / "last.ckpt"), verbose=False)
    assert callback.findings["logit"] is again  # a test's checkpoint changes nothing


@pytest.mark.parametrize("name", ["", "same"])
def test_two_of_one_title_are_refused(name, data, tmp_path):
    callbacks = [AtEpochs(MeanLogit(), name=name), AtEpochs(MeanLogit(), [1], name=name)]
    title = f"{name}-logit" if name else "logit"
    with pytest.raises(MisconfigurationException, match=f"two AtEpochs have the title '{title}'"):
        fit(tmp_path, data, *callbacks, module=Untrainable(small_net()))


def test_one_title_may_come_about_in_two_ways(data, tmp_path):
    callbacks = [AtEpochs(Named("b-c"), name="a"), AtEpochs(Named("c"), name="a-b")]
    with pytest.raises(MisconfigurationException, match="have the title 'a-b-c'"):
        fit(tmp_path, data, *callbacks, module=Untrainable(small_net()))


@pytest.mark.parametrize("name", ["a/b", "..", "a b", "a.b"])
def test_names_are_plain(name):
    with pytest.raises(ValueError, match="`name` must be letters, digits, _ and -"):
        AtEpochs(MeanLogit(), name=name)


@pytest.mark.parametrize("epochs", [[0], [3, -1]])
def test_epochs_count_from_one(epochs):
    with pytest.raises(ValueError, match="`epochs` counts completed epochs from 1"):
        AtEpochs(MeanLogit(), epochs)


class NoClassifier(Untrainable):
    def __init__(self, classifier: nn.Module) -> None:
        super().__init__(classifier)
        self.network = self.classifier
        del self.classifier


@pytest.mark.filterwarnings("ignore:You defined a `validation_step`")
@pytest.mark.parametrize(
    ("module", "has_data", "refused", "error", "match"),
    [
        (NoClassifier, True, "", MisconfigurationException, "a `classifier`, got .*NoClassifier"),
        (Untrainable, False, "", MisconfigurationException, "needs an ImageDataModule"),
        (Untrainable, True, "no cats", ValueError, "no cats"),
    ],
)
def test_refuses_before_training(module, has_data, refused, error, match, data, tmp_path):
    given = {"datamodule": data} if has_data else {"train_dataloaders": data.train_dataloader()}
    run = quiet_trainer(tmp_path, max_epochs=1, callbacks=[AtEpochs(MeanLogit(refused))])
    with pytest.raises(error, match=match):
        run.fit(module(small_net()), **given)


def test_refuses_labels_without_names(data, tmp_path, monkeypatch):
    images = MemoryImages(torch.rand(20, 3, 16, 16), torch.arange(20) % 10 + 1)
    monkeypatch.setattr(Shapes, "test", lambda _: images)
    with pytest.raises(ValueError, match="has 10 names, so labels must be 0 to 9, got 1 to 10"):
        fit(tmp_path, data, AtEpochs(MeanLogit()), module=Untrainable(small_net()))


def test_a_test_alone_needs_nothing(data, tmp_path):
    run = quiet_trainer(tmp_path, callbacks=[AtEpochs(MeanLogit("refused"))])
    run.test(NaturalModule(small_net()), datamodule=data, verbose=False)
    assert files(tmp_path) == []


def test_nothing_found_is_nothing_written(data, tmp_path):
    measurement, loggers = Nothing(), [RunCSVLogger(str(tmp_path / "log"))]
    callback = AtEpochs(measurement, [1])
    fit(tmp_path, data, callback, max_epochs=2, logger=loggers, log_every_n_steps=1)
    assert len(measurement.calls) == 2
    assert files(tmp_path) == ["log/metrics.csv"]
    assert not [key for key in metrics(tmp_path / "log")[0] if "logit" in key]
    assert callback.findings == {}


@pytest.mark.parametrize(("images", "seen"), [(100, (100, 20)), (250, (100, 20)), (30, (30, 6))])
def test_a_dry_run_measures_little_and_writes_nothing(images, seen, tmp_path):
    data = ImageDataModule(Shapes(60, images, 16), batch_size=20, val_fraction=0.2)
    loggers = [RunCSVLogger(str(tmp_path)), TensorBoardLogger(str(tmp_path))]
    measurement = Smaller()
    fit(tmp_path, data, AtEpochs(measurement), fast_dev_run=True, logger=loggers)
    assert measurement.little.calls == [(*seen, True)]
    assert files(tmp_path) == []


@pytest.mark.parametrize("bars", [True, False])
def test_bars_are_shown_where_the_trainer_shows_its_own(bars, data, tmp_path):
    shown = []

    class Bars(MeanLogit):
        def measure(self, subject: Subject, last: bool = False) -> Findings | None:
            shown.append(subject.progress)
            return super().measure(subject, last)

    fit(tmp_path, data, AtEpochs(Bars(), [1]), enable_progress_bar=bars)
    assert shown == [bars]


def test_only_the_first_rank_writes(data, tmp_path, monkeypatch):
    monkeypatch.setattr(SingleDeviceStrategy, "is_global_zero", False)
    callback = AtEpochs(MeanLogit(), [1])
    fit(tmp_path, data, callback)
    assert files(tmp_path) == []
    assert list(callback.findings) == ["logit"]


def test_loggers_count_steps_as_the_module_does(data, tmp_path):
    board = TensorBoardLogger(str(tmp_path), name="", version="")
    loggers = [RunCSVLogger(str(tmp_path)), board]
    fit(tmp_path, data, AtEpochs(MeanLogit(), [1]), max_epochs=2, logger=loggers)
    rows = [row for row in metrics(tmp_path) if row["logit/epoch"]]
    assert [(row["logit/epoch"], row["step"]) for row in rows] == [("1", "2"), ("2", "5")]
    for row, found in zip(rows, history(tmp_path), strict=True):
        for record in found.records[:-1]:
            assert float(row[f"logit/{record.name}"]) == record.value
    assert not [key for key in rows[0] if "undefined" in key]


class Ranks(MeanLogit):
    """Also says whether all ranks found the same, and whether their live networks differ."""

    def measure(self, subject: Subject, last: bool = False) -> Findings | None:
        found = super().measure(subject, last)
        assert found is not None
        means = gather([record.value for record in found.records[:-1]])
        return Findings([*found.records[:-1], Record("ranks", float(len(means)))], provenance={
            "same": all(mean == means[0] for mean in means),
        })  # fmt: skip


class Statistics(L.Callback):
    """Keeps each rank's running mean and rank 0's classifier."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def on_train_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        path = self.folder / f"{rank_and_size()[0]}.pt"
        torch.save(pl_module.classifier.state_dict(), path)


@pytest.mark.slow
def test_two_processes_measure_what_one_does(data, tmp_path):
    """Rank 0's network, though batch statistics differ between ranks."""
    fit(
        tmp_path,
        data,
        *(Statistics(tmp_path), AtEpochs(Ranks(), [1])),
        devices=2,
        strategy="ddp_fork",
    )
    weights = [torch.load(tmp_path / f"{rank}.pt") for rank in (0, 1)]
    assert not torch.equal(weights[0]["1.running_mean"], weights[1]["1.running_mean"])
    (found,) = history(tmp_path)
    assert found.provenance["same"] is True
    assert found.records[-1].value == 2
    network = small_net()
    network.load_state_dict(weights[0])
    assert found.provenance["classifier_hash"] == classifier_hash(network)
    alone = MeanLogit()
    alone.check(data)
    expected = alone.measure(Subject.of(network, data))
    assert [r.value for r in found.records[:-1]] == [r.value for r in expected.records[:-1]]


def test_what_is_measured_is_the_same_on_all_ranks(data, tmp_path, monkeypatch):
    joined, asked = small_net(), []

    def join(given: nn.Module) -> nn.Module:
        asked.append(given)
        return joined

    monkeypatch.setattr(at_epochs, "same_on_all_ranks", join)
    module = NaturalModule(small_net(), optimizer=sgd)
    fit(tmp_path, data, AtEpochs(MeanLogit(), [1]), module=module)
    assert asked == [module.classifier]
    assert history(tmp_path)[0].provenance["classifier_hash"] == classifier_hash(joined)
