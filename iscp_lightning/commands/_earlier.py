"""What `--from` names: an earlier run or a weights file, with its classifier and its images.

Only configuration is read from a run's `config.yaml`, and it goes through the parser like any that
is typed. Nothing in a weights file is executed.
"""

from __future__ import annotations

import json
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import yaml
from jsonargparse import Namespace
from safetensors import safe_open

from iscp_lightning.classifiers.checkpoints import PREFIX, unreadable
from iscp_lightning.messages import fail
from iscp_lightning.runs import is_first_process

CHECKPOINTS = ("robust.ckpt", "last.ckpt")  # of a run, the best first


@dataclass(frozen=True)
class Earlier:
    """A classifier that there is already, and what it was trained on.

    Attributes:
        place: What `--from` was given.
        classifier: The arguments that load it: `classifier` and, for a network that no file names,
            `weights`.
        model: Configuration of the module that trained it, or searched in it.
        images: Configuration of its images, poison and seed; empty where that is not known.
        checkpoint: Weights that `model` does not load by itself, as a search's masks.
        says: What a file says of its data in words.
    """

    place: str
    classifier: dict[str, Any]
    model: dict[str, Any]
    images: dict[str, Any]
    checkpoint: str | None = None
    says: str = ""


def read_earlier(place: str, named: str = "") -> Earlier:
    """Return what a run folder, one of its checkpoints or a weights file holds.

    Args:
        place: The folder or the file.
        named: What was typed, for messages; nothing is `--from` and the place.

    Raises:
        SystemExit: with a message, if it is none of these.
    """
    path, named = Path(place), named or f"--from {place}"
    if path.is_file():
        folder = path.parent.parent
        if path.parent.name == "checkpoints" and (folder / "config.yaml").is_file():
            return of_run(place, folder, path, named)
        return of_file(place, named)
    if not path.is_dir():
        fail(f"`{named}` is neither a run folder nor a weights file")
    if not (path / "config.yaml").is_file():
        fail(f"`{named}`: {path / 'config.yaml'} does not exist, so this is no run")
    there = [path / "checkpoints" / name for name in CHECKPOINTS]
    there = [checkpoint for checkpoint in there if checkpoint.is_file()]
    if not there:
        fail(f"`{named}`: no checkpoint in {path / 'checkpoints'}")
    return of_run(place, path, there[0], named)


def of_run(place: str, folder: Path, checkpoint: Path, named: str) -> Earlier:
    """Return what a run holds: its classifier as it is in a checkpoint, its data and seed.

    A run that was named, not one of its checkpoints, leaves a warning if it is not finished.
    """
    config = read_configuration(named, folder / "config.yaml")
    content = read_checkpoint(named, checkpoint)
    last = folder / "checkpoints" / "last.ckpt"
    if folder == Path(place) and last.is_file() and not (folder / "results.json").is_file():
        latest = content if last == checkpoint else read_checkpoint(named, last)
        warn_if_early(named, config, latest)
    model = config.get("model")
    model = {"class_path": model} if isinstance(model, str) else model
    if not isinstance(model, dict) or not isinstance(model.get("class_path"), str):
        fail(f"`{named}`: {folder / 'config.yaml'} names no `model`")
    settings = dict(model.get("init_args") or {})
    images = {name: value for name, value in config.items() if name in ("data", "seed_everything")}
    trained = any(name.startswith(PREFIX) for name in content["state_dict"])
    if not trained:  # but something else on it
        classifier = {k: settings[k] for k in ("classifier", "weights") if settings.get(k)}
        return Earlier(place, classifier, model, images, str(checkpoint))
    network = settings.get("classifier")
    if isinstance(network, dict):
        classifier = {"classifier": network, "weights": str(checkpoint)}
        return Earlier(place, classifier, model, images, str(checkpoint))
    classifier = {"classifier": str(checkpoint)}
    model = {"class_path": model["class_path"], "init_args": settings | classifier}
    return Earlier(place, classifier, model, images)


def of_file(place: str, named: str) -> Earlier:
    """Return what a weights file says: its structure, and its data where it has their settings."""
    provenance: Any = {}
    try:
        if place.endswith(".safetensors"):
            with safe_open(place, "pt") as file:
                provenance = json.loads((file.metadata() or {}).get("provenance", "{}"))
        else:
            torch.load(place, map_location="cpu", weights_only=True)
    except Exception as error:  # a garbled file makes the reader raise anything
        fail(f"`{named}` is no weights file: {unreadable(Path(place), error)}")
    classifier = {"classifier": place}
    model = {"class_path": "NaturalModule", "init_args": classifier}
    data = provenance.get("data", "") if isinstance(provenance, dict) else ""
    if isinstance(data, dict):
        seed = provenance.get("seed", 0)
        return Earlier(place, classifier, model, {"data": data, "seed_everything": seed})
    return Earlier(place, classifier, model, {}, says=str(data))


def agree(config: Namespace, earlier: Earlier) -> None:
    """Leave out a checkpoint of another network than what was typed besides.

    Args:
        config: What was parsed.
        earlier: What lies below it.

    Raises:
        SystemExit: with a message, if nothing says which images there are.
    """
    if config.data.source is None:
        require_images("from", earlier)
    network = config.model.init_args.get("classifier")
    own = (earlier.model.get("init_args") or {}).get("classifier")
    kept = earlier.checkpoint is not None and config.get("ckpt_path") == earlier.checkpoint
    if kept and not says(network, own):
        config.ckpt_path = None


def require_images(option: str, earlier: Earlier) -> None:
    """Leave with a message if what an option names does not say which images there are."""
    if not earlier.images:
        words = f" (it says: {earlier.says})" if earlier.says else ""
        fail(
            f"`--{option} {earlier.place}` does not say which images it was trained on{words}: "
            "add `--data.source` or a `-c` configuration"
        )


def says(config: Any, wanted: Any) -> bool:  # noqa: ANN401
    """Return whether a part of a configuration says what is wanted, and perhaps more."""
    if isinstance(wanted, dict) and isinstance(config, Namespace):
        return all(says(config.get(name), value) for name, value in wanted.items())
    return bool(config == wanted)


def read_configuration(named: str, path: Path) -> dict[str, Any]:
    """Return the content of a run's configuration."""
    try:
        config = yaml.safe_load(path.read_text())
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        fail(f"`{named}`: {path} is no YAML: {' '.join(str(error).split())}")
    if not isinstance(config, dict):
        fail(f"`{named}`: {path} is no configuration")
    return config


def read_checkpoint(named: str, path: Path) -> dict[str, Any]:
    """Return the content of a run's checkpoint, whose weights stay on the disk until they are used.

    Raises:
        SystemExit: with a message, if it is none.
    """
    try:
        content: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
        _ = iter(content["state_dict"])
    except Exception as error:  # a garbled file makes the reader raise anything
        fail(f"`{named}`: {path} cannot be read: {unreadable(path, error)}")
    return content


def warn_if_early(named: str, config: dict[str, Any], last: dict[str, Any]) -> None:
    """Warn, in the first process, of a checkpoint from before the last epoch that was planned.

    Args:
        named: What was typed to name the run.
        config: The run's configuration.
        last: Its last checkpoint.
    """
    planned = (config.get("trainer") or {}).get("max_epochs") or 0
    loop = last.get("loops", {}).get("fit_loop")
    if loop is None or not is_first_process():
        return
    completed = loop["epoch_progress"]["current"]["processed"]
    if completed < planned:
        warnings.warn(
            f"`{named}`: its training is not finished, {completed} of {planned} epochs are "
            "completed",
            stacklevel=2,
        )
