"""Tests of what `--attacks` adds to a test."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from toys import subject_of

from iscp_lightning.attacks import evaluate_robustness
from iscp_lightning.callbacks import robustness as evaluation
from iscp_lightning.cli import main
from iscp_lightning.data import Shapes

WEIGHTS = str(Path(__file__).parents[2] / "checkpoints" / "shapes_resnet20.safetensors")
SMALL = [
    *("-c", str(Path(__file__).parents[1] / "configs" / "small.yaml"), "--run", "r"),
    *("--model.classifier", WEIGHTS, "--data.source.size", "32"),
    *("--data.source.test_count", "60"),
]


def test_a_test_with_attacks_writes_what_the_function_returns(trained, capsys):
    main(
        ["test", *SMALL, "--attacks", "fgsm", "--attack_epsilon", "1/255", "--attack_images", "20"]
    )
    found = json.loads(Path("runs/r/results.json").read_text())
    robustness = found["robustness"]
    assert robustness["images"] == 20
    assert robustness["epsilon"] == pytest.approx(1 / 255)
    assert set(robustness["accuracy"]) == {
        *("clean", "fgsm", "pgd20", "noise", "pgd20 at x0.5", "pgd20 at x2")
    }
    assert found["test"]["attacks/fgsm"] == pytest.approx(robustness["accuracy"]["fgsm"])
    assert found["test"]["test/clean_accuracy"] > 0.9
    printed = capsys.readouterr().out
    assert f"attacks/robust_accuracy: {robustness['robust_accuracy']:.3f}" in printed
    everything = evaluate_robustness(
        subject_of(trained, Shapes(60, 60).test()), torch.arange(60), ["fgsm"], epsilon=1 / 255
    )
    assert 0 < everything.robust_accuracy < 1


@pytest.mark.parametrize("option", ["--attack_epsilon", "--attack_images"])
def test_options_of_attacks_go_with_attacks(option, capsys):
    with pytest.raises(SystemExit):
        main(["test", *SMALL, option, "1"])
    assert "go with `--attacks`" in capsys.readouterr().err


def test_a_fit_has_no_attacks(capsys):
    with pytest.raises(SystemExit):
        main(["fit", *SMALL, "--attacks", "fgsm"])
    assert "unknown option `--attacks`" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--attacks", "pdg"], "among fgsm"),
        (["--attacks", "--attack_epsilon", "8"], "`epsilon` must lie in [0, 1]"),
        (["--attacks", "--attack_images", "0"], "`attack_images` must be 1 or more"),
    ],
)
def test_bad_attacks_stop_before_the_test(arguments, message, capsys):
    with pytest.raises(SystemExit):
        main(["test", *SMALL, *arguments])
    assert message in capsys.readouterr().err


def test_a_bad_fraction_is_a_usage_error(capsys):
    with pytest.raises(SystemExit):
        main(["test", *SMALL, "--attacks", "--attack_epsilon", "8/0"])
    assert "'8/0' is not a number or a fraction such as 8/255" in capsys.readouterr().err


@pytest.mark.slow
@pytest.mark.parametrize(
    "model",
    [
        ["--model", "MadryModule", "--model.evaluation_attack.random_start", "false"],
        ["--model", "BadNetsModule", "--data.poison.target", "star"],
    ],
    ids=["madry", "badnets"],
)
def test_two_processes_measure_what_one_does(model):
    """Also under attack: random starts belong to batches, whoever makes them."""
    results = []
    for devices in ("1", "2"):
        subprocess.run(
            [
                *(sys.executable, "-m", "iscp_lightning", "test", *SMALL, *model),
                *("--run", devices, "--trainer.devices", devices),
                *("--attacks", "fgsm", "--attack_images", "20"),
                *(["--trainer.strategy", "ddp"] if devices == "2" else []),
            ],
            check=True,
            capture_output=True,
        )
        found = json.loads(Path(f"runs/{devices}/results.json").read_text())
        results.append((found["test"], found["robustness"]["accuracy"]))
    (alone, alone_attacked), (both, both_attacked) = results
    assert alone == pytest.approx(both, nan_ok=True)
    assert alone_attacked == both_attacked
    extra = "robust_accuracy" if "MadryModule" in model else "attack_success_rate"
    assert f"test/{extra}" in alone


def test_attacks_draw_from_the_root_seed(monkeypatch):
    seeds = []

    def spy(subject, *arguments, **settings):
        seeds.append(subject.seed)
        return evaluate_robustness(subject, *arguments, **settings)

    monkeypatch.setattr(evaluation, "evaluate_robustness", spy)
    few = ["--attacks", "fgsm", "--attack_images", "4"]
    main(["test", *SMALL, *few, "--seed_everything", "3"])
    assert seeds == [3]


def test_the_ball_is_the_one_that_was_asked_for():
    ball = ["--attack_norm", "l2", "--attack_images", "10"]
    main(["test", *SMALL, "--attacks", "fgsm", *ball])
    found = json.loads(Path("runs/r/results.json").read_text())["robustness"]
    assert (found["norm"], found["epsilon"]) == ("l2", 0.5)
