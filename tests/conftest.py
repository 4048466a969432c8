"""Fixtures shared by all tests; every test runs in an empty folder without any W&B login."""

import os
from pathlib import Path

import pytest
import torch

from iscp_lightning.classifiers import Classifier, load_classifier
from iscp_lightning.data import Shapes
from iscp_lightning.data.datamodule import ImageDataModule

torch.set_num_threads(1)
CHECKPOINTS = Path(__file__).parents[1] / "checkpoints"


@pytest.fixture(autouse=True)
def _isolated(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    for name in ("WANDB_API_KEY", "WANDB_BASE_URL", "ISCP_RUN_FOLDER", "LOCAL_RANK"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("WANDB_MODE", "disabled")
    monkeypatch.setenv("NETRC", str(tmp_path / "no-netrc"))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    yield
    if torch.distributed.is_initialized():
        torch.distributed.destroy_process_group()
    for name in ("LOCAL_RANK", "NODE_RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT"):
        os.environ.pop(name, None)


@pytest.fixture
def data() -> ImageDataModule:
    """Small shapes: 60 training and 100 test images of 16 x 16."""
    return ImageDataModule(Shapes(train_count=60, test_count=100, size=16), batch_size=20)


@pytest.fixture(scope="session")
def trained() -> Classifier:
    """The shipped ResNet-20 that was trained on 32 x 32 shapes."""
    return load_classifier(str(CHECKPOINTS / "shapes_resnet20.safetensors")).eval()
