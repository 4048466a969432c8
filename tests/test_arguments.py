"""No file but a configuration is read as one, and a mistake never runs what lies beside it."""

import contextlib
import inspect
import sys
from pathlib import Path

import pytest
import torch
import yaml

import iscp_lightning.data
from iscp_lightning.arguments import DEMO, complete_arguments, typed
from iscp_lightning.cli import CLI, main

MODULE = """
import torch
open("executed", "w").close()
class Net(torch.nn.Linear): ...
def function(*args) -> torch.nn.Module: ...
"""
CONTENTS = {
    "class": "class_path: evil.Net\ninit_args: {in_features: 1, out_features: 1}\n",
    "function": "class_path: evil.function\n",
    "missing class": "class_path: evil.NotAModule\n",
    "a network's name": "resnet18\n",
    "mapping": "{name: checkerboard, classifier: resnet18, root: /}\n",
}
CLASSIFIER_OF = {
    "NaturalModule": ["classifier"],
    "PatternSearchModule": ["classifier", "weights"],
    "RobustDataWriter": ["classifier", "weights", "folder"],
}
# options that take a string or a class, and what they hold after a hostile file was given as text
STRINGS = [
    (f"--model {model} --model.init_args.{name}", ("model", "init_args", name))
    for model, names in CLASSIFIER_OF.items()
    for name in names
] + [
    ("--data.poison.target 0 --data.poison.trigger.name", ("data", "poison", "trigger", "name")),
    (
        "--data.source ImageFolder --data.source.init_args.root",
        ("data", "source", "init_args", "root"),
    ),
    ("--ckpt_path", ("ckpt_path",)),
]  # fmt: skip
CLASSES = [
    "--data.source", "--data.poison", "--data.poison.trigger", "--data.augmentation",
    "--trainer.callbacks", "--trainer.logger", "--trainer.plugins", "--checkpoint", "--model",
    "--model NaturalModule --model.init_args.optimizer",
    "--model NaturalModule --model.init_args.scheduler",
    "--model MadryModule --model.init_args.attack",
    "--model MadryModule --model.init_args.evaluation_attack",
    "--model PatternSearchModule --model.init_args.search",
    "--data.source RobustData --data.source.init_args.origin",
]  # fmt: skip


@pytest.fixture(params=CONTENTS.values(), ids=CONTENTS.keys())
def hostile(request, tmp_path: Path, monkeypatch) -> str:
    """A weights file beside modules that say when they are imported."""
    monkeypatch.syspath_prepend(str(tmp_path))
    for name in ("evil", "weights"):  # `weights.pt` is also the dotted name of an object
        (tmp_path / f"{name}.py").write_text(MODULE)
    (tmp_path / "weights.pt").write_text(request.param)
    yield "weights.pt"
    assert not (tmp_path / "executed").exists()
    for name in ("evil", "weights"):
        assert sys.modules.pop(name, None) is None


def parsed(capsys, *arguments: str) -> dict:
    with pytest.raises(SystemExit) as done:
        main([*arguments, "--print_config"])
    text = capsys.readouterr()
    assert done.value.code == 0, text.err
    return yaml.safe_load(text.out)


def as_yaml(option: str, value: str) -> str:
    """Return the configuration file that says what `--a x --b.c` followed by a value says."""
    config: dict = {}
    *before, last = option.split("--")[1:]
    for key, given in [*(item.split() for item in before), (last.strip(), value)]:
        *path, name = key.split(".")
        inner = config
        for part in path:
            if not isinstance(inner.get(part, {}), dict):
                inner[part] = {"class_path": inner[part]}
            inner = inner.setdefault(part, {})
        inner[name] = given
    return yaml.safe_dump(config)


@pytest.mark.parametrize("way", ["typed", "yaml"])
@pytest.mark.parametrize(("option", "place"), STRINGS, ids=[o for o, _ in STRINGS])
def test_a_file_given_as_text_stays_text(option, place, way, hostile, capsys):
    given = [*option.split(), hostile]
    if way == "yaml":
        Path("given.yaml").write_text(as_yaml(option, hostile))
        given = ["-c", "given.yaml"]
    if "--model " not in option:
        given += ["--model", "NaturalModule"]
    value = parsed(capsys, "fit", *given)
    for name in place:
        value = value[name]
    assert value == hostile


@pytest.mark.parametrize("way", ["typed", "yaml"])
@pytest.mark.parametrize("option", CLASSES)
def test_a_file_given_as_a_class_is_refused(option, way, hostile, capsys):
    given = [*option.split(), hostile]
    if way == "yaml":
        Path("given.yaml").write_text(as_yaml(option, hostile))
        given = ["-c", "given.yaml"]
    with pytest.raises(SystemExit) as done:
        main(["fit", *given, "--print_config"])
    assert done.value.code == 2
    error = capsys.readouterr().err.splitlines()[-1]
    assert error.startswith("error: ")
    assert hostile in error


