"""Tests of adversarial training: its loss, its measures, what it keeps and when it stops."""

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import lightning as L
import pytest
import torch
import torch.nn.functional as F
from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.pytorch.callbacks import ModelCheckpoint
from torch import nn
from trainers import quiet_trainer

from iscp_lightning.attacks import PGD, Epsilon, StAdv
from iscp_lightning.attacks.robustness import Noise
from iscp_lightning.classifiers import load_classifier
from iscp_lightning.classifiers.outputs import eval_mode
from iscp_lightning.cli import main
from iscp_lightning.data import Batch, MemoryImages, Shapes
from iscp_lightning.data.datamodule import ImageDataModule
from iscp_lightning.runs import finite
from iscp_lightning.seeds import named_generator
from iscp_lightning.training import FreeModule, MadryModule, free, madry

WEAK = PGD(Epsilon("2/255"), Epsilon("1/255"), steps=2, random_start=False)


def shapes(count: int = 60, val_fraction: float = 0.2) -> ImageDataModule:
    return ImageDataModule(Shapes(count, 40, 16), batch_size=16, val_fraction=val_fraction)


def sgd(parameters: Any, lr: float = 0.05) -> torch.optim.Optimizer:
    return torch.optim.SGD(parameters, lr=lr, momentum=0.9)


def network() -> nn.Module:
    torch.manual_seed(0)
    return load_classifier("resnet20", image_size=16)


def test_every_second_batch_can_stay_clean(tmp_path):
    seen = []

    class Watched(MadryModule):
        def attack_batch(self, classifier, images, labels, generator):
            seen.append(self.trainer.fit_loop.batch_idx)
            return images

    data = ImageDataModule(Shapes(60, 10, 16), batch_size=10, val_fraction=0.2)
    module = Watched(network(), attack=WEAK, optimizer=sgd, alternate=True)
    module.attack = module.attack_batch
    quiet_trainer(tmp_path, max_epochs=1).fit(module, datamodule=data)
    assert seen == [1, 3]
    assert MadryModule(network(), attack=WEAK, alternate=True).passes == (1, 1, 10)


@pytest.mark.parametrize("attack", [WEAK, StAdv(steps=2)])
@pytest.mark.parametrize("in_eval_mode", [True, False])
def test_a_step_is_one_on_the_adversarial_images_and_nothing_else(tmp_path, in_eval_mode, attack):
    data = ImageDataModule(Shapes(20, 10, 16), batch_size=10, val_fraction=0.5)
    by_hand, module = network(), MadryModule(network(), attack=attack, optimizer=sgd)
    module.attack_in_eval_mode = in_eval_mode
    batch = next(iter(data.train_dataloader()))
    image = batch.image.float() / 255
    by_hand.train().to(memory_format=torch.channels_last)
    with eval_mode(by_hand, in_eval_mode):
        adversarial = attack(by_hand, image, batch.label)
    assert not torch.equal(adversarial, image)
    F.cross_entropy(by_hand(adversarial), batch.label).backward()
    sgd(by_hand.parameters()).step()
    quiet_trainer(tmp_path, max_epochs=1).fit(module, datamodule=data)
    found, expected = module.classifier.state_dict(), by_hand.state_dict()
    for name, value in expected.items():
        torch.testing.assert_close(found[name], value, rtol=1e-4, atol=1e-5)


def test_robust_accuracy_is_that_of_the_evaluation_attack(tmp_path):
    data, module = shapes(), MadryModule(network(), evaluation_attack=WEAK)
    results: dict[str, float] = {}
    for part in quiet_trainer(tmp_path).test(module, datamodule=data, verbose=False):
        results |= part
    test = data.test_images
    images = test.pixels(range(40)).float() / 255
    classifier = module.classifier.eval()
    said = classifier(WEAK(classifier, images, test.labels)).argmax(1)
    right = (said == test.labels).double()
    assert results["test/robust_accuracy"] == pytest.approx(right.mean().item())
    assert results["test/robust_accuracy/star"] == pytest.approx(
        right[test.labels == 3].mean().item()
    )
    assert results["test/clean_accuracy"] >= results["test/robust_accuracy"]


