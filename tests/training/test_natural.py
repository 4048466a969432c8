"""Tests of standard training: what it changes, what it reports, and its schedules."""

import math
from typing import Any

import lightning as L
import pytest
import torch
import torch.nn.functional as F
from lightning.fabric.utilities.exceptions import MisconfigurationException
from torch import Tensor, nn

from iscp_lightning.data import Batch, ImageSet, Shapes
from iscp_lightning.data.datamodule import ImageDataModule
from iscp_lightning.seeds import generator_states
from iscp_lightning.training import NaturalModule, natural


def _trainer(max_epochs: int = 1, **settings: Any) -> L.Trainer:
    return L.Trainer(
        max_epochs=max_epochs,
        accelerator="cpu",
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        **settings,
    )


def _data() -> ImageDataModule:
    return ImageDataModule(Shapes(200, 100, 16), batch_size=20, val_fraction=0.2)


def _linear() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Flatten(), nn.Linear(3 * 16 * 16, 10))


def _by_hand(module: NaturalModule, images: ImageSet, indices: Any) -> dict[str, float]:
    """Accuracy, overall and per class, on the chosen images."""
    with torch.no_grad():
        logits = module.classifier.eval()(images.pixels(indices).float() / 255)
    labels = images.labels[indices]
    right = (logits.argmax(1) == labels).double()
    named = {
        f"clean_accuracy/{name}": right[labels == label].mean().item()
        for label, name in enumerate(Shapes().class_names)
    }
    return {"clean_accuracy": right.mean().item(), **named}


def test_training_learns_and_reports_accuracies():
    torch.manual_seed(0)
    data, module = _data(), NaturalModule("resnet20", image_size=16)
    before = {name: tensor.clone() for name, tensor in module.classifier.state_dict().items()}
    trainer = _trainer(max_epochs=3)
    trainer.fit(module, datamodule=data)

    after = module.classifier.state_dict()
    frozen = [name for name in before if torch.equal(before[name], after[name])]
    assert frozen == ["mean", "std"]

    images, indices = data._part("val")
    expected = _by_hand(module, images, indices)
    logged = {k: v.item() for k, v in trainer.callback_metrics.items() if k != "train/loss"}
    assert logged == pytest.approx({f"val/{key}": value for key, value in expected.items()})
    assert 0 < expected["clean_accuracy"] < 1

    (results,) = trainer.test(module, datamodule=data, verbose=False)[:1]
    reported = dict(results)
    for further in trainer.test(module, datamodule=data, verbose=False)[1:]:
        reported |= further
    expected = {}
    for name, images in (
        ("test", data.test_images),
        ("test_random_texture", data.source.shifted_tests()["random_texture"]),
    ):
        accuracies = _by_hand(module, images, range(100))
        expected |= {f"{name}/{key}": value for key, value in accuracies.items()}
    assert reported == pytest.approx(expected)
    assert expected["test/clean_accuracy"] != expected["test_random_texture/clean_accuracy"]


class Rates(L.Callback):
    """Remembers the learning rate that every step is taken with."""

    def __init__(self) -> None:
        self.rates: list[float] = []

    def on_train_batch_start(self, trainer: L.Trainer, *_: Any) -> None:
        self.rates.append(trainer.optimizers[0].param_groups[0]["lr"])


def _rates(**settings: Any) -> tuple[list[float], L.Trainer]:
    recorder = Rates()
    trainer = _trainer(max_epochs=3, callbacks=[recorder], limit_val_batches=0)
    trainer.fit(NaturalModule(_linear(), **settings), datamodule=_data())
    return recorder.rates, trainer


def _sgd(parameters: Any) -> torch.optim.Optimizer:
    return torch.optim.SGD(parameters, lr=0.3)


def test_cosine_falls_to_zero_over_the_whole_run():
    rates, _ = _rates(optimizer=_sgd, scheduler="cosine")
    assert rates == pytest.approx([0.15 * (1 + math.cos(math.pi * i / 24)) for i in range(24)])


def test_one_cycle_rises_to_the_rate_of_the_optimiser_and_falls_to_zero():
    rates, _ = _rates(optimizer=_sgd, scheduler="one_cycle")
    assert len(rates) == 24
    top = rates.index(max(rates))
    assert rates[top] == pytest.approx(0.3, rel=0.05)
    assert 4 <= top <= 10
    assert rates == sorted(rates[:top]) + sorted(rates[top:], reverse=True)
    assert rates[0] < 0.02
    assert rates[-1] < 1e-4


def test_given_optimiser_and_scheduler_are_used():
    rates, trainer = _rates(
        optimizer=lambda parameters: torch.optim.Adam(parameters, lr=0.01),
        scheduler=lambda optimizer: torch.optim.lr_scheduler.ExponentialLR(optimizer, 0.5),
    )
    assert isinstance(trainer.optimizers[0], torch.optim.Adam)
    assert rates == pytest.approx([0.01 * 0.5**step for step in range(24)])


@pytest.mark.parametrize("smoothing", [0.0, 0.2])
def test_loss_is_the_smoothed_cross_entropy(smoothing: float):
    data = ImageDataModule(Shapes(50, 20, 16), batch_size=50, val_fraction=0)
    module = NaturalModule(_linear(), _sgd, label_smoothing=smoothing)
    logits = _linear()(data.source.train().pixels(range(50)).float() / 255)
    trainer = _trainer()
    trainer.fit(module, datamodule=data)
    log_odds, labels = F.log_softmax(logits, 1), data.source.train().labels
    target = (1 - smoothing) * F.one_hot(labels, 10) + smoothing / 10
    expected = -(target * log_odds).sum(1).mean().item()
    assert trainer.callback_metrics["train/loss"].item() == pytest.approx(expected, rel=1e-5)


