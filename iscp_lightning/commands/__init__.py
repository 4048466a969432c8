"""The commands, a file each: its docstring is the help, its function's signature the options.

A command that trains or measures with a Trainer takes an `Experiment` first. `--from` is for those
that have a parameter `from_`, `--resume` for those with `resume`. A function `base` beside it says
which configuration lies below all that is typed.
"""

from __future__ import annotations

import ast
import pkgutil
from importlib.util import find_spec
from pathlib import Path

ALL = "--help.all"


def names() -> list[str]:
    """Return the names of the commands."""
    found = [module.name for module in pkgutil.iter_modules(__path__)]
    return sorted(name for name in found if not name.startswith("_"))


def words(name: str) -> str:
    """Return what a command says of itself: one line, examples and options; nothing is imported."""
    spec = find_spec(f"{__name__}.{name}")
    assert spec is not None
    assert spec.origin is not None
    return ast.get_docstring(ast.parse(Path(spec.origin).read_text())) or ""
