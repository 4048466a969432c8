"""Tests of AdaINModule: what it trains, what it writes, and how it goes on."""

import copy
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from lightning.fabric.utilities.exceptions import MisconfigurationException
from PIL import Image
from torch import nn
from trainers import quiet_trainer

from iscp_lightning.classifiers import create_classifier
from iscp_lightning.cli import main
from iscp_lightning.data import Shapes
from iscp_lightning.data.datamodule import ImageDataModule
from iscp_lightning.probes.module import AdaINModule
from iscp_lightning.probes.style import Stylised
from iscp_lightning.probes.style_files import load_style_network


def _module(**settings: Any) -> AdaINModule:
    torch.manual_seed(0)
    return AdaINModule(create_classifier("resnet20", 10, 16), image_size=16, **settings)


def _data() -> ImageDataModule:
    return ImageDataModule(Shapes(60, 20, 16), batch_size=16, val_fraction=0.2)


def _fit(folder: Path, epochs: int, start: Any = None, **settings: Any) -> tuple[AdaINModule, Any]:
    module = _module(optimizer=lambda p: torch.optim.Adam(p, lr=3e-3), **settings)
    torch.manual_seed(7 if start else 1)  # a new process has drawn something else
    trainer = quiet_trainer(folder, max_epochs=epochs, enable_checkpointing=False)
    trainer.fit(module, datamodule=_data(), ckpt_path=start)
    trainer.save_checkpoint(folder / f"{epochs}.ckpt")
    return module, trainer


def test_the_decoder_learns_and_the_encoder_stays(tmp_path: Path):
    fresh = _module()
    before = copy.deepcopy(fresh.network.state_dict())
    module, trainer = _fit(tmp_path, 4)
    after = module.network.state_dict()
    same = {name for name in before if torch.equal(before[name], after[name])}
    assert same == {name for name in before if name.startswith("encoder.")}
    assert not any(part.training for part in module.network.encoder.modules())

    (untrained,) = quiet_trainer(tmp_path).validate(fresh, datamodule=_data(), verbose=False)
    logged = {name: value.item() for name, value in trainer.callback_metrics.items()}
    assert set(logged) == {
        f"{part}/{loss}_loss" for part in ("train", "val") for loss in ("content", "style")
    }
    total, first = (v["val/content_loss"] + 10 * v["val/style_loss"] for v in (logged, untrained))
    assert total < 0.7 * first
    results = trainer.test(module, datamodule=_data(), verbose=False)
    assert {name for part in results for name in part} == {
        f"{part}/{loss}_loss"
        for part in ("test", "test_random_texture")
        for loss in ("content", "style")
    }


def test_what_is_written_is_what_stylised_takes(tmp_path: Path):
    module, _ = _fit(tmp_path, 1)
    loaded = load_style_network(module.path)
    state = module.network.state_dict()
    assert all(torch.equal(value, state[name]) for name, value in loaded.state_dict().items())
    data = _data()
    data.setup("test")
    Stylised(str(module.path)).check(data)
    assert module.findings[""].lines == [str(tmp_path / "style_network.safetensors")]
    checkpoint = torch.load(tmp_path / "1.ckpt", weights_only=True)
    assert all(name.startswith("decoder.") for name in checkpoint["state_dict"])


def test_a_dry_run_writes_nothing(tmp_path: Path):
    trainer = quiet_trainer(tmp_path, fast_dev_run=1)
    trainer.fit(_module(), datamodule=_data())
    assert list(tmp_path.iterdir()) == []


def test_a_resumed_training_is_as_without_a_break(tmp_path: Path):
    _fit(tmp_path, 1)
    resumed, _ = _fit(tmp_path, 3, tmp_path / "1.ckpt")
    whole, _ = _fit(tmp_path, 3)
    for one, other in zip(resumed.parameters(), whole.parameters(), strict=True):
        assert torch.equal(one, other)


def test_the_loss_is_content_plus_weighed_style(tmp_path: Path):
    module = _module(style_weight=2.5)
    trainer = quiet_trainer(tmp_path, fast_dev_run=1)
    data = _data()
    trainer.fit(module, datamodule=data)
    batch = data.on_after_batch_transfer(next(iter(data.train_dataloader())), 0)
    module.log_dict = lambda *_, **__: None
    loss = module.training_step(batch, 0)
    styles = module._styles_of(batch.image, "training", module.current_epoch, 0)
    assert sorted(styles.mean((1, 2, 3)).tolist()) == sorted(batch.image.mean((1, 2, 3)).tolist())
    assert not torch.equal(styles, batch.image)
    losses = module.network.losses(batch.image, styles)
    assert loss.item() == pytest.approx((losses.content + 2.5 * losses.style).item(), rel=1e-5)


def test_styles_from_a_folder(tmp_path: Path):
    (tmp_path / "styles").mkdir()
    for level in (0, 100):
        pixels = np.full((16, 16, 3), level, np.uint8)
        Image.fromarray(pixels).save(tmp_path / "styles" / f"{level}.png")
    module = _module(styles=str(tmp_path / "styles"))
    quiet_trainer(tmp_path, fast_dev_run=1).fit(module, datamodule=_data())
    styles = module._styles_of(torch.zeros(40, 3, 16, 16), "training", 0, 0)
    assert styles.shape == (40, 3, 16, 16)
    assert set((255 * styles).round().flatten().tolist()) == {0, 100}


def test_what_is_refused(tmp_path: Path):
    with pytest.raises(ValueError, match="`style_weight` must be 0 or more, got -1"):
        _module(style_weight=-1)
    with pytest.raises(ValueError, match="`classifier`=resnet20 has random weights"):
        AdaINModule("resnet20")
    with pytest.raises(ValueError, match="cannot be an encoder"):
        AdaINModule(nn.Sequential(nn.Flatten(), nn.Linear(3072, 10)))
    with pytest.raises(ValueError, match="`styles`=nowhere is no folder with images"):
        quiet_trainer(tmp_path, max_epochs=1).fit(_module(styles="nowhere"), datamodule=_data())
    trainer = quiet_trainer(tmp_path, max_epochs=1, precision="64-true")
    with pytest.raises(MisconfigurationException, match="must be 32-true or bf16-mixed"):
        trainer.fit(_module(), datamodule=_data())


def test_the_configuration_trains_and_its_network_stylises(capsys):
    root = Path(__file__).parents[2]
    config = str(root / "configs" / "experiment" / "adain_cifar10.yaml")
    weights = str(root / "checkpoints" / "shapes_resnet20.safetensors")
    few = ["--data.source", "Shapes", "--data.source.train_count", "40"]
    few += ["--data.source.test_count", "20", "--trainer.accelerator", "cpu"]
    few += ["--trainer.enable_progress_bar", "false", "--data.batch_size", "10"]
    train = ["fit", "-c", config, "--model.classifier", weights, "--trainer.max_epochs", "1"]
    main([*train, *few, "--run", "a"])
    network = {"network": "runs/a/style_network.safetensors"}
    stylised = json.dumps({"class_path": "Stylised", "init_args": network})
    words = ["--distortions", stylised, "--images", "10", *few]
    main(["probe", "--classifiers", weights, *words, "--run", "p"])
    assert "stylised 1 textures *" in capsys.readouterr().out