class Scripted(MadryModule):
    """Reports a robust accuracy of our choice after each epoch."""

    values = (0.4, 0.6, 0.5)

    def _log_accuracy(self, metrics: Any) -> Any:
        if metrics is not self.val_robust:
            return super()._log_accuracy(metrics)
        metrics.reset()
        accuracy = torch.tensor(self.values[self.current_epoch])
        self.log("val/robust_accuracy", accuracy)
        return accuracy


class Weights(L.Callback):
    """Remembers the weights after every epoch."""

    def __init__(self) -> None:
        self.seen: list[torch.Tensor] = []

    def on_train_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self.seen.append(pl_module.classifier.network.fc.weight.detach().clone())


def test_the_most_robust_epoch_is_kept(tmp_path):
    module, weights = Scripted(network(), attack=WEAK, evaluation_attack=WEAK), Weights()
    quiet_trainer(tmp_path, max_epochs=3, callbacks=[weights]).fit(module, datamodule=shapes())
    assert module.best_checkpoint == tmp_path / "checkpoints" / "robust.ckpt"
    kept = load_classifier(str(module.best_checkpoint))
    assert torch.equal(kept.network.fc.weight, weights.seen[1])
    assert not torch.equal(kept.network.fc.weight, weights.seen[2])


@pytest.mark.parametrize(("steps", "epochs"), [(1, 2), (2, 3)])
def test_single_step_training_stops_at_catastrophic_overfitting(tmp_path, steps, epochs):
    attack = PGD(Epsilon("2/255"), 2.5 / 255, steps=steps)
    module, weights = Scripted(network(), attack=attack, evaluation_attack=WEAK), Weights()
    module.values = (0.6, 0.2, 0.1)
    fitting = quiet_trainer(tmp_path, max_epochs=3, callbacks=[weights])
    if steps == 1:
        with pytest.warns(UserWarning, match=r"catastrophic overfitting.*0\.600 to 0\.200"):
            fitting.fit(module, datamodule=shapes())
    else:
        fitting.fit(module, datamodule=shapes())
    assert len(weights.seen) == epochs
    kept = load_classifier(str(module.best_checkpoint))
    assert torch.equal(kept.network.fc.weight, weights.seen[0])


@pytest.mark.filterwarnings("ignore:Checkpoint directory .* exists and is not empty")
def test_a_resumed_run_remembers_its_best_epoch(tmp_path):
    """Robust accuracies 0.4, 0.6, interruption, 0.5: the second epoch is still the one kept."""
    first, weights = Scripted(network(), attack=WEAK, evaluation_attack=WEAK), Weights()
    fitting = quiet_trainer(tmp_path / "a", max_epochs=2, callbacks=[weights])
    fitting.fit(first, datamodule=shapes())
    fitting.save_checkpoint(tmp_path / "a" / "checkpoints" / "last.ckpt")
    second = Scripted(network(), attack=WEAK, evaluation_attack=WEAK)
    last = str(tmp_path / "a" / "checkpoints" / "last.ckpt")
    quiet_trainer(tmp_path / "a", max_epochs=3).fit(second, datamodule=shapes(), ckpt_path=last)
    assert second.best_robust_accuracy == pytest.approx(0.6)
    kept = load_classifier(str(second.best_checkpoint))
    assert torch.equal(kept.network.fc.weight, weights.seen[1])


def test_defaults_are_those_of_the_paper_in_eval_mode():
    module = MadryModule(network())
    assert module.attack == PGD(Epsilon("8/255"), Epsilon("2/255"), 7, "linf", True)
    assert module.attack_in_eval_mode


