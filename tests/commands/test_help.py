"""What commands say of themselves is true: their examples and options parse."""

import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from iscp_lightning import __version__, commands
from iscp_lightning.cli import main

ROOT = Path(__file__).parents[2]
WEIGHTS = str(ROOT / "checkpoints" / "shapes_resnet20.safetensors")
EVERY = ["describe", "fit", "invert", "predict", "probe", "search", "test", "transfer"]
EVERY += ["validate"]


def said(capsys, *arguments: str) -> str:
    with pytest.raises(SystemExit) as done:
        main(arguments)
    text = capsys.readouterr()
    assert done.value.code == 0, text.err
    return text.out


@pytest.fixture
def _run():
    """A run folder with a checkpoint, as `--from` and `--resume` take it."""
    checkpoints = Path("runs/NAME/checkpoints")
    checkpoints.mkdir(parents=True)
    content = {"state_dict": {"classifier.weight": torch.ones(1)}}
    for name in ("last", "epoch003"):
        torch.save(content, checkpoints / f"{name}.ckpt")
    Path("runs/NAME/config.yaml").write_text("model: NaturalModule\ndata: {source: Shapes}\n")


def examples(command: str) -> list[list[str]]:
    lines = re.findall(r"^    python -m iscp_lightning (.*)$", commands.words(command), re.M)
    return [shlex.split(line.replace("configs/", f"{ROOT}/configs/")) for line in lines]


def options(command: str) -> list[list[str]]:
    text = commands.words(command).partition("Options that matter:\n")[2]
    found = re.findall(r"^    (-\S*(?: [^ ]\S*)*)(?:  .*)?$", text, re.M)
    return [shlex.split(line) for line in found]


def test_the_commands():
    assert commands.names() == EVERY


@pytest.mark.parametrize("ask", [["--help"], ["-h"], [], ["--help.all"]])
def test_the_program_says_what_there_is(ask, capsys):
    text = said(capsys, *ask)
    for command in EVERY:
        assert f"    {command} " in text
        assert commands.words(command).splitlines()[0] in text


def test_the_version(capsys):
    assert said(capsys, "--version") == f"python -m iscp_lightning {__version__}\n"


@pytest.mark.parametrize("command", EVERY)
def test_a_command_says_what_it_takes(command, capsys):
    text = said(capsys, command, "--help")
    assert said(capsys, command, "--trainer.max_epochs", "1", "-h") == text
    assert len(examples(command)) == 2
    assert 9 <= len(options(command)) <= 11
    assert text.endswith(f"All options: python -m iscp_lightning {command} --help.all\n")


@pytest.mark.usefixtures("_run")
@pytest.mark.parametrize("command", EVERY)
def test_examples_parse(command, capsys):
    for verb, *arguments in examples(command):
        assert verb == command
        folder = ["--model.folder", "x"] if verb == "predict" else []
        assert "trainer:" in said(capsys, verb, *arguments, *folder, "--print_config")


MODEL = {"fit": "NaturalModule", "test": "NaturalModule", "validate": "NaturalModule"}


@pytest.mark.usefixtures("_run")
@pytest.mark.parametrize("command", EVERY)
def test_options_parse(command, capsys):
    Path("file.yaml").write_text("data: {batch_size: 7}\n")
    model = ["--model", MODEL[command]] if command in MODEL else []
    model += ["--model.classifier", WEIGHTS]
    model += ["--model.folder", "x"] if command == "predict" else []
    for name, *values in options(command):
        if values == ["FILE"]:
            values = ["file.yaml" if name == "-c" else WEIGHTS]
        before = [] if name == "--resume" else model
        assert "trainer:" in said(capsys, command, *before, name, *values, "--print_config")


@pytest.mark.parametrize("command", EVERY)
def test_all_options_are_one_word_away(command, capsys):
    text = said(capsys, command, "--help.all")
    assert "--trainer.accumulate_grad_batches" in text
    assert "--checkpoint.save_top_k" in text
    assert ("--attacks" in text) is (command == "test")
    assert ("--resume" in text) is (command in ("fit", "search"))
    assert ("--from" in text) is (command not in ("fit", "invert"))


def test_help_loads_neither_torch_nor_lightning():
    code = (
        "import sys\nfrom iscp_lightning.cli import main\n"
        "try:\n    main(['fit', '--help'])\nexcept SystemExit: pass\n"
        "sys.exit('torch' in sys.modules or 'lightning' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
