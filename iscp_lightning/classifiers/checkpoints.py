"""Classifier weights from and to files, read in ways that cannot execute anything in them."""

from __future__ import annotations

import hashlib
import json
import pickle
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any
from zipfile import is_zipfile

import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from iscp_lightning.classifiers.architectures import (
    Classifier,
    ClassifierSpec,
    create_classifier,
    is_architecture,
    unknown_architecture,
)
from iscp_lightning.data.testset import require_same_classes
from iscp_lightning.runs import atomic_path

SPEC_KEY = "classifier_spec"
NAMES_KEY = "class_names"
PROVENANCE_KEY = "provenance"
PREFIX = "classifier."
COMPILED = "_orig_mod."  # what `torch.compile` puts before the names of what it wraps


def load_classifier(
    classifier: str | nn.Module,
    *,
    weights: str | None = None,
    num_classes: int = 10,
    image_size: int | tuple[int, int] = 32,
) -> nn.Module:
    """Return a classifier on the CPU from any of the three ways of giving one.

    Args:
        classifier: A module, which is returned as it is; an existing file (`.safetensors` of
            `save_classifier`, or a Lightning `.ckpt` of this package), which says its own
            architecture; or a network name for `create_classifier`.
        weights: File whose weights are loaded into a classifier given as a module or name.
        num_classes: Number of classes of a network given by name.
        image_size: Image size of a network given by name.

    Raises:
        ValueError: if the string is neither a file nor a name, or a file does not hold
            the weights of a known architecture.
    """
    if isinstance(classifier, str) and Path(classifier).is_file():
        if weights is not None:
            raise ValueError("`weights` goes with a module or a name: `classifier` is a file")
        spec, state = _read(Path(classifier))
        if spec is None or not is_architecture(spec.architecture):
            raise ValueError(
                f"`classifier`={classifier} does not say which known architecture it holds"
                f"{f' (it says {spec.architecture!r})' if spec else ''}; give the network as "
                "`class_path` with `init_args` and this file as `weights`"
            )
        try:
            network = create_classifier(**asdict(spec), trained=False)
        except (RuntimeError, TypeError) as error:
            raise ValueError(
                f"{classifier} names a network that cannot be built: {error}"
            ) from error
        return _fill(network, state, classifier)
    if isinstance(classifier, str):
        if not is_architecture(classifier):
            raise ValueError(unknown_architecture(classifier))
        classifier = create_classifier(classifier, num_classes, image_size)
    return classifier if weights is None else _fill(classifier, _read(Path(weights))[1], weights)


def load_trained(
    classifier: str | nn.Module,
    weights: str | None,
    num_classes: int,
    image_size: int | tuple[int, int],
) -> nn.Module:
    """Return what `load_classifier` does, but refuse a name that means random weights.

    Raises:
        ValueError: as `load_classifier`, or for a name without trained weights for these classes.
    """
    given = load_classifier(
        classifier, weights=weights, num_classes=num_classes, image_size=image_size
    )
    if not isinstance(classifier, str) or Path(classifier).is_file() or weights is not None:
        return given
    if "." not in classifier:
        raise ValueError(
            f"`classifier`={classifier} has random weights: give a weights file or a name "
            "with a tag, such as resnet50.a1_in1k"
        )
    trained_for = getattr(getattr(given, "network", None), "pretrained_cfg", {})
    if trained_for.get("num_classes") != num_classes:
        raise ValueError(
            f"`classifier`={classifier} was trained for {trained_for.get('num_classes')} "
            f"classes, the data have {num_classes}: its last layer would be random"
        )
    return given


def save_classifier(path: str | Path, classifier: Classifier, **facts: Any) -> None:  # noqa: ANN401
    """Write weights, structure and provenance to a safetensors file, atomically.

    Args:
        path: The file, conventionally `.safetensors`.
        classifier: What `create_classifier` returned.
        facts: JSON-able provenance: accuracy, commands, seed, ...; `class_names`, what the logits
            are of, is compared with the data's.
    """
    metadata = {SPEC_KEY: json.dumps(asdict(classifier.spec)), PROVENANCE_KEY: json.dumps(facts)}
    weights = own_names(classifier.state_dict())
    state = {name: tensor.contiguous() for name, tensor in weights.items()}
    with atomic_path(Path(path)) as temporary:
        save_file(state, temporary, metadata)


def class_names_in(path: str | Path) -> tuple[str, ...] | None:
    """Return what a weights file says its classifier's classes are; None where it does not say.

    Args:
        path: A file of `save_classifier`, or any that torch can read as plain values.

    Raises:
        ValueError: if it cannot be read so.
    """
    path = Path(path)
    try:
        if path.suffix == ".safetensors":
            with safe_open(path, "pt") as file:
                said = json.loads((file.metadata() or {}).get(PROVENANCE_KEY, "{}"))
        else:
            mapped = is_zipfile(path)  # else as torch wrote before 1.6
            said = torch.load(path, map_location="cpu", weights_only=True, mmap=mapped)
    except Exception as error:  # a garbled file makes the readers raise anything
        raise ValueError(f"{path} cannot be read: {unreadable(path, error)}") from error
    names = said.get(NAMES_KEY) if isinstance(said, dict) else None
    if not isinstance(names, list | tuple) or not all(isinstance(name, str) for name in names):
        return None
    return tuple(names)