def test_ranks_draw_noise_of_their_own(monkeypatch):
    module, seeds = MadryModule(network()), set()
    module._trainer = SimpleNamespace(datamodule=shapes(), current_epoch=0)
    for rank in (0, 1):
        monkeypatch.setattr(MadryModule, "global_rank", rank)
        module.on_train_epoch_start()
        seeds.add(module._noise.initial_seed())
    assert len(seeds) == 2


def test_a_validation_alone_keeps_no_weights(tmp_path):
    module = MadryModule(network(), attack=WEAK, evaluation_attack=WEAK)
    quiet_trainer(tmp_path).validate(module, datamodule=shapes(), verbose=False)
    assert not module.best_checkpoint.exists()


@pytest.mark.filterwarnings("ignore:no validation has run")
def test_a_fit_without_validation_tests_the_last_weights():
    arguments = [
        *("fit", "--model", "MadryModule", "--model.init_args.classifier", "resnet20"),
        *("--model.init_args.attack.steps", "1", "--data.source", "Shapes"),
        *("--data.source.init_args.train_count", "60", "--data.source.init_args.size", "16"),
        *(
            "--data.val_fraction",
            "0.2",
            "--data.source.init_args.test_count",
            "40",
            "--trainer.accelerator",
            "cpu",
        ),
        *("--trainer.enable_progress_bar", "false", "--trainer.max_epochs", "1", "--run", "r"),
        *("--trainer.check_val_every_n_epoch", "2"),
    ]
    main(arguments)
    assert "tested_checkpoint" not in json.loads(Path("runs/r/results.json").read_text())


def test_the_evaluation_follows_the_attack():
    module = MadryModule(network(), attack=PGD(0.5, 0.1, norm="l2"))
    assert module.evaluation_attack == PGD(0.5, 0.125, 10, "l2")


def test_a_users_own_checkpoints_are_written_too(tmp_path):
    own = ModelCheckpoint(tmp_path / "own", filename="mine")
    quiet_trainer(tmp_path, max_epochs=1, callbacks=[own]).fit(
        MadryModule(network(), attack=WEAK, evaluation_attack=WEAK), datamodule=shapes()
    )
    assert (tmp_path / "own" / "mine.ckpt").is_file()


@pytest.mark.filterwarnings("ignore:Checkpoint directory .* exists and is not empty")
@pytest.mark.filterwarnings("ignore:catastrophic overfitting")
def test_the_noise_depends_on_seed_and_epoch_alone(tmp_path):
    """So that an interrupted training goes on like an uninterrupted one."""
    attack = PGD(Epsilon("8/255"), Epsilon("10/255"), steps=1)

    def fit(folder: str, epochs: int, resume: str | None = None) -> dict[str, torch.Tensor]:
        torch.manual_seed(0 if resume is None else 99)
        module = MadryModule(
            network(),
            attack=attack,
            evaluation_attack=WEAK,
            optimizer=sgd,
            scheduler=lambda optimizer: torch.optim.lr_scheduler.ConstantLR(optimizer, 1.0),
        )
        fitting = quiet_trainer(tmp_path / folder, max_epochs=epochs)
        fitting.fit(module, datamodule=shapes(), ckpt_path=resume)
        fitting.save_checkpoint(tmp_path / folder / "end.ckpt")
        return module.classifier.state_dict()

    whole = fit("a", 2)
    fit("b", 1)
    resumed = fit("b", 2, str(tmp_path / "b" / "end.ckpt"))
    assert all(torch.equal(whole[name], resumed[name]) for name in whole)


def test_a_flow_is_evaluated_under_the_same_flow_and_has_no_ball_for_free_training():
    flow = StAdv(steps=3)
    module = MadryModule(network(), attack=flow)
    assert module.evaluation_attack is flow
    assert module.passes == (1, 3, 3)
    assert MadryModule(network(), attack=flow, evaluation_attack=WEAK).evaluation_attack is WEAK
    with pytest.raises(ValueError, match=r"`attack` must be PGD, .* got StAdv"):
        FreeModule(network(), attack=flow)
    with pytest.raises(ValueError, match="`attack` must be PGD or StAdv, got Noise"):
        MadryModule(network(), attack=Noise(8 / 255, "linf"))
    with pytest.raises(ValueError, match="`alternate` must be false"):
        FreeModule(network(), alternate=True)


