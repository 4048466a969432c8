"""Tests of the comparison of patterns with a true trigger."""

import json
import shutil
import subprocess
import sys
import warnings
from dataclasses import asdict
from pathlib import Path

import pytest
import torch
from toys import grey_images, planted_trigger

from iscp_lightning import SearchSettings, search_patterns
from iscp_lightning.cli import main
from iscp_lightning.data import Poison, Trigger
from iscp_lightning.patterns.drawings import recovery_figure
from iscp_lightning.patterns.recovery import center_distance, measure_recovery
from iscp_lightning.runs import write_json

ROOT = Path(__file__).parents[2]
WEIGHTS = ROOT / "checkpoints" / "shapes_resnet20.safetensors"


def test_distances_of_centres_by_hand():
    trigger = torch.zeros(8, 8, dtype=torch.bool)
    trigger[6:, 6:] = True  # centre (6.5, 6.5)
    selected = torch.zeros(2, 8, 8, dtype=torch.bool)
    selected[0] = trigger
    selected[1, 2, 3:5] = True  # centre (2, 3.5)
    expected = [0, (4.5**2 + 3**2) ** 0.5]
    assert center_distance(selected, trigger).tolist() == pytest.approx(expected)


def test_a_planted_trigger_is_recovered_on_the_white_canvas():
    model, _ = planted_trigger()
    images, labels = grey_images()
    settings = SearchSettings(canvas="white", search_epochs=10, sparsity=0.5)
    found = search_patterns(model, images, labels, settings, progress=False)
    stamp = Trigger(size=2).draw((8, 8))
    recovery = measure_recovery(found, stamp, 1, 4 / 64)
    (canvas,) = recovery["canvases"]
    same = {"iou": 1.0, "shifted_iou": 1.0, "center_distance": 0.0}
    assert canvas == {"index": -1, "chosen": True, **same}
    assert recovery["chance"]["iou"] == pytest.approx(4 * (4 / 64) / 7.75, abs=0.015)
    assert 0.1 < recovery["chance"]["shifted_iou"] < 0.5
    assert 3 < recovery["chance"]["center_distance"] < 6
    elsewhere = Trigger(size=2, place="top_left").draw((8, 8))
    (canvas,) = measure_recovery(found, elsewhere, 1, 4 / 64)["canvases"]
    assert (canvas["iou"], canvas["shifted_iou"]) == (0, 1)
    assert canvas["center_distance"] == pytest.approx(6 * 2**0.5)
    titles = [axes.get_title() for axes in recovery_figure(found, stamp, recovery).axes]
    assert titles[:2] == ["true trigger", "canvas 1"]


def search_backdoor(weights: Path) -> None:
    main(
        [
            *("search", "--model", "PatternSearchModule", "--model.init_args.classifier"),
            *(str(weights), "--model.init_args.classes", "[3]"),
            *("--model.init_args.search.canvas", "white", "--model.init_args.search.search_epochs"),
            *("1", "--model.init_args.pattern_sizes", "[0.01, 0.1]", "--data.source", "Shapes"),
            *(
                "--data.source.init_args.train_count",
                "50",
                "--data.source.init_args.test_count",
                "50",
            ),
            *("--data.poison.target", "3", "--data.poison.trigger.place", "[1, 2]"),
            *(
                "--trainer.accelerator",
                "cpu",
                "--trainer.enable_progress_bar",
                "false",
                "--run",
                "r",
            ),
        ]
    )


@pytest.mark.parametrize("same", [True, False])
def test_a_search_is_told_of_another_backdoor_than_the_training_had(tmp_path, same):
    """The record beside the checkpoint is JSON: its (row, column) place is a list."""
    run = tmp_path / "trained"
    (run / "checkpoints").mkdir(parents=True)
    shutil.copy(WEIGHTS, run / "checkpoints" / "last.safetensors")
    poison = Poison(Trigger(place=(1, 2)), target=3 if same else 4)
    write_json(run / "poison" / "poisoned.json", {"settings": asdict(poison)})
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        search_backdoor(run / "checkpoints" / "last.safetensors")
    told = [w for w in caught if "trained with another backdoor" in str(w.message)]
    assert len(told) == (0 if same else 1)
    results = json.loads(Path("runs/r/results.json").read_text())
    assert results["trigger_recovery"]["class"] == 3
    assert results["trigger_recovery"]["pattern_size"] == 0.01  # the smallest


@pytest.mark.slow
@pytest.mark.parametrize(
    "arguments", [["triggers", "f.png", "runs/r"], ["compare", "f.png", "a=runs/r"]]
)
def test_the_figures_of_the_docs_are_drawn_from_runs(arguments):
    search_backdoor(WEIGHTS)
    script = [sys.executable, str(ROOT / "docs" / "figures.py"), *arguments]
    done = subprocess.run(script, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    assert ("IoU" if arguments[0] == "triggers" else "a: ") in done.stdout
    assert Path("f.png").is_file()
