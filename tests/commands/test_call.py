"""A command is one file: with an Experiment, or with nothing but its own options."""

import sys
from pathlib import Path

import pytest

from iscp_lightning import commands
from iscp_lightning.cli import main

SMALL = str(Path(__file__).parents[1] / "configs" / "small.yaml")
PAINT = '''
"""Paint a file, without a model or a Trainer.

Examples:
    python -m iscp_lightning paint a.txt
"""


def paint(path: str, colors: list[str] | None = None, times: int = 1) -> str:
    """Paint a file.

    Args:
        path: the file
        colors: with what
        times: how often
    """
    return f"{path} {colors} {times}"
'''
COUNT = '''
"""Count the test images."""

import lightning as L

from iscp_lightning.commands._experiment import Experiment


def base(arguments, earlier):
    """Return the model."""
    return {"model": {"class_path": "NaturalModule", "init_args": {"label_smoothing": 0.25}}}


def count(experiment: Experiment[L.LightningModule], twice: bool = False) -> None:
    """Count.

    Args:
        experiment: Data.
        twice: Whether to count twice.
    """
    experiment.config.data.source.init_args.test_count = 7
    experiment.build()
    experiment.datamodule.setup("test")
    experiment.counted = len(experiment.datamodule.test_images) * (1 + twice)
'''


@pytest.fixture(autouse=True)
def _commands(tmp_path, monkeypatch):
    folder = tmp_path / "new"
    folder.mkdir()
    for name, text in (("paint", PAINT), ("count", COUNT)):
        (folder / f"{name}.py").write_text(text.lstrip())
    monkeypatch.setattr(commands, "__path__", [*commands.__path__, str(folder)])
    yield
    for name in ("paint", "count"):
        sys.modules.pop(f"iscp_lightning.commands.{name}", None)


def told(capsys, *arguments: str) -> str:
    with pytest.raises(SystemExit) as done:
        main(arguments)
    text = capsys.readouterr()
    return text.out if done.value.code == 0 else text.err


def test_a_file_is_a_command(capsys):
    assert {"paint", "count"} < set(commands.names())
    assert "paint     Paint a file, without a model or a Trainer.\n" in told(capsys, "--help")
    assert told(capsys, "paint", "--help").startswith("Paint a file, without")
    assert "--colors" in told(capsys, "paint", "--help.all")


def test_its_signature_is_its_options(capsys):
    assert main(["paint", "a", "--colors", "red", "blue"]) == "a ['red', 'blue'] 1"
    Path("c.yaml").write_text("times: 3\n")
    assert main(["paint", "a", "-c", "c.yaml"]) == "a None 3"
    assert told(capsys, "paint") == "error: `path` is missing\n"
    assert told(capsys, "paint", "a", "--times", "x") == "error: `times`=x must be a whole number\n"
    assert "did you mean --times?" in told(capsys, "paint", "a", "--time", "1")
    assert "unknown option `--trainer.devices`" in told(capsys, "paint", "a", "--trainer.devices=1")


def test_with_an_experiment_it_has_model_data_and_trainer():
    cli = main(["count", "-c", SMALL, "--twice"])
    assert cli.counted == 14
    assert cli.model.label_smoothing == 0.25  # what lies below, where nothing else is said
    assert cli.run.folder.name.startswith("count-")
    assert not Path("runs").exists()


def test_all_names_are_found_without_imports():
    commands.words("paint")
    assert "iscp_lightning.commands.paint" not in sys.modules
