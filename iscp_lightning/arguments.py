"""What is typed: which files the parser may read, which options count, what a mistake is told.

jsonargparse opens any argument that names a file wherever a class could stand, and imports what the
file says. Here configuration comes from files that are named as such, and from nowhere else.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any, Literal, NoReturn, get_args, get_origin, get_type_hints

import docstring_parser
import yaml
from jsonargparse._actions import ActionConfigFile, _ActionConfigLoad, _ActionHelpClassPath
from jsonargparse._typehints import ActionTypeHint, get_all_subclass_paths
from lightning.pytorch.cli import LightningArgumentParser

from iscp_lightning.messages import fail, one_line, suggestion

DEMO = Path(__file__).with_name("demo.yaml")
CONFIGURATIONS = (".yaml", ".yml", ".json")
FROM_FILES = ("model", "data", "trainer")  # a part of the configuration in a file of its own


class Parser(LightningArgumentParser):
    """LightningCLI's parser, which reads no file but those given as configuration."""

    reads_files = False  # parsers of nested classes never do

    def add_configuration(self) -> None:
        """Add `-c`, as LightningCLI does."""
        self.add_argument("-c", "--config", action=ActionConfigFile, help="configuration file")

    def add_options(self, function: Callable[..., Any], skip: Sequence[str] = ()) -> list[str]:
        """Add a function's parameters as options, and return their names.

        A parameter without default is a positional argument, one that takes a list takes several
        words, one that is False is a flag, and a keyword of Python loses the `_` at its end.

        Args:
            function: Typed, and documented in Google's style.
            skip: Names of parameters to leave out.
        """
        hints = get_type_hints(function)
        documented = docstring_parser.parse(inspect.getdoc(function) or "").params
        helps = {entry.arg_name: " ".join(str(entry.description).split()) for entry in documented}
        added = [name for name in inspect.signature(function).parameters if name not in skip]
        for name in added:
            default = inspect.signature(function).parameters[name].default
            kind: dict[str, Any] = {"type": hints[name], "help": helps.get(name)}
            if item := listed(hints[name]):
                kind |= {"type": item, "nargs": "*"}
            if default is False:
                kind = {"action": "store_true", "help": helps.get(name)}
            if default is inspect.Parameter.empty:
                self.add_argument(name, **kind)
            else:
                self.add_argument(f"--{name.rstrip('_')}", dest=name, default=default, **kind)
        self._guard()
        return added

    def add_class_arguments(self, *args: Any, **kwargs: Any) -> list[str]:  # noqa: ANN401
        """Add a class's arguments, none of which is read from a file."""
        added: list[str] = super().add_class_arguments(*args, **kwargs | {"sub_configs": False})
        self._guard()
        return added

    def add_subclass_arguments(self, *args: Any, **kwargs: Any) -> Any:  # noqa: ANN401
        """Add the arguments of a class to be named, likewise."""
        added = super().add_subclass_arguments(*args, **kwargs)
        self._guard()
        return added

    def __init__(self, *args: Any, **kwargs: Any) -> None:  # noqa: ANN401
        super().__init__(*args, allow_abbrev=False, **kwargs)

    def error(self, message: str, ex: Exception | None = None) -> NoReturn:
        """Leave with one line that says what is wrong; parsers of nested classes raise."""
        if not self.exit_on_error:
            super().error(message, ex)
        fail(one_line(message, self._option_string_actions, self.prog.split()[-1]))

    def _guard(self) -> None:
        for action in self._actions:
            from_file = self.reads_files and action.dest in FROM_FILES
            if isinstance(action, _ActionConfigLoad):
                action.__class__ = ConfigurationFile if from_file else Mapping
            elif isinstance(action, _ActionHelpClassPath):
                action.__class__ = ClassHelp
            elif isinstance(action, ActionTypeHint):
                action.__class__ = NamedClass
                action._enable_path = from_file
                action.sub_add_kwargs = getattr(action, "sub_add_kwargs", {}) | {
                    "sub_configs": False
                }


class ConfigurationFile(_ActionConfigLoad):
    """A group of arguments that may lie in a configuration file."""

    def _load_config(self, value: Any, parser: Any) -> Any:  # noqa: ANN401
        if isinstance(value, str):
            refuse_other_files(self.dest, value)
        return super()._load_config(value, parser)  # type: ignore[no-untyped-call]


class Mapping(_ActionConfigLoad):
    """A group of arguments that may be given as text `{key: value}`, never as a file."""

    def _load_config(self, value: Any, parser: Any) -> Any:  # noqa: ANN401
        if isinstance(value, str):
            given, value = value, yaml.safe_load(value)
            if not isinstance(value, dict):
                raise TypeError(f'Parser key "{self.dest}":\ntakes {{key: value}}, not {given!r}')
        return super()._load_config(value, parser)  # type: ignore[no-untyped-call]


