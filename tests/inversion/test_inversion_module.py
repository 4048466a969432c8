"""Tests of FeedforwardInversionModule: what it trains, how it goes on, what it refuses."""

import copy
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import lightning as L
import pytest
import torch
from lightning.fabric.utilities.exceptions import MisconfigurationException
from small import small_data, small_module
from torch import nn
from trainers import quiet_trainer

from iscp_lightning.classifiers import classifier_hash, create_classifier, save_classifier
from iscp_lightning.data import Augmentation, Shapes
from iscp_lightning.data.datamodule import ImageDataModule
from iscp_lightning.data.images import MemoryImages
from iscp_lightning.internals import syncs_batch_norm
from iscp_lightning.inversion import given
from iscp_lightning.inversion.collapse import CollapseWatch
from iscp_lightning.inversion.losses import Weights
from iscp_lightning.inversion.module import FeedforwardInversionModule
from iscp_lightning.inversion.processes import require_processes
from iscp_lightning.ranks import gather

FAST = {
    f"{name}_optimizer": lambda p: torch.optim.Adam(p, lr=3e-3, betas=(0.0, 0.99))
    for name in ("generator", "discriminator")
}


def _fit(
    folder: Path, epochs: int, start: Any = None, data: Any = None, **settings: Any
) -> tuple[FeedforwardInversionModule, L.Trainer]:
    module = small_module(**settings)
    torch.manual_seed(7 if start else 1)  # a new process has drawn something else
    trainer = quiet_trainer(folder, max_epochs=epochs, enable_checkpointing=False)
    trainer.fit(module, datamodule=data or small_data(), ckpt_path=start)
    trainer.save_checkpoint(folder / f"{epochs}.ckpt")
    return module, trainer


def test_everything_learns_but_the_classifier(tmp_path: Path):
    classifier = create_classifier("resnet20", 10, 16)
    hashed = classifier_hash(classifier)
    fresh = small_module(classifier=classifier)
    before = copy.deepcopy(fresh.state_dict())
    module, trainer = _fit(tmp_path, 2, classifier=classifier)
    assert classifier_hash(classifier) == hashed == classifier_hash(module.inverter(0).classifier)
    assert classifier.training  # the given one is not touched
    after = module.state_dict()
    assert not [name for name in after if name.startswith("classifier")]
    same = {name for name in before if torch.equal(before[name], after[name])}
    assert not {name for name in same if "original" in name or "embedding" in name}
    logged = {"train/discriminator_loss", "train/adversarial", "val/mse", "val/class_agreement"}
    assert set(trainer.callback_metrics) == logged


def test_a_pixel_term_brings_reconstructions_near(tmp_path: Path):
    loss = Weights(adversarial=0, pixel=1)
    few, many = (
        _fit(tmp_path, epochs, condition="features", loss=loss, averaging=0.5, **FAST)
        for epochs in (1, 20)
    )
    values = [float(trainer.callback_metrics["val/mse"]) for _, trainer in (few, many)]
    assert values[1] < 0.7 * values[0]
    untrained = small_module(condition="features").discriminator.state_dict()
    trained = many[0].discriminator.state_dict()
    assert all(torch.equal(untrained[name], trained[name]) for name in untrained)
    assert "train/adversarial" not in many[1].callback_metrics


def test_resumed_is_uninterrupted(tmp_path: Path):
    settings: dict[str, Any] = {
        "augmentation": ["color", "translation", "cutout"],
        "loss": Weights(1, 1, 1),
        "discriminator_steps": 2,
        **FAST,
    }
    whole, _ = _fit(tmp_path, 3, **settings)
    _fit(tmp_path, 1, **settings)
    resumed, _ = _fit(tmp_path, 3, str(tmp_path / "1.ckpt"), **settings)
    states = whole.state_dict(), resumed.state_dict()
    assert all(torch.equal(states[0][name], states[1][name]) for name in states[0])


def test_the_generator_learns_from_every_nth_batch(tmp_path: Path):
    module, _ = _fit(tmp_path, 2, discriminator_steps=2)  # 4 batches an epoch
    steps = [o.state[next(iter(o.state))]["step"].item() for o in module.trainer.optimizers]
    assert steps == [4, 8]
    assert int(module.average.steps) == 4


def test_it_learns_though_an_epoch_has_fewer_batches(tmp_path: Path):
    module, _ = _fit(tmp_path, 2, discriminator_steps=5)  # 4 batches an epoch
    assert module.average.steps == 1


