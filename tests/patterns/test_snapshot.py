import copy
import csv
import random
import warnings
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any, NamedTuple

import lightning as L
import numpy as np
import pytest
import torch
from iscp_lightning.patterns.snapshot import LOGGED_SIDE, PatternSnapshot, enlarged, read_snapshots
from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.pytorch.loggers import TensorBoardLogger
from lightning.pytorch.strategies import SingleDeviceStrategy
from torch import Tensor, nn

from iscp_lightning.classifiers import Classifier, classifier_hash
from iscp_lightning.data import Augmentation, MemoryImages, Shapes
from iscp_lightning.data.datamodule import ImageDataModule
from iscp_lightning.loggers import RunCSVLogger
from iscp_lightning.patterns import PatternSet, SearchSettings, snapshot
from iscp_lightning.patterns.pattern import TENSORS
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
    """The facts of every search that a snapshot starts."""
    calls, search = [], snapshot.run_search

    def counted(*args: Any, **kwargs: Any) -> PatternSet:
        calls.append(kwargs["facts"]["epoch"])
        return search(*args, **kwargs)

    monkeypatch.setattr(snapshot, "run_search", counted)
    return calls


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
    assert searches == [1]
    assert plain.keys() == watched.keys()
    for name, value in plain.items():
        assert torch.equal(value, watched[name]), name


@pytest.mark.filterwarnings("ignore:Found 1 module.s. in eval mode")
def test_modes_of_the_module_stay(data, tmp_path):
    module = NaturalModule(small_net(), optimizer=sgd(0.1))
    module.classifier[1].eval()  # as in fine-tuning with frozen statistics
    before, after = Watch(), Watch()
    callback = PatternSnapshot([1], search=QUICK, classes=[0])
    trainer(tmp_path, before, callback, after).fit(module, datamodule=data)
    assert before.modes == after.modes
    assert before.modes[0]["classifier.1"] is False
    assert before.modes[0]["classifier"] is True


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
    assert searches == expected
    saved = read_snapshots(tmp_path)
    assert [patterns.provenance["epoch"] for patterns in saved] == expected
    expected_files = [f"patterns/epoch{epoch:03d}.safetensors" for epoch in expected]
    figures = ["learning_dynamics", "settling"][: min(2, len(expected))]
    assert files(tmp_path) == [f"figures/{name}.png" for name in figures] + expected_files
    hashes = [patterns.provenance["classifier_hash"] for patterns in saved]
    assert hashes == [watch.hashes[epoch - 1] for epoch in expected]


class StopWithin(L.Callback):
    """Stops a training after some of an epoch's batches."""

    def __init__(self, batches: int) -> None:
        self.batches = batches

    def on_train_batch_end(self, trainer: L.Trainer, *_: Any) -> None:
        trainer.should_stop = trainer.global_step == self.batches


@pytest.mark.parametrize(
    ("epochs", "steps", "expected", "name"),
    [
        ([1, 2], 5, [1, 1.67], "epoch001.67"),
        ([2], 5, [1.67], "epoch001.67"),  # the second epoch was not completed
        ([1], 1, [0.33], "epoch000.33"),
        ([1], 6, [1, 2], "epoch002"),  # no epoch was cut
        ([3], 3, [1], "epoch001"),
    ],
)
@pytest.mark.parametrize("stopped_by", ["max_steps", "a callback"])
def test_an_epoch_that_was_cut_short_is_not_a_completed_one(
    epochs, steps, expected, name, stopped_by, data, tmp_path, searches
):
    """60 images in batches of 20: an epoch has 3 steps."""
    data.val_fraction = 0
    callbacks: list[L.Callback] = [PatternSnapshot(epochs, True, QUICK, classes=[0])]
    limits: dict[str, int] = {"max_steps": steps, "max_epochs": 9}
    if stopped_by == "a callback":
        callbacks.append(StopWithin(steps))
        del limits["max_steps"]
    module = NaturalModule(small_net(), optimizer=sgd(0.1))
    trainer(tmp_path, *callbacks, **limits).fit(module, datamodule=data)
    assert searches == expected
    assert [patterns.provenance["epoch"] for patterns in read_snapshots(tmp_path)] == expected
    assert f"patterns/{name}.safetensors" in files(tmp_path)


