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
from trainers import Crash
from wandb_records import read_offline_run

from iscp_lightning.classifiers import classifier_hash
from iscp_lightning.cli import main
from iscp_lightning.training import MadryModule, NaturalModule

SMALL = str(Path(__file__).parent / "configs" / "small.yaml")
FIT = ["fit", "-c", SMALL]


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


def test_one_batch_is_one_batch():
    """Python's typing cache once turned `limit_train_batches 1` into all batches."""
    cli = main([*FIT, "--run", "small", "--trainer.limit_train_batches", "1"])
    assert cli.trainer.global_step == 1
    assert cli.trainer.limit_train_batches == 1


def test_a_run_folder_holds_everything():
    main([*FIT, "--run", "small", "--trainer.max_epochs", "2"])
    run = Path("runs/small")
    assert {p.name for p in run.iterdir()} == {
        "config.yaml",
        "run.json",
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
    once = [*FIT, "--run", "small"]
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


def rows(run: str) -> list[dict[str, str]]:
    with (Path("runs") / run / "metrics.csv").open() as file:
        return list(csv.DictReader(file))


def kept(run: str) -> dict:
    return yaml.safe_load((Path("runs") / run / "config.yaml").read_text())


def test_the_kept_configuration_says_nothing_about_where_and_how_the_run_was_started():
    main([*FIT, "--run", "small"])
    main([*FIT, "--run", "small", "--overwrite"])
    config = kept("small")
    assert not {"run", "overwrite", "resume", "config"} & set(config)
    assert "small" not in yaml.safe_dump(config)
    assert "ckpt_path" not in config
    record = json.loads(Path("runs/small/run.json").read_text())
    assert record["id"][0] == "r"
    assert len(record["id"]) == 9
    assert record["commands"][0]["arguments"][-1] == "--overwrite"


def test_a_kept_configuration_starts_a_run_of_its_own():
    main([*FIT, "--run", "a"])
    main(["fit", "--resume", "runs/a"])
    before = Path("runs/a/checkpoints/last.ckpt").stat().st_mtime_ns
    cli = main(["fit", "-c", "runs/a/config.yaml", "--run", "b", "--trainer.max_epochs", "2"])
    assert Path("runs/a/checkpoints/last.ckpt").stat().st_mtime_ns == before
    assert Path("runs/b/checkpoints/epoch002.ckpt").exists()
    assert cli.trainer.current_epoch == 2
    a, b = (json.loads(Path(f"runs/{name}/run.json").read_text()) for name in "ab")
    assert a["id"] != b["id"]
    assert len(a["commands"]) == 2


@pytest.mark.parametrize("line", ["overwrite: true", "resume: runs/a", "resume: runs/a\nrun: c"])
def test_what_happens_to_a_folder_must_be_typed(line, capsys):
    main([*FIT, "--run", "a"])
    Path("runs/a/marker").touch()
    Path("old.yaml").write_text(line)
    arguments = ["fit", "-c", "runs/a/config.yaml", "-c", "old.yaml"]
    if "run: c" in line:
        main(arguments)
        assert Path("runs/c/checkpoints/epoch001.ckpt").exists()
    else:
        with pytest.raises(SystemExit):
            main([*arguments, "--run", "a"])
        assert "runs/a exists" in capsys.readouterr().err
    assert Path("runs/a/marker").exists()


def test_a_resumed_run_keeps_its_configuration(capsys):
    main([*FIT, "--run", "a"])
    before = Path("runs/a/config.yaml").read_bytes()
    identity = json.loads(Path("runs/a/run.json").read_text())["id"]
    main(["fit", "--resume", "runs/a"])
    assert Path("runs/a/config.yaml").read_bytes() == before
    assert json.loads(Path("runs/a/run.json").read_text())["id"] == identity


@pytest.mark.parametrize(
    "mistake",
    [
        ["--data.batch_size", "0"],
        ["--trainer.precision", "64-true"],
        ["--model.scheduler", "cosin"],
        ["--model", "BadNetsModule"],
    ],
)
def test_a_mistake_costs_no_run(mistake):
    main([*FIT, "--run", "a"])
    Path("runs/a/marker").touch()
    with pytest.raises(SystemExit):
        main([*FIT, "--run", "a", "--overwrite", *mistake])
    assert Path("runs/a/marker").exists()
    assert [path.name for path in Path("runs").iterdir()] == ["a"]


def test_a_run_may_read_what_it_replaces():
    main([*FIT, "--run", "a"])
    old = weights("a")
    weights_of_a = ["--model.classifier", "runs/a/checkpoints/last.ckpt"]
    still = ["--model.optimizer.lr", "0"]
    main([*FIT, *weights_of_a, *still, "--run", "a", "--overwrite"])
    assert torch.equal(
        weights("a")["classifier.network.fc.weight"], old["classifier.network.fc.weight"]
    )
    main(
        [
            *FIT,
            "--ckpt_path",
            "runs/a/checkpoints/last.ckpt",
            "--run",
            "a",
            "--overwrite",
            "--trainer.max_epochs",
            "2",
        ]
    )
    assert Path("runs/a/checkpoints/epoch002.ckpt").exists()
    assert not list(Path("runs").glob(".*"))


ALL = ("--checkpoint.save_top_k", "-1")
CRASH = ("--trainer.callbacks", "trainers.Crash")


@pytest.mark.parametrize(("epoch", "survivor"), [(-1, "old"), (0, "new")])
def test_the_old_run_goes_when_the_new_one_has_an_artefact(epoch, survivor):
    """Before its first checkpoint a crash brings the old run back, after it the new one stays."""
    main([*FIT, "--run", "a"])
    Path("runs/a/marker").touch()
    crash = [*CRASH, "--trainer.callbacks.epoch", str(epoch)]
    with pytest.raises(RuntimeError, match="out of memory"):
        main([*FIT, *crash, "--run", "a", "--overwrite"])
    assert Path("runs/a/marker").exists() is (survivor == "old")
    assert Path("runs/a/checkpoints/last.ckpt").exists()
    assert [path.name for path in Path("runs").iterdir()] == ["a"]


def test_a_run_that_crashed_in_its_first_step_can_be_resumed(monkeypatch):
    crash = [*CRASH, "--trainer.max_epochs", "2"]
    with pytest.raises(RuntimeError, match="out of memory"):
        main([*FIT, *crash, "--run", "a"])
    assert [path.name for path in Path("runs/a/checkpoints").iterdir()] == ["last.ckpt"]
    monkeypatch.setattr(Crash, "armed", False)
    main(["fit", "--resume", "runs/a"])
    main([*FIT, *crash, "--run", "whole"])
    assert all(torch.equal(weights("a")[name], value) for name, value in weights("whole").items())


def test_validation_free_commands_write_no_run_when_they_fail(capsys):
    with pytest.raises(SystemExit):
        main(["test", *FIT[1:], "--run", "t", "--attacks", "fgsm", "--attack_images", "0"])
    assert not Path("runs").exists()


@pytest.mark.parametrize(
    ("extra", "names"),
    [
        (
            ["--trainer.val_check_interval", "0.5", *ALL],
            {"last.ckpt", "epoch001.ckpt", "epoch002.ckpt"},
        ),
        (
            ["--trainer.check_val_every_n_epoch", "2", *ALL],
            {"last.ckpt", "epoch001.ckpt", "epoch002.ckpt"},
        ),
        (["--trainer.max_steps", "3", *ALL], {"last.ckpt", "epoch001.ckpt"}),
        (
            ["--checkpoint.every_n_train_steps", "1", *ALL],
            {"last.ckpt", *(f"epoch{n // 2:03d}-step{n:06d}.ckpt" for n in range(1, 5))},
        ),
    ],
)
def test_checkpoints_are_named_after_completed_epochs(extra, names):
    """40 training images in batches of 20: two steps an epoch."""
    main([*FIT, "--data.val_fraction", "0.34", "--run", "a", "--trainer.max_epochs", "2", *extra])
    assert {path.name for path in Path("runs/a/checkpoints").iterdir()} == names


ATTACK = ("--model.attack.steps", "1", "--model.attack.step_size", "10/255")


def test_an_adversarial_run_says_which_network_each_number_is_of(capsys, monkeypatch):
    """The first epoch stays the most robust one; the patterns are of the last weights."""
    monkeypatch.setattr(
        MadryModule, "_log_accuracy", lambda self, _: torch.tensor(1 - self.current_epoch / 10)
    )
    snapshot = ["--trainer.callbacks", "PatternSnapshot", "--trainer.callbacks.classes", "[0]"]
    search = "--trainer.callbacks.search"
    quick = [f"{search}.canvas", "white", f"{search}.search_epochs", "1"]
    madry = ["--model", "MadryModule", *ATTACK, "--trainer.max_epochs", "2"]
    main([*FIT, *madry, *snapshot, *quick, "--run", "a"])
    said = capsys.readouterr().out
    results = json.loads(Path("runs/a/results.json").read_text())
    assert results["tested_checkpoint"] == "runs/a/checkpoints/robust.ckpt"
    searched = results["patterns"]["provenance"]["classifier_hash"]
    for name, expected in (("robust", results["tested_classifier_hash"]), ("last", searched)):
        classifier = NaturalModule(f"runs/a/checkpoints/{name}.ckpt").classifier
        assert classifier_hash(classifier) == expected
    assert searched != results["tested_classifier_hash"]
    assert "patterns of the weights after epoch 2, not of the tested robust.ckpt;" in said


def test_several_snapshots_are_reported_by_name(capsys):
    searches = [
        {
            "class_path": "PatternSnapshot",
            "init_args": {
                "name": name,
                "classes": [0],
                "epochs": [],
                "search": {"canvas": canvas, "search_epochs": 1, "canvases_per_class": 1},
            },
        }
        for name, canvas in (("", "white"), ("drawn", "random"))
    ]
    Path("two.yaml").write_text(yaml.safe_dump({"trainer": {"callbacks": searches}}))
    main([*FIT, "-c", "two.yaml", "--run", "a"])
    results = json.loads(Path("runs/a/results.json").read_text())
    kinds = [results[name]["settings"]["canvas"] for name in ("patterns", "drawn-patterns")]
    assert kinds == ["white", "random"]
    said = capsys.readouterr().out
    assert "\npatterns of the weights after epoch 1; measured" in said
    assert "\ndrawn-patterns of the weights after epoch 1; measured" in said


def test_a_requeued_run_keeps_its_id(monkeypatch):
    """SLURM starts the same command again; Lightning goes on from its own checkpoint."""
    monkeypatch.setenv("SLURM_RESTART_COUNT", "0")
    main([*FIT, "--run", "a"])
    before = json.loads(Path("runs/a/run.json").read_text())["id"]
    monkeypatch.setenv("SLURM_RESTART_COUNT", "1")
    main([*FIT, "--run", "a", "--overwrite"])
    record = json.loads(Path("runs/a/run.json").read_text())
    assert record["id"] == before
    assert len(record["commands"]) == 2


def test_max_steps_keeps_the_last_weights():
    cli = main([*FIT, "--run", "a", "--trainer.max_epochs", "2", "--trainer.max_steps", "3"])
    assert torch.equal(
        weights("a")["classifier.network.fc.weight"], cli.model.classifier.network.fc.weight
    )


@pytest.mark.parametrize(
    "extra",
    [
        ["--trainer.check_val_every_n_epoch", "2"],
        ["--trainer.val_check_interval", "0.5"],
        ["--trainer.val_check_interval", "0.5", "--checkpoint.every_n_train_steps", "3"],
        ["--trainer.accumulate_grad_batches", "2"],
        [],
    ],
)
def test_a_resumed_run_loses_no_row(extra, monkeypatch):
    arguments = [*FIT, "--trainer.max_epochs", "4", "--trainer.log_every_n_steps", "1", *extra]
    main([*arguments, "--run", "whole"])
    crash = [*CRASH, "--trainer.callbacks.epoch", "3", "--trainer.callbacks.batch", "2"]
    with pytest.raises(RuntimeError, match="out of memory"):
        main([*arguments, *crash, "--run", "broken"])
    monkeypatch.setattr(Crash, "armed", False)
    main(["fit", "--resume", "runs/broken"])
    assert rows("whole") == rows("broken")


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
    said = capsys.readouterr().err
    assert (
        "no checkpoint in runs/empty/checkpoints; start it anew: fit -c runs/empty/config" in said
    )


def test_a_resumed_run_is_not_changed(capsys):
    with pytest.raises(SystemExit):
        main(["fit", "--resume", "runs/nowhere"])
    assert "runs/nowhere/config.yaml does not exist" in capsys.readouterr().err
    main([*FIT, "--run", "small"])
    for change in (
        "--trainer.max_epochs=3",
        "--trainer.precision=bf16-mixed",
        "--seed_everything=1",
        "--model.compile=true",
        "--data.batch_size=7",
    ):
        with pytest.raises(SystemExit):
            main(["fit", "--resume", "runs/small", change])
        assert f"the run's own settings, got {change}" in capsys.readouterr().err
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
        *FIT,
        *("--data.augmentation.crop_padding", "2", "--trainer.max_epochs", "3"),
        *("--trainer.log_every_n_steps", "1", "--trainer.logger", "null"),
    ]
    checkpoint = tmp_path / "runs" / "killed" / "checkpoints" / "epoch001.ckpt"
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
    assert rows("killed") == rows("whole")
    assert not list((tmp_path / "runs" / "whole").rglob(".*"))  # a kill may leave half a file


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
    done = subprocess.run(
        [
            *(sys.executable, "-m", "iscp_lightning", *FIT, "-c", str(config)),
            *("--run", "ddp", "--trainer.devices", "2", "--trainer.strategy", "ddp"),
            *("--trainer.logger", "null"),
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
    main([*FIT, "--run", "small"])
    module = NaturalModule("runs/small/checkpoints/last.ckpt")
    assert module.classifier.spec.architecture == "test_resnet"
    assert module.classifier.spec.image_size == (16, 16)


@pytest.mark.slow
def test_a_mistake_is_one_line_and_leaves_no_run(tmp_path):
    weights = Path(__file__).parents[1] / "checkpoints" / "shapes_resnet20.safetensors"
    done = subprocess.run(
        [
            *(sys.executable, "-m", "iscp_lightning", "test", "--model", "NaturalModule"),
            *("--model.classifier", str(weights), "--data.source", "Shapes"),
            *("--data.source.test_count", "20", "--trainer.accelerator", "cpu"),
            *("--data.source.train_count", "20", "--attacks", "pdg", "--run", "r"),
        ],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 2
    assert done.stderr.splitlines()[-1].startswith("error: `attacks` must be among fgsm")
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "runs" / "r").exists()
