"""Trainings on the GPU: equal bits with one seed, also beside a snapshot; bf16; attacks in them."""

import lightning as L
import pytest
import torch
import torch.nn.functional as F
from colours import colours, sgd, small_net
from torch import nn

from iscp_lightning.attacks import PGD
from iscp_lightning.attacks.pgd import ascend, project
from iscp_lightning.callbacks import BackdoorSuccess, PatternSnapshot
from iscp_lightning.callbacks.at_epochs import AtEpochs
from iscp_lightning.data import Augmentation, Poison, Trigger
from iscp_lightning.patterns import PatternSet, SearchSettings
from iscp_lightning.training import BadNetsModule, FreeModule, MadryModule, NaturalModule

WEAK = PGD("8/255", "4/255", steps=2)
QUICK = SearchSettings(search_epochs=1, canvases_per_class=1)


def fitted(new_trainer, *callbacks: L.Callback, **settings) -> dict[str, torch.Tensor]:
    """Weights of a training, and what the global generators draw after it."""
    L.seed_everything(3)
    module = NaturalModule(small_net(), sgd, num_classes=3)
    trainer = new_trainer(callbacks=list(callbacks), deterministic=True, **settings)
    data = colours(augmentation=Augmentation(1, 1, True))
    trainer.fit(module, datamodule=data)
    draws = {"cpu": torch.rand(4), "device": torch.rand(4, device=trainer.strategy.root_device)}
    return module.state_dict() | draws


def require_equal(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> None:
    assert one.keys() == other.keys()
    for name, value in one.items():
        assert torch.equal(value, other[name]), name


@pytest.mark.usefixtures("deterministic")
@pytest.mark.parametrize("precision", ["32-true", "bf16-mixed"])
def test_the_same_seed_trains_the_same_bits(new_trainer, precision):
    runs = [fitted(new_trainer, precision=precision) for _ in range(2)]
    require_equal(*runs)


@pytest.mark.usefixtures("deterministic")
@pytest.mark.parametrize("precision", ["32-true", "bf16-mixed"])
def test_a_snapshot_leaves_the_training_as_it_is(new_trainer, tmp_path, precision):
    plain = fitted(new_trainer, max_epochs=2, precision=precision)
    snapshot = PatternSnapshot([1], last=False, search=QUICK, classes=[0, 1])
    watched = fitted(new_trainer, snapshot, max_epochs=2, precision=precision)
    require_equal(plain, watched)
    found = PatternSet.load(tmp_path / "patterns" / "epoch001.safetensors")
    assert found.power is not None
    assert found.targets.tolist() == [0, 1]


@pytest.mark.parametrize("precision", ["32-true", "bf16-mixed"])
def test_it_learns(new_trainer, precision):
    module = NaturalModule(small_net(), sgd, num_classes=3)
    trainer, data = new_trainer(max_epochs=4, precision=precision), colours()
    trainer.fit(module, datamodule=data)
    (results,) = trainer.test(module, datamodule=data, verbose=False)
    assert results["test/clean_accuracy"] > 0.9


@pytest.mark.parametrize("precision", ["32-true", "bf16-mixed"])
@pytest.mark.parametrize("kind", [MadryModule, FreeModule])
def test_adversarial_training_makes_a_step(new_trainer, device, kind, precision):
    module = kind(small_net(), optimizer=sgd, attack=WEAK, evaluation_attack=WEAK, num_classes=3)
    before = {name: value.clone() for name, value in module.classifier.state_dict().items()}
    trainer = new_trainer(limit_train_batches=1, precision=precision)
    trainer.fit(module, datamodule=colours())
    assert module._noise.device.type == module._evaluation_noise.device.type == device.type
    after = module.classifier.state_dict()
    assert all(value.isfinite().all() for value in after.values())
    assert not torch.equal(before["5.weight"], after["5.weight"])
    assert 0 <= trainer.callback_metrics["val/robust_accuracy"] <= 1


def by_hand(network: nn.Module, batch, replays: int, device: torch.device) -> nn.Module:
    """Free adversarial training of one batch in bf16, without Lightning."""
    network.to(device).train()
    optimizer, labels = sgd(network.parameters()), batch.label.to(device)
    image = batch.image.to(device).float() / 255
    change = torch.zeros_like(image)
    for _ in range(replays):
        moved = project(image + change, image, WEAK.epsilon, "linf").requires_grad_()
        with torch.autocast(device.type, torch.bfloat16):
            loss = F.cross_entropy(network(moved), labels)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        ascended = ascend(moved.detach(), moved.grad, WEAK.epsilon, "linf")
        change = project(ascended, image, WEAK.epsilon, "linf") - image
    return network


@pytest.mark.usefixtures("deterministic")
def test_every_replay_in_bf16_sees_the_weights_of_the_one_before(new_trainer, device):
    """Autocast keeps bf16 copies of weights for a whole step, if it is allowed to."""
    network = nn.Sequential(*(part for part in small_net() if not isinstance(part, nn.Dropout)))
    constant = torch.optim.lr_scheduler.ConstantLR
    module = FreeModule(
        network, optimizer=sgd, attack=WEAK, evaluation_attack=WEAK, replays=3, num_classes=3,
        scheduler=lambda optimizer: constant(optimizer, 1.0),
    )  # fmt: skip
    start = {name: value.clone() for name, value in network.state_dict().items()}
    data = colours()
    new_trainer(limit_train_batches=1, precision="bf16-mixed").fit(module, datamodule=data)
    other = nn.Sequential(*(part for part in small_net() if not isinstance(part, nn.Dropout)))
    other.load_state_dict(start)
    by_hand(other, next(iter(data.train_dataloader())), 3, device)
    for name, expected in other.cpu().state_dict().items():
        found = module.classifier.cpu().state_dict()[name]
        torch.testing.assert_close(found, expected, rtol=1e-3, atol=1e-4, msg=name)


def test_a_backdoor_is_measured_as_on_the_cpu(new_trainer):
    """At the end of an epoch, in a test, and in a test on the CPU."""
    data, measured = colours(poison=Poison(Trigger(), target="blue")), AtEpochs(BackdoorSuccess())
    module = BadNetsModule(small_net(), optimizer=sgd, num_classes=3)
    new_trainer(max_epochs=6, callbacks=[measured]).fit(module, datamodule=data)
    rates = [{r.name: r.value for r in measured.findings["backdoor"].records}]
    for settings in ({}, {"accelerator": "cpu"}):
        (found,) = new_trainer(**settings).test(module, datamodule=data, verbose=False)
        rates.append({name.removeprefix("test/"): value for name, value in found.items()})
    for name in ("attack_success_rate", "clean_accuracy", "attack_success_rate/red"):
        first, *others = [each[name] for each in rates]
        assert others == pytest.approx([first] * 2, abs=0.05), name  # a training's test may be TF32
        assert first > 0.8
