"""Tests of the reconstructions that are drawn in the course of a training."""

from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.pytorch.loggers.logger import DummyLogger
from torch import nn
from trainers import quiet_trainer

from iscp_lightning import NaturalModule, Shapes
from iscp_lightning.callbacks import Reconstructions, reconstructions
from iscp_lightning.classifiers import create_classifier
from iscp_lightning.data.datamodule import ImageDataModule
from iscp_lightning.inversion.architecture import Architecture
from iscp_lightning.inversion.module import FeedforwardInversionModule


def _fit(folder: Path, *callbacks: Reconstructions, loggers: Any = None) -> nn.Module:
    torch.manual_seed(0)
    module = FeedforwardInversionModule(
        create_classifier("resnet20", 10, 16),
        architecture=Architecture(2, [2, 1, 1], [1, 1, 2], 4, 2),
        image_size=16,
    )
    trainer = quiet_trainer(
        folder, max_epochs=4, enable_checkpointing=False, callbacks=[*callbacks]
    )
    trainer.loggers = loggers or []
    data = ImageDataModule(Shapes(40, 20, 16), batch_size=20, val_fraction=0)
    trainer.fit(module, datamodule=data)
    return module


def test_every_other_epoch_is_drawn_and_logged(tmp_path: Path, monkeypatch):
    logged = []
    monkeypatch.setattr(reconstructions, "log_findings", lambda *given: logged.append(given))
    _fit(tmp_path, Reconstructions(every=2, images=3), loggers=[DummyLogger()])
    drawn = sorted(file.name for file in (tmp_path / "figures").iterdir())
    assert drawn == ["reconstructions_epoch002.png", "reconstructions_epoch004.png"]
    assert [found.provenance["epoch"] for _, _, found, _, _ in logged] == [2, 4]
    picture = logged[0][2].pictures["reconstructions"]
    assert picture.pixels.shape == (3 * 16, 4 * 16, 3)
    assert picture.caption == "original | reconstruction | other noise | other noise"
    assert [step for *_, step in logged] == [3, 7]


def test_the_training_stays_the_same_to_the_bit(tmp_path: Path):
    plain, drawn = _fit(tmp_path).state_dict(), _fit(tmp_path, Reconstructions(1, 2)).state_dict()
    assert all(torch.equal(plain[name], drawn[name]) for name in plain)


def test_other_modules_and_numbers_are_refused(tmp_path: Path):
    trainer = quiet_trainer(tmp_path, callbacks=[Reconstructions()], max_epochs=1)
    with pytest.raises(MisconfigurationException, match="needs a FeedforwardInversionModule"):
        trainer.fit(NaturalModule("resnet20"), datamodule=ImageDataModule(Shapes(40, 20)))
    with pytest.raises(ValueError, match="`every` must be 1 or more, got 0"):
        Reconstructions(every=0)