def require_class_names(name: str, file: str, wanted: Sequence[str]) -> None:
    """Raise a ValueError if a classifier's file says other names of classes than these, in order.

    Args:
        name: What the classifier is called in the message.
        file: Its weights file; what is no file says nothing.
        wanted: The names.
    """
    names = class_names_in(file) if Path(file).is_file() else None
    if names is not None:
        require_same_classes(f"`{name}`={file}", names, wanted)


def classifier_hash(classifier: nn.Module) -> str:
    """Return the SHA-256 of all weights and buffers, as 64 hexadecimal digits."""
    digest = hashlib.sha256()
    for name, tensor in own_names(classifier.state_dict()).items():
        digest.update(name.encode())
        digest.update(tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy())
    return digest.hexdigest()


def own_names(state: Mapping[str, Any]) -> dict[str, Any]:
    """Return weights by the names that they have where nothing is wrapped by `torch.compile`."""
    return {name.replace(COMPILED, ""): tensor for name, tensor in state.items()}


def _read(path: Path) -> tuple[ClassifierSpec | None, dict[str, Tensor]]:
    """Return the structure that the file names, if any, and its weights."""
    if not path.is_file():
        raise ValueError(f"`weights`={path} is not an existing file")
    try:
        read = _read_safetensors if path.suffix == ".safetensors" else _read_pickle
        spec, state = read(path)
        return _spec(spec) if spec else None, own_names(state)
    except Exception as error:  # a garbled file makes the readers raise anything
        raise ValueError(
            f"{path} cannot be read as plain weights (nothing in a file is executed): "
            f"{unreadable(path, error)}"
        ) from error


def unreadable(path: Path, error: Exception) -> str:
    """Return why a file is not one of weights, in a few words."""
    with path.open("rb") as file:
        start = file.read(200).lstrip().lower()
    if not start:
        return "it is empty"
    if start.startswith((b"<!doctype", b"<html")):
        return "it is a web page"
    if start.startswith(b"version https://git-lfs"):
        return "it is a pointer of Git LFS, not the file itself"
    if isinstance(error, KeyError) and isinstance(error.args[0], str):
        return f"it has no {error}"
    if isinstance(error, (KeyError, pickle.UnpicklingError)):  # a number is no opcode
        return "it is no checkpoint, or holds other objects than tensors and plain values"
    return " ".join(str(error).split())[:200] or type(error).__name__


def _read_safetensors(path: Path) -> tuple[Any, dict[str, Tensor]]:
    with safe_open(path, "pt") as file:
        spec = (file.metadata() or {}).get(SPEC_KEY)
    return json.loads(spec) if spec else None, load_file(path)


def _read_pickle(path: Path) -> tuple[Any, dict[str, Tensor]]:
    content = torch.load(path, map_location="cpu", weights_only=True)
    state = content.get("state_dict", content) if isinstance(content, dict) else content
    if not isinstance(state, dict) or not all(isinstance(key, str) for key in state):
        raise ValueError("it holds no named weights")
    if "pytorch-lightning_version" in content:  # elsewhere the prefix is a layer's own name
        own = {k.removeprefix(PREFIX): v for k, v in state.items() if k.startswith(PREFIX)}
        state = own or state
    return content.get(SPEC_KEY), state


def _spec(stored: dict[str, Any]) -> ClassifierSpec:
    fields: Any = {k: tuple(v) if isinstance(v, list) else v for k, v in stored.items()}
    spec = ClassifierSpec(**fields)
    if not isinstance(spec.architecture, str):
        raise TypeError(f"its architecture is {spec.architecture!r}")
    return spec


def _fill(classifier: nn.Module, state: dict[str, Tensor], path: str) -> nn.Module:
    try:
        classifier.load_state_dict(state)
    except RuntimeError as error:
        state = {name: value for name, value in state.items() if isinstance(value, Tensor)}
        why = _misfit(classifier.state_dict(), state) or error
        raise ValueError(f"{path} does not fit the classifier: {why}") from error
    return classifier


def _misfit(wanted: Mapping[str, Tensor], found: Mapping[str, Tensor]) -> str:
    """Return which weights are not there, are no weights of the network, or have another shape."""
    shapes = [
        f"{name} {tuple(found[name].shape)}, not {tuple(wanted[name].shape)}"
        for name in wanted
        if name in found and found[name].shape != wanted[name].shape
    ]
    kinds = {
        "missing": [name for name in wanted if name not in found],
        "unknown": [name for name in found if name not in wanted],
        "of another shape": shapes,
    }
    return "; ".join(
        f"{len(names)} {kind} ({', '.join(names[:3])}{', ...' if len(names) > 3 else ''})"
        for kind, names in kinds.items()
        if names
    )
