import json
import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from scipy.stats import binom

from iscp_lightning import figures
from iscp_lightning.patterns import PatternPower, PatternSet
from iscp_lightning.patterns.drawings import (
    pattern_pixels,
    search_figures,
    training_figures,
    winner_pictures,
)
from iscp_lightning.patterns.findings import (
    format_table,
    pattern_records,
    search_findings,
    summarize,
)
from iscp_lightning.patterns.power import Controls
from iscp_lightning.patterns.variants.algorithm1 import Algorithm1
from iscp_lightning.runs import finite, save_figure

SIZES = (0.01, 0.05)
NAN = float("nan")
NAMES = ("cat", "dog", "eel")
NOT = [NAN, NAN]


def pattern_set(targets=(0, 0, 2, 2), objectives=(0.5, 0.25, 0.125, 0.75), **facts) -> PatternSet:
    """Two canvases for cats and for eels: problems 1 and 2 win."""
    count = len(targets)
    generator = torch.Generator().manual_seed(count)
    masks = torch.rand((count, 10, 10), generator=generator)
    return PatternSet(
        targets=torch.tensor(targets),
        canvas_indices=torch.tensor([11, 12, 13, 14][:count]),
        canvases=torch.randint(256, (count, 3, 10, 10), generator=generator, dtype=torch.uint8),
        variables={"mask": masks},
        means={"mask": masks / 2},
        objectives=torch.tensor(objectives, dtype=torch.float64),
        search_indices=torch.arange(5),
        class_names=NAMES,
        settings={"canvas": "positive", "sparsity": 0.2},
        provenance={"seed": 0} | facts,
    )


def measured(
    patterns: PatternSet,
    rows: list[list[float]],
    clean: tuple[float, ...] = (0.5, NAN, 0.75),
    images: tuple[int, ...] = (12, 0, 4),
    measured_on: str = "full",
    controls: Controls | None = None,
) -> PatternSet:
    """The patterns with a predictive power that the test wants; NaN where it was not measured."""
    accuracy = torch.tensor(clean).double()
    power = PatternPower(
        patterns.targets,
        SIZES,
        torch.tensor(rows).double() * accuracy[patterns.targets].unsqueeze(1),
        torch.full((len(patterns),), 8),
        accuracy,
        torch.tensor(images),
        measured_on,
        controls,
    )
    return replace(patterns, power=power)


DEFINED = [[0.25, 0.5], [0.5, 0.25], [1.0, 0.75], [0.0, 1.0]]
NO_EELS = [[0.25, 0.5], [0.5, 0.25], [NAN, NAN], [NAN, NAN]]


def test_summary_of_all_canvases():
    result = summarize(measured(pattern_set(), DEFINED))
    assert result["mean_predictive_power"] == {"0.01": 0.75, "0.05": 0.5}  # problems 1 and 2
    assert result["std_predictive_power"] == {"0.01": 0.25, "0.05": 0.25}
    assert result["classes_defined"] == {"0.01": 2, "0.05": 2}
    assert result["mean_predictive_power_of_best_canvas"] == {"0.01": 0.75, "0.05": 0.75}
    assert result["clean_accuracy"] == 9 / 16  # of all images
    assert result["mean_clean_accuracy"] == 0.625  # over the classes
    assert (result["measured_on"], result["measured_images"]) == ("full", 16)
    assert result["mean_attack_success_rate"] == {"0.01": 0.5, "0.05": 0.34375}
    entry = result["classes"][1]
    ends = entry.pop("predictive_power_interval")
    assert all(low <= entry["predictive_power"][k] <= high for k, (low, high) in ends.items())
    rates = entry.pop("attack_success_rate_interval")
    assert rates["0.01"] == pytest.approx([binom.ppf(q, 8, 0.75) / 8 for q in (0.025, 0.975)])
    assert result["mean_attack_success_rate_interval"] == {
        "0.01": [0.25, 0.75],  # from one class to the other
        "0.05": [0.125, 0.5625],
    }
    assert ends["0.01"][1] > 1 > ends["0.01"][0]  # 6 of 8 images over 3 of 4
    assert entry == {
        "class": 2,
        "name": "eel",
        "clean_accuracy": 0.75,
        "predictive_power": {"0.01": 1.0, "0.05": 0.75},
        "attack_success_rate": {"0.01": 0.75, "0.05": 0.5625},
        "canvas": {"kind": "positive", "index": 13},
        "objective": 0.125,
        "canvases": [
            {
                "index": 13,
                "objective": 0.125,
                "predictive_power": {"0.01": 1.0, "0.05": 0.75},
            },
            {"index": 14, "objective": 0.75, "predictive_power": {"0.01": 0.0, "0.05": 1.0}},
        ],
    }
    assert result["classes"][0]["canvas"]["index"] == 12
    assert (result["settings"], result["provenance"]["seed"]) == (pattern_set().settings, 0)


