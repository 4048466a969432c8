"""Where the tests of this folder run: on a CUDA device, or wherever ISCP_TEST_DEVICE says.

`ISCP_TEST_DEVICE=cpu python -m pytest tests/gpu` runs them on the CPU, but for those that mean
something on CUDA alone. Without a device all of them are skipped.
"""

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import lightning as L
import pytest
import torch

from iscp_lightning.trainer import Trainer

FOLDER = Path(__file__).parent
NO_DEVICE = "no CUDA device; ISCP_TEST_DEVICE=cpu runs the tests on the CPU"
NOT_ALONE = "run tests/gpu by itself: other tests fork, and a fork cannot use its parent's CUDA"


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "only_cuda(reason): means something on CUDA alone")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Skip what cannot run here: everything without a device, or what is about CUDA."""
    chosen = _chosen()
    here = [item for item in items if FOLDER in item.path.parents]
    for item in here:
        if chosen is None:
            item.add_marker(pytest.mark.skip(reason=NO_DEVICE))
        elif chosen.type == "cuda" and len(here) < len(items):
            item.add_marker(pytest.mark.skip(reason=NOT_ALONE))
        elif chosen.type != "cuda" and (marker := item.get_closest_marker("only_cuda")):
            item.add_marker(pytest.mark.skip(reason=marker.args[0]))


def _chosen() -> torch.device | None:
    if name := os.environ.get("ISCP_TEST_DEVICE"):
        return torch.device(name)
    return torch.device("cuda") if torch.cuda.is_available() else None


@pytest.fixture
def device() -> torch.device:
    """The device that is tested."""
    chosen = _chosen()
    assert chosen is not None
    return chosen


@pytest.fixture
def accelerator(device: torch.device) -> str:
    """What `--trainer.accelerator` calls it."""
    return "gpu" if device.type == "cuda" else device.type


@pytest.fixture
def deterministic(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Nothing but deterministic algorithms; a Trainer that asks for them leaves them on."""
    monkeypatch.setenv("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # cuBLAS demands it
    flags = torch.backends.cudnn
    before = flags.benchmark, flags.deterministic
    torch.use_deterministic_algorithms(True)
    yield
    torch.use_deterministic_algorithms(False)
    flags.benchmark, flags.deterministic = before


@pytest.fixture
def new_trainer(accelerator: str, tmp_path: Path) -> Any:
    """Makes Trainers on the device that only work: no logger, no bars, no checkpoints."""

    def new(**settings: Any) -> L.Trainer:
        off = ("checkpointing", "progress_bar", "model_summary")
        quiet: dict[str, Any] = {f"enable_{name}": False for name in off}
        quiet |= {"accelerator": accelerator, "devices": 1, "logger": False}
        quiet |= {"default_root_dir": str(tmp_path), "max_epochs": 1}
        return Trainer(**(quiet | settings))

    return new
