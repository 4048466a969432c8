"""Every command and every option that the README shows is run, made small."""

import re
import shlex
import shutil
from pathlib import Path

import pytest
import torch

from iscp_lightning.cli import main

ROOT = Path(__file__).parents[1]
TEXT = (ROOT / "README.md").read_text()
COMMANDS = re.findall(r"^    python -m iscp_lightning (.*)$", TEXT, re.M)
OPTIONS = [
    option
    for cell in re.findall(r"^\| [^|]+ \| (.*) \|$", TEXT, re.M)
    for option in re.findall(r"`(--.*?)`", cell)
]
RESULTS = re.findall(
    r"^    python -m iscp_lightning (.*)$", (ROOT / "docs" / "results.md").read_text(), re.M
)
WEIGHTS = str(ROOT / "checkpoints" / "shapes_resnet20.safetensors")
SMALL = str(ROOT / "tests" / "configs" / "small.yaml")
DRY = ["--data.source", "Shapes", "--data.source.size", "16", "--data.source.train_count", "60"]
DRY += ["--data.source.test_count", "100", "--data.batch_size", "20", "--data.val_fraction", "0.2"]
DRY += ["--trainer.fast_dev_run", "true", "--trainer.accelerator", "cpu"]
DRY += ["--trainer.devices", "1", "--trainer.strategy", "auto"]


def here(command: str) -> list[str]:
    return [
        re.sub(r"^(configs|checkpoints)/", rf"{ROOT}/\1/", word) for word in shlex.split(command)
    ]


def printed(capsys, *arguments: str) -> str:
    with pytest.raises(SystemExit) as done:
        main([*arguments, "--print_config=skip_default"])
    text = capsys.readouterr()
    assert done.value.code == 0, text.err
    return text.out


@pytest.fixture(scope="module")
def earlier(tmp_path_factory) -> dict[str, Path]:
    """Runs of a backdoored and of a clean network."""
    folder = tmp_path_factory.mktemp("earlier")
    with pytest.MonkeyPatch.context() as patched:
        patched.chdir(folder)
        patched.delenv("ISCP_RUN_FOLDER", raising=False)
        trained = ["--model.classifier", WEIGHTS, "--data.source.size", "32"]
        main(["fit", "-c", SMALL, *trained, "--model.optimizer.lr", "0", "--run", "clean"])
        poison = ["--model", "BadNetsModule", "--data.poison.target", "1"]
        main(["fit", "-c", SMALL, *poison, "--run", "backdoored"])
        quick = ["--model.search.search_epochs", "1", "--model.search.canvas", "white"]
        main(["search", "--from", "runs/clean", *quick, "--run", "searched"])
        inversion = ["-c", str(ROOT / "configs" / "experiment" / "invert_shapes.yaml")]
        sizes = ["--model.classifier", WEIGHTS, "--data.source.train_count", "60"]
        sizes += ["--data.source.test_count", "20", "--trainer.max_epochs", "1"]
        main(["fit", *inversion, *sizes, "--model.architecture.width", "1", "--run", "inverted"])
    return {run.name: run for run in (folder / "runs").iterdir()}


def test_the_readme_has_commands_and_options():
    assert len(COMMANDS) == 15
    assert len(OPTIONS) >= 10
    assert len(RESULTS) >= 10


@pytest.mark.filterwarnings("ignore:no positive canvas", "ignore:one classifier descends")
@pytest.mark.parametrize("command", COMMANDS)
def test_commands_run(command, earlier):
    arguments = here(command)
    if "runs/SEARCH" in arguments:
        shutil.copytree(earlier["searched"], "runs/SEARCH")
        for place in ("clean", "NAME", "OTHER"):
            shutil.copytree(earlier["clean"], f"runs/{place}")
        arguments += ["--trainer.fast_dev_run", "true", *DRY[-6:]]
    elif arguments[0] == "invert":
        shutil.copytree(earlier["inverted"], "runs/NAME")
        arguments += ["--trainer.fast_dev_run", "true", *DRY[-6:]]
    elif "invert_shapes" in command:
        arguments += ["--model.classifier", WEIGHTS, "--data.source.train_count", "60", *DRY[6:]]
    elif arguments[0] == "probe":
        arguments += ["--trainer.fast_dev_run", "true", *DRY[-6:]]
    elif "--from" in arguments:
        backdoored = "trigger" in command or "canvas" in command
        shutil.copytree(earlier["backdoored" if backdoored else "clean"], "runs/NAME")
        arguments += ["--trainer.fast_dev_run", "true", *DRY[-6:]]
    elif arguments[0] == "search":
        arguments += ["--model.classifier", WEIGHTS, *DRY, "--data.source.size", "32"]
    else:
        arguments += ["--model.classifier", "test_resnet", *DRY]
    small = {"predict": ["--model.settings.steps", "2"], "search": ["--model.classes", "[0]"]}
    main(arguments + small.get(arguments[0], []))


@pytest.mark.parametrize("command", RESULTS)
def test_commands_of_the_results_parse(command, capsys):
    assert "iscp_lightning." in printed(capsys, *here(command))


@pytest.mark.parametrize("option", OPTIONS)
def test_options_parse(option, capsys, tmp_path):
    if option.startswith(("--resume", "--help", "--model.help", "--print_config")):
        return  # tests of the command line ask for them
    given = here(option.replace("DIR", str(tmp_path)))
    if re.search(r"\.search\.|classes|pattern_sizes", option):
        printed(capsys, "search", "--model.classifier", WEIGHTS, *given)
    elif "--distortions" in option:
        printed(capsys, "probe", "--classifiers", WEIGHTS, *given)
    elif "--attack" in option:
        printed(capsys, "test", "--model", "NaturalModule", *given)
    else:
        natural = str(ROOT / "configs" / "experiment" / "natural_cifar10.yaml")
        printed(capsys, "fit", "-c", natural, *given)


@pytest.mark.parametrize("path", ["README.md", "docs", "CONTRIBUTING.md"])
def test_what_is_typed_is_short(path):
    files = (ROOT / path).glob("*.md") if (ROOT / path).is_dir() else [ROOT / path]
    for file in files:
        assert not re.search(r"--\S*init_args", file.read_text()), file


def test_the_python_examples_run(monkeypatch, capsys):
    for code in re.findall(r"```python\n(.*?)```", TEXT, re.S):
        exec(compile(code.replace("checkpoints/", f"{ROOT}/checkpoints/"), "README.md", "exec"), {})
    assert Path("patterns.safetensors").exists()
    assert Path("foreign.safetensors").exists()
    assert "tensor" in capsys.readouterr().out
    assert torch.is_grad_enabled()


def test_the_python_example_of_the_method_runs(capsys):
    text = (ROOT / "docs" / "method.md").read_text()
    (code,) = re.findall(r"```python\n(.*?)```", text, re.S)
    exec(compile(code.replace("checkpoints/", f"{ROOT}/checkpoints/"), "method.md", "exec"), {})
    assert "generalisation/patch shuffle/4" in capsys.readouterr().out


def test_make_targets_exist():
    makefile = (ROOT / "Makefile").read_text()
    for target in re.findall(r"^    make (\w+)$", TEXT, re.M):
        assert re.search(rf"^{target}:", makefile, re.M)


def test_links_and_pictures_exist():
    for path in re.findall(r"\]\((?!http)([^)#]+)\)", TEXT):
        assert (ROOT / path).exists(), path
