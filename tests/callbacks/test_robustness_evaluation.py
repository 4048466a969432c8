"""Tests of accuracy under attack: after a test with `--attacks`, and as training goes on."""

import json
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from lightning import LightningModule
from lightning.fabric.utilities.exceptions import MisconfigurationException
from toys import subject_of
from trainers import quiet_trainer

from iscp_lightning.attacks import evaluate_robustness
from iscp_lightning.attacks.autoattack import AutoAttack
from iscp_lightning.callbacks import robustness as evaluation
from iscp_lightning.callbacks.at_epochs import AtEpochs
from iscp_lightning.callbacks.history import read_history
from iscp_lightning.callbacks.robustness import RobustAccuracy, RobustnessEvaluation, passes
from iscp_lightning.classifiers import (
    Classifier,
    classifier_hash,
    create_classifier,
    load_classifier,
)
from iscp_lightning.classifiers.subject import Subject
from iscp_lightning.cli import main
from iscp_lightning.data import Shapes
from iscp_lightning.data.datamodule import ImageDataModule
from iscp_lightning.records import Findings
from iscp_lightning.training import NaturalModule
from iscp_lightning.work import Work

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
    assert "20 images classified right are too few to tell gradient masking" in printed
    assert "no sign" not in printed
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


WEAK = {"attacks": ["fgsm"], "epsilon": 2 / 255, "images": 10}


def shapes(batch_size: int = 8) -> ImageDataModule:
    return ImageDataModule(Shapes(60, 20), batch_size, val_fraction=0)


def measured(trained: Classifier, **changes) -> evaluation.Attacked:
    measurement = RobustAccuracy(**WEAK | changes)
    measurement.check(shapes())
    return measurement.measure(Subject.of(trained, shapes()))


def values(found: Findings) -> dict[str, float]:
    return {record.name: record.value for record in found.records}


def test_the_measurement_finds_what_the_function_does(trained):
    found = measured(trained, images=None)
    alone = evaluate_robustness(
        Subject.of(trained, shapes()), torch.arange(20), ["fgsm"], epsilon=2 / 255, batch_size=8
    )
    names = shapes().class_names
    summary = alone.summary(names)
    numbers = values(found)
    assert numbers.pop("clean_accuracy") == summary["accuracy"].pop("clean")
    assert numbers.pop("robust_accuracy") == alone.robust_accuracy
    by_class = [numbers.pop(f"robust_accuracy/{name}") for name in names]
    assert by_class == [summary["per_class"][name]["robust_accuracy"] for name in names]
    assert numbers == {f"accuracy/{name}": rate for name, rate in summary["accuracy"].items()}
    assert set(numbers) == {
        *("accuracy/fgsm", "accuracy/pgd20", "accuracy/noise"),
        *("accuracy/pgd20 at x0.5", "accuracy/pgd20 at x2"),
    }
    assert 0 < alone.robust_accuracy < 1
    assert found.provenance["classifier_hash"] == classifier_hash(trained)
    assert found.results["provenance"] == found.provenance


def test_as_many_images_of_each_class_are_attacked(trained):
    summary = measured(trained).summary
    assert summary["images"] == 10
    clean = {name: rates["clean"] for name, rates in summary["per_class"].items()}
    assert all(rate == rate for rate in clean.values())  # every class has some


@pytest.mark.parametrize(
    ("count", "line"),
    [
        (100, "no sign of gradient masking"),
        (99, "99 images classified right are too few to tell gradient masking"),
    ],
)
def test_nothing_is_concluded_from_few_images(count, line, trained, monkeypatch):
    def all_right(subject, *arguments, **settings):
        found = evaluate_robustness(subject, *arguments, **settings)
        kept = torch.ones(count, dtype=torch.bool)
        return evaluation.Robustness(
            found.labels[:1].repeat(count),
            kept,
            dict.fromkeys(found.withstood, kept),
            dict.fromkeys(found.sanity, kept),
            "linf",
            2 / 255,
        )

    monkeypatch.setattr(evaluation, "evaluate_robustness", all_right)
    assert measured(trained).lines == [
        *(f"attacked: {count} images, linf 0.007843: robust accuracy 1.000", line)
    ]


CALLBACK = """
trainer:
  callbacks:
  - class_path: AtEpochs
    init_args:
      measurement: {class_path: RobustAccuracy, init_args: {epsilon: 1/255, images: 10}}
      epochs: [1]
"""


