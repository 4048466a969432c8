"""Every command and every option that the README shows is run, made small."""

import re
import shlex
from pathlib import Path

import pytest
import torch
from PIL import Image

from iscp_lightning.cli import main

ROOT = Path(__file__).parents[1]
TEXT = (ROOT / "README.md").read_text()
COMMANDS = re.findall(r"^    python -m iscp_lightning (.*)$", TEXT, re.M)
OPTIONS = [
    option
    for cell in re.findall(r"^\| [^|]+ \| (.*) \|$", TEXT, re.M)
    for option in re.findall(r"`(--.*?)`", cell)
]
SMALL = [
    *("--data.source", "Shapes", "--data.source.init_args.test_count", "100"),
    *("--data.source.init_args.train_count", "50", "--data.val_fraction", "0.2"),
    *("--trainer.fast_dev_run", "true"),
    *("--trainer.accelerator", "cpu", "--trainer.devices", "1", "--trainer.strategy", "auto"),
]


def test_the_readme_has_commands_and_options():
    assert len(COMMANDS) == 9
    assert len(OPTIONS) >= 10


@pytest.mark.filterwarnings("ignore:no positive canvas")
@pytest.mark.parametrize("command", COMMANDS)
def test_commands_run(command, monkeypatch):
    arguments = shlex.split(command.replace("configs/", f"{ROOT}/configs/"))
    if "--model.init_args.classifier" in arguments:
        at = arguments.index("--model.init_args.classifier") + 1
        arguments[at] = str(ROOT / "checkpoints" / "shapes_resnet20.safetensors")
    else:
        arguments += ["--model.init_args.classifier", "test_resnet"]
    arguments += {
        "search": ["--model.init_args.search.canvases_per_class", "1"],
        "predict": ["--model.init_args.settings.steps", "2"],
    }.get(arguments[0], [])
    main([*arguments, *SMALL])


@pytest.mark.parametrize("option", OPTIONS)
def test_options_parse(option, tmp_path):
    if option.startswith("--resume"):  # tests/test_cli.py and tests/patterns/test_module.py run it
        return
    for part in ("train", "test"):
        (tmp_path / part / "cat").mkdir(parents=True)
        Image.new("RGB", (8, 8)).save(tmp_path / part / "cat" / "0.png")
    given = shlex.split(
        option.replace("configs/", f"{ROOT}/configs/").replace("DIR", str(tmp_path))
    )
    searching = ".search." in option or "classes" in option
    command = "search" if searching else "fit"
    config = (
        ROOT / "configs" / "experiment" / f"{'search' if searching else 'natural'}_cifar10.yaml"
    )
    with pytest.raises(SystemExit) as done:
        main([command, "-c", str(config), *given, "--print_config=skip_default"])
    assert done.value.code == 0


def test_the_python_example_runs(monkeypatch, capsys):
    (code,) = re.findall(r"```python\n(.*?)```", TEXT, re.S)
    exec(compile(code.replace("checkpoints/", f"{ROOT}/checkpoints/"), "README.md", "exec"), {})
    assert Path("patterns.safetensors").exists()
    assert "tensor" in capsys.readouterr().out
    assert torch.is_grad_enabled()


def test_make_targets_exist():
    makefile = (ROOT / "Makefile").read_text()
    for target in re.findall(r"^    make (\w+)$", TEXT, re.M):
        assert re.search(rf"^{target}:", makefile, re.M)


def test_links_and_pictures_exist():
    for path in re.findall(r"\]\((?!http)([^)#]+)\)", TEXT):
        assert (ROOT / path).exists(), path
