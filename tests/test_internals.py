"""Private names of Lightning are used in one place, those of the parser in another."""

import ast
import importlib
import inspect
import pkgutil
from pathlib import Path

import iscp_lightning

PACKAGE = Path(iscp_lightning.__file__).parent
HOMES = {"internals.py", "arguments.py"}
OF_TUPLES = {"_replace", "_fields", "_asdict", "_make"}
FOREIGN = ("lightning", "torch", "torchmetrics", "jsonargparse", "wandb")


def private(name: str) -> bool:
    return name.startswith("_") and not name.startswith("__")


def used(tree: ast.AST) -> set[str]:
    return {node.attr for node in ast.walk(tree) if isinstance(node, ast.Attribute)}


def defined(tree: ast.AST) -> set[str]:
    """Return the names that a file gives to functions, attributes and variables."""
    found = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            found.add(node.name)
        elif isinstance(node, ast.Attribute | ast.Name) and isinstance(node.ctx, ast.Store):
            found.add(node.attr if isinstance(node, ast.Attribute) else node.id)
    return found


TREES = {path: ast.parse(path.read_text()) for path in PACKAGE.rglob("*.py")}


def strangers(trees: dict[Path, ast.AST]) -> set[tuple[str, str]]:
    """Return the private names that no file of the package defines, with the files they are in."""
    own = set().union(*map(defined, trees.values())) | OF_TUPLES
    found = {(path.name, name) for path, tree in trees.items() for name in used(tree) - own}
    return {(file, name) for file, name in found if private(name)}


def test_no_file_but_these_uses_private_names_of_others():
    assert {file for file, _ in strangers(TREES)} <= HOMES


def test_a_private_name_of_others_is_seen():
    tree = ast.parse("def f(trainer):\n    return trainer.fit_loop._data_source\n")
    assert strangers({Path("new.py"): tree}) == {("new.py", "_data_source")}


def overridden(cls: type) -> set[str]:
    """Return the private names that a class of the package has in common with foreign bases."""
    bases = [base for base in cls.__mro__[1:] if base.__module__.split(".")[0] in FOREIGN]
    theirs = {name for base in bases for name in vars(base)}
    return {name for name in vars(cls) if private(name) and name in theirs} - {"_abc_impl"}


def test_no_class_but_these_overrides_a_private_name_of_others():
    for info in pkgutil.walk_packages([str(PACKAGE)], "iscp_lightning."):
        if info.name.endswith("__main__"):
            continue
        for cls in vars(importlib.import_module(info.name)).values():
            if inspect.isclass(cls) and cls.__module__ == info.name:
                file = f"{info.name.rsplit('.', 1)[-1]}.py"
                assert file in HOMES or not overridden(cls), (cls, overridden(cls))
