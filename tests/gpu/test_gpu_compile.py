"""torch.compile: what is searched, trained and saved is the network, not the compiler's wrapper."""

from collections.abc import Iterator

import pytest
import torch
from colours import colours, noise, sgd, small_net
from torch import nn

from iscp_lightning.callbacks import PatternSnapshot
from iscp_lightning.classifiers import (
    classifier_hash,
    create_classifier,
    load_classifier,
    save_classifier,
)
from iscp_lightning.patterns import PatternSet, SearchSettings, search_patterns
from iscp_lightning.training import NaturalModule

WHITE = SearchSettings(canvas="white", search_epochs=1)
pytestmark = pytest.mark.filterwarnings("ignore")  # the compiler has many of its own


@pytest.fixture
def backend(device, monkeypatch) -> Iterator[str]:
    """inductor on CUDA; what needs no C++ compiler and no minutes elsewhere."""
    name = "inductor" if device.type == "cuda" else "eager"
    if name == "inductor":
        pytest.importorskip("triton")
    compile_itself = nn.Module.compile
    monkeypatch.setattr(nn.Module, "compile", lambda part: compile_itself(part, backend=name))
    yield name
    torch.compiler.reset()


def search(classifier, device) -> PatternSet:
    images = noise(60, seed=1)
    return search_patterns(
        classifier, images.images, images.labels, WHITE, device=device, progress=False
    )


@pytest.mark.parametrize("how", ["wrapped", "inside"])
def test_a_compiled_classifier_is_searched(device, backend, how):
    network = small_net().eval().to(device)
    plain = search(network, device)
    compiled = torch.compile(network, backend=backend)
    found = search(compiled if how == "wrapped" else nn.Sequential(compiled), device)
    torch.testing.assert_close(found.objectives, plain.objectives, rtol=0.05, atol=0.02)
    assert (found.masks - plain.masks).abs().mean() < 0.05
    powers = [
        each.predictive_power(compiled, noise(60, seed=1), pattern_sizes=[0.1])
        for each in (found, plain)
    ]
    assert powers[0].mean.item() == pytest.approx(powers[1].mean.item(), abs=0.1)


@pytest.mark.usefixtures("backend")
def test_a_training_compiles_its_network_and_keeps_the_names(new_trainer, tmp_path):
    module = NaturalModule(small_net(), sgd, compile=True, num_classes=3)
    snapshot = PatternSnapshot([1], last=False, search=WHITE, classes=[0])
    trainer, data = new_trainer(max_epochs=3, callbacks=[snapshot]), colours()
    trainer.fit(module, datamodule=data)
    assert list(module.classifier.state_dict()) == list(small_net().state_dict())
    (results,) = trainer.test(module, datamodule=data, verbose=False)
    assert results["test/clean_accuracy"] > 0.9
    trainer.save_checkpoint(tmp_path / "compiled.ckpt")
    again = load_classifier(small_net(), weights=str(tmp_path / "compiled.ckpt"))
    assert classifier_hash(again) == classifier_hash(module.classifier)


@pytest.mark.parametrize("inside", [False, True], ids=["wrapped", "inside"])
def test_a_compiled_classifier_is_saved_as_itself(tmp_path, inside):
    plain = create_classifier("resnet20", 3, 8)
    digest = classifier_hash(plain)
    if inside:
        plain.network = torch.compile(plain.network, backend="eager")
    given = plain if inside else torch.compile(plain, backend="eager")
    assert classifier_hash(given) == digest
    save_classifier(tmp_path / "saved.safetensors", given)
    assert classifier_hash(load_classifier(str(tmp_path / "saved.safetensors"))) == digest


def test_the_checkpoint_of_a_compiled_classifier_can_be_read(new_trainer, tmp_path):
    compiled = torch.compile(create_classifier("resnet20", 3, 8), backend="eager")
    module = NaturalModule(compiled, sgd, num_classes=3)
    trainer = new_trainer(limit_train_batches=1)
    trainer.fit(module, datamodule=colours())
    trainer.save_checkpoint(tmp_path / "compiled.ckpt")
    again = load_classifier(str(tmp_path / "compiled.ckpt"))
    assert classifier_hash(again) == classifier_hash(module.classifier)
