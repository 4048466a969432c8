"""What is typed: which files the parser may read, which options count, what a mistake is told.

jsonargparse opens any argument that names a file wherever a class could stand, and imports what the
file says. Here configuration comes from files that are named as such, and from nowhere else.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any, Literal, NoReturn, get_args, get_origin

import yaml
from jsonargparse._actions import _ActionConfigLoad, _ActionHelpClassPath
from jsonargparse._typehints import ActionTypeHint, get_all_subclass_paths
from lightning.pytorch.cli import LightningArgumentParser

from iscp_lightning.messages import fail, one_line, suggestion

DEMO = Path(__file__).with_name("demo.yaml")
CONFIGURATIONS = (".yaml", ".yml", ".json")
FROM_FILES = ("model", "data", "trainer")  # a part of the configuration in a file of its own


class Parser(LightningArgumentParser):
    """LightningCLI's parser, which reads no file but those given as configuration."""

    reads_files = False  # parsers of nested classes never do

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
        parser = getattr(ex, "subcommand_parser", None) or self
        fail(one_line(message, parser._option_string_actions))

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
            if isinstance(value, str) and value.isidentifier():
                self._suggest(value, error)
            raise

    def _suggest(self, name: str, error: TypeError) -> None:
        known = words(self._typehint)
        known += [path.rsplit(".", 1)[-1] for path in get_all_subclass_paths(self._typehint)]
        number = any(part in (int, float) for part in get_args(self._typehint))
        if known and takes_class(self._typehint) and name not in known and not number:
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


def typed(name: str, args: Sequence[str]) -> bool:
    """Return whether the option `--name` is among the arguments themselves."""
    return any(re.match(rf"--{name}(=|$)", item) for item in args)


def complete_arguments(args: list[str]) -> list[str]:
    """Return the arguments with the demo's configuration, or that of the run to resume.

    `fit` alone is the demo. Its defaults stay out as soon as the user gives a configuration, a
    model or data of his own; `--model.x` and `--data.x` change single values of it.
    """
    for position, item in enumerate(args):
        if re.match(r"--resume(=|$)", item):
            folder = item.partition("=")[2] or next(iter(args[position + 1 :]), "")
            return resume_arguments(args, folder)
    own = re.compile(r"(-c|--config|--model|--data)(=.*)?$|-c.+")
    if not args or any(own.match(item) for item in args):
        return args
    return ["fit", "-c", str(DEMO), *args[1:]] if args[0] == "fit" else args


def resume_arguments(args: list[str], folder: str) -> list[str]:
    """Return the arguments with the configuration of the run that is resumed.

    Raises:
        SystemExit: with a message, if the run is not there or shall be changed.
    """
    config = ["-c", str(Path(folder) / "config.yaml")]
    if args[1:3] == config:  # a further process of one that has been here
        return args
    if not Path(config[1]).is_file():
        fail(f"`--resume {folder}`: {config[1]} does not exist, so this is no run")
    fixed = ("-c", "--config", "--model", "--data", "--seed", "--trainer.max_", "--trainer.prec")
    if changes := [item for item in args if item.startswith(fixed)]:
        fail(f"`--resume` goes on with the run's own settings, got {', '.join(changes)}")
    return [args[0], *config, *args[1:]]
