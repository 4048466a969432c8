"""A search is whole or refused: no Trainer option cuts it or its measurement short."""

import pytest
from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.pytorch.callbacks import EarlyStopping
from trainers import quiet_trainer

from iscp_lightning.data import Shapes
from iscp_lightning.data.datamodule import ImageDataModule
from iscp_lightning.patterns import SearchSettings
from iscp_lightning.patterns import module as search_module
from iscp_lightning.patterns.module import PatternSearchModule

SETTINGS = SearchSettings(canvas="white", search_epochs=2)


@pytest.fixture
def data() -> ImageDataModule:
    return ImageDataModule(Shapes(train_count=20, test_count=100), batch_size=20)


@pytest.mark.parametrize("stage", ["fit", "test"])
@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"limit_train_batches": 2}, r"`trainer\.limit_train_batches` out, got 2"),
        ({"limit_train_batches": 1}, r"`trainer\.limit_train_batches` out, got 1"),
        ({"limit_train_batches": 0.5}, r"`trainer\.limit_train_batches` out, got 0\.5"),
        ({"limit_test_batches": 1}, r"`trainer\.limit_test_batches` out, got 1"),
        ({"limit_test_batches": 0}, r"`trainer\.limit_test_batches` out, got 0"),
        ({"overfit_batches": 3}, r"`trainer\.overfit_batches` out, got 3"),
        ({"max_steps": 5}, r"`trainer\.max_steps` out, got 5"),
        ({"max_time": {"seconds": 1}}, r"`trainer\.max_time` out, got a Timer"),
        ({"min_epochs": 3}, r"`trainer\.min_epochs` out, got 3"),
        ({"callbacks": [EarlyStopping("objective")]}, r"callbacks` out, got EarlyStopping"),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
)
def test_what_cuts_a_search_short_is_refused(
    options, said, stage, trained, data, tmp_path, monkeypatch
):
    ranked = []
    problems_of = search_module.problems_of

    def counted(*arguments):
        ranked.append(arguments)
        return problems_of(*arguments)

    monkeypatch.setattr(search_module, "problems_of", counted)
    module = PatternSearchModule(trained, search=SETTINGS, classes=[0])
    trainer = quiet_trainer(tmp_path, max_epochs=1, enable_checkpointing=False, **options)
    if stage == "fit" or "limit_test_batches" in options:
        with pytest.raises(
            MisconfigurationException, match="a search needs all its steps.*" + said
        ):
            getattr(trainer, stage)(module, datamodule=data)
        assert not ranked
    else:  # a test makes no steps; the masks of this module are not finished
        with pytest.raises(MisconfigurationException, match="not finished"):
            trainer.test(module, datamodule=data)


@pytest.mark.parametrize(
    "options",
    [{"fast_dev_run": True}, {"limit_train_batches": 1.0, "min_epochs": 2, "max_epochs": 1}],
    ids=["dry", "whole"],
)
def test_whole_searches_and_dry_runs_go_on(options, trained, data, tmp_path):
    module = PatternSearchModule(trained, search=SETTINGS, classes=[0], pattern_sizes=[0.05])
    trainer = quiet_trainer(tmp_path, enable_checkpointing=False, **options)
    trainer.fit(module, datamodule=data)
    trainer.test(module, datamodule=data, verbose=False)
    expected = 1 if trainer.fast_dev_run else 2 * module.engine.order.steps_per_epoch
    assert trainer.global_step == expected