@pytest.mark.parametrize(
    ("batches", "steps", "expected"), [(300, 299, 0.99), (300, 301, 1.01), (300, 449, 1.5)]
)
def test_a_share_of_an_epoch_is_never_a_whole_one(batches, steps, expected):
    state = SimpleNamespace(current=SimpleNamespace(completed=steps % batches))
    epoch_loop = SimpleNamespace(batch_progress=state)
    ended = SimpleNamespace(
        is_last_batch=False,
        current_epoch=steps // batches + 1,
        num_training_batches=batches,
        fit_loop=SimpleNamespace(epoch_loop=epoch_loop),
    )
    assert snapshot.completed_epochs(ended) == expected


def test_snapshots_are_read_in_the_order_of_their_epochs(tmp_path):
    epochs = [10, 2, 0.5, 2.5, 1000]
    for name in ("", "epoch", "a-b"):
        for epoch in epochs:
            path = tmp_path / "patterns" / snapshot.file_name(epoch, name)
            pattern_set = PatternSet(
                **{key: torch.zeros(0) for key in TENSORS},
                class_names=(),
                settings={},
                provenance={"epoch": epoch, "name": name},
            )
            pattern_set.save(path)
    for name in ("", "epoch", "a-b"):
        read = read_snapshots(tmp_path, name)
        assert [patterns.provenance["epoch"] for patterns in read] == sorted(epochs)
        assert {patterns.provenance["name"] for patterns in read} == {name}
    assert read_snapshots(tmp_path, "b") == read_snapshots(tmp_path / "nowhere") == []


def test_snapshots_with_names_of_their_own_stand_side_by_side(data, tmp_path, searches):
    callbacks = [
        PatternSnapshot([1], search=QUICK, classes=[0]),
        PatternSnapshot([1], search=QUICK, classes=[0, 1], name="two-classes"),
    ]
    assert callbacks[0].state_key == "PatternSnapshot"
    assert callbacks[1].state_key != callbacks[0].state_key
    run = trainer(tmp_path, *callbacks, max_epochs=2, logger=RunCSVLogger(str(tmp_path)))
    run.fit(NaturalModule(small_net(), optimizer=sgd(0.1)), datamodule=data)
    assert searches == [1, 1, 2, 2]
    plain = {
        *("figures/learning_dynamics.png", "figures/settling.png"),
        *("patterns/epoch001.safetensors", "patterns/epoch002.safetensors"),
    }
    named = {path.replace("/", "/two-classes-") for path in plain}
    assert set(files(tmp_path)) == plain | named | {"metrics.csv"}
    assert [len(patterns) for patterns in read_snapshots(tmp_path)] == [1, 1]
    assert [len(patterns) for patterns in read_snapshots(tmp_path, "two-classes")] == [2, 2]
    rows = [row for row in metrics(tmp_path) if row["two-classes-patterns/epoch"]]
    assert [row["two-classes-patterns/epoch"] for row in rows] == ["1", "2"]
    assert 0 <= float(rows[0]["two-classes-patterns/clean_accuracy"]) <= 1


@pytest.mark.filterwarnings("ignore:Checkpoint directory .* exists and is not empty")
def test_each_name_keeps_its_snapshots_when_a_training_is_resumed(data, tmp_path):
    def fit(epochs: int, resume: str | None = None) -> list[PatternSnapshot]:
        callbacks = [
            PatternSnapshot([1, 2], False, QUICK, classes=[0]),
            PatternSnapshot([2], False, QUICK, classes=[0], name="later"),
        ]
        run = trainer(tmp_path, *callbacks, max_epochs=epochs)
        module = NaturalModule(small_net(), optimizer=sgd(0.1))
        module.scheduler = lambda o: torch.optim.lr_scheduler.ConstantLR(o, 1.0)
        run.fit(module, datamodule=data, ckpt_path=resume)
        run.save_checkpoint(tmp_path / "last.ckpt")
        return callbacks

    assert [callback._taken for callback in fit(1)] == [[1], []]
    saved = torch.load(tmp_path / "last.ckpt", weights_only=True)["callbacks"]
    assert saved["PatternSnapshot"] == {"taken": [1]}  # as it has always been
    resumed = fit(3, str(tmp_path / "last.ckpt"))
    assert [callback._taken for callback in resumed] == [[1, 2], [2]]


