"""Fixtures shared by all tests; every test runs in an empty folder without any W&B login."""

import os
from pathlib import Path

import pytest
import torch

from iscp_lightning.classifiers import Classifier, create_classifier
from iscp_lightning.data import ImageDataModule, Shapes

torch.set_num_threads(1)


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
    for name in ("LOCAL_RANK", "NODE_RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT"):
        os.environ.pop(name, None)


@pytest.fixture
def data() -> ImageDataModule:
    """Small shapes: 60 training and 100 test images of 16 x 16."""
    return ImageDataModule(Shapes(train_count=60, test_count=100, size=16), batch_size=20)


@pytest.fixture(scope="session")
def trained() -> Classifier:
    """A ResNet-20 that tells 16 x 16 shapes apart well enough to be searched."""
    torch.manual_seed(0)
    classifier = create_classifier("resnet20", image_size=16)
    images = Shapes(train_count=1500, test_count=10, size=16).train()
    batch = images.__getitems__(range(len(images)))
    pixels = batch.image / 255
    optimizer = torch.optim.SGD(classifier.parameters(), lr=0.05, momentum=0.9)
    for epoch in range(4):
        order = torch.randperm(len(pixels), generator=torch.Generator().manual_seed(epoch))
        for rows in order.split(50):
            optimizer.zero_grad()
            loss = torch.nn.functional.cross_entropy(classifier(pixels[rows]), batch.label[rows])
            loss.backward()
            optimizer.step()
    return classifier.eval()
