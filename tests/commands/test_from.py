"""What `--from` stands for: a run's classifier, images and poison, below all that is typed."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import yaml
from trainers import Crash

from iscp_lightning.classifiers import classifier_hash, create_classifier, save_classifier
from iscp_lightning.cli import main
from iscp_lightning.commands._earlier import read_earlier
from iscp_lightning.training import MadryModule

SMALL = str(Path(__file__).parents[1] / "configs" / "small.yaml")
DRY = ["--trainer.accelerator", "cpu", "--trainer.devices", "1"]
QUICK = ["--model.classes", "[star]", "--model.search.search_epochs", "1", *DRY]
QUICK += ["--model.search.canvas", "white", "--trainer.logger", "false"]
BADNETS = ["--model", "BadNetsModule", "--data.poison.target", "star"]


def printed(capsys, *arguments: str) -> dict:
    with pytest.raises(SystemExit) as done:
        main([*arguments, "--print_config"])
    text = capsys.readouterr()
    assert done.value.code == 0, text.err
    return yaml.safe_load(text.out)


def kept(run: str) -> dict:
    return yaml.safe_load((Path("runs") / run / "config.yaml").read_text())


def results(run: str) -> dict:
    return json.loads((Path("runs") / run / "results.json").read_text())


@pytest.fixture
def _run():
    main(["fit", "-c", SMALL, *BADNETS, "--seed_everything", "3", "--run", "a"])


LAST = "runs/a/checkpoints/last.ckpt"


@pytest.mark.usefixtures("_run")
def test_a_search_takes_classifier_images_seed_and_poison(capsys):
    cli = main(["search", "--from", "runs/a", *QUICK, "--run", "s"])
    found, trained = kept("s"), kept("a")
    assert found["data"] == trained["data"]
    assert found["data"]["poison"]["target"] == "star"
    assert found["seed_everything"] == 3
    assert found["model"]["init_args"]["classifier"] == LAST
    assert "from_" not in found
    assert cli.datamodule.seed == 3
    assert results("s")["trigger_recovery"]
    main(["search", "-c", "runs/s/config.yaml", "--run", "again"])  # which needs no `--from`
    assert results("again")["classes"] == results("s")["classes"]


@pytest.mark.usefixtures("_run")
def test_what_is_typed_or_configured_wins(capsys):
    Path("own.yaml").write_text("data: {batch_size: 7, poison: {target: ring}}\n")
    typed = ["--seed_everything", "4", "--model.classifier", "other.ckpt"]
    config = printed(capsys, "search", "--from", "runs/a", "-c", "own.yaml", *typed)
    assert config["data"]["batch_size"] == 7
    assert config["data"]["poison"]["target"] == "ring"
    assert config["data"]["poison"]["trigger"]["name"] == "white_square"
    assert config["data"]["val_fraction"] == 0.2
    assert config["seed_everything"] == 4
    assert config["model"]["init_args"]["classifier"] == "other.ckpt"
    config = printed(capsys, "search", "--from=runs/a", "--data.poison", "null")
    assert config["data"]["poison"] is None
    # a parser's default, typed, is no default
    config = printed(capsys, "search", "--from", "runs/a", "--data.val_fraction", "0.05")
    assert config["data"]["val_fraction"] == 0.05
    config = printed(capsys, "test", "--from", "runs/a", "--model", "NaturalModule")
    assert config["model"]["class_path"] == "iscp_lightning.NaturalModule"
    assert config["model"]["init_args"]["classifier"] == LAST


@pytest.mark.usefixtures("_run")
def test_a_test_measures_what_the_training_measured():
    main(["test", "--from", "runs/a", *DRY, "--run", "t"])
    trained, tested = results("a"), results("t")
    assert tested.pop("tested_checkpoint") == LAST
    assert tested["test"]["test/attack_success_rate"] >= 0
    assert tested["test"] == trained["test"]
    assert tested["tested_classifier_hash"] == trained["tested_classifier_hash"]
    assert tested["triggered_predictions"] == trained["triggered_predictions"]


@pytest.mark.usefixtures("_run")
def test_a_validation_measures_what_the_training_measured():
    with Path("runs/a/metrics.csv").open() as file:
        assert "val/attack_success_rate" in file.readline()
    cli = main(["validate", "--from", "runs/a", *DRY, "--verbose", "false", "--run", "v"])
    assert results("v")["validate"].keys() == set(cli.trainer.callback_metrics)
    assert "test" not in results("v")


@pytest.mark.usefixtures("_run")
def test_a_prediction_builds_from_all_training_images(capsys):
    steps = ["--model.settings.steps", "1", "--model.folder", "set", "--data.poison", "null"]
    main(["predict", "--from", "runs/a", *steps, *DRY, "--run", "p"])
    assert kept("p")["model"]["class_path"] == "iscp_lightning.training.RobustDataWriter"
    assert kept("p")["data"]["val_fraction"] == 0
    assert Path("set/train.safetensors").exists()


CRASH = ["--trainer.callbacks", "trainers.Crash", "--trainer.callbacks.epoch", "1"]


@pytest.mark.parametrize("resumed", [False, True])
def test_a_training_that_is_not_finished_is_said(resumed, capsys, monkeypatch):
    epochs = ["--trainer.max_epochs", "3"]
    with pytest.raises(RuntimeError, match="out of memory"):
        main(["fit", "-c", SMALL, *epochs, *CRASH, "--run", "a"])
    if resumed:  # and so finished
        monkeypatch.setattr(Crash, "armed", False)
        main(["fit", "--resume", "runs/a"])
        read_earlier("runs/a")
        return
    line = "`--from runs/a`: its training is not finished, 1 of 3 epochs are completed"
    with pytest.warns(UserWarning, match=line) as warned:
        printed(capsys, "test", "--from", "runs/a")
    assert len(warned) == 1
    read_earlier(LAST)  # whoever names a checkpoint means it
    monkeypatch.setenv("LOCAL_RANK", "1")
    read_earlier("runs/a")


def test_a_training_that_stopped_early_is_finished():
    fit = ["fit", "-c", SMALL, "--trainer.max_epochs", "3", "--trainer.max_steps", "4"]
    main([*fit, "--run", "a"])
    read_earlier("runs/a")


def test_the_last_checkpoint_says_what_is_finished():
    """The most robust weights may be of any epoch."""
    folder = Path("runs/a/checkpoints")
    folder.mkdir(parents=True)
    Path("runs/a/config.yaml").write_text(
        "{model: NaturalModule, trainer: {max_epochs: 3}, data: {source: Shapes}}"
    )
    for name, epoch in (("robust.ckpt", 1), ("last.ckpt", 3)):
        progress = {"epoch_progress": {"current": {"processed": epoch}}}
        content = {"state_dict": {"classifier.w": torch.ones(1)}, "loops": {"fit_loop": progress}}
        torch.save(content, folder / name)
    assert read_earlier("runs/a").model["init_args"] == {
        "classifier": "runs/a/checkpoints/robust.ckpt"
    }
    (folder / "last.ckpt").unlink()
    read_earlier("runs/a")  # nobody can know
    (folder / "robust.ckpt").replace(folder / "last.ckpt")
    with pytest.warns(UserWarning, match="1 of 3 epochs are completed"):
        read_earlier("runs/a")


EVALUATED = ["--model.evaluation_attack.steps", "1"]


def test_the_most_robust_weights_go_first(monkeypatch):
    monkeypatch.setattr(
        MadryModule, "_log_accuracy", lambda self, _: torch.tensor(1 - self.current_epoch / 10)
    )
    fit = ["fit", "-c", SMALL, "--model", "MadryModule", "--trainer.max_epochs", "2"]
    main([*fit, "--model.attack.steps", "1", *EVALUATED, "--run", "a"])
    cli = main(["test", "--from", "runs/a", *DRY, "--run", "t"])
    assert results("t")["tested_checkpoint"] == "runs/a/checkpoints/robust.ckpt"
    assert cli.model.attack.steps == 1
    assert results("t")["tested_classifier_hash"] == results("a")["tested_classifier_hash"]
    main(["test", "--from", LAST, *DRY, "--run", "l"])
    assert results("l")["tested_checkpoint"] == LAST
    assert results("l")["tested_classifier_hash"] != results("a")["tested_classifier_hash"]


NETWORK = """
model:
  init_args:
    classifier:
      class_path: tests.commands.networks.Tiny
      init_args: {width: 3}