@pytest.mark.parametrize("name", ["", "same"])
def test_two_snapshots_of_one_name_are_refused(name, data, tmp_path):
    callbacks = [PatternSnapshot(name=name), PatternSnapshot([1], name=name)]
    run = trainer(tmp_path, *callbacks)
    with pytest.raises(MisconfigurationException, match=f"two PatternSnapshots.*`name` '{name}'"):
        run.fit(Untrainable(small_net()), datamodule=data)


@pytest.mark.parametrize("name", ["a/b", "..", "a b", "a.b"])
def test_names_are_plain(name):
    with pytest.raises(ValueError, match="`name` must be letters, digits, _ and -"):
        PatternSnapshot(name=name)


@pytest.mark.parametrize("first", [True, False])
def test_only_the_first_rank_shows_bars(first, data, tmp_path, monkeypatch):
    shown = []

    def spied(*arguments: Any, progress: bool, **kwargs: Any) -> Any:
        shown.append(progress)
        return measure(*arguments, progress=progress, **kwargs)

    measure = snapshot.measure_shared
    monkeypatch.setattr(snapshot, "measure_shared", spied)
    monkeypatch.setattr(SingleDeviceStrategy, "is_global_zero", first)
    callback = PatternSnapshot([1], search=QUICK, classes=[0])
    run = L.Trainer(
        max_epochs=1,
        accelerator="cpu",
        logger=False,
        enable_checkpointing=False,
        enable_model_summary=False,
        default_root_dir=tmp_path,
        callbacks=[callback],
        limit_val_batches=0,
    )
    run.fit(NaturalModule(small_net(), optimizer=sgd(0.1)), datamodule=data)
    assert shown == [first]


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
    saved = [patterns.targets.tolist() for patterns in read_snapshots(tmp_path)]
    assert saved == ([found] * 2 if found else [])


def test_undefined_power_is_logged_by_no_number(data, tmp_path):
    module = NaturalModule(AlwaysFirst(), optimizer=sgd(0.0))
    callback = PatternSnapshot([1], search=QUICK, classes=[0, 1])
    run = trainer(tmp_path, callback, logger=RunCSVLogger(str(tmp_path)))
    run.fit(module, datamodule=data)
    (patterns,) = read_snapshots(tmp_path)
    powers = [entry["predictive_power"]["0.05"] for entry in patterns.results["classes"]]
    assert powers == [1.0, None]
    (row,) = (row for row in metrics(tmp_path) if row["patterns/epoch"])
    assert float(row["mean_predictive_power/0.05"]) == 1.0
    assert "predictive_power/0.05/square" not in row


@pytest.mark.parametrize("epochs", [[0], [3, -1]])
def test_epochs_count_from_one(epochs):
    with pytest.raises(ValueError, match="`epochs` counts completed epochs from 1"):
        PatternSnapshot(epochs)


class Untrainable(NaturalModule):
    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        raise AssertionError("training has started")


class NoClassifier(Untrainable):
    def __init__(self, classifier: nn.Module) -> None:
        super().__init__(classifier)
        self.network = self.classifier
        del self.classifier