def test_free_training_replays_every_batch_and_keeps_the_budget(tmp_path):
    seen: list[torch.Tensor] = []
    module = FreeModule(network(), replays=3, attack=PGD("4/255"), evaluation_attack=WEAK)
    inner = module.classifier.forward

    def spy(images: torch.Tensor) -> torch.Tensor:
        if module.trainer.training:
            seen.append(images.detach().clone())
        return inner(images)

    module.classifier.forward = spy  # type: ignore[method-assign]
    before = network().state_dict()["network.fc.weight"]
    fitting = quiet_trainer(tmp_path, max_epochs=1)
    fitting.fit(module, datamodule=shapes())
    assert fitting.global_step == 3 * 4  # 50 images in batches of 16
    assert not torch.equal(module.classifier.state_dict()["network.fc.weight"], before)
    runs = [images for images in seen if len(images) == 16]
    assert len(runs) == 9
    clean = runs[0]  # the first replay starts without a perturbation
    for images in runs[1:3]:
        change = (images - clean).abs()
        assert 0 < change.max() <= 4 / 255 + 1e-6
        assert 0 <= images.min() <= images.max() <= 1
    rate = fitting.optimizers[0].param_groups[0]["lr"]
    assert rate == pytest.approx(0, abs=1e-6)  # the schedule ends with the run


def test_free_training_climbs_from_where_it_was(tmp_path):
    """With weights that stand still, the loss of a batch rises over its replays."""
    seen: list[tuple[torch.Tensor, float]] = []

    def still(parameters: Any) -> torch.optim.Optimizer:
        return torch.optim.SGD(parameters, lr=0.0)

    data = shapes()
    module = FreeModule(
        network().eval(), replays=3, attack=PGD("4/255"), evaluation_attack=WEAK, optimizer=still
    )
    clean: list[torch.Tensor] = []
    step, inner = module.training_step, module.classifier.forward

    def recorded(batch: Batch, batch_idx: int) -> torch.Tensor:
        clean.append(batch.image)
        label = batch.label

        def spy(images: torch.Tensor) -> torch.Tensor:
            logits = inner(images)
            change = images.detach() - batch.image
            seen.append((change, F.cross_entropy(logits, label).item()))
            return logits

        module.classifier.forward = spy  # type: ignore[method-assign]
        try:
            return step(batch, batch_idx)
        finally:
            module.classifier.forward = inner  # type: ignore[method-assign]

    module.training_step = recorded  # type: ignore[method-assign]
    quiet_trainer(tmp_path, max_epochs=1).fit(module, datamodule=data)
    losses = [loss for _, loss in seen]
    assert losses[0] < losses[1] < losses[2]
    assert seen[0][0].abs().max() == 0
    assert seen[3][0].abs().max() > 0  # the second batch goes on with the first one's perturbation


def test_a_carried_perturbation_never_makes_more_than_white_or_less_than_black(tmp_path):
    """On black and white images, whatever one batch's perturbation adds, another's lacks room."""
    seen: list[torch.Tensor] = []
    module = FreeModule(network(), replays=2, attack=PGD("4/255"), evaluation_attack=WEAK)
    step = module.training_step

    def recorded(batch: Batch, batch_idx: int) -> torch.Tensor:
        hook = module.classifier.register_forward_pre_hook(lambda _, given: seen.append(given[0]))
        loss = step(batch._replace(image=batch.image.round()), batch_idx)
        hook.remove()
        return loss

    module.training_step = recorded  # type: ignore[method-assign]
    quiet_trainer(tmp_path, max_epochs=1).fit(module, datamodule=shapes())
    first, second, third, *_ = seen
    assert torch.equal(first, first.round())
    assert not torch.equal(third, third.round())  # the second batch begins perturbed
    assert all(0 <= images.min() <= images.max() <= 1 for images in seen)
    for images, rounded in ((second, first), (third, third.round())):
        assert (images - rounded).abs().max() <= 4 / 255 + 1e-6


