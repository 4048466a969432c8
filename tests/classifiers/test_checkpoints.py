"""Tests of weights in files: exact round trips, and foreign or hostile files."""

import json
import pickle
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import lightning as L
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import nn

from iscp_lightning.classifiers import (
    Classifier,
    checkpoints,
    class_names_in,
    classifier_hash,
    create_classifier,
    load_classifier,
    load_trained,
    save_classifier,
)
from iscp_lightning.data.datamodule import ImageDataModule
from iscp_lightning.training import NaturalModule

MEAN, STD = (0.1, 0.4, 0.7), (0.2, 0.3, 0.5)


@pytest.fixture
def classifier() -> Classifier:
    """A network whose buffers are not at their initial values, either."""
    torch.manual_seed(0)
    classifier = create_classifier("resnet20", 7, (8, 12), MEAN, STD)
    classifier(torch.rand(4, 3, 8, 12))
    return classifier.eval()


def _assert_equal(first: nn.Module, second: nn.Module) -> None:
    state, other = first.state_dict(), second.state_dict()
    assert list(state) == list(other)
    assert all(torch.equal(state[name], other[name]) for name in state)


def test_round_trip_is_bit_equal(tmp_path: Path, classifier: Classifier):
    path = tmp_path / "new" / "weights.safetensors"
    save_classifier(path, classifier.to(memory_format=torch.channels_last), accuracy=0.9)
    loaded = load_classifier(str(path)).eval()
    assert isinstance(loaded, Classifier)
    assert loaded.spec == classifier.spec
    _assert_equal(loaded, classifier)
    images = torch.rand(2, 3, 8, 12)
    classifier.to(memory_format=torch.contiguous_format)
    assert torch.equal(loaded(images), classifier(images))
    assert classifier_hash(loaded) == classifier_hash(classifier)
    with safe_open(path, "pt") as file:
        assert json.loads(file.metadata()["provenance"]) == {"accuracy": 0.9}


def test_lightning_checkpoint_loads_by_its_path_alone(data: ImageDataModule):
    module = NaturalModule(create_classifier("resnet20", 10, 16, MEAN, STD))
    trainer = L.Trainer(
        max_steps=1,
        accelerator="cpu",
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        limit_val_batches=0,
    )
    trainer.fit(module, datamodule=data)
    trainer.save_checkpoint("last.ckpt")
    loaded = load_classifier("last.ckpt")
    assert isinstance(loaded, Classifier)
    assert loaded.spec == module.classifier.spec
    _assert_equal(loaded, module.classifier)
    assert class_names_in("last.ckpt") == tuple(data.class_names)
    fresh = create_classifier("resnet20", 10, 16)
    assert load_classifier(fresh, weights="last.ckpt") is fresh
    _assert_equal(fresh, module.classifier)


def test_hash_changes_with_every_bit(classifier: Classifier):
    before = classifier_hash(classifier)
    assert len(before) == 64
    assert classifier_hash(classifier.train()) == before
    for name, tensor in classifier.state_dict(keep_vars=True).items():
        flat = tensor.data.view(-1)
        value = flat[-1].clone()
        flat[-1] = torch.nextafter(value, value + 1) if value.is_floating_point() else value + 1
        assert classifier_hash(classifier) != before, name
        flat[-1] = value
    assert classifier_hash(classifier) == before


def test_names_of_classes_are_read_where_a_file_says_them(classifier: Classifier):
    save_classifier("weights.safetensors", classifier, class_names=["cat", "dog"])
    assert class_names_in("weights.safetensors") == ("cat", "dog")
    save_classifier("weights.safetensors", classifier, class_names=None)
    assert class_names_in("weights.safetensors") is None
    save_file(classifier.state_dict(), "bare.safetensors")
    assert class_names_in("bare.safetensors") is None
    for said in ({"class_names": {0: "cat"}}, {"class_names": [0, 1]}, {}, [torch.ones(2)]):
        torch.save(said, "foreign.pt")
        assert class_names_in("foreign.pt") is None


class Headed(nn.Module):
    """A network one of whose layers bears the name of NaturalModule's attribute."""

    def __init__(self) -> None:
        super().__init__()
        self.features = nn.Linear(3, 2)
        self.classifier = nn.Linear(2, 2)


def test_a_module_comes_back_as_it_is():
    module = Headed().train()
    assert load_classifier(module) is module
    assert module.training


@pytest.mark.parametrize("wrap", [lambda state: state, lambda state: {"state_dict": state}])
@pytest.mark.parametrize("suffix", ["pt", "safetensors"])
def test_weights_of_a_module(suffix: str, wrap: Callable[[Any], Any]):
    source, module = Headed(), Headed()
    path = f"weights.{suffix}"
    if suffix == "pt":
        torch.save(wrap(source.state_dict()), path)
    else:
        save_file(source.state_dict(), path)
    assert load_classifier(module, weights=path) is module
    _assert_equal(module, source)


def test_weights_of_a_network_given_by_name(classifier: Classifier):
    save_classifier("weights.safetensors", classifier)
    loaded = load_classifier("resnet20", weights="weights.safetensors", num_classes=7)
    _assert_equal(loaded, classifier)


def test_a_name_gets_the_classes_and_size_that_are_asked_for():
    loaded = load_classifier("resnet20", num_classes=3, image_size=(8, 9))
    assert isinstance(loaded, Classifier)
    assert (loaded.spec.num_classes, loaded.spec.image_size) == (3, (8, 9))
    with pytest.raises(ValueError, match=r"`classifier`=no\.ckpt is not an existing file"):
        load_classifier("no.ckpt")