@pytest.mark.filterwarnings("ignore:You defined a `validation_step`")
@pytest.mark.parametrize(
    ("module", "has_data", "classes", "error", "match"),
    [
        (NoClassifier, True, None, MisconfigurationException, "a `classifier`, got .*NoClassifier"),
        (Untrainable, False, None, MisconfigurationException, "needs an ImageDataModule"),
        (Untrainable, True, ["cat"], ValueError, "`classes` has 'cat'"),
    ],
)
def test_refuses_before_training(module, has_data, classes, error, match, data, tmp_path):
    given = {"datamodule": data} if has_data else {"train_dataloaders": data.train_dataloader()}
    with pytest.raises(error, match=match):
        trainer(tmp_path, PatternSnapshot(classes=classes)).fit(module(small_net()), **given)


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
    assert searches == [1]
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
    sizes = ["0.01", "0.02", "0.03", "0.05", "0.1"]
    saved = [[entry["predictive_power"][s] for s in sizes] for entry in patterns.results["classes"]]
    assert saved == power.predictive_power.tolist()
    assert max(saved[0]) > 0  # the comparison says something
    assert patterns.results["measured_on"] == "held_out"
    assert list(patterns.results["mean_predictive_power"]) == sizes
    assert patterns.results["clean_accuracy"] == power.overall_clean_accuracy
    means = power.clean_accuracy[:2].mean().item()  # of the searched classes
    assert patterns.results["mean_clean_accuracy"] == pytest.approx(means)


def test_csv_has_the_mean_power_of_each_epoch(fitted):
    snapshots = read_snapshots(fitted.folder)
    rows = [row for row in metrics(fitted.folder) if row["patterns/epoch"]]
    assert [(row["patterns/epoch"], row["step"]) for row in rows] == [("1", "1"), ("2", "3")]
    for row, patterns in zip(rows, snapshots, strict=True):
        mean = patterns.results["mean_predictive_power"]
        assert {size: float(row[f"mean_predictive_power/{size}"]) for size in mean} == mean
        assert float(row["patterns/clean_accuracy"]) == patterns.results["clean_accuracy"]
        for entry in patterns.results["classes"]:
            key = f"predictive_power/0.05/{entry['name']}"
            assert float(row[key]) == entry["predictive_power"]["0.05"]


def test_tensorboard_gets_the_images(fitted):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(fitted.folder))
    events.Reload()
    assert events.Tags()["images"] == ["pattern/circle", "pattern/square"]
    for name in events.Tags()["images"]:
        images = events.Images(name)
        assert [image.step for image in images] == [1, 3]
        assert {(image.width, image.height) for image in images} == {(LOGGED_SIDE,) * 2}
    means = [event.value for event in events.Scalars("mean_predictive_power/0.05")]
    saved = [s.results["mean_predictive_power"]["0.05"] for s in read_snapshots(fitted.folder)]
    assert means == pytest.approx(saved)


@pytest.mark.parametrize(
    ("shape", "expected"), [((16, 20), (128, 160)), ((50, 90), (100, 180)), ((130, 200),) * 2]
)
def test_enlarged_repeats_whole_pixels(shape, expected):
    pixels = np.random.default_rng(0).integers(0, 256, (*shape, 3), np.uint8)
    large = enlarged(pixels)
    factor = expected[0] // shape[0]
    assert large.shape == (*expected, 3)
    for dy, dx in np.ndindex(factor, factor):
        assert np.array_equal(large[dy::factor, dx::factor], pixels)


def test_what_is_searched_is_the_same_on_all_ranks(data, tmp_path, monkeypatch):
    module, asked = NaturalModule(small_net(), optimizer=sgd(0.1)), []
    joined = small_net()

    def searched(classifier: nn.Module, *_: Any, **__: Any) -> PatternSet:
        asked.append(classifier)
        raise RuntimeError("asked")

    def join(given: nn.Module) -> nn.Module:
        assert given is module.classifier
        return joined

    monkeypatch.setattr(snapshot, "same_on_all_ranks", join)
    monkeypatch.setattr(snapshot, "run_search", searched)
    with pytest.raises(RuntimeError, match="asked"):
        trainer(tmp_path, PatternSnapshot([1], search=QUICK)).fit(module, datamodule=data)
    assert asked == [joined]