def test_robustness_is_followed_in_the_course_of_a_training(capsys):
    Path("follow.yaml").write_text(CALLBACK)
    main(["fit", *SMALL, "-c", "follow.yaml", "--trainer.max_epochs", "2"])
    (history,) = Path("runs/r/measurements").iterdir()
    past = read_history(history)
    assert (history.name, [each.provenance["epoch"] for each in past]) == (
        *("robustness.json", [1, 2]),
    )
    found = json.loads(Path("runs/r/results.json").read_text())["robustness"]
    assert found["images"] == 10
    assert found["provenance"]["epoch"] == 2
    assert found["accuracy"]["fgsm"] == values(past[1])["accuracy/fgsm"]
    with Path("runs/r/metrics.csv").open() as file:
        assert "robustness/accuracy/fgsm" in file.readline()
    printed = capsys.readouterr().out
    assert "robustness of the weights after epoch 2:\nattacked: 10 images, linf 0.003922" in printed
    main(["test", "--from", "runs/r", "--run", "t", "--attacks", *BALL])
    again = json.loads(Path("runs/t/results.json").read_text())["robustness"]
    assert again["accuracy"] == found["accuracy"]
    assert again["per_class"] == found["per_class"]


BALL = ["--attack_epsilon", "1/255", "--attack_images", "10", "--trainer.accelerator", "cpu"]


def followed(folder: Path, **settings) -> tuple[dict[str, torch.Tensor], list[Findings]]:
    torch.manual_seed(0)
    network = create_classifier("test_resnet", 10, 32)
    run = quiet_trainer(folder, max_epochs=2, enable_checkpointing=False, **settings)
    run.fit(NaturalModule(network), datamodule=shapes())
    return network.state_dict(), read_history(folder / "measurements" / "robustness.json")


def test_the_training_stays_the_same_to_the_bit(tmp_path):
    alone, _ = followed(tmp_path)
    beside, past = followed(tmp_path, callbacks=[AtEpochs(RobustAccuracy(**WEAK), [1])])
    assert len(past) == 2
    assert all(torch.equal(alone[name], value) for name, value in beside.items())


@pytest.mark.slow
def test_two_processes_attack_what_one_does(tmp_path):
    found = [
        followed(
            tmp_path / str(devices),
            callbacks=[AtEpochs(Shipped(**WEAK), [1], last=False)],
            devices=devices,
            strategy="ddp_fork" if devices == 2 else "auto",
        )[1]
        for devices in (1, 2)
    ]
    (alone,), (both,) = found
    assert values(both) == pytest.approx(values(alone), nan_ok=True)
    assert 0 < values(both)["robust_accuracy"] < 1


class Shipped(RobustAccuracy):
    """Measures the shipped weights: one process and two train others."""

    def measure(self, subject, last=False):
        return super().measure(Subject.of(load_classifier(WEIGHTS).eval(), shapes()))


class Untrainable(NaturalModule):
    def training_step(self, batch, batch_idx):
        raise AssertionError("training has started")


def test_attacks_that_cannot_run_stop_before_the_training(tmp_path):
    run = quiet_trainer(tmp_path, max_epochs=1, callbacks=[AtEpochs(RobustAccuracy(["pdg"]))])
    with pytest.raises(ValueError, match="among fgsm"):
        run.fit(Untrainable("test_resnet"), datamodule=shapes())
    with pytest.raises(ValueError, match="`images` must be 1 or more, got 0"):
        RobustAccuracy(images=0)


def test_a_dry_run_attacks_two_images(tmp_path):
    follow, test = AtEpochs(RobustAccuracy(**WEAK), [1]), RobustnessEvaluation(RobustAccuracy())
    run = quiet_trainer(tmp_path, fast_dev_run=True, callbacks=[follow, test])
    module = NaturalModule("test_resnet", num_classes=10, image_size=32)
    run.fit(module, datamodule=shapes())
    run.test(module, datamodule=shapes(), verbose=False)
    for callback in (follow, test):
        assert callback.findings["robustness"].results["images"] == 2
    assert follow.measurement.images == 10


def test_what_has_no_test_has_no_attacks(tmp_path):
    run = quiet_trainer(tmp_path, callbacks=[RobustnessEvaluation(RobustAccuracy())])
    with pytest.raises(MisconfigurationException, match="goes with `test` alone"):
        run.validate(NaturalModule("test_resnet"), datamodule=shapes(), verbose=False)
    run = SimpleNamespace(datamodule=None)
    with pytest.raises(MisconfigurationException, match="got LightningModule and NoneType"):
        RobustnessEvaluation(RobustAccuracy()).setup(run, LightningModule(), "test")


def test_what_it_takes_is_known_before():
    (work,) = RobustAccuracy(["fgsm", "pgd100"], images=15).work(shapes(), 1)
    assert work == Work("attacks", forwards=15 * 7, gradients=15 * (1 + 20 + 100 + 20 + 20))
    assert RobustAccuracy(images=100).work(shapes(), 1) == RobustAccuracy().work(shapes(), 1)
    assert passes(AutoAttack())[1] > 1000