def test_missing_weights():
    with pytest.raises(ValueError, match=r"`weights`=no\.ckpt is not an existing file"):
        load_classifier("resnet20", weights="no.ckpt")


def test_a_file_needs_no_weights(classifier: Classifier):
    save_classifier("weights.safetensors", classifier)
    with pytest.raises(ValueError, match="`weights` goes with a module or a name"):
        load_classifier("weights.safetensors", weights="weights.safetensors")


def _save(path: str, classifier: Classifier, **changes: Any) -> None:
    """Write a file whose spec has been tampered with."""
    spec = {key: changes.get(key, value) for key, value in asdict(classifier.spec).items()}
    if path.endswith("safetensors"):
        save_file(classifier.state_dict(), path, {"classifier_spec": json.dumps(spec)})
    else:
        state = {f"classifier.{k}": v for k, v in classifier.state_dict().items()}
        version = {"pytorch-lightning_version": L.__version__}
        torch.save({"state_dict": state, "classifier_spec": spec, **version}, path)


@pytest.mark.parametrize("path", ["weights.safetensors", "weights.ckpt"])
@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"num_classes": 8},
            r"weights.* classifier: 2 of another shape \(.*weight \(7, 64\), not \(8, 64\)",
        ),
        ({"mean": (0.5,)}, "weights.* does not fit the classifier: .*of another shape"),
        (
            {"architecture": "test_resnet"},
            r"weights.* classifier: \d+ missing \(.*, \.\.\.\); \d+ unknown",
        ),
        (
            {"architecture": "os.system"},
            "weights.* which known architecture.*'os.system'.*`weights",
        ),
        ({"architecture": "hf-hub:x/y"}, "weights.* which known architecture.*'hf-hub:x/y'"),
        ({"architecture": "resnet18.nonsense"}, "weights.* which known architecture"),
        ({"architecture": ["resnet20"]}, "weights.* cannot be read as plain weights"),
        ({"num_classes": "many"}, "weights.* names a network that cannot be built"),
    ],
)
def test_tampered_structure(
    classifier: Classifier, path: str, changes: dict[str, Any], message: str
):
    _save(path, classifier)
    _assert_equal(load_classifier(path), classifier)
    _save(path, classifier, **changes)
    with pytest.raises(ValueError, match=f"(?s){message}"):
        load_classifier(path)


@pytest.mark.parametrize("path", ["weights.safetensors", "weights.ckpt"])
def test_a_file_without_structure_says_how_to_load_it(classifier: Classifier, path: str):
    if path.endswith("ckpt"):
        torch.save(classifier.state_dict(), path)
    else:
        save_file(classifier.state_dict(), path)
    message = "does not say which known architecture it holds; give .*`class_path`.*as `weights`"
    with pytest.raises(ValueError, match=message):
        load_classifier(path)
    fresh = create_classifier("resnet20", 7)
    _assert_equal(load_classifier(fresh, weights=path), classifier)


class Payload:
    """Creates a file when it is unpickled."""

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (Path("executed"),)


@pytest.mark.parametrize("suffix", ["ckpt", "pt", "safetensors"])
@pytest.mark.parametrize(
    "write",
    [
        lambda path: torch.save({"state_dict": Payload()}, path),
        lambda path: torch.save(Payload(), path, _use_new_zipfile_serialization=False),
        lambda path: path.write_bytes(pickle.dumps({"state_dict": Payload()})),
    ],
    ids=["zip", "legacy", "pickle"],
)
def test_nothing_in_a_file_is_executed(write: Callable[[Path], Any], suffix: str):
    pickle.loads(pickle.dumps(Payload()))
    assert Path("executed").exists()  # the payload is live
    Path("executed").unlink()
    path = Path(f"hostile.{suffix}")
    write(path)
    for load in (
        lambda: load_classifier(str(path)),
        lambda: load_classifier(nn.Linear(1, 1), weights=str(path)),
    ):
        with pytest.raises(ValueError, match=f"hostile.{suffix} .*nothing in a file is executed"):
            load()
    with pytest.raises(ValueError, match=f"hostile.{suffix} cannot be read"):
        class_names_in(path)
    assert not Path("executed").exists()


GARBAGE = [b"", b"garbage", b"\x80", b"PK\x03\x04", b"0", b"\x00" * 100, b"X\x01\x00\x00\x00\xff."]


@pytest.mark.parametrize("suffix", ["ckpt", "safetensors"])
@pytest.mark.parametrize("content", GARBAGE)
def test_garbage_is_named(suffix: str, content: bytes):
    Path(f"bad.{suffix}").write_bytes(content)
    with pytest.raises(ValueError, match=f"bad.{suffix} cannot be read as plain weights"):
        load_classifier(f"bad.{suffix}")


@pytest.mark.parametrize("content", [[1], torch.ones(2), {"state_dict": 3}, {1: torch.ones(2)}])
def test_other_contents_are_named(content: Any):
    torch.save(content, "bad.ckpt")
    with pytest.raises(ValueError, match=r"bad\.ckpt cannot be read .*it holds no named weights"):
        load_classifier("bad.ckpt")


@pytest.mark.parametrize("trained_for", [5, 1000, None])
def test_weights_for_another_number_of_classes_are_refused(trained_for, monkeypatch):
    network = nn.Identity()
    network.pretrained_cfg = {"num_classes": trained_for}
    given = nn.Module()
    given.network = network
    monkeypatch.setattr(checkpoints, "load_classifier", lambda *_, **__: given)
    with pytest.raises(ValueError, match=f"was trained for {trained_for} classes"):
        load_trained("resnet18.a1_in1k", None, 10, 32)
    network.pretrained_cfg = {"num_classes": 10}
    assert load_trained("resnet18.a1_in1k", None, 10, 32) is given