def test_a_free_run_of_few_steps_has_a_long_enough_schedule(tmp_path):
    module = FreeModule(
        network(), replays=4, attack=PGD("4/255"), evaluation_attack=WEAK, scheduler="one_cycle"
    )
    fitting = quiet_trainer(tmp_path, max_steps=6)  # one batch and a half: two whole ones
    fitting.fit(module, datamodule=shapes())
    assert fitting.global_step == 8


class Buffers(L.Callback):
    """Keeps the statistics of batch normalisation that each rank has validated with."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def on_validation_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, *_: Any
    ) -> None:
        if not trainer.sanity_checking:
            torch.save(
                dict(pl_module.classifier.named_buffers()),
                self.folder / f"{trainer.current_epoch}-{trainer.global_rank}.pt",
            )


@pytest.mark.slow
@pytest.mark.parametrize("kind", [FreeModule, MadryModule])
def test_all_ranks_validate_one_classifier(tmp_path, kind):
    """The statistics of batch normalisation are rank 0's, though each rank saw other images."""
    arguments = {"replays": 2} if kind is FreeModule else {}
    module = kind(network(), attack=WEAK, evaluation_attack=WEAK, optimizer=sgd, **arguments)
    fitting = quiet_trainer(
        tmp_path, max_epochs=2, devices=2, strategy="ddp_fork", callbacks=[Buffers(tmp_path)]
    )
    fitting.fit(module, datamodule=shapes())
    before = dict(network().named_buffers())
    for epoch in (0, 1):
        ranks = [torch.load(tmp_path / f"{epoch}-{rank}.pt") for rank in (0, 1)]
        assert not torch.equal(
            ranks[0]["network.bn1.running_mean"], before["network.bn1.running_mean"]
        )
        for name, value in ranks[0].items():
            assert torch.equal(value, ranks[1][name]), name


def test_a_class_without_images_has_no_robust_accuracy(tmp_path):
    class NoStars(Shapes):
        def test(self) -> MemoryImages:
            images = super().test()
            kept = images.labels != 3
            return MemoryImages(images.pixels(range(40))[kept], images.labels[kept])

    data = ImageDataModule(NoStars(20, 40, 16), batch_size=16)
    module = MadryModule(network(), evaluation_attack=WEAK)
    fitting = quiet_trainer(tmp_path)
    fitting.test(module, datamodule=data, verbose=False)
    for name in ("clean_accuracy", "robust_accuracy"):
        assert fitting.callback_metrics[f"test/{name}/star"].isnan()
        assert not fitting.callback_metrics[f"test/{name}"].isnan()
    found = finite({k: v.item() for k, v in fitting.callback_metrics.items()})
    assert found["test/robust_accuracy/star"] is None


def test_other_precisions_are_refused(tmp_path):
    with pytest.raises(
        MisconfigurationException, match=r"32-true or bf16-mixed for Mad.*bf16-true"
    ):
        quiet_trainer(tmp_path, max_epochs=1, precision="bf16-true").fit(
            MadryModule(network(), attack=WEAK), datamodule=shapes()
        )


def test_training_without_validation_images_is_refused(tmp_path):
    with pytest.raises(MisconfigurationException, match="`val_fraction`=0 leaves none of 60"):
        quiet_trainer(tmp_path, max_epochs=1).fit(
            MadryModule(network(), attack=WEAK), datamodule=shapes(val_fraction=0)
        )
    with pytest.raises(MisconfigurationException, match="`limit_val_batches` must be above 0"):
        quiet_trainer(tmp_path, max_epochs=1, limit_val_batches=0).fit(
            MadryModule(network(), attack=WEAK), datamodule=shapes()
        )