def test_summary_of_the_controls():
    controls = Controls(
        torch.tensor([NAN, 0.125, 0.25, NAN]).double(),
        torch.tensor([NOT, [0.125, 0.25], [0.375, 0.5], NOT]).double(),
        torch.tensor([NAN, 0.5, 1.0, NAN]).double(),
    )
    patterns = measured(pattern_set(), DEFINED, controls=controls)
    result = summarize(patterns)
    assert result["classes"][0]["base_rate"] == 0.125
    assert result["classes"][1]["random_mask_rate"] == {"0.01": 0.375, "0.05": 0.5}
    assert result["mean_random_mask_rate"] == {"0.01": 0.25, "0.05": 0.375}
    assert (result["mean_base_rate"], result["mean_whole_canvas_rate"]) == (0.1875, 0.75)
    low, high = result["mean_predictive_power_interval"]["0.01"]
    assert (low, high) == (0.5, 1.0)  # of two classes
    lines = format_table(result).splitlines()
    below = "mean ASR without a pattern: 0.188 (0.125-0.250); of the whole canvas: 0.750"
    assert lines[-1] == f"{below} (0.500-1.000)"
    assert lines[-4].split() == ["of", "random", "masks", "0.250", "0.375"]
    assert lines[-3].split()[-2:] == ["0.125-0.375", "0.250-0.500"]  # from one class to the other
    ends = [binom.ppf(q, 8, 0.375) / 8 for q in (0.025, 0.975)]
    assert result["classes"][1]["random_mask_rate_interval"]["0.01"] == pytest.approx(ends)
    ends = [binom.ppf(q, 8, 0.125) / 8 for q in (0.025, 0.975)]
    assert result["classes"][0]["base_rate_interval"] == pytest.approx(ends)
    assert result["classes"][1]["whole_canvas_rate_interval"] == [1, 1]
    labels = [
        line.get_label() for line in search_figures(patterns)["predictive_power"].axes[0].lines
    ]
    assert labels == ["positive canvases", "random masks", "no pattern", "whole canvas"]


def test_summary_of_winners_alone():
    result = summarize(measured(pattern_set(), [NOT, DEFINED[1], DEFINED[2], NOT]))
    assert result["mean_predictive_power"] == {"0.01": 0.75, "0.05": 0.5}
    assert [entry["predictive_power"]["0.05"] for entry in result["classes"]] == [0.25, 0.75]
    canvases = result["classes"][0]["canvases"]
    assert [canvas["predictive_power"] for canvas in canvases] == [
        None,
        {"0.01": 0.5, "0.05": 0.25},
    ]
    assert "mean_predictive_power_of_best_canvas" not in result


def test_one_definition_of_each_accuracy():
    """Of all images, whichever classes are searched; the mean over those that are."""
    searched = measured(pattern_set((0,), (0.5,)), [[0.5, 0.5]], (0.5, 1.0, NAN), (10, 30, 0))
    result = summarize(searched)
    assert result["clean_accuracy"] == 35 / 40
    assert result["mean_clean_accuracy"] == 0.5
    assert result["classes"][0]["clean_accuracy"] == 0.5
    assert searched.power.overall_clean_accuracy == 35 / 40
    without = summarize(
        measured(pattern_set((2,), (0.5,)), [[0.5, 0.5]], (0.5, 1.0, NAN), (10, 30, 0))
    )
    assert math.isnan(without["mean_clean_accuracy"])


def test_an_undefined_class_counts_nowhere():
    clean = (0.5, NAN, 0.0)
    result = summarize(measured(pattern_set(), NO_EELS, clean))
    assert result["mean_predictive_power"] == {"0.01": 0.5, "0.05": 0.25}
    assert result["std_predictive_power"] == {"0.01": 0.0, "0.05": 0.0}
    assert result["classes_defined"] == {"0.01": 1, "0.05": 1}
    assert all(math.isnan(v) for v in result["classes"][1]["predictive_power"].values())


