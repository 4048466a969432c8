"""Promises about the package as a whole: layering, documentation, configurations, wheels."""

import ast
import importlib
import inspect
import os
import pkgutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

import iscp_lightning
from iscp_lightning.arguments import DEMO
from iscp_lightning.cli import main

ROOT = Path(__file__).parents[1]
PACKAGE = Path(iscp_lightning.__file__).parent
FILES = sorted(PACKAGE.rglob("*.py"))
CONFIGS = sorted((ROOT / "configs" / "experiment").glob("*.yaml"))
LAYERS = ["runs", "seeds", "ranks", "frozen", "figures", "data", "attacks", "classifiers"]
LAYERS += ["patterns", "loggers", "messages", "arguments", "trainer", "cli", "__main__"]
CORE = [
    *("seeds.py", "frozen.py", "ranks.py", "runs.py"),
    *("data/images.py", "data/shapes.py", "data/sources.py", "data/augment.py"),
    *("data/decoding.py", "data/workers.py", "data/splits.py"),
    *("data/triggers.py", "data/poison.py"),
    *(f"attacks/{n}.py" for n in ("epsilon", "pgd", "autoattack", "robustness", "robust_data")),
    *("classifiers/architectures.py", "classifiers/checkpoints.py"),
    *(
        f"patterns/{n}.py"
        for n in (
            "mixing",
            "recovery",
            "canvas",
            "search",
            "pattern",
            "power",
            "prepared",
            "testset",
            "origin",
            "pool",
            "descent",
        )
    ),
]


def imports(file: Path) -> set[str]:
    tree = ast.parse(file.read_text())
    found = {n.module for n in ast.walk(tree) if isinstance(n, ast.ImportFrom) and n.module}
    return found | {a.name for n in ast.walk(tree) if isinstance(n, ast.Import) for a in n.names}


def layer(parts: tuple[str, ...]) -> int:
    return LAYERS.index(parts[0].removesuffix(".py"))


@pytest.mark.parametrize("file", FILES, ids=lambda f: str(f.relative_to(PACKAGE)))
def test_imports_run_one_way(file):
    relative = file.relative_to(PACKAGE)
    if relative.name == "__init__.py" and len(relative.parts) == 1:
        return
    for name in imports(file):
        parts = name.split(".")
        if parts[0] == "iscp_lightning" and len(parts) > 1:
            assert layer((parts[1],)) <= layer(relative.parts), name


@pytest.mark.parametrize("name", CORE)
def test_the_core_never_imports_lightning(name):
    assert not {n for n in imports(PACKAGE / name) if n.split(".")[0] == "lightning"}


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
        for argument in inspect.signature(value).parameters if own else ():
            if argument not in ("args", "kwargs") and f"{argument}:" not in value.__doc__:
                missing.append(f"{name}({argument})")
    assert not missing


def verb(config: Path) -> str:
    return {"search": "search", "build": "predict"}.get(config.stem.split("_")[0], "fit")


@pytest.mark.parametrize("config", [*CONFIGS, DEMO], ids=lambda c: c.stem)
def test_every_configuration_parses(config, capsys):
    with pytest.raises(SystemExit) as done:
        main([verb(config), "-c", str(config), "--print_config=skip_default"])
    assert done.value.code == 0
    printed = yaml.safe_load(capsys.readouterr().out)
    assert printed["model"]["class_path"].startswith("iscp_lightning.")


TRAININGS = [config for config in CONFIGS if verb(config) == "fit"]


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