def test_vectors_are_read_once_where_images_stay_as_they_are(tmp_path: Path):
    read, augmented = (
        _fit(tmp_path, 1, data=small_data(augmentation=Augmentation(shift=shift)))[0]
        for shift in (0, 1)
    )
    assert len(read._kept) == 60
    assert len(augmented._kept) == 0
    batch = next(iter(read.trainer.datamodule.train_dataloader()))
    batch = batch._replace(image=batch.image / 255)
    assert torch.allclose(read._vectors(batch), augmented._vectors(batch), atol=1e-4)


def test_the_average_follows_the_generator(tmp_path: Path):
    module, _ = _fit(tmp_path, 1, averaging=0)
    live, average = module.generator.state_dict(), module.average.module.state_dict()
    same = {name for name in live if torch.equal(live[name], average[name])}
    assert {name for name in live if not name.endswith(("._u", "._v"))} <= same
    assert not module.inverter(0).generator.training
    assert module.generator.training


def test_a_collapsed_training_stops_with_a_warning(tmp_path: Path, monkeypatch):
    monkeypatch.setattr(CollapseWatch, "verdict", lambda _: "it has collapsed")
    with pytest.warns(UserWarning, match="it has collapsed; the training stops"):
        _, trainer = _fit(tmp_path, 5)
    assert trainer.current_epoch == 1


class SameOnAllRanks(L.Callback):
    """Fails where a network has other weights on another rank."""

    def on_train_end(self, trainer: L.Trainer, pl_module: Any) -> None:
        assert trainer.world_size == 2
        for network in (pl_module.generator, pl_module.discriminator, pl_module.average):
            weights = [p.detach().clone() for p in network.parameters()]
            ours, other = gather(weights)
            assert all(map(torch.equal, ours, other))


def test_two_processes_train_one_generator(tmp_path: Path):
    trainer = quiet_trainer(
        tmp_path,
        max_epochs=1,
        devices=2,
        strategy="ddp_fork_find_unused_parameters_true",
        enable_checkpointing=False,
        callbacks=[SameOnAllRanks()],
    )
    module = small_module()
    before = copy.deepcopy(module.state_dict())
    trainer.fit(module, datamodule=small_data(batch_size=7))
    after = module.state_dict()  # of the first process
    assert not torch.equal(
        before["generator.embedding.weight"], after["generator.embedding.weight"]
    )


def test_a_strategy_that_waits_for_all_gradients_is_refused(tmp_path: Path):
    trainer = quiet_trainer(tmp_path, max_epochs=1, devices=2, strategy="ddp_fork")
    with pytest.raises(Exception, match=r"trainer\.strategy ddp_find_unused_parameters_true"):
        trainer.fit(small_module(), datamodule=small_data(batch_size=7))


@pytest.mark.parametrize(("device", "processes"), [("cuda", 2), ("cuda", 1), ("cpu", 2)])
@pytest.mark.parametrize("synchronised", [True, False])
def test_gpus_must_normalise_together(device, processes, synchronised):
    strategy = SimpleNamespace(
        root_device=torch.device(device),
        _ddp_kwargs={"find_unused_parameters": True},
        _layer_sync=object() if synchronised else None,
    )
    trainer: Any = SimpleNamespace(strategy=strategy, world_size=processes)
    if (device, processes, synchronised) == ("cuda", 2, False):
        with pytest.raises(MisconfigurationException, match=r"trainer\.sync_batchnorm true"):
            require_processes(trainer)
    else:
        require_processes(trainer)