@pytest.mark.parametrize("undefined", [NAN, None], ids=["measured", "read from a file"])
def test_table_by_hand(undefined):
    entries = [
        {"name": "cat", "clean_accuracy": 0.5, "predictive_power": {"0.01": 0.12345, "0.05": 1.5}},
        {
            "name": "eel",
            "clean_accuracy": undefined,
            "predictive_power": {"0.01": NAN, "0.05": None},
        },
    ]
    results = {
        "mean_predictive_power": {"0.01": 0.12345, "0.05": 1.5},
        "mean_predictive_power_interval": {"0.01": [0.1, 0.2], "0.05": [undefined, undefined]},
        "mean_predictive_power_of_best_canvas": {"0.01": 0.25, "0.05": 1.75},
        "mean_attack_success_rate": {"0.01": 0.0625, "0.05": 0.75},
        "mean_attack_success_rate_interval": {"0.01": [0.0, 0.125], "0.05": [0.5, 1.0]},
        "clean_accuracy": 0.9,  # also of classes that were not searched
        "mean_clean_accuracy": 0.5,
        "measured_on": "held_out",
        "measured_images": 80,
        "classes": entries,
    }
    assert format_table(results).splitlines() == [
        "class               clean accuracy       PW 1 %       PW 5 %",
        "------------------------------------------------------------",
        "cat                          0.500        0.123        1.500",
        "eel                              -            -            -",
        "------------------------------------------------------------",
        "mean                         0.500        0.123        1.500",
        "  95 % interval       over classes  0.100-0.200            -",
        "  of best canvases                        0.250        1.750",
        "mean ASR                                  0.062        0.750",
        "  95 % interval       over classes  0.000-0.125  0.500-1.000",
        "clean_accuracy: 0.900 of 80 held_out images",
    ]


def images(folder: Path) -> list[str]:
    """Names of the figures, each of which holds more than one colour."""
    paths = sorted((folder / "figures").iterdir())
    for path in paths:
        with Image.open(path) as image:
            assert any(low < high for low, high in image.convert("RGB").getextrema()), path
    return [path.name for path in paths]


def draw(folder: Path, figures_by_name: dict) -> None:
    for name, figure in figures_by_name.items():
        save_figure(folder / "figures" / f"{name}.png", figure)


@pytest.mark.parametrize("values", [DEFINED, NO_EELS])
def test_findings_of_a_search(values, tmp_path):
    patterns = measured(pattern_set(), values, measured_on="held_out")
    found = search_findings(patterns)
    found.save(tmp_path, "positive")
    draw(tmp_path, search_figures(patterns))
    assert images(tmp_path) == ["canvases.png", "patterns.png", "predictive_power.png"]
    saved = PatternSet.load(tmp_path / "patterns" / "positive.safetensors")
    assert torch.equal(saved.masks, patterns.masks)
    written = json.loads(json.dumps(finite(found.results)))
    assert written == finite(summarize(saved))
    assert {"mean_predictive_power", "classes", "settings", "provenance"} <= written.keys()
    undefined = {"0.01": None, "0.05": None}
    assert (written["classes"][1]["predictive_power"] == undefined) is (values is NO_EELS)
    assert found.lines == [format_table(written)]  # null and NaN are the same dash
    assert search_findings(patterns, RECOVERY).results["trigger_recovery"] == RECOVERY
    said = search_findings(patterns, RECOVERY).lines[1]
    assert "IoU 0.50" in said
    assert "random pixels IoU 0.01, 20.7 pixels away" in said


RECOVERY = {
    "class": 0,
    "pattern_size": 0.01,
    "canvases": [{"index": 11, "chosen": True, "iou": 0.5, "center_distance": 1.0}],
    "chance": {"iou": 0.01, "shifted_iou": 0.1, "center_distance": 20.7},
}


def test_records_are_the_numbers_of_the_winners():
    records = {r.name: r.value for r in pattern_records(measured(pattern_set(), DEFINED))}
    expected = {
        "mean_predictive_power/0.01": 0.75,
        "mean_predictive_power/0.05": 0.5,
        "clean_accuracy": 9 / 16,
        "objective/cat": 0.25,
        "predictive_power/0.01/cat": 0.5,
        "predictive_power/0.05/cat": 0.25,
        "objective/eel": 0.125,
        "predictive_power/0.01/eel": 1.0,
        "predictive_power/0.05/eel": 0.75,
        "attack_success_rate/0.05/eel": 0.5625,
        "clean_accuracy/eel": 0.75,
        "measured_images": 16,
    }
    assert expected.items() <= records.items()


def test_pictures_are_the_winners():
    patterns = measured(pattern_set(), DEFINED)
    pictures = winner_pictures(patterns)
    assert list(pictures) == ["pattern/cat", "pattern/eel"]
    assert pictures["pattern/eel"].caption == "eel, PW 0.750"
    assert (pictures["pattern/eel"].pixels == pattern_pixels(patterns, 2, 0.05)).all()
    shown = (pattern_pixels(patterns, 2, 0.05) > 0).any(2)
    assert (shown <= patterns.selected(0.05)[2].numpy()).all()


