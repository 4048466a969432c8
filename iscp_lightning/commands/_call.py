"""Calling a command: its options, and the configuration that lies below them."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from importlib import import_module
from pathlib import Path
from typing import Any, get_args, get_origin, get_type_hints

import yaml

from iscp_lightning.arguments import Parser, check_configurations, typed
from iscp_lightning.commands import ALL
from iscp_lightning.commands._earlier import read_earlier
from iscp_lightning.commands._experiment import Experiment
from iscp_lightning.loggers import finish_wandb
from iscp_lightning.messages import fail

FIXED = (  # of a run that is resumed
    *("-c", "--config", "--from", "--model", "--data", "--seed"),
    *("--trainer.max_", "--trainer.prec"),
)


def call(name: str, arguments: Sequence[str]) -> Any:  # noqa: ANN401
    """Return what a command returns, or its Experiment if it takes one.

    Args:
        name: Name of the command.
        arguments: What was typed after it.
    """
    module = import_module(f"iscp_lightning.commands.{name}")
    function = getattr(module, name)
    hints = get_type_hints(function)
    place = typed("from", arguments) if "from_" in hints else None
    earlier = read_earlier(place) if place else None
    words = ["--help" if item == ALL else item for item in arguments]
    if "resume" in hints and (folder := typed("resume", arguments)):
        words = ["-c", str(configuration_of(folder, arguments)), *words]
    elif hasattr(module, "base"):
        words = [f"--config={yaml.safe_dump(module.base(arguments, earlier))}", *words]
    check_configurations(words)
    taken = next(iter(hints.values()))
    if get_origin(taken) is Experiment:
        (model_class,) = get_args(taken)
        experiment = Experiment(name, function, words, arguments, model_class, earlier)
        return run(function, experiment)
    parser = Parser(prog=f"python -m iscp_lightning {name}", description=inspect.getdoc(function))
    parser.add_configuration()
    options = parser.add_options(function)
    config = parser.instantiate(parser.parse_args(words))
    return function(**{option: config[option] for option in options})


def run(function: Callable[..., None], experiment: Experiment[Any]) -> Experiment[Any]:
    """Run a command on an experiment and return it; without an artefact its folder goes again."""
    try:
        function(experiment, **experiment.options)
        experiment.run.keep()
    except BaseException:
        finish_wandb()
        experiment.run.abandon()
        raise
    finally:
        finish_wandb()
    return experiment


def configuration_of(folder: str, arguments: Sequence[str]) -> Path:
    """Return the configuration of a run that is resumed.

    Raises:
        SystemExit: with a message, if the run is not there or shall be changed.
    """
    path = Path(folder) / "config.yaml"
    if not path.is_file():
        fail(f"`--resume {folder}`: {path} does not exist, so this is no run")
    if changes := [item for item in arguments if item.startswith(FIXED)]:
        fail(f"`--resume` goes on with the run's own settings, got {', '.join(changes)}")
    return path