"""


def test_a_network_of_ones_own_gets_its_weights():
    Path("network.yaml").write_text(NETWORK)
    main(["fit", "-c", SMALL, "-c", "network.yaml", "--run", "a"])
    trained = results("a")["tested_classifier_hash"]
    main(["test", "--from", "runs/a", *DRY, "--run", "t"])
    assert results("t")["tested_classifier_hash"] == trained
    assert results("t")["tested_checkpoint"] == LAST
    cli = main(["search", "--from", "runs/a", *QUICK, "--run", "s"])
    assert results("s")["provenance"]["classifier_hash"] == trained
    assert cli.config.model.init_args.weights == LAST
    other = ["--model.classifier", "test_resnet"]  # wins, and keeps its own weights
    cli = main(["test", "--from", "runs/a", *other, *DRY, "--run", "o"])
    assert classifier_hash(cli.model.classifier) != trained
    assert "tested_checkpoint" not in results("o")


def test_a_search_is_measured_again_with_its_masks():
    main(["fit", "-c", SMALL, "--run", "a"])
    main(["search", "--from", "runs/a", *QUICK, "--run", "s"])
    main(["test", "--from", "runs/s", *DRY, "--run", "t"])
    assert results("t")["classes"] == results("s")["classes"]
    main(["search", "--from", "runs/s", *QUICK, "--run", "again"])  # in the same classifier
    assert kept("again")["model"]["init_args"]["classifier"] == LAST
    assert results("again")["classes"] == results("s")["classes"]


@pytest.mark.slow
def test_two_processes_read_the_same_run(tmp_path):
    main(["fit", "-c", SMALL, "--seed_everything", "3", "--run", "a"])
    main(["search", "--from", "runs/a", *QUICK, "--run", "one"])
    several = [*QUICK, "--trainer.devices", "2", "--run", "two"]
    command = [sys.executable, "-m", "iscp_lightning", "search", "--from", "runs/a", *several]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    assert results("two")["classes"] == results("one")["classes"]
    assert kept("two")["trainer"]["strategy"] == "auto"
    assert kept("two") | {"trainer": 0} == kept("one") | {"trainer": 0}


def weights_file(**facts) -> str:
    save_classifier("w.safetensors", create_classifier("test_resnet", 10, 16), **facts)
    return "w.safetensors"


def test_a_weights_file_that_says_its_images(capsys):
    data = {"source": "Shapes", "batch_size": 9}
    config = printed(capsys, "test", "--from", weights_file(data=data, seed=5))
    assert config["model"]["class_path"] == "iscp_lightning.NaturalModule"
    assert config["model"]["init_args"]["classifier"] == "w.safetensors"
    assert config["data"]["source"]["class_path"] == "iscp_lightning.Shapes"
    assert config["data"]["batch_size"] == 9
    assert config["seed_everything"] == 5


def test_a_shipped_file_says_its_images(capsys):
    shipped = Path(__file__).parents[2] / "checkpoints" / "shapes_resnet20.safetensors"
    config = printed(capsys, "search", "--from", str(shipped))
    assert config["model"]["init_args"]["classifier"] == str(shipped)
    assert config["data"]["source"]["class_path"] == "iscp_lightning.Shapes"


def refused(capsys, *arguments: str) -> str:
    with pytest.raises(SystemExit) as done:
        main(arguments)
    assert done.value.code == 2
    assert not Path("runs").exists()
    return capsys.readouterr().err.splitlines()[-1]


def test_a_weights_file_that_does_not(capsys):
    line = refused(capsys, "search", "--from", weights_file(data="CIFAR-10 as JPEG files"))
    assert line == (
        "error: `--from w.safetensors` does not say which images it was trained on (it says: "
        "CIFAR-10 as JPEG files): add `--data.source` or a `-c` configuration"
    )
    config = printed(capsys, "search", "--from", "w.safetensors", "--data.source", "CIFAR10")
    assert config["model"]["init_args"]["classifier"] == "w.safetensors"


@pytest.mark.parametrize(
    ("content", "line"),
    [
        ("a: [", "is no YAML: while parsing a flow node"),
        ("[1]", "is no configuration"),
        ("data: {}", "names no `model`"),
        ("model: {class_path: 3}", "names no `model`"),
        (None, "no checkpoint in run/checkpoints"),
    ],
)
def test_a_folder_that_is_no_run(content, line, capsys):
    Path("run/checkpoints").mkdir(parents=True)
    Path("run/config.yaml").write_text(content or "model: NaturalModule")
    if content:
        torch.save({"state_dict": {"classifier.w": 1}}, "run/checkpoints/last.ckpt")
    assert line in refused(capsys, "test", "--from", "run")


@pytest.mark.parametrize("content", [b"", b"<html>", b"\x80\x04evil"])
def test_a_checkpoint_that_is_none(content, capsys):
    Path("run/checkpoints").mkdir(parents=True)
    Path("run/config.yaml").write_text("model: NaturalModule")
    Path("run/checkpoints/last.ckpt").write_bytes(content)
    line = refused(capsys, "test", "--from", "run")
    assert line.startswith("error: `--from run`: run/checkpoints/last.ckpt cannot be read: ")


def test_a_resumed_run_takes_nothing_from_elsewhere(capsys):
    main(["fit", "-c", SMALL, "--run", "a"])
    main(["search", "--from", "runs/a", *QUICK, "--run", "s"])
    with pytest.raises(SystemExit):
        main(["search", "--resume", "runs/s", "--from", "runs/a"])
    assert "goes on with the run's own settings, got --from" in capsys.readouterr().err


def test_reading_an_earlier_run_reads_weights_alone(tmp_path):
    """A pickle that would execute something is refused before it does."""
    Path("run/checkpoints").mkdir(parents=True)
    Path("run/config.yaml").write_text("model: NaturalModule")
    torch.save({"state_dict": Evil()}, "run/checkpoints/last.ckpt")
    with pytest.raises(SystemExit):
        read_earlier("run")
    assert not Path("executed").exists()


class Evil:
    def __reduce__(self):
        return open, ("executed", "w")


def test_a_text_file_is_no_weights_file_whatever_images_there_are(capsys):
    Path("notes.txt").write_text("hello")
    with pytest.raises(SystemExit):
        main(["test", "--from", "notes.txt"])
    assert "`--from notes.txt` is no weights file: it is no checkpoint" in capsys.readouterr().err
