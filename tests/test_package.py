"""Promises about the package as a whole: layering, documentation, configurations, wheels."""

import ast
import importlib
import inspect
import os
import pkgutil
import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import yaml

import iscp_lightning
from iscp_lightning.arguments import DEMO
from iscp_lightning.cli import main

ROOT = Path(__file__).parents[1]
PACKAGE = Path(iscp_lightning.__file__).parent
WEIGHTS = ROOT / "checkpoints" / "shapes_resnet20.safetensors"
FILES = sorted(PACKAGE.rglob("*.py"))
CONFIGS = sorted((ROOT / "configs" / "experiment").glob("*.yaml"))
LAYERS = ["runs", "records", "work", "seeds", "ranks", "figures", "internals"]
LAYERS += ["data", "classifiers", "measurement", "attacks", "metrics", "training"]
LAYERS += ["patterns", "probes", "inversion", "callbacks"]
LAYERS += ["loggers", "messages", "arguments", "trainer"]
LAYERS += ["commands", "cli", "__main__"]
SHELLS = {  # what may load Lightning: all else is mathematics, and must not
    *("cli", "internals", "trainer", "arguments", "loggers", "messages", "__main__"),
    "data.datamodule",
    *("patterns.module", "patterns.strategy", "patterns.limits"),
    *("probes.module", "inversion.module", "inversion.processes"),
}
SHELL_ROOMS = ("training", "callbacks", "commands")


def module_name(file: Path) -> str:
    parts = file.relative_to(PACKAGE).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def imported(file: Path) -> set[str]:
    """Return the modules of the package that a file imports where it is loaded."""
    found = set()
    tree = ast.parse(file.read_text())
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("iscp_lightning"):
            home = node.module.removeprefix("iscp_lightning").lstrip(".")
            inside = {f"{home}.{alias.name}".lstrip(".") for alias in node.names}
            found |= {name if name in NAMES else home for name in inside}
    return found


NAMES = {module_name(file) for file in FILES}
GRAPH = {module_name(file): imported(file) for file in FILES}


def layer(name: str) -> int:
    return LAYERS.index(name.split(".")[0])


@pytest.mark.parametrize("name", sorted(NAMES - {""}))
def test_imports_run_one_way(name):
    for other in GRAPH[name] - {""}:
        assert layer(other) <= layer(name), other


def test_imports_make_no_circle():
    left = {name: GRAPH[name] - {name} for name in NAMES}
    while free := [name for name, others in left.items() if not others & left.keys()]:
        left = {name: others for name, others in left.items() if name not in free}
    assert not left


def test_the_core_never_loads_lightning():
    core = [n for n in NAMES - SHELLS - {""} if n.split(".")[0] not in SHELL_ROOMS]
    code = f"import sys, importlib\nfor name in {sorted(core)}:\n"
    code += "    importlib.import_module(f'iscp_lightning.{name}')\n"
    code += "    assert 'lightning' not in sys.modules, name"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("file", FILES, ids=lambda f: str(f.relative_to(PACKAGE)))
def test_files_stay_readable(file):
    assert len(file.read_text().splitlines()) <= 400


def public_objects():
    for info in pkgutil.walk_packages([str(PACKAGE)], "iscp_lightning."):
        if info.name.endswith("__main__"):
            continue
        module = importlib.import_module(info.name)
        for name, value in vars(module).items():
            if getattr(value, "__module__", None) == info.name and not name.startswith("_"):
                yield f"{info.name}.{name}", value


def test_every_public_name_is_documented():
    bare = [name for name, value in public_objects() if callable(value) and not value.__doc__]
    assert not bare


def test_every_public_argument_is_documented():
    missing = []
    for name, value in public_objects():
        if not inspect.isclass(value) or not (value.__doc__ or ""):
            continue
        own = "__init__" in vars(value) and not hasattr(value, "_fields")
        documented = " ".join(base.__doc__ or "" for base in value.__mro__)
        for argument in inspect.signature(value).parameters if own else ():
            if argument not in ("args", "kwargs") and f"{argument}:" not in documented:
                missing.append(f"{name}({argument})")
    assert not missing


def verb(config: Path) -> str:
    """The command that a configuration is for: its first word, or `fit`."""
    first = config.stem.partition("_")[0]
    return first if first in ("search", "probe") else "fit"


@pytest.mark.parametrize("config", [*CONFIGS, DEMO], ids=lambda c: c.stem)
def test_every_configuration_parses(config, capsys):
    with pytest.raises(SystemExit) as done:
        main([verb(config), "-c", str(config), "--print_config=skip_default"])
    assert done.value.code == 0
    printed = yaml.safe_load(capsys.readouterr().out)
    assert printed["model"]["class_path"].startswith("iscp_lightning.")


OTHERS = ("adain", "invert")  # they train no classifier
TRAININGS = [c for c in CONFIGS if verb(c) == "fit" and not c.stem.startswith(OTHERS)]
INVERSIONS = [c for c in CONFIGS if c.stem.startswith("invert")]


