"""Interrupted searches and trainings: they go on to the same bits, and on another device."""

from pathlib import Path

import pytest
import torch
from colours import colours, sgd, small_net

from iscp_lightning.data import Augmentation, Shapes
from iscp_lightning.data.datamodule import ImageDataModule
from iscp_lightning.patterns import SearchSettings
from iscp_lightning.patterns.module import PatternSearchModule
from iscp_lightning.patterns.variants import Algorithm1
from iscp_lightning.trainer import EpochCheckpoint
from iscp_lightning.training import NaturalModule

pytestmark = pytest.mark.filterwarnings(
    "ignore:The dirpath has changed",
    "ignore:Using ModelCheckpoint with manual optimization",  # a search keeps what it needs,
    "ignore:You're resuming from a checkpoint that ended before",  # and counts its own steps
)


class Momentum(Algorithm1):
    """Algorithm 1 with Adam, whose state is on the device, and a reaction to every pass."""

    def stamps(self, variables, problems):
        return super().stamps({"mask": variables["mask"].clamp(0, 1)}, problems)

    def optimizer(self, variables, step_size):
        return torch.optim.Adam(list(variables.values()), lr=step_size)

    def react(self, outcome, variables):
        fails = outcome.successes[outcome.owned] < 0.5
        variables["mask"][fails] *= 0.9


@pytest.fixture
def shapes() -> ImageDataModule:
    return ImageDataModule(Shapes(train_count=20, test_count=100), batch_size=50)


@pytest.fixture
def fit_search(new_trainer, trained, shapes, tmp_path):
    """Makes a search of two passes, from a checkpoint if one is given, and returns its module."""

    def fit(
        folder: str, variant=None, start: Path | None = None, **settings
    ) -> PatternSearchModule:
        saving = EpochCheckpoint(
            tmp_path / folder,
            filename="saved",
            auto_insert_metric_name=False,
            save_top_k=-1,
            every_n_train_steps=7,  # of ten, five in a pass
        )
        chosen = SearchSettings(
            canvas="random", canvases_per_class=2, search_epochs=2, variant=variant
        )
        module = PatternSearchModule(trained, search=chosen, classes=[1, 4], pattern_sizes=[0.05])
        arguments = {"callbacks": [saving], "enable_checkpointing": True} | settings
        new_trainer(**arguments).fit(module, datamodule=shapes, ckpt_path=start)
        return module

    return fit


@pytest.mark.usefixtures("deterministic")
@pytest.mark.parametrize("variant", [None, Momentum()], ids=["algorithm 1", "momentum"])
def test_a_search_goes_on_to_the_same_bits(fit_search, tmp_path, variant):
    whole = fit_search("whole", variant)
    resumed = fit_search("resumed", variant, tmp_path / "whole" / "saved-step000007.ckpt")
    for name in ("masks", "mask_means", "objectives"):
        found, expected = getattr(resumed.patterns, name), getattr(whole.patterns, name)
        assert torch.equal(found, expected), name
    assert whole.patterns.masks.unique().numel() > 10


@pytest.mark.parametrize("direction", ["from it", "to it"])
def test_a_search_goes_on_on_another_device(fit_search, tmp_path, accelerator, direction):
    """Also one whose optimiser has a state."""
    begun, ended = (accelerator, "cpu") if direction == "from it" else ("cpu", accelerator)
    whole = fit_search("begun", Momentum(), accelerator=begun)
    first = tmp_path / "begun" / "saved-step000007.ckpt"
    resumed = fit_search("ended", Momentum(), first, accelerator=ended)
    assert resumed.engine.done == whole.engine.total_steps
    found, expected = resumed.patterns, whole.patterns
    assert torch.equal(found.canvas_indices, expected.canvas_indices)
    assert (found.masks - expected.masks).abs().mean() < 0.05
    torch.testing.assert_close(found.objectives, expected.objectives, rtol=0.1, atol=0.02)


@pytest.fixture
def fit_training(new_trainer, tmp_path):
    """Trains for some epochs, from a checkpoint if one is given, and returns module and file."""

    def fit(epochs: int, start: Path | None = None, **settings) -> tuple[NaturalModule, Path]:
        data = colours(augmentation=Augmentation(1, 1, True))
        constant = torch.optim.lr_scheduler.ConstantLR
        module = NaturalModule(
            small_net(), sgd, scheduler=lambda o: constant(o, 1.0), num_classes=3
        )
        trainer = new_trainer(max_epochs=epochs, **settings)
        torch.manual_seed(7 if start else 1)  # a new process has drawn something else
        trainer.fit(module, datamodule=data, ckpt_path=start)
        path = tmp_path / f"{epochs}.ckpt"
        trainer.save_checkpoint(path)
        return module, path

    return fit


@pytest.mark.usefixtures("deterministic")
@pytest.mark.parametrize("precision", ["32-true", "bf16-mixed"])
def test_a_training_with_dropout_goes_on_to_the_same_bits(fit_training, precision):
    _, first = fit_training(1, precision=precision)
    resumed, _ = fit_training(3, first, precision=precision)
    whole, _ = fit_training(3, precision=precision)
    for (name, found), expected in zip(
        resumed.state_dict().items(), whole.state_dict().values(), strict=True
    ):
        assert torch.equal(found, expected), name


def test_a_training_goes_on_on_the_cpu(fit_training):
    module, first = fit_training(1)
    resumed, _ = fit_training(2, first, accelerator="cpu")
    changed = resumed.classifier[5].weight - module.classifier[5].weight
    assert changed.isfinite().all()
    assert 0 < changed.abs().max() < 0.5