class NamedClass(ActionTypeHint):
    """An argument whose text may name a class: a file of that name is never imported or opened."""

    def _check_type(
        self,
        value: Any,  # noqa: ANN401
        append: bool = False,
        cfg: Any = None,  # noqa: ANN401
        mode: Any = None,  # noqa: ANN401
    ) -> Any:  # noqa: ANN401
        if takes_class(self._typehint):
            for name in named(value):
                if not names_path(name):
                    continue
                if self._is_valid_string(value):  # type: ignore[no-untyped-call]
                    return value
                if not self._enable_path:
                    raise TypeError(
                        f'Parser key "{self.dest}":\ntakes the name of a class, not the path {name}'
                    )
                refuse_other_files(self.dest, name)
        try:
            return super()._check_type(value, append, cfg, mode)  # type: ignore[no-untyped-call]
        except TypeError as error:
            for name in value if isinstance(value, list) else [value]:
                if isinstance(name, str) and name.isidentifier():
                    self._suggest(name, error)
            raise

    def _suggest(self, name: str, error: TypeError) -> None:
        hint = listed(self._typehint) or self._typehint
        known = words(hint)
        known += [path.rsplit(".", 1)[-1] for path in get_all_subclass_paths(hint)]
        number = any(part in (int, float) for part in get_args(hint))
        if known and takes_class(hint) and name not in known and not number:
            near = suggestion(name, known) or f"; known are {', '.join(dict.fromkeys(known))}"
            raise TypeError(f'Parser key "{self.dest}":\n{name} is not known{near}') from error


def words(hint: Any) -> list[str]:  # noqa: ANN401
    """Return the words that a type hint lists as allowed."""
    if get_origin(hint) is Literal:
        return [str(word) for word in get_args(hint)]
    return [word for part in get_args(hint) for word in words(part)]


class ClassHelp(_ActionHelpClassPath):
    """Shows the arguments of a class, likewise."""

    def resolve_help_type(self, value: Any, option_string: Any) -> Any:  # noqa: ANN401
        """Return the class to show.

        Raises:
            TypeError: if it is none, or a path.
        """
        if names_path(value):
            message = f"takes the name of a class, not the path {value}"
            raise TypeError(f'Parser key "{option_string.lstrip("-")}":\n{message}')
        return super().resolve_help_type(value, option_string)  # type: ignore[no-untyped-call]


def listed(hint: Any) -> Any:  # noqa: ANN401
    """Return the type of the items of a list, or of a list or None; None for other types."""
    for part in (hint, *get_args(hint)):
        if get_origin(part) is list:
            return get_args(part)[0]
    return None


def names_path(name: Any) -> bool:  # noqa: ANN401
    """Return whether a text that would be imported is a path; known classes have no dot."""
    return isinstance(name, str) and "." in name and Path(name).exists()


def takes_class(hint: Any) -> bool:  # noqa: ANN401
    """Return whether a type hint has a class or a function among what it allows."""
    if get_origin(hint) is Literal:
        return False
    if get_origin(hint) is Callable or hint is Callable:
        return True
    if arguments := get_args(hint):
        return any(map(takes_class, arguments))
    return (
        isinstance(hint, type)
        and hint.__module__ != "builtins"
        and not issubclass(hint, (str, float, int))
    )


def named(value: Any) -> list[str]:  # noqa: ANN401
    """Return the names of classes in an argument's value."""
    if isinstance(value, list):
        return [name for item in value for name in named(item)]
    if hasattr(value, "get"):
        value = value.get("class_path")
    return [value] if isinstance(value, str) else []


def refuse_other_files(key: str, name: str) -> None:
    """Raise a TypeError if a name is that of a file, but not of a configuration file."""
    if Path(name).is_file() and not name.endswith(CONFIGURATIONS):
        raise TypeError(
            f'Parser key "{key}":\ntakes a configuration file '
            f"({', '.join(CONFIGURATIONS)}), not {name}"
        )


def check_configurations(args: Sequence[str]) -> None:
    """Leave with a message if a configuration file is missing or no YAML."""
    for option, value in pairwise(args):
        if option not in ("-c", "--config"):
            continue
        try:
            yaml.safe_load(Path(value).read_text())
        except OSError as error:
            fail(f"`{option} {value}` cannot be read: {error.strerror}")
        except (yaml.YAMLError, UnicodeDecodeError) as error:
            fail(f"`{option} {value}` is no YAML: {' '.join(str(error).split())}")


def typed(name: str, args: Sequence[str]) -> str | None:
    """Return the value of the last option `--name` that was typed, "" without one, else None.

    >>> typed("from", ["--from", "runs/a"]), typed("from", ["--from=runs/a"]), typed("from", [])
    ('runs/a', 'runs/a', None)
    """
    value = None
    for position, item in enumerate(args):
        if item == f"--{name}":
            value = next(iter(args[position + 1 :]), "")
        elif item.startswith(f"--{name}="):
            value = item.partition("=")[2]
    return value