def test_probabilities_are_refused_before_the_first_step(tmp_path):
    inner = nn.Sequential(nn.Flatten(), nn.Linear(768, 10))
    before = inner[1].weight.detach().clone()
    with pytest.raises(ValueError, match="returns probabilities"):
        quiet_trainer(tmp_path, max_epochs=1).fit(
            MadryModule(nn.Sequential(inner, nn.Softmax(1)), attack=WEAK), datamodule=shapes()
        )
    assert torch.equal(inner[1].weight, before)
    with pytest.raises(ValueError, match="returns probabilities"):
        quiet_trainer(tmp_path).test(MadryModule(nn.Sequential(inner, nn.Softmax(1))), shapes())


def test_replays_must_be_positive():
    with pytest.raises(ValueError, match="`replays`"):
        FreeModule(network(), replays=0)


def test_free_training_smooths_its_labels(tmp_path, monkeypatch):
    smoothed: list[float] = []

    def spy(*arguments: Any, label_smoothing: float = 0.0) -> torch.Tensor:
        smoothed.append(label_smoothing)
        return F.cross_entropy(*arguments, label_smoothing=label_smoothing)

    monkeypatch.setattr(free, "F", SimpleNamespace(cross_entropy=spy))
    module = FreeModule(network(), replays=2, evaluation_attack=WEAK, label_smoothing=0.3)
    quiet_trainer(tmp_path, max_epochs=1).fit(module, datamodule=shapes(100))
    assert set(smoothed) == {0.3}


def test_free_training_starts_an_epoch_without_a_perturbation(monkeypatch):
    module = FreeModule(network())
    module._change = torch.ones(2, 3, 16, 16)
    monkeypatch.setattr(MadryModule, "on_train_epoch_start", lambda _: None)
    module.on_train_epoch_start()
    assert module._change is None


def test_the_evaluation_starts_from_the_same_noise_in_every_epoch(tmp_path, monkeypatch):
    named: list[tuple] = []

    def spy(*name: Any, **arguments: Any) -> torch.Generator:
        named.append(name)
        return named_generator(*name, **arguments)

    monkeypatch.setattr(madry, "named_generator", spy)
    module = MadryModule(network(), attack=WEAK, evaluation_attack=WEAK, optimizer=sgd)
    quiet_trainer(tmp_path, max_epochs=3).fit(module, datamodule=shapes(40))
    assert {name for name in named if "evaluation noise" in name} == {(0, "evaluation noise", 0)}
    assert len({name for name in named if "training noise" in name}) == 3


class Recorded:
    """An attack that changes nothing and says whether it was made under autocast."""

    def __init__(self) -> None:
        self.autocast: list[bool] = []

    def __call__(self, _: nn.Module, images: torch.Tensor, *__: Any) -> torch.Tensor:
        self.autocast.append(torch.is_autocast_enabled("cpu"))
        return images


def test_robustness_is_measured_without_autocast(tmp_path):
    module, attack = MadryModule(network(), attack=WEAK, evaluation_attack=WEAK), Recorded()
    module.evaluation_attack = attack  # type: ignore[assignment]
    fitting = quiet_trainer(tmp_path, max_epochs=1, precision="bf16-mixed")
    fitting.fit(module, datamodule=shapes(100))
    assert attack.autocast
    assert not any(attack.autocast)


def test_attacks_ask_for_no_gradient_of_the_weights(tmp_path):
    asked = []

    class Watched(MadryModule):
        def attack_batch(self, classifier, images, labels, generator):
            asked.append(any(each.requires_grad for each in classifier.parameters()))
            return images

    given = network()
    given.network.fc.bias.requires_grad_(False)
    module = Watched(given, attack=WEAK, optimizer=sgd)
    module.attack = module.evaluation_attack = module.attack_batch
    quiet_trainer(tmp_path, max_epochs=1).fit(module, datamodule=shapes())
    assert len(asked) > 1
    assert not any(asked)
    frozen = [name for name, each in given.named_parameters() if not each.requires_grad]
    assert frozen == ["network.fc.bias"]
