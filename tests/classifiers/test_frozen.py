"""Promises of fp32: torch's TF32 is off wherever they are given, and left as it was after."""

from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from toys import Linear, grey_images, subject_of
from trainers import quiet_trainer

from iscp_lightning.attacks import PGD, evaluate_robustness
from iscp_lightning.attacks.robust_data import RobustDataSettings, match_features
from iscp_lightning.classifiers.frozen import full_fp32
from iscp_lightning.data import MemoryImages, Shapes
from iscp_lightning.data.datamodule import ImageDataModule
from iscp_lightning.data.images import to_float
from iscp_lightning.patterns import SearchSettings, search_patterns
from iscp_lightning.training import MadryModule

CUDNN, MATMUL = torch.backends.cudnn, torch.backends.cuda.matmul
WHITE = SearchSettings(canvas="white", search_epochs=1)
seen: list[tuple[str, bool, bool]] = []


class Record(torch.autograd.Function):
    """Changes nothing and remembers the flags that forward and backward passes meet."""

    @staticmethod
    def forward(ctx: Any, images: Tensor) -> Tensor:
        seen.append(("forward", CUDNN.allow_tf32, MATMUL.allow_tf32))
        return images.clone()

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        seen.append(("backward", CUDNN.allow_tf32, MATMUL.allow_tf32))
        return gradient


class Recording(nn.Module):
    """Cannot be traced, which would lose the recording."""

    def __init__(self, size: int = 8, classes: int = 2) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.linear = nn.Linear(3 * size * size, classes)

    def forward(self, images: Tensor) -> Tensor:
        assert images.min() >= 0
        return self.linear(Record.apply(images).flatten(1))


@pytest.fixture
def tf32() -> Iterator[None]:
    """TF32 is allowed everywhere."""
    before = torch.get_float32_matmul_precision(), CUDNN.allow_tf32
    torch.set_float32_matmul_precision("high")
    CUDNN.allow_tf32 = True
    seen.clear()
    yield
    assert (torch.get_float32_matmul_precision(), CUDNN.allow_tf32) == ("high", True)
    torch.set_float32_matmul_precision(before[0])
    CUDNN.allow_tf32 = before[1]


def search() -> None:
    search_patterns(Recording(), *grey_images(), WHITE, progress=False)


def attack() -> None:
    subject = subject_of(Recording(), MemoryImages(*grey_images(8)))
    evaluate_robustness(subject, torch.arange(8), ["fgsm"])


def invert() -> None:
    images = to_float(grey_images(4)[0])
    match_features(Recording(), images, images.flip(0), RobustDataSettings(steps=2))


@pytest.mark.usefixtures("tf32")
@pytest.mark.parametrize("work", [search, attack, invert])
def test_searches_and_attacks_compute_in_full(work: Callable[[], None]):
    work()
    assert set(seen) == {("forward", False, False), ("backward", False, False)}


@pytest.mark.usefixtures("tf32")
def test_predictive_power_is_measured_in_full():
    images, labels = grey_images()
    found = search_patterns(Linear(torch.zeros(2, 8, 8)), images, labels, WHITE, progress=False)
    found.predictive_power(Recording(), images, labels, pattern_sizes=[0.1])
    assert set(seen) == {("forward", False, False)}


@pytest.mark.usefixtures("tf32")
def test_adversarial_training_measures_robustness_in_full(tmp_path):
    data = ImageDataModule(Shapes(10, 10, 16))
    module = MadryModule(Recording(16, 10), evaluation_attack=PGD(steps=2))
    quiet_trainer(tmp_path).test(module, datamodule=data, verbose=False)
    assert {row for row in seen if row[0] == "backward"} == {("backward", False, False)}


def states() -> list[Any]:
    flags = [CUDNN.allow_tf32, torch.get_float32_matmul_precision(), MATMUL.allow_tf32]
    if hasattr(CUDNN, "conv"):
        operations = (CUDNN.conv, CUDNN.rnn, MATMUL, torch.backends.mkldnn.matmul)
        flags += [operation.fp32_precision for operation in operations]
    return flags


@pytest.mark.parametrize("matmul", ["highest", "high", "medium"])
@pytest.mark.parametrize("convolutions", [True, False])
def test_the_older_flags_are_restored(matmul: str, convolutions: bool):
    before = torch.get_float32_matmul_precision(), CUDNN.allow_tf32
    try:
        torch.set_float32_matmul_precision(matmul)
        CUDNN.allow_tf32 = convolutions
        given = states()
        inside = []
        with suppress(KeyError), full_fp32():
            inside = states()
            raise KeyError
        assert inside[:3] == [False, "highest", False]
        assert states() == given
    finally:
        torch.set_float32_matmul_precision(before[0])
        CUDNN.allow_tf32 = before[1]


@pytest.mark.skipif(not hasattr(CUDNN, "conv"), reason="torch 2.9 has the newer flags")
@pytest.mark.parametrize(
    ("owner", "value", "usual"),
    [
        (lambda: torch.backends, "tf32", "none"),
        (lambda: CUDNN, "tf32", "none"),
        (lambda: CUDNN.conv, "ieee", "tf32"),
        (lambda: MATMUL, "tf32", "none"),
    ],
    ids=["all", "cudnn", "convolutions", "matmul"],
)
def test_the_newer_flags_are_obeyed_and_restored(owner, value: str, usual: str):
    """Beside some of them, torch refuses to read the older ones."""
    operations = (CUDNN.conv, CUDNN.rnn, MATMUL)
    try:
        owner().fp32_precision = value
        given = [operation.fp32_precision for operation in operations]
        with full_fp32():
            assert [operation.fp32_precision for operation in operations] == ["ieee"] * 3
        assert [operation.fp32_precision for operation in operations] == given
    finally:
        owner().fp32_precision = usual
