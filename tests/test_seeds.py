"""Named seeds and the states of the global generators."""

import random
from itertools import product
from pathlib import Path

import numpy as np
import pytest
import torch
from toys import Linear, subject_of

from iscp_lightning.attacks import evaluate_robustness
from iscp_lightning.cli import main
from iscp_lightning.data import MemoryImages, Shapes
from iscp_lightning.data.datamodule import ImageDataModule
from iscp_lightning.patterns import PatternSet
from iscp_lightning.seeds import (
    derived_seed,
    generator_states,
    named_generator,
    set_generator_states,
)


def test_seeds_are_fixed_for_good():
    """A changed derivation would change every result: the number was computed once, by hand.

    int(sha256(b'[0, "order", 1]').hexdigest()[:16], 16) >> 1
    """
    assert derived_seed(0, "order", 1) == 8677279991123922410


def test_different_names_have_different_seeds():
    roots, words, numbers = range(4), ("order", "noise"), range(4)
    names = [
        (r, w, *n)
        for r, w in product(roots, words)
        for k in range(3)
        for n in product(numbers, repeat=k)
    ]
    assert len({derived_seed(*name) for name in names}) == len(names)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ((0, "order", 1), (1, "order", 0)),
        ((0, 5), (0, 5, 0, 0)),
        ((0, "order", 12), (0, "order", 1, 2)),
        ((0, "1"), (0, 1)),
        ((0, "a", "b"), (0, "ab")),
    ],
)
def test_what_once_was_equal_differs(one, other):
    assert derived_seed(*one) != derived_seed(*other)


def test_numbers_of_every_kind_are_the_same():
    plain = derived_seed(1, "x", 2)
    assert derived_seed(np.int64(1), "x", torch.tensor(2)) == plain
    assert named_generator(1, "x", 2).initial_seed() == plain


def draws():
    numpy = np.random.standard_normal(3).tolist()  # noqa: NPY002
    return torch.rand(3).tolist(), numpy, random.gauss(0, 1)


def test_generators_go_on_where_they_were(tmp_path):
    random.gauss(0, 1)  # leaves half a pair behind
    np.random.standard_normal(1)  # noqa: NPY002 - likewise
    torch.save(generator_states(), tmp_path / "states.ckpt")
    expected = draws()
    draws()
    set_generator_states(torch.load(tmp_path / "states.ckpt", weights_only=True))
    assert draws() == expected


WEIGHTS = Path(__file__).parents[1] / "checkpoints" / "shapes_resnet20.safetensors"
SEARCH = [
    *("search", "--model", "PatternSearchModule", "--model.init_args.classifier", str(WEIGHTS)),
    *("--model.init_args.classes", "[0]", "--model.init_args.search.canvas", "white"),
    *("--model.init_args.search.search_epochs", "1", "--data.source", "Shapes"),
    *("--data.source.init_args.test_count", "100", "--data.source.init_args.train_count", "20"),
    *("--trainer.accelerator", "cpu", "--trainer.devices", "1", "--trainer.logger", "false"),
    *("--trainer.enable_progress_bar", "false", "--run"),
]


def searched(run: str, *arguments: str) -> PatternSet:
    main([*SEARCH, run, *arguments])
    return PatternSet.load(f"runs/{run}/patterns/white.safetensors")


def test_the_root_seed_reaches_data_and_search():
    zero, again, one = (searched(f"{i}{s}", "--seed_everything", s) for i, s in enumerate("001"))
    assert torch.equal(zero.masks, again.masks)
    assert torch.equal(zero.search_indices, again.search_indices)
    assert not torch.equal(zero.masks, one.masks)
    assert not torch.equal(zero.search_indices, one.search_indices)
    assert [found.settings["seed"] for found in (zero, one)] == [0, 1]


def test_parts_have_seeds_of_their_own_if_given():
    zero = searched("a")
    other = searched("b", "--model.init_args.search.seed", "1")
    assert torch.equal(zero.search_indices, other.search_indices)
    assert not torch.equal(zero.masks, other.masks)
    data = searched("c", "--data.seed", "1", "--model.init_args.search.seed", "0")
    assert not torch.equal(zero.search_indices, data.search_indices)


def test_a_kept_configuration_takes_another_root_seed():
    searched("a", "--seed_everything", "3")
    main(["search", "-c", "runs/a/config.yaml", "--run", "b", "--seed_everything", "4"])
    main(["search", "-c", "runs/a/config.yaml", "--run", "c"])
    a, b, c = (PatternSet.load(f"runs/{name}/patterns/white.safetensors") for name in "abc")
    assert torch.equal(a.masks, c.masks)
    assert not torch.equal(a.masks, b.masks)


def order(seed: int, epoch: int) -> list[int]:
    data = ImageDataModule(Shapes(40, 20, 16), seed=seed, val_fraction=0)
    sampler = data.train_dataloader().sampler
    sampler.set_epoch(epoch)
    return list(sampler)


def test_orders_of_seeds_and_epochs_differ():
    orders = [order(seed, epoch) for seed in range(3) for epoch in range(3)]
    assert len({tuple(item) for item in orders}) == 9
    assert all(sorted(item) == list(range(40)) for item in orders)
    assert order(1, 2) == order(1, 2)


def test_parts_do_not_share_their_draws():
    """With one seed for all, the images of a class at the same places were chosen everywhere."""
    labels = torch.arange(100) % 10
    images = MemoryImages(torch.zeros(100, 3, 8, 8, dtype=torch.uint8), labels)
    data = ImageDataModule(Same(images), val_fraction=0.2, search_fraction=0.2)
    data.setup("fit")
    assert not torch.equal(data._part("val")[1], data.search_indices)


class Same(Shapes):
    """One set of images for training and for testing."""

    def __init__(self, images: MemoryImages) -> None:
        super().__init__(size=8)
        self.images = images

    def train(self) -> MemoryImages:
        return self.images

    def test(self) -> MemoryImages:
        return self.images


def test_an_attacks_draws_do_not_depend_on_the_others():
    images = Shapes(20, 40, 16).test()
    classifier = Linear(torch.rand(10, 16, 16, generator=torch.Generator().manual_seed(0)))
    labels = classifier(images.pixels(range(40)) / 255).argmax(1)  # all are right at first
    images = MemoryImages(images.pixels(range(40)), labels)
    alone, among = (
        evaluate_robustness(
            subject_of(classifier, images), torch.arange(40), names, epsilon=1 / 255
        )
        for names in (["pgd20"], ["fgsm", "pgd20"])
    )
    assert torch.equal(alone.withstood["pgd20"], among.withstood["pgd20"])
    assert torch.equal(alone.sanity["noise"], among.sanity["noise"])


@pytest.mark.parametrize(("devices", "restored"), [(1, True), (2, False), (0, False)])
def test_states_of_accelerators_go_back_to_as_many(devices, restored, monkeypatch):
    states = generator_states() | {"cuda": [torch.zeros(16, dtype=torch.uint8)]}
    given: list = []
    monkeypatch.setattr(torch.cuda, "device_count", lambda: devices)
    monkeypatch.setattr(torch.cuda, "set_rng_state_all", given.extend)
    set_generator_states(states)
    assert bool(given) is restored