@pytest.mark.filterwarnings("ignore:no positive canvas")
@pytest.mark.parametrize("config", TRAININGS, ids=lambda c: c.stem)
def test_every_training_runs_small_with_a_snapshot(config):
    overlay = ROOT / "configs" / "overlay" / "small_cifar10.yaml"
    main(
        [
            *("fit", "-c", str(config), "-c", str(overlay), "--trainer.fast_dev_run", "1"),
            *("--model.init_args.classifier", "resnet20", "--data.batch_size", "8"),
            *("--data.source", "Shapes", "--data.source.init_args.size", "16"),
            *("--data.source.init_args.train_count", "100", "--data.num_workers", "0"),
            *("--data.source.init_args.test_count", "50", "--trainer.precision", "32-true"),
            *("--data.augmentation.crop_padding", "2", "--data.val_fraction", "0.1"),
            *("--trainer.callbacks+", "PatternSnapshot", "--trainer.accelerator", "cpu"),
            *("--trainer.callbacks.epochs", "[1]", "--trainer.callbacks.classes", "[0]"),
            *("--trainer.callbacks.search.search_epochs", "1"),
        ]
        + (["--data.poison.trigger.size", "3"] if "badnets" in config.stem else [])
    )


@pytest.mark.parametrize("config", INVERSIONS, ids=lambda c: c.stem)
@pytest.mark.parametrize("overlay", [[], ["dosovitskiy_brox"]])
def test_every_inversion_runs_small(config, overlay):
    others = [f"--config={ROOT / 'configs' / 'overlay' / name}.yaml" for name in overlay]
    main(
        [
            *("fit", "-c", str(config), *others, "--trainer.fast_dev_run", "1"),
            *(
                "--model.init_args.classifier",
                str(WEIGHTS),
            ),
            *("--model.init_args.architecture.width", "8"),
            *("--model.init_args.architecture.attention", "16"),
            *("--data.source", "Shapes", "--data.source.init_args.size", "32"),
            *("--data.source.init_args.train_count", "100", "--data.num_workers", "0"),
            *("--data.source.init_args.test_count", "50", "--trainer.precision", "32-true"),
            *("--data.batch_size", "8", "--data.val_fraction", "0.2"),
            *("--trainer.accelerator", "cpu"),
        ]
    )


@pytest.mark.parametrize(("threshold", "epochs"), [("-1", 1), ("2", 6)])
def test_an_underfit_training_stops_at_its_accuracy_alone(threshold, epochs):
    main(
        [
            *("fit", "-c", str(ROOT / "tests" / "configs" / "small.yaml"), "--run", "r"),
            *("-c", str(ROOT / "configs" / "overlay" / "underfit.yaml")),
            *("--trainer.callbacks.stopping_threshold", threshold, "--trainer.max_epochs", "6"),
        ]
    )
    last = torch.load("runs/r/checkpoints/last.ckpt", weights_only=True)
    assert last["loops"]["fit_loop"]["epoch_progress"]["current"]["processed"] == epochs
    assert Path("runs/r/results.json").is_file()


def test_the_classes_of_the_paper_are_fifty_of_imagenet(capsys):
    experiment, overlay = (
        ROOT / "configs" / name
        for name in ("experiment/search_imagenet.yaml", "overlay/paper_imagenet_classes.yaml")
    )
    with pytest.raises(SystemExit):
        main(["search", "-c", str(experiment), "-c", str(overlay), "--print_config"])
    given = yaml.safe_load(capsys.readouterr().out)["model"]["init_args"]
    assert len(set(given["classes"])) == 50
    assert all(re.fullmatch(r"n\d{8}", name) for name in given["classes"])
    assert given["random_classes"] is None


def test_every_yaml_is_used_by_an_experiment():
    included = "".join(config.read_text() for config in CONFIGS)
    for part in (ROOT / "configs").glob("*/*.yaml"):
        if part.parent.name not in ("experiment", "overlay"):
            assert f"../{part.parent.name}/{part.name}" in included, part


def test_public_names_complete():
    assert set(dir(iscp_lightning)) == set(iscp_lightning.__all__)
    assert all(getattr(iscp_lightning, name) for name in iscp_lightning.__all__)


def test_import_is_light():
    code = "import sys, iscp_lightning; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def fit_dry(folder: Path, python_path: str) -> None:
    environment = os.environ | {"PYTHONPATH": python_path}
    command = [sys.executable, "-m", "iscp_lightning", "fit", "--trainer.fast_dev_run", "true"]
    done = subprocess.run(
        command, cwd=folder, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr[-3000:]
    assert list(folder.iterdir()) == []


@pytest.mark.slow
@pytest.mark.parametrize("form", ["wheel", "editable"])
def test_the_demo_runs_from_an_empty_folder(tmp_path, form):
    empty, target = tmp_path / "empty", tmp_path / "site"
    empty.mkdir()
    if form == "wheel":
        pip = [sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check"]
        build = [*pip, "wheel", "--no-deps", "--no-build-isolation", "-w", str(tmp_path), str(ROOT)]
        subprocess.run(build, check=True)
        (wheel,) = tmp_path.glob("*.whl")
        subprocess.run([*pip, "install", "--no-deps", "-t", str(target), str(wheel)], check=True)
        code = "import iscp_lightning; print(iscp_lightning.__file__)"
        where = subprocess.run(
            [sys.executable, "-c", code],
            env=os.environ | {"PYTHONPATH": str(target)},
            cwd=empty,
            capture_output=True,
            text=True,
            check=True,
        )
        assert where.stdout.startswith(str(target))
    fit_dry(empty, str(target) if form == "wheel" else "")
