"""Tests of what loggers are told of findings."""

import csv
import json
import math
from pathlib import Path

import numpy as np
import pytest
import wandb
from lightning.pytorch.loggers import TensorBoardLogger
from PIL import Image
from wandb_records import read_offline_run

from iscp_lightning.callbacks.logged import LOGGED_SIDE, enlarged, grid, log_findings, shown, table
from iscp_lightning.loggers import RunCSVLogger, RunWandbLogger
from iscp_lightning.records import Findings, Picture, Record

RED = np.full((16, 16, 3), (255, 0, 0), np.uint8)
COLUMNS = ["epoch", "class", "pattern_size", "measure", "value"]


def found(epoch: float, pictures: int = 1) -> Findings:
    records = [
        Record("clean_accuracy", 0.5),
        Record("accuracy", 0.25, {"class": "ring"}),
        Record("power", math.nan, {"pattern_size": 0.05, "class": "ring"}),
    ]
    named = {f"red{k}": Picture(RED, f"ring {k}") for k in range(pictures)}
    return Findings(records, named, provenance={"epoch": epoch})


@pytest.fixture
def _offline(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    for name in ("DATA", "CONFIG", "CACHE"):
        monkeypatch.setenv(f"WANDB_{name}_DIR", str(tmp_path / "home"))
    monkeypatch.setenv("WANDB_SILENT", "true")
    monkeypatch.setenv("WANDB_MODE", "offline")
    wandb.teardown()
    yield
    wandb.finish()
    wandb.teardown()


def test_csv_has_the_defined_numbers(tmp_path):
    logger = RunCSVLogger(str(tmp_path))
    log_findings(logger, "m", found(2.5), [], 7)
    logger.finalize("success")
    with (tmp_path / "metrics.csv").open(newline="") as file:
        (row,) = csv.DictReader(file)
    assert row.pop("step") == "7"
    assert row == {"m/epoch": "2.5", "m/clean_accuracy": "0.5", "m/accuracy/ring": "0.25"}


@pytest.mark.parametrize(("pictures", "names"), [(2, ["m/red0", "m/red1"]), (51, ["m/pictures"])])
def test_tensorboard_gets_numbers_and_pictures(pictures, names, tmp_path):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    logger = TensorBoardLogger(str(tmp_path), name="", version="")
    log_findings(logger, "m", found(1, pictures), [], 7)
    logger.finalize("success")
    events = EventAccumulator(str(tmp_path))
    events.Reload()
    assert events.Tags()["images"] == names
    (image,) = events.Images(names[0])
    side = (8 * 17, 7 * 17) if pictures == 51 else (LOGGED_SIDE, LOGGED_SIDE)
    assert (image.width, image.height, image.step) == (*side, 7)
    assert [event.value for event in events.Scalars("m/accuracy/ring")] == [0.25]
    assert "m/power/0.05/ring" not in events.Tags()["scalars"]


@pytest.mark.usefixtures("_offline")
def test_wandb_gets_one_table_of_all_epochs(tmp_path):
    logger, past = RunWandbLogger(str(tmp_path / "run"), version="abcd1234"), []
    for epoch, step in ((1, 1), (2, 3)):
        past.append(found(epoch))
        log_findings(logger, "m", past[-1], past, step)
    run = read_offline_run(tmp_path / "run")
    numbers = [row for row in run.history if "m/epoch" in row]
    assert [(row["m/epoch"], row["trainer/global_step"]) for row in numbers] == [(1, 1), (2, 3)]
    assert [row["m/accuracy/ring"] for row in numbers] == [0.25, 0.25]
    captions = [row["m/red0.captions"] for row in run.history if "m/red0.captions" in row]
    assert captions == [["ring 0, epoch 1"], ["ring 0, epoch 2"]]
    pictures = sorted(run.folder.glob("media/images/m/red0_*.png"))
    with Image.open(pictures[0]) as image:
        assert image.size == (LOGGED_SIDE, LOGGED_SIDE)
        assert image.getpixel((5, 5)) == (255, 0, 0)
    tables = [json.loads(path.read_text()) for path in run.folder.glob("media/table/m_*.json")]
    content = max(tables, key=lambda table: len(table["data"]))
    assert content["columns"] == COLUMNS
    assert content["data"] == table(past)[1]
    steps = [row["trainer/global_step"] for row in run.history if "m.path" in row]
    assert steps == [1, 3]


def test_the_table_has_a_row_for_every_record():
    columns, rows = table([found(1), found(2.5)])
    assert columns == COLUMNS
    assert rows[3:] == [
        [2.5, None, None, "clean_accuracy", 0.5],
        [2.5, "ring", None, "accuracy", 0.25],
        [2.5, "ring", 0.05, "power", None],
    ]
    assert [row[0] for row in rows] == [1, 1, 1, 2.5, 2.5, 2.5]
    assert table([]) == (["epoch", "measure", "value"], [])


@pytest.mark.parametrize(("number", "names"), [(0, []), (50, None), (51, ["pictures"])])
def test_many_pictures_are_shown_as_one(number, names):
    pictures = found(1, number).pictures
    result = shown(pictures)
    assert list(result) == (list(pictures) if names is None else names)
    if number == 51:
        assert result["pictures"].caption == "51 pictures"
        assert result["pictures"].pixels.shape == (7 * 17, 8 * 17, 3)


def test_a_grid_holds_its_images_row_by_row():
    images = [np.full((2, 3, 3), k, np.uint8) for k in range(4)]
    images.append(np.full((1, 1, 3), 4, np.uint8))
    o = 255
    expected = [
        [0, 0, 0, o, 1, 1, 1, o, 2, 2, 2, o],
        [0, 0, 0, o, 1, 1, 1, o, 2, 2, 2, o],
        [o, o, o, o, o, o, o, o, o, o, o, o],
        [3, 3, 3, o, 4, o, o, o, o, o, o, o],
        [3, 3, 3, o, o, o, o, o, o, o, o, o],
        [o, o, o, o, o, o, o, o, o, o, o, o],
    ]
    sheet = grid(images)
    assert sheet.dtype == np.uint8
    assert sheet.shape == (6, 12, 3)
    for channel in range(3):
        assert sheet[:, :, channel].tolist() == expected


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