class Fixed(nn.Module):
    """Predicts the class that the first pixel shows."""

    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.ones(()))

    def forward(self, images: Tensor) -> Tensor:
        return F.one_hot(images[:, 0, 0, 0].long(), 4) * self.scale


def test_accuracy_per_class_without_a_data_module():
    """Classes count as often as they occur: 3/4 of class 0, 1/2 of class 1, 0/1 of class 2.

    Of class 3 there is no image, so nothing is known.
    """
    labels = torch.tensor([0, 0, 0, 0, 1, 1, 2])
    predictions = torch.tensor([0, 0, 0, 1, 1, 0, 0])
    images = predictions.view(-1, 1, 1, 1).float()
    batches = [
        Batch(images[part], labels[part], torch.arange(7)[part])
        for part in (slice(0, 3), slice(3, 7))
    ]
    module = NaturalModule(Fixed(), num_classes=4)
    trainer = _trainer()
    loader = torch.utils.data.DataLoader(batches, batch_size=None)
    expected = {"": 4 / 7, "/0": 3 / 4, "/1": 1 / 2, "/2": 0.0, "/3": math.nan}
    for stage, name in (("test", "test"), ("test", "test"), ("validate", "val")):
        (results,) = getattr(trainer, stage)(module, loader, verbose=False)
        known = {f"{name}/clean_accuracy{k}": v for k, v in expected.items()}
        assert results == pytest.approx(known, nan_ok=True)


@pytest.mark.parametrize("precision", ["32-true", "bf16-mixed"])  # no 16-mixed on a CPU
def test_precisions_that_keep_images_in_fp32(precision: str):
    _trainer(precision=precision).fit(NaturalModule(_linear()), datamodule=_data())


@pytest.mark.parametrize("precision", ["bf16-true", "16-true", "64-true"])
@pytest.mark.parametrize("stage", ["fit", "test"])
def test_other_precisions_are_refused_before_the_first_step(precision: str, stage: str):
    message = f"`trainer.precision` must be 32-true or bf16-mixed or 16-mixed.*got {precision}"
    with pytest.raises(MisconfigurationException, match=message):
        getattr(_trainer(precision=precision), stage)(NaturalModule(_linear()), datamodule=_data())


def test_compiling_keeps_the_names_of_the_weights():
    plain = NaturalModule("resnet20")
    compiled = NaturalModule("resnet20", compile=True)
    assert list(compiled.state_dict()) == list(plain.state_dict())
    assert compiled.classifier._compiled_call_impl is not None
    assert plain.classifier._compiled_call_impl is None


def test_a_given_module_is_trained_itself_in_training_mode():
    network = _linear().eval()
    module = NaturalModule(network)
    assert module.classifier is network
    assert network.training


def _noisy() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Flatten(), nn.Dropout(0.5), nn.Linear(3 * 16 * 16, 10))


def _constant(optimizer: Any) -> Any:
    return torch.optim.lr_scheduler.ConstantLR(optimizer, 1.0)


@pytest.mark.parametrize("val_fraction", [0.2, 0.0])
def test_a_resumed_training_with_dropout_is_as_without_a_break(tmp_path, val_fraction):
    def fit(epochs: int, start: Any = None) -> NaturalModule:
        torch.manual_seed(7 if start else 1)  # a new process has drawn something else
        data = ImageDataModule(Shapes(60, 20, 16), batch_size=20, val_fraction=val_fraction)
        module, trainer = NaturalModule(_noisy(), scheduler=_constant), _trainer(epochs)
        trainer.fit(module, datamodule=data, ckpt_path=start)
        trainer.save_checkpoint(tmp_path / f"{epochs}.ckpt")
        return module

    fit(1)
    resumed, whole = fit(3, tmp_path / "1.ckpt"), fit(3)
    assert torch.equal(resumed.classifier[2].weight, whole.classifier[2].weight)


def test_every_rank_goes_on_with_its_own_draws(monkeypatch):
    states, draws = [], []
    for seed in (1, 2):
        torch.manual_seed(seed)
        states.append(generator_states())
        draws.append(torch.rand(3))
    module = NaturalModule(_linear())
    for rank in (1, 0):
        module.on_load_checkpoint({natural.GENERATORS_KEY: states})
        monkeypatch.setattr(natural, "rank_and_size", lambda r=rank: (r, 2))
        module.on_train_start()
        assert torch.equal(torch.rand(3), draws[rank])
    module.on_load_checkpoint({natural.GENERATORS_KEY: states})
    monkeypatch.setattr(natural, "rank_and_size", lambda: (0, 1))  # another number of ranks
    before = torch.get_rng_state()
    module.on_train_start()
    assert torch.equal(torch.get_rng_state(), before)


def test_the_draws_of_a_checkpoint_are_taken_up_once():
    module = NaturalModule(_linear())
    module.on_load_checkpoint({natural.GENERATORS_KEY: [generator_states()]})
    module.on_train_start()
    torch.rand(3)
    before = torch.get_rng_state()
    module.on_train_start()  # of a second fit, which starts anew
    assert torch.equal(torch.get_rng_state(), before)