def test_unmeasured_patterns_have_no_results():
    with pytest.raises(ValueError, match="have not been measured"):
        summarize(pattern_set())


def test_a_search_of_winners_has_no_figure_of_canvases():
    patterns = measured(pattern_set((0, 2), (0.5, 0.25)), DEFINED[:2])
    assert list(search_figures(patterns)) == ["patterns", "predictive_power"]


def test_chosen_canvas_is_marked(drawn):
    search_figures(measured(pattern_set(), [NOT, *DEFINED[1:]]))
    _, labels = drawn["pattern_grid"]
    assert labels["row_labels"] == ["cat", "eel"]
    assert labels["captions"] == [["PW -", "PW 0.250 (chosen)"], ["PW 0.750 (chosen)", "PW 1.000"]]


def test_a_canvas_is_drawn_where_there_is_one(drawn, monkeypatch):
    patterns = measured(pattern_set((0, 2), (0.5, 0.25)), DEFINED[:2])
    search_figures(patterns)
    assert drawn["pattern_grid"][1]["column_labels"] == ["canvas", "1 %", "5 %"]
    monkeypatch.setattr(Algorithm1, "needs_canvas", False)
    search_figures(patterns)
    images, labels = drawn["pattern_grid"]
    assert labels["column_labels"] == ["1 %", "5 %"]
    assert [len(row) for row in (*images, *labels["captions"])] == [2] * 4


@pytest.fixture
def drawn(monkeypatch: pytest.MonkeyPatch) -> dict[str, tuple]:
    """Arguments of the last call of the two drawing functions, which still draw."""
    calls = {}
    for name in ("pattern_grid", "settling_curves"):
        draw = getattr(figures, name)

        def spy(*args, name=name, draw=draw, **kwargs):
            calls[name] = (*args, kwargs)
            return draw(*args, **kwargs)

        monkeypatch.setattr(figures, name, spy)
    return calls


def snapshot_of(epoch: int, targets: tuple[int, ...], rows: list[list[float]]) -> PatternSet:
    patterns = pattern_set(targets, (0.5,) * len(targets), epoch=epoch)
    return measured(patterns, rows, (0.5, NAN, 0.25 * epoch))  # 12, none and 4 images


def test_dynamics_with_a_class_missing_at_first(tmp_path, drawn):
    first = snapshot_of(1, (2,), [[0.25, 0.5]])
    last = snapshot_of(3, (0, 2), [[0.5, NAN], [0.5, 0.75]])
    draw(tmp_path, training_figures([first, last], [1, 3], ceiling=0.7))
    assert images(tmp_path) == ["learning_dynamics.png", "settling.png"]

    grid, labels = drawn["pattern_grid"]
    assert labels["row_labels"] == ["cat", "eel"]
    assert labels["column_labels"] == ["epoch 1\naccuracy 43.8 %", "epoch 3\naccuracy 56.2 %"]
    assert labels["captions"] == [["", "PW -"], ["PW 0.500", "PW 0.750"]]
    assert grid[0][0] is None
    assert (grid[1][0] == pattern_pixels(first, 0, 0.05)).all()
    assert (grid[1][1] == pattern_pixels(last, 1, 0.05)).all()

    epochs, iou, powers, lines = drawn["settling_curves"]
    assert epochs == [1, 3]
    assert (lines["chance"], lines["ceiling"]) == (pytest.approx(0.05 / 1.95), 0.7)
    kept = first.selected(0.05)[0], last.selected(0.05)[1]
    expected = ((kept[0] & kept[1]).sum() / (kept[0] | kept[1]).sum()).item()
    assert iou.tolist()[0][1:] + iou.tolist()[1] == pytest.approx([1, expected, 1])
    assert math.isnan(iou[0][0])
    assert np.array_equal(powers, [[NAN, NAN], [0.5, 0.75]], equal_nan=True)


def test_dynamics_with_a_class_missing_at_last(drawn):
    first = snapshot_of(1, (0, 2), [[0.25, 0.5], [0.5, 0.25]])
    training_figures([first, snapshot_of(2, (2,), [[0.5, 0.75]])], [1, 2])
    grid, _ = drawn["pattern_grid"]
    assert [image is None for image in grid[0]] == [False, True]
    _, iou, powers, _ = drawn["settling_curves"]
    assert all(math.isnan(value) for value in iou[0])  # nothing to compare with
    assert np.array_equal(powers, [[0.5, NAN], [0.25, 0.75]], equal_nan=True)


def test_dynamics_of_one_epoch_have_no_curves():
    assert list(training_figures([snapshot_of(1, (2,), [[0.25, 0.5]])], [1])) == [
        "learning_dynamics"
    ]
