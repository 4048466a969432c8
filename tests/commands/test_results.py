"""What a command writes and prints of findings, numbers and files."""

import json
import math
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from lightning.pytorch.trainer.states import TrainerFn

from iscp_lightning.classifiers import classifier_hash
from iscp_lightning.commands._results import report
from iscp_lightning.records import Findings, Record

NETWORK = torch.nn.Linear(1, 1)
HASH = classifier_hash(NETWORK)


@dataclass(frozen=True)
class Told(Findings):
    told: dict[str, Any] = field(default_factory=dict)

    @property
    def results(self) -> dict[str, Any]:
        return self.told


def trainer(*callbacks: Any, fn: TrainerFn = TrainerFn.TESTING, **metrics: float):
    return SimpleNamespace(
        callbacks=callbacks,
        callback_metrics={k: torch.tensor(v) for k, v in metrics.items()},
        default_root_dir="run",
        state=SimpleNamespace(fn=fn),
        is_global_zero=True,
        fast_dev_run=False,
    )


def holder(**findings: Findings):
    return SimpleNamespace(findings=findings)


def written() -> dict[str, Any]:
    return json.loads(Path("run/results.json").read_text())


def test_findings_lie_under_their_titles_and_a_number_only_once(capsys):
    power = Record("mean_power", 0.25, {"pattern_size": 0.05})
    model = SimpleNamespace(findings={"": Told([power], lines=["the table"], told={"own": 1})})
    further = holder(shape=Findings([Record("bias", math.nan)], lines=["a line"]))
    metrics = {"mean_power/0.05": 0.25, "test/accuracy": 0.5, "test/accuracy/star": 0.75}
    report(model, trainer(further, object(), **metrics))
    assert written() == {
        "test": {"test/accuracy": 0.5, "test/accuracy/star": 0.75},
        "own": 1,
        "shape": {"records": [{"measure": "bias", "value": None}], "provenance": {}},
    }
    assert capsys.readouterr().out.splitlines() == [
        *("", "the table", "a line", "test/accuracy: 0.500", "", "run/results.json")
    ]


@pytest.mark.parametrize(
    ("found", "line"),
    [
        ({"classifier_hash": HASH}, "drawn of the weights after epoch 3:"),
        ({"classifier_hash": "x"}, "drawn of the weights after epoch 3, not of the tested b.ckpt:"),
    ],
)
def test_weights_that_were_not_tested_are_named(found, line, capsys):
    Path("run/figures").mkdir(parents=True)
    Path("run/figures/a.png").touch()
    model = SimpleNamespace(classifier=NETWORK)
    callback = holder(drawn=Findings(lines=["a line"], provenance=found | {"epoch": 3}))
    report(model, trainer(callback), tested="a/b.ckpt")
    assert written()["tested_checkpoint"] == "a/b.ckpt"
    assert written()["tested_classifier_hash"] == HASH
    assert capsys.readouterr().out.splitlines() == [
        *("", "tested: a/b.ckpt", line, "a line", "", "run/figures/a.png", "run/results.json")
    ]


def test_it_is_said_which_images_were_measured(capsys):
    provenance = {"classifier_hash": HASH, "epoch": 2.5}
    found = Told(provenance=provenance, told={"measured_on": "held_out"})
    report(SimpleNamespace(classifier=NETWORK), trainer(holder(patterns=found)))
    line = "patterns of the weights after epoch 2.5; measured on held_out test images:"
    assert line in capsys.readouterr().out.splitlines()


def test_numbers_of_a_validation_are_called_so():
    report(SimpleNamespace(), trainer(fn=TrainerFn.VALIDATING, **{"val/accuracy": 0.5}))
    assert written() == {"validate": {"val/accuracy": 0.5}}


def test_what_has_lines_alone_is_printed_alone(capsys):
    report(SimpleNamespace(findings={"set": Findings(lines=["set/train"])}), trainer())
    assert capsys.readouterr().out == "\nset/train\n"
    assert not Path("run").exists()


def test_nothing_found_is_nothing_said(capsys):
    report(SimpleNamespace(), trainer())
    report(SimpleNamespace(findings={"a": Findings()}), SimpleNamespace(is_global_zero=False))
    assert capsys.readouterr().out == ""
    assert not Path("run").exists()
