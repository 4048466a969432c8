import copy
import csv
import random
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import lightning as L
import numpy as np
import pytest
import torch
from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.pytorch.loggers import TensorBoardLogger
from torch import Tensor, nn

from iscp_lightning.callbacks import PatternSnapshot
from iscp_lightning.callbacks.logged import LOGGED_SIDE
from iscp_lightning.classifiers import Classifier, classifier_hash
from iscp_lightning.data import Augmentation, MemoryImages, Shapes
from iscp_lightning.data.datamodule import ImageDataModule
from iscp_lightning.loggers import RunCSVLogger
from iscp_lightning.patterns import PatternSet, SearchSettings, measurement
from iscp_lightning.patterns.findings import summarize
from iscp_lightning.training import NaturalModule

QUICK = SearchSettings(search_epochs=1, canvases_per_class=1, canvas="white")


def sgd(lr: float) -> Any:
    return lambda parameters: torch.optim.SGD(parameters, lr=lr, momentum=0.9)


def small_net() -> nn.Module:
    """Batch statistics and dropout: a search that touches the live network or RNG shows."""
    return nn.Sequential(
        nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.Dropout(0.3),
        nn.Linear(4 * 14 * 14, 10),
    )  # fmt: skip


class Drawing(nn.Module):
    """Draws from every global generator whenever it is asked, and changes nothing."""

    def forward(self, logits: Tensor) -> Tensor:
        torch.rand(1), np.random.rand(), random.random()  # noqa: NPY002 - the global ones
        return logits


def trainer(folder: Path, *callbacks: L.Callback, **arguments: Any) -> L.Trainer:
    quiet = {f"enable_{name}": False for name in ("progress_bar", "model_summary", "checkpointing")}
    defaults = {"max_epochs": 1, "logger": False, "limit_val_batches": 0, "accelerator": "cpu"}
    return L.Trainer(
        default_root_dir=folder, callbacks=list(callbacks), **quiet, **(defaults | arguments)
    )


def files(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())


class Stop(L.Callback):
    def __init__(self, epoch: int) -> None:
        self.epoch = epoch

    def on_train_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        trainer.should_stop = trainer.current_epoch + 1 == self.epoch


class Watch(L.Callback):
    """Records the modes of all modules and the weights' hash at the end of every epoch."""

    def __init__(self) -> None:
        self.hashes: list[str] = []
        self.modes: list[dict[str, bool]] = []

    def on_train_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self.modes.append({name: module.training for name, module in pl_module.named_modules()})
        self.hashes.append(classifier_hash(pl_module.classifier))


