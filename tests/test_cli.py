import csv
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
import yaml

from iscp_lightning.classifiers import NaturalModule
from iscp_lightning.cli import DEMO, complete_arguments, main
from tests.wandb_records import read_offline_run

SMALL = [
    *("--data.source", "Shapes", "--data.source.init_args.train_count", "60"),
    *("--data.source.init_args.test_count", "100", "--data.source.init_args.size", "16"),
    *(
        "--data.batch_size",
        "20",
        "--data.val_fraction",
        "0.2",
        "--trainer.accelerator",
        "cpu",
        "--trainer.devices",
        "1",
    ),
    *(
        "--trainer.enable_progress_bar",
        "false",
        "--trainer.logger",
        "iscp_lightning.loggers.RunCSVLogger",
    ),
    *("--trainer.logger.init_args.save_dir", "runs/small"),
]
FIT = ["fit", "--model", "NaturalModule", "--model.init_args.classifier", "test_resnet", *SMALL]


@pytest.mark.parametrize(
    ("given", "completed"),
    [
        (["fit"], ["fit", "-c", str(DEMO)]),
        (
            ["fit", "--trainer.max_epochs", "1"],
            ["fit", "-c", str(DEMO), "--trainer.max_epochs", "1"],
        ),
        (
            ["fit", "--model.init_args.compile", "1"],
            ["fit", "-c", str(DEMO), "--model.init_args.compile", "1"],
        ),
        (["fit", "-c", "x.yaml"], None),
        (["fit", "-cx.yaml"], None),
        (["fit", "--config=x.yaml"], None),
        (["fit", "--model", "M"], None),
        (["fit", "--data=d.yaml"], None),
        (["search"], None),
        (["--help"], None),
        ([], None),
    ],
)
def test_the_demo_is_for_bare_fits_only(given, completed):
    assert complete_arguments(given) == (completed or given)


def printed_config(capsys, *arguments):
    with pytest.raises(SystemExit) as done:
        main([*arguments, "--print_config"])
    assert done.value.code == 0
    return yaml.safe_load(capsys.readouterr().out)


def test_no_demo_default_leaks_under_a_users_own_configuration(tmp_path, capsys):
    own = tmp_path / "own.yaml"
    own.write_text("model: {class_path: NaturalModule}\n")
    bare = printed_config(capsys, "fit", "--model", "NaturalModule")
    mine = printed_config(capsys, "fit", "-c", str(own))
    demo = printed_config(capsys, "fit")
    for key in ("model", "data", "trainer"):
        assert mine[key] == bare[key] != demo[key]


@pytest.mark.parametrize("command", ["fit", "validate", "test", "predict", "search"])
def test_help_exits_cleanly(command, capsys):
    with pytest.raises(SystemExit) as done:
        main([command, "--help"])
    assert done.value.code == 0
    assert "python -m iscp_lightning" in capsys.readouterr().out


def test_one_batch_is_one_batch():
    """Python's typing cache once turned `limit_train_batches 1` into all batches."""
    cli = main(
        [*FIT, "--run", "small", "--trainer.max_epochs", "1", "--trainer.limit_train_batches", "1"]
    )
    assert cli.trainer.global_step == 1
    assert cli.trainer.limit_train_batches == 1


def test_a_run_folder_holds_everything():
    main([*FIT, "--run", "small", "--trainer.max_epochs", "2"])
    run = Path("runs/small")
    assert {p.name for p in run.iterdir()} == {
        "config.yaml",
        "metrics.csv",
        "checkpoints",
        "results.json",
    }
    assert {p.name for p in (run / "checkpoints").iterdir()} == {"last.ckpt", "epoch002.ckpt"}
    config = yaml.safe_load((run / "config.yaml").read_text())
    assert config["model"]["init_args"]["classifier"] == "test_resnet"
    results = json.loads((run / "results.json").read_text())
    assert 0 <= results["test"]["test_random_texture/clean_accuracy"] <= 1
    with (run / "metrics.csv").open() as file:
        columns = csv.DictReader(file).fieldnames
    assert {"val/clean_accuracy", "val/clean_accuracy/star"} <= set(columns)


def test_existing_runs_are_kept_unless_told_otherwise(capsys):
    once = [*FIT, "--run", "small", "--trainer.max_epochs", "1"]
    main(once)
    with pytest.raises(SystemExit):
        main(once)
    assert (
        "runs/small exists: choose another `--run`, or give `--overwrite`"
        in capsys.readouterr().err
    )
    Path("runs/small/marker").touch()
    main([*once, "--overwrite"])
    assert not Path("runs/small/marker").exists()


@pytest.mark.parametrize("name", ["a/b", "..", "/tmp/x"])
def test_run_names_are_plain(name, capsys):
    with pytest.raises(SystemExit):
        main([*FIT, "--run", name])
    assert "`--run` must be a plain folder name" in capsys.readouterr().err


def test_nothing_to_resume_is_an_error(capsys):
    Path("runs/empty").mkdir(parents=True)
    Path("runs/empty/config.yaml").write_text("model: NaturalModule\n")
    with pytest.raises(SystemExit):
        main(["fit", "--resume", "runs/empty"])
    assert "no checkpoint in runs/empty/checkpoints" in capsys.readouterr().err