def test_the_trainer_says_whether_it_normalises_together(tmp_path: Path):
    for wanted in (True, False):
        trainer = quiet_trainer(tmp_path, devices=2, strategy="ddp_fork", sync_batchnorm=wanted)
        assert syncs_batch_norm(trainer) == wanted


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"discriminator_steps": 0}, "`discriminator_steps` must be 1 or more, got 0"),
        ({"averaging": 1.0}, r"`averaging` must lie in \[0, 1\), got 1.0"),
        ({"condition": "pixels"}, "`condition` must be one of"),
        ({"augmentation": ["blur"]}, "`augmentation` must be of"),
        ({"condition": "one_hot", "loss": Weights(feature=1)}, "`loss.feature` must be 0"),
        ({"num_classes": 7}, "knows 10 classes, the data have 7: `other_classes` allows"),
        ({"image_size": 24}, "`classifier` is made for images of 16 x 16 pixels, the data have"),
        (
            {"image_size": 24, "classifier": nn.Sequential(nn.Flatten(), nn.Linear(1728, 10))},
            "side",
        ),
        ({"judge": "nowhere"}, "`judge`=nowhere: "),
        (
            {"classifier": nn.Sequential(nn.Flatten(), nn.Linear(5, 10))},
            "`classifier` takes no images of 16 x 16 pixels",
        ),
        (
            {
                "classifier": nn.Sequential(
                    nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Conv1d(1, 1, 1)
                )
            },
            "classifier",
        ),
    ],
)
def test_settings_that_do_not_fit_are_refused(settings, message):
    with pytest.raises(ValueError, match=message):
        small_module(**settings)


def test_other_classes_are_allowed_if_asked_for():
    assert small_module(num_classes=7, other_classes=True).standardise.mean.shape == (10,)
    assert not small_module(other_classes=True).same_classes  # though there are as many


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ({"batch_size": 1}, "`data.batch_size` must be 2 or more"),
        ({"batch_size": 7}, "`data.batch_size`=7 leaves one of 50 training images"),
    ],
)
def test_batches_of_one_image_are_refused(tmp_path: Path, data, message):
    with pytest.raises(ValueError, match=message):
        _fit(tmp_path, 1, data=small_data(**data))


def test_nan_logits_are_refused_before_training(tmp_path: Path):
    classifier = create_classifier("resnet20", 10, 16)
    with torch.no_grad():
        classifier.network.fc.bias[2] = torch.nan
    with pytest.raises(ValueError, match="logits are NaN"):
        _fit(tmp_path, 1, classifier=classifier)


@pytest.mark.parametrize("name", ["classifier", "judge"])
def test_files_that_name_other_classes_are_refused_before_training(tmp_path: Path, name):
    save_classifier("cats.safetensors", create_classifier("resnet20", 10, 16), class_names=["cat"])
    with pytest.raises(ValueError, match=rf"`{name}`=cats.safetensors knows other classes \(cat"):
        _fit(tmp_path, 1, **{name: "cats.safetensors"})


def test_a_checkpoint_of_another_classifier_is_refused(tmp_path: Path):
    _fit(tmp_path, 1)
    torch.manual_seed(5)
    other = create_classifier("resnet20", 10, 16)
    with pytest.raises(ValueError, match="inverts another classifier"):
        _fit(tmp_path, 2, str(tmp_path / "1.ckpt"), classifier=other)


def test_a_judge_must_be_another_classifier_of_the_same_classes():
    module = small_module()
    with pytest.raises(ValueError, match="`judge` must be another classifier"):
        module.take_judge(module.inverter(0).classifier)
    with pytest.raises(ValueError, match="`judge` knows 7 classes, the data have 10"):
        module.take_judge(create_classifier("resnet20", 7, 16))
    with pytest.raises(ValueError, match="`judge` is made for images of 32 x 32 pixels"):
        module.take_judge(create_classifier("resnet20", 10, 32))
    with pytest.raises(ValueError, match=r"no nn\.Linear"):
        module.take_judge(nn.Conv2d(3, 3, 1))


def test_mean_images_are_of_all_classes_however_the_images_are_sorted(monkeypatch):
    monkeypatch.setattr(given, "FEW", 6)
    pixels = torch.arange(30).repeat_interleave(3 * 16 * 16).view(30, 3, 16, 16).to(torch.uint8)
    labels = torch.arange(3).repeat_interleave(10)
    data = SimpleNamespace(
        has_training_images=True,
        train_images=(MemoryImages(pixels, labels), torch.arange(30)),
        num_classes=3,
        seed=0,
    )
    means = given.class_means(data)
    brightness = 255 * means.mean((1, 2, 3))
    assert (
        (brightness >= torch.tensor([0, 10, 20])) & (brightness < torch.tensor([10, 20, 30]))
    ).all()
    data.num_classes = 4
    assert given.class_means(data) is None


def test_an_inversion_is_examined_without_training_images():
    source = Shapes(60, 20, 16)
    source.train = lambda: None
    examined = small_module().examined(ImageDataModule(source), 10, means=True)
    assert examined.class_means is None
    assert len(examined.images) == 10
