"""No file but a configuration is read as one, and a mistake never runs what lies beside it."""

import contextlib
import inspect
import sys
from pathlib import Path

import pytest
import torch
import yaml

import iscp_lightning.data
import iscp_lightning.training
from iscp_lightning import commands
from iscp_lightning.arguments import DEMO, Parser, typed
from iscp_lightning.cli import main
from iscp_lightning.commands._experiment import Experiment
from iscp_lightning.commands.fit import base

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
    (f"--model {model} --model.{name}", ("model", "init_args", name))
    for model, names in CLASSIFIER_OF.items()
    for name in names
] + [
    ("--data.poison.target 0 --data.poison.trigger.name", ("data", "poison", "trigger", "name")),
    (
        "--data.source ImageFolder --data.source.root",
        ("data", "source", "init_args", "root"),
    ),
    ("--ckpt_path", ("ckpt_path",)),
]  # fmt: skip
CLASSES = [
    "--data.source", "--data.poison", "--data.poison.trigger", "--data.augmentation",
    "--trainer.callbacks", "--trainer.logger", "--trainer.plugins", "--checkpoint", "--model",
    "--model NaturalModule --model.optimizer",
    "--model NaturalModule --model.scheduler",
    "--model MadryModule --model.attack",
    "--model MadryModule --model.evaluation_attack",
    "--model PatternSearchModule --model.search",
    "--data.source RobustData --data.source.origin",
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
            if "class_path" in inner:
                inner = inner.setdefault("init_args", {})
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


EARLIER = [option for option in CLASSES if option.startswith(("--data", "--model"))]


@pytest.mark.parametrize("command", ["test", "search"])
@pytest.mark.parametrize("option", EARLIER)
def test_an_earlier_run_names_no_more_than_a_configuration(option, command, hostile, capsys):
    """`--from` reads a run's configuration with the same guards as `-c` reads any."""
    Path("run/checkpoints").mkdir(parents=True)
    torch.save({"state_dict": {"classifier.weight": torch.ones(1)}}, "run/checkpoints/last.ckpt")
    model = "" if option.startswith("--model") else "--model NaturalModule "
    Path("run/config.yaml").write_text(as_yaml(f"{model}{option}", hostile))
    with pytest.raises(SystemExit) as done:
        main([command, "--from", "run", "--print_config"])
    said = capsys.readouterr()
    if command == "search" and option.startswith("--model"):  # which takes the weights alone
        assert "PatternSearchModule" in said.out
    else:
        assert done.value.code == 2
        assert hostile in said.err


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
    ("given", "is_demo"),
    [
        ([], True),
        (["--trainer.max_epochs", "1"], True),
        (["--model.compile", "1"], True),
        (["-c", "x.yaml"], False),
        (["-cx.yaml"], False),
        (["--config=x.yaml"], False),
        (["--model", "M"], False),
        (["--data=d.yaml"], False),
    ],
)
def test_the_demo_is_for_bare_fits_only(given, is_demo):
    assert base(given, None) == (yaml.safe_load(DEMO.read_text()) if is_demo else {})


@pytest.mark.parametrize(
    ("args", "expected"),
    [
        (["--resume", "runs/a"], "runs/a"),
        (["--resume=runs/a", "--x"], "runs/a"),
        (["--resume", "runs/a", "--resume", "runs/b"], "runs/b"),
        (["--resume"], ""),
        (["--resumed", "runs/a"], None),
        (["-c", "resume"], None),
    ],
)
def test_typed(args, expected):
    assert typed("resume", args) == expected


def paint(folder: str, sizes: list[float] | None = None, from_: str | None = None, count: int = 3):
    """Paint.

    Args:
        folder: where
        sizes: how large,
            of each
        from_: from what
        count: how many
    """


def test_options_come_from_a_signature(capsys):
    parser = Parser(exit_on_error=False)
    assert parser.add_options(paint, skip=["count"]) == ["folder", "sizes", "from_"]
    config = parser.parse_args(["a", "--sizes", "1", "2.5", "--from", "b"])
    assert (config.folder, config.sizes, config.from_) == ("a", [1.0, 2.5], "b")
    config = parser.parse_args(["a", "--sizes"])
    assert (config.sizes, config.from_) == ([], None)
    assert parser.parse_args(["a"]).sizes is None
    with pytest.raises(Exception, match="float"):
        parser.parse_args(["a", "--sizes", "large"])
    parser.print_help()
    assert "how large, of each" in capsys.readouterr().out


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
    monkeypatch.setattr(Experiment, "parse_arguments", lambda self, parser, _: stop(parser))
    tried = 0
    for command in commands.names():
        with pytest.raises(Stop) as stopped:
            main([command])
        (parser,) = stopped.value.args
        for option in every_option(parser):
            tried += 1
            with contextlib.suppress(SystemExit):
                parser.parse_args([option, "weights.pt"])
    for option, names in NESTED.items():
        for name in names:
            for argument in inspect.signature(
                next(getattr(home, name) for home in HOMES if hasattr(home, name))
            ).parameters:
                tried += 1
                arguments = [option, name, f"{option}.{argument}", "weights.pt"]
                with contextlib.suppress(SystemExit):
                    parser.parse_args(["--model", "NaturalModule", *arguments])
    assert tried > 400
    assert not Path("executed").exists()
    assert not {"evil", "weights"} & set(sys.modules)


NESTED = {
    "--model": [*CLASSIFIER_OF, "BadNetsModule", "MadryModule", "FreeModule"],
    "--data.source": ["ImageFolder", "Shapes", "RobustData", "CIFAR10"],
    "--trainer.callbacks": ["PatternSnapshot"],
}


HOMES = (iscp_lightning.data, iscp_lightning.training, iscp_lightning)


class Stop(Exception):  # noqa: N818
    """Carries the parser out."""


def stop(parser) -> None:
    raise Stop(parser)