def test_a_resumed_run_is_not_changed(capsys):
    with pytest.raises(SystemExit):
        main(["fit", "--resume", "runs/nowhere"])
    assert "runs/nowhere/config.yaml does not exist" in capsys.readouterr().err
    main([*FIT, "--run", "small", "--trainer.max_epochs", "1"])
    with pytest.raises(SystemExit):
        main(["fit", "--resume", "runs/small", "--trainer.max_epochs=3"])
    assert "the run's own settings, got --trainer.max_epochs=3" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        main(["fit", "-c", "own.yaml", "--resume", "runs/small"])
    assert "the run's own settings, got -c" in capsys.readouterr().err


def weights(run: str) -> dict[str, torch.Tensor]:
    path = Path("runs") / run / "checkpoints" / "last.ckpt"
    return torch.load(path, weights_only=True)["state_dict"]


@pytest.mark.slow
def test_killed_training_resumes_to_the_uninterrupted_result(tmp_path):
    """Kill -9 a real training mid-run; resumed, weights and CSV equal an uninterrupted run's."""
    arguments = [
        *(item for item in FIT if "Logger" not in item),
        *("--data.augmentation.crop_padding", "2", "--trainer.max_epochs", "3"),
        *("--trainer.log_every_n_steps", "1"),
    ]
    position = arguments.index("--trainer.logger")
    arguments = arguments[:position] + arguments[position + 3 :]
    checkpoint = tmp_path / "runs" / "killed" / "checkpoints" / "last.ckpt"
    process = subprocess.Popen(
        [sys.executable, "-m", "iscp_lightning", *arguments, "--run", "killed"],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        env=os.environ | {"WANDB_MODE": "offline"},
    )
    while not checkpoint.exists() and process.poll() is None:
        time.sleep(0.001)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert not (tmp_path / "runs" / "killed" / "results.json").exists()
    main(["fit", "--resume", "runs/killed"])
    main([*arguments, "--run", "whole"])
    killed, whole = weights("killed"), weights("whole")
    assert all(torch.equal(killed[name], whole[name]) for name in whole)
    rows = [
        list(csv.DictReader((tmp_path / f"runs/{n}/metrics.csv").open()))
        for n in ("killed", "whole")
    ]
    assert rows[0] == rows[1]
    assert not list((tmp_path / "runs").rglob(".*"))


@pytest.mark.slow
def test_two_processes_train_with_snapshots(tmp_path):
    """`ddp` trains one classifier, the snapshot shares its problems out, one W&B run is written."""
    config = tmp_path / "snapshot.yaml"
    snapshot = {
        "class_path": "PatternSnapshot",
        "init_args": {
            "epochs": [1],
            "classes": [0, 1, 2],
            "search": {"canvas": "white", "search_epochs": 1},
        },
    }
    config.write_text(yaml.safe_dump({"trainer": {"callbacks": [snapshot]}}))
    position = FIT.index("--trainer.logger")
    arguments = FIT[:position] + FIT[position + 4 :]
    done = subprocess.run(
        [
            *(sys.executable, "-m", "iscp_lightning", *arguments, "-c", str(config)),
            *("--run", "ddp", "--trainer.devices", "2", "--trainer.strategy", "ddp"),
            *("--trainer.max_epochs", "1"),
        ],
        env=os.environ | {"WANDB_MODE": "offline"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    run = tmp_path / "runs" / "ddp"
    results = json.loads((run / "results.json").read_text())
    assert [entry["class"] for entry in results["patterns"]["classes"]] == [0, 1, 2]
    logged = read_offline_run(run)
    images = [
        name
        for row in logged.history
        for key in row
        if key.endswith(".filenames")
        for name in row[key]
    ]
    assert len(images) == 3
    (table,) = [row["patterns.path"] for row in logged.history if "patterns.path" in row]
    assert {*images, table} <= set(logged.files)
    assert logged.config["config"]["trainer"]["strategy"] == "ddp"
    assert any("test/clean_accuracy" in row for row in logged.history)
    assert len(list((tmp_path / "runs").iterdir())) == 1


def test_a_checkpoint_says_its_architecture():
    main([*FIT, "--run", "small", "--trainer.max_epochs", "1"])
    module = NaturalModule("runs/small/checkpoints/last.ckpt")
    assert module.classifier.spec.architecture == "test_resnet"
    assert module.classifier.spec.image_size == (16, 16)


@pytest.mark.slow
def test_a_mistake_is_one_line_and_leaves_no_run(tmp_path):
    weights = Path(__file__).parents[1] / "checkpoints" / "shapes_resnet20.safetensors"
    done = subprocess.run(
        [
            *(sys.executable, "-m", "iscp_lightning", "test", "--model", "NaturalModule"),
            *("--model.init_args.classifier", str(weights), "--data.source", "Shapes"),
            *("--data.source.init_args.test_count", "20", "--trainer.accelerator", "cpu"),
            *("--data.source.init_args.train_count", "20", "--attacks", "pdg", "--run", "r"),
        ],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 2
    assert done.stderr.splitlines()[-1].startswith("error: `attacks` must be among fgsm")
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "runs" / "r").exists()