@pytest.fixture
def searches(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """The canvases that every search of a snapshot is given."""
    calls, search = [], measurement.run_search

    def counted(subject: Any, settings: Any, chosen: Any, given: Any, **kwargs: Any) -> Any:
        calls.append(given)
        return search(subject, settings, chosen, given, **kwargs)

    monkeypatch.setattr(measurement, "run_search", counted)
    return calls


def snapshots(folder: Path, name: str = "") -> list[PatternSet]:
    prefix = f"{name}-" if name else ""
    files = sorted((folder / "patterns").glob(f"{prefix}epoch*"))
    return [PatternSet.load(path) for path in files]


def trained_weights(
    folder: Path, *callbacks: L.Callback, last: Sequence[nn.Module] = ()
) -> dict[str, Tensor]:
    L.seed_everything(3)
    shapes = Shapes(train_count=60, test_count=100, size=16)
    data = ImageDataModule(shapes, batch_size=20, augmentation=Augmentation(2, 1, True))
    module = NaturalModule(nn.Sequential(*small_net(), *last), optimizer=sgd(0.1))
    trainer(folder, *callbacks, max_epochs=2).fit(module, datamodule=data)
    draws = {
        "torch draw": torch.rand(4),
        "numpy draw": torch.tensor(np.random.rand()),  # noqa: NPY002 - the global generator
        "python draw": torch.tensor(random.random()),
    }
    return module.state_dict() | draws


@pytest.mark.parametrize(
    ("canvas", "last"), [("white", []), ("random", []), ("white", [Drawing()])]
)
def test_training_is_the_same_to_the_bit(canvas, last, tmp_path, searches):
    plain = trained_weights(tmp_path / "plain", last=last)
    settings = SearchSettings(search_epochs=1, canvases_per_class=1, canvas=canvas)
    callback = PatternSnapshot([1], last=False, search=settings, classes=[0, 1])
    watched = trained_weights(tmp_path / "watched", callback, last=last)
    assert searches == [None]
    assert plain.keys() == watched.keys()
    for name, value in plain.items():
        assert torch.equal(value, watched[name]), name


@pytest.mark.parametrize(
    ("epochs", "last", "stop", "expected"),
    [
        ([2], True, None, [2, 3]),
        ([2], False, None, [2]),
        ([1, 3], True, None, [1, 3]),
        ([3], True, 2, [2]),  # stopped early
        ([2], True, 2, [2]),  # the last one was taken already
        ([3], False, 2, []),
    ],
)
def test_epochs_are_completed_epochs(epochs, last, stop, expected, data, tmp_path, searches):
    watch = Watch()
    callbacks = [watch, PatternSnapshot(epochs, last, QUICK, classes=[0])]
    callbacks += [Stop(stop)] if stop else []
    module = NaturalModule(small_net(), optimizer=sgd(0.1))
    run = trainer(tmp_path, *callbacks, max_epochs=3)
    run.fit(module, datamodule=data)
    assert run.current_epoch == (stop or 3)
    assert searches == [None] * len(expected)
    saved = snapshots(tmp_path)
    expected_files = [f"patterns/epoch{epoch:03d}.safetensors" for epoch in expected]
    figures = ["learning_dynamics", "settling"][: min(2, len(expected))]
    history = ["measurements/patterns.json"] if expected else []
    drawn = [f"figures/{name}.png" for name in figures]
    assert files(tmp_path) == drawn + history + expected_files
    hashes = [patterns.provenance["classifier_hash"] for patterns in saved]
    assert hashes == [watch.hashes[epoch - 1] for epoch in expected]


def test_snapshots_with_names_of_their_own_stand_side_by_side(data, tmp_path):
    callbacks = [
        PatternSnapshot([1], search=QUICK, classes=[0]),
        PatternSnapshot([1], search=QUICK, classes=[0, 1], name="two-classes"),
    ]
    run = trainer(tmp_path, *callbacks, max_epochs=2, logger=RunCSVLogger(str(tmp_path)))
    run.fit(NaturalModule(small_net(), optimizer=sgd(0.1)), datamodule=data)
    plain = {
        *("figures/learning_dynamics.png", "figures/settling.png"),
        *("patterns/epoch001.safetensors", "patterns/epoch002.safetensors"),
    }
    named = {path.replace("/", "/two-classes-") for path in plain}
    history = {f"measurements/{name}patterns.json" for name in ("", "two-classes-")}
    assert set(files(tmp_path)) == plain | named | history | {"metrics.csv"}
    assert [len(patterns) for patterns in snapshots(tmp_path)] == [1, 1]
    assert [len(patterns) for patterns in snapshots(tmp_path, "two-classes")] == [2, 2]
    rows = [row for row in metrics(tmp_path) if row["two-classes-patterns/epoch"]]
    assert [row["two-classes-patterns/epoch"] for row in rows] == ["1", "2"]
    assert 0 <= float(rows[0]["two-classes-patterns/clean_accuracy"]) <= 1


class AlwaysFirst(nn.Module):
    """Predicts class 0 whatever it sees."""

    def __init__(self) -> None:
        super().__init__()
        self.bias = nn.Parameter(torch.eye(10)[0] * 5)

    def forward(self, images: Tensor) -> Tensor:
        return self.bias + 0 * images.mean((1, 2, 3)).unsqueeze(1)


@pytest.mark.parametrize(("classes", "found"), [([0, 1], [0]), ([1, 2], [])])
def test_a_class_without_canvas_is_left_out(classes, found, data, tmp_path):
    names = ("circle", "square", "triangle")
    settings = SearchSettings(search_epochs=1, canvases_per_class=1)
    module = NaturalModule(AlwaysFirst(), optimizer=sgd(0.0))
    callback = PatternSnapshot([1], search=settings, classes=classes)
    run = trainer(tmp_path, callback, max_epochs=2, logger=RunCSVLogger(str(tmp_path)))
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        run.fit(module, datamodule=data)
    texts = [str(w.message) for w in caught if "left out" in str(w.message)]
    missing = ", ".join(names[k] for k in classes if k not in found)
    assert texts == [f"no positive canvas, so left out: {missing}"] * 2
    assert run.current_epoch == 2
    saved = [patterns.targets.tolist() for patterns in snapshots(tmp_path)]
    assert saved == ([found] * 2 if found else [])


def test_undefined_power_is_logged_by_no_number(data, tmp_path):
    module = NaturalModule(AlwaysFirst(), optimizer=sgd(0.0))
    callback = PatternSnapshot([1], search=QUICK, classes=[0, 1])
    run = trainer(tmp_path, callback, logger=RunCSVLogger(str(tmp_path)))
    run.fit(module, datamodule=data)
    (patterns,) = snapshots(tmp_path)
    column = patterns.power.pattern_sizes.index(0.05)
    powers = patterns.power.predictive_power[:, column]
    assert powers[0] == 1
    assert powers[1].isnan()
    (row,) = (row for row in metrics(tmp_path) if row["patterns/epoch"])
    assert float(row["patterns/mean_predictive_power/0.05"]) == 1.0
    assert "patterns/predictive_power/0.05/circle" in row
    assert "patterns/predictive_power/0.05/square" not in row


class Untrainable(NaturalModule):
    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        raise AssertionError("training has started")


@pytest.mark.filterwarnings("ignore:You defined a `validation_step`")
@pytest.mark.parametrize(
    ("module", "has_data", "arguments", "error", "match"),
    [
        (Untrainable, False, {}, MisconfigurationException, "needs an ImageDataModule"),
        (Untrainable, True, {"classes": ["cat"]}, ValueError, "`classes` has 'cat'"),
        (Untrainable, True, {"canvases": "none"}, ValueError, "`canvases` must be each_epoch"),
    ],
)
def test_refuses_before_training(module, has_data, arguments, error, match, data, tmp_path):
    given = {"datamodule": data} if has_data else {"train_dataloaders": data.train_dataloader()}
    with pytest.raises(error, match=match):
        trainer(tmp_path, PatternSnapshot(**arguments)).fit(module(small_net()), **given)


@pytest.mark.parametrize(
    ("channels", "first", "message"),
    [
        (4, 0, "images must have 1 or 3 channels to be drawn, got 4"),
        (3, 1, "has 10 names, so labels must be 0 to 9, got 1 to 10"),
    ],
)
def test_refuses_what_cannot_be_drawn_or_named(
    channels, first, message, data, tmp_path, monkeypatch
):
    images = MemoryImages(torch.rand(20, channels, 16, 16), torch.arange(20) % 10 + first)
    monkeypatch.setattr(Shapes, "test", lambda _: images)
    with pytest.raises(ValueError, match=message):
        trainer(tmp_path, PatternSnapshot()).fit(Untrainable(small_net()), datamodule=data)


def test_dry_run_searches_and_writes_nothing(data, tmp_path, searches):
    data.val_fraction = 0.2
    module = NaturalModule(small_net(), optimizer=sgd(0.1))
    loggers = [RunCSVLogger(str(tmp_path)), TensorBoardLogger(str(tmp_path))]
    callback = PatternSnapshot(search=QUICK, classes=[0])
    run = trainer(tmp_path, callback, fast_dev_run=True, logger=loggers)
    run.fit(module, datamodule=data)
    assert searches == [None]
    assert files(tmp_path) == []


class Fitted(NamedTuple):
    folder: Path
    module: NaturalModule
    data: ImageDataModule


@pytest.fixture(scope="module")
def fitted(trained: Classifier, tmp_path_factory: pytest.TempPathFactory) -> Fitted:
    """The trained network after two more epochs at a small rate, with a snapshot after each."""
    folder = tmp_path_factory.mktemp("fitted")
    data = ImageDataModule(Shapes(train_count=40, test_count=100), batch_size=20)
    module = NaturalModule(copy.deepcopy(trained).train(), optimizer=sgd(1e-4))
    settings = SearchSettings(search_epochs=2, canvases_per_class=1)
    callback = PatternSnapshot([1], search=settings, classes=["circle", "square"])
    board = TensorBoardLogger(str(folder), name="", version="")
    loggers = [RunCSVLogger(str(folder)), board]
    run = trainer(folder, callback, max_epochs=2, logger=loggers, log_every_n_steps=1)
    run.fit(module, datamodule=data)
    return Fitted(folder, module, data)


def metrics(folder: Path) -> list[dict[str, str]]:
    with (folder / "metrics.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def test_saved_power_is_that_of_the_saved_patterns(fitted):
    patterns = PatternSet.load(fitted.folder / "patterns" / "epoch002.safetensors")
    assert patterns.targets.tolist() == [0, 1]
    power = patterns.predictive_power(fitted.module.classifier, fitted.data.test_images)
    assert torch.equal(patterns.power.predictive_power, power.predictive_power)
    assert power.predictive_power[0].max() > 0  # the comparison says something
    assert power.measured_on == patterns.power.measured_on == "held_out"


def test_csv_has_the_mean_power_of_each_epoch(fitted):
    rows = [row for row in metrics(fitted.folder) if row["patterns/epoch"]]
    assert [(row["patterns/epoch"], row["step"]) for row in rows] == [("1", "1"), ("2", "3")]
    for row, patterns in zip(rows, snapshots(fitted.folder), strict=True):
        results = summarize(patterns)
        mean = results["mean_predictive_power"]
        logged = {size: float(row[f"patterns/mean_predictive_power/{size}"]) for size in mean}
        assert logged == mean
        assert float(row["patterns/clean_accuracy"]) == results["clean_accuracy"]
        for entry in results["classes"]:
            key = f"patterns/predictive_power/0.05/{entry['name']}"
            assert float(row[key]) == entry["predictive_power"]["0.05"]


def test_the_last_snapshot_says_what_two_search_seeds_have_in_common(fitted):
    first, last = (row for row in metrics(fitted.folder) if row["patterns/epoch"])
    assert first["patterns/seed_overlap/0.05"] == ""
    assert 0.05 / 1.95 < float(last["patterns/seed_overlap/0.05"]) < 1


def fit_with_canvases(folder: Path, trained: Classifier, canvases: str, epochs: int, **kwargs: Any):
    data = ImageDataModule(Shapes(train_count=40, test_count=100), batch_size=20)
    module = NaturalModule(copy.deepcopy(trained).train(), optimizer=sgd(1.0))
    module.scheduler = lambda o: torch.optim.lr_scheduler.ConstantLR(o, 1.0)
    settings = SearchSettings(search_epochs=1, canvases_per_class=2)
    callback = PatternSnapshot([1, 2, 3], False, settings, [0, 1], canvases=canvases)
    run = trainer(folder, callback, max_epochs=epochs)
    run.fit(module, datamodule=data, **kwargs)
    run.save_checkpoint(folder / "last.ckpt")
    return [patterns.canvas_indices.tolist() for patterns in snapshots(folder)]


@pytest.mark.filterwarnings("ignore:no positive canvas|fewer than 2|Checkpoint directory")
def test_canvases_of_the_first_epoch_or_of_a_file_are_kept(tmp_path, trained):
    each = fit_with_canvases(tmp_path / "each", trained, "each_epoch", 2)
    assert each[0] != each[1]
    folder = tmp_path / "first"
    fit_with_canvases(folder, trained, "first", 1)
    first = fit_with_canvases(folder, trained, "first", 3, ckpt_path=folder / "last.ckpt")
    assert len(first) == 3
    assert first[0] == each[0]
    file = tmp_path / "first" / "patterns" / "epoch001.safetensors"
    winners = PatternSet.load(file, winners=True).canvas_indices.tolist()
    assert first[1] == first[2] == winners
    again = fit_with_canvases(tmp_path / "file", trained, str(file), 1)
    assert again == [winners]


def test_tensorboard_gets_the_images(fitted):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(fitted.folder))
    events.Reload()
    assert events.Tags()["images"] == ["patterns/pattern/circle", "patterns/pattern/square"]
    for name in events.Tags()["images"]:
        images = events.Images(name)
        assert [image.step for image in images] == [1, 3]
        assert {(image.width, image.height) for image in images} == {(LOGGED_SIDE,) * 2}
    means = [event.value for event in events.Scalars("patterns/mean_predictive_power/0.05")]
    saved = [float(s.power.mean[3]) for s in snapshots(fitted.folder)]
    assert means == pytest.approx(saved)