def test_the_same_attacks_would_work_on_a_plain_parser(tmp_path, monkeypatch):
    """The bait is real: the parser underneath imports what the file names."""
    from lightning.pytorch.cli import LightningArgumentParser

    monkeypatch.syspath_prepend(str(tmp_path))
    (tmp_path / "bait.py").write_text(MODULE)
    (tmp_path / "weights.pt").write_text("class_path: bait.Net\n")
    parser = LightningArgumentParser(exit_on_error=False)
    parser.add_subclass_arguments(torch.nn.Module, "net")
    with pytest.raises(Exception, match="in_features"):
        parser.parse_args(["--net", "weights.pt"])
    assert Path("executed").exists()
    sys.modules.pop("bait")


def test_groups_may_still_lie_in_files_and_be_typed_as_mappings(tmp_path, capsys):
    (tmp_path / "part").mkdir()
    Path("part/model.yaml").write_text("class_path: NaturalModule\ninit_args: {classifier: a}\n")
    Path("part/data.yml").write_text("batch_size: 7\n")
    Path("experiment.yaml").write_text("model: part/model.yaml\ndata: part/data.yml\n")
    included = parsed(capsys, "fit", "-c", "experiment.yaml")
    given = parsed(capsys, "fit", "--model", "part/model.yaml", "--data", "part/data.yml")
    for config in (included, given):
        assert config["model"]["init_args"]["classifier"] == "a"
        assert config["data"]["batch_size"] == 7
    mapping = ["--data.augmentation", "{shift: 3}", "--data.poison", "{target: 2}"]
    config = parsed(capsys, "fit", "--model", "part/model.yaml", *mapping)
    assert config["data"]["augmentation"]["shift"] == 3
    assert config["data"]["poison"]["target"] == 2


def test_a_known_class_wins_over_a_file_of_its_name(capsys):
    Path("Shapes").write_text("class_path: evil.Net")
    config = parsed(capsys, "fit", "--model", "NaturalModule", "--data.source", "Shapes")
    assert config["data"]["source"]["class_path"] == "iscp_lightning.Shapes"


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


@pytest.mark.parametrize(
    ("args", "expected"),
    [
        (["fit", "--resume", "runs/a"], True),
        (["fit", "--resume=runs/a"], True),
        (["fit", "--resumed", "runs/a"], False),
        (["fit", "-c", "resume"], False),
    ],
)
def test_typed(args, expected):
    assert typed("resume", args) is expected


def every_option(parser, prefix: str = "--") -> list[str]:
    """Return the options of a parser that take a value."""
    return sorted(
        option
        for option, action in parser._option_string_actions.items()
        if option.startswith(prefix) and action.nargs != 0
    )


def test_no_option_at_all_imports_or_becomes_what_a_file_says(tmp_path, monkeypatch):
    """Every option of every command, and of every model, source and callback of this package."""
    monkeypatch.syspath_prepend(str(tmp_path))
    for name in ("evil", "weights"):
        (tmp_path / f"{name}.py").write_text(MODULE)
    (tmp_path / "weights.pt").write_text(CONTENTS["class"])
    monkeypatch.setattr(CLI, "parse_arguments", lambda self, parser, _: stop(parser))
    with pytest.raises(Stop) as stopped:
        main(["fit"])
    (parser,) = stopped.value.args
    tried = 0
    for command, inner in parser._subcommands_action._name_parser_map.items():
        for option in every_option(inner):
            tried += 1
            with contextlib.suppress(SystemExit):
                parser.parse_args([command, option, "weights.pt"])
    for option, names in NESTED.items():
        for name in names:
            for argument in inspect.signature(
                getattr(iscp_lightning.data, name, None) or getattr(iscp_lightning, name)
            ).parameters:
                tried += 1
                arguments = [option, name, f"{option}.{argument}", "weights.pt"]
                with contextlib.suppress(SystemExit):
                    parser.parse_args(["fit", "--model", "NaturalModule", *arguments])
    assert tried > 400
    assert not Path("executed").exists()
    assert not {"evil", "weights"} & set(sys.modules)


NESTED = {
    "--model": [*CLASSIFIER_OF, "BadNetsModule", "MadryModule", "FreeModule"],
    "--data.source": ["ImageFolder", "Shapes", "RobustData", "CIFAR10"],
    "--trainer.callbacks": ["PatternSnapshot"],
}


class Stop(Exception):  # noqa: N818
    """Carries the parser out."""


def stop(parser) -> None:
    raise Stop(parser)
