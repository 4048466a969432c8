"""Tests of the data module: its splits, the order of its loaders, and what a module receives."""

import os
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import lightning as L
import pytest
import torch
from lightning.pytorch.strategies import DDPStrategy
from torch import Tensor, nn
from torch.utils.data import DataLoader

from iscp_lightning.data import Augmentation, Batch, MemoryImages, Noise, Poison, Shapes, Trigger
from iscp_lightning.data.datamodule import ImageDataModule, planned_epochs
from iscp_lightning.data.sources import ImageSource
from iscp_lightning.data.splits import class_indices, stratified_split

CPU = SimpleNamespace(root_device=torch.device("cpu"))


class Numbered(ImageSource):
    """Images that show their own number; a part without images is None."""

    num_classes = 2
    image_size = (2, 2)
    class_names = ("even", "odd")

    def __init__(self, train_count: int = 60, test_count: int = 40) -> None:
        self.counts = (train_count, test_count)

    def _images(self, count: int) -> MemoryImages | None:
        numbers = torch.arange(count)
        pixels = numbers.to(torch.uint8).view(-1, 1, 1, 1).expand(-1, 1, 2, 2)
        return MemoryImages(pixels, numbers % 2) if count else None

    def train(self) -> MemoryImages | None:
        return self._images(self.counts[0])

    def test(self) -> MemoryImages | None:
        return self._images(self.counts[1])


def _part(data: ImageDataModule, name: str) -> list[int]:
    return data._part(name)[1].tolist()


def _all_parts(data: ImageDataModule) -> list[list[int]]:
    return [_part(data, name) for name in ("train", "val", "search", "held_out")]


def test_parts_are_disjoint_cover_and_are_stratified():
    data = ImageDataModule(Numbered(), val_fraction=0.1, search_fraction=0.2)
    train, val, search, held_out = _all_parts(data)
    assert sorted(train + val) == list(range(60))
    assert sorted(search + held_out) == list(range(40))
    for part, per_class in ((train, 27), (val, 3), (search, 4), (held_out, 16)):
        assert part == sorted(part)
        assert torch.tensor(part).remainder(2).bincount().tolist() == [per_class] * 2
    assert data.search_indices.tolist() == search
    assert data.held_out_indices.tolist() == held_out
    assert len(data.test_images) == 40


def test_parts_depend_on_the_seed():
    first, again, other = (_all_parts(ImageDataModule(Numbered(), seed=s)) for s in (0, 0, 1))
    assert first == again
    assert all(one != two for one, two in zip(first, other, strict=True))


def test_all_test_images_can_be_searched():
    data = ImageDataModule(Numbered(), search_fraction=1)
    assert data.search_indices.tolist() == list(range(40))
    assert len(data.held_out_indices) == 0


def test_test_images_come_from_the_training_set_where_there_are_no_others():
    data = ImageDataModule(Numbered(60, 0), test_fraction=0.5, val_fraction=0.2)
    train, val, search, held_out = _all_parts(data)
    test = data.test_images.rows.tolist()
    assert sorted(search + held_out) == list(range(30))
    assert sorted(train + val + test) == list(range(60))
    assert [len(part) for part in (train, val, test)] == [24, 6, 30]
    assert torch.equal(data.test_images.pixels([3]), data.source.train().pixels([test[3]]))
    assert data.test_images.labels.tolist() == data.source.train().labels[test].tolist()


def test_a_source_with_test_images_alone_can_be_searched_but_not_trained_on():
    data = ImageDataModule(Numbered(0, 40))
    assert len(data.search_indices) == 8
    assert len(next(iter(data.test_dataloader()[0])).index) == 40
    with pytest.raises(ValueError, match="`source` Numbered has no training images"):
        data.train_dataloader()


class Elsewhere(Numbered):
    """Other images, which are all alike."""

    def __init__(
        self,
        train_count: int = 0,
        test_count: int = 15,
        names: tuple[str, ...] = ("even", "odd"),
        size: tuple[int, int] = (2, 2),
    ) -> None:
        super().__init__(train_count, test_count)
        self.class_names = names
        self.image_size = size
        self.prepared = 0

    def prepare(self) -> None:
        self.prepared += 1

    def _images(self, count: int) -> MemoryImages | None:
        pixels = torch.full((count, 1, *self.image_size), 99, dtype=torch.uint8)
        return MemoryImages(pixels, torch.arange(count) % 2) if count else None


@pytest.mark.parametrize(
    ("names", "labels"), [(("even", "odd"), [0, 1] * 7 + [0]), (("odd", "even"), [-1] * 15)]
)
def test_search_images_from_elsewhere(names: tuple[str, ...], labels: list[int]):
    """All of them; a class counts where the names say that it is the same."""
    source = Elsewhere(names=names)
    data = ImageDataModule(Numbered(), batch_size=8, search_images=source)
    data.prepare_data()
    assert source.prepared == 1
    assert data.search_images is not None
    assert (data.search_images.pixels(range(15)) == 99).all()
    assert data.search_labels.tolist() == data.search_images.labels.tolist() == labels
    assert (len(data.search_indices), data.search_indices.dtype) == (0, torch.int64)
    assert data.held_out_indices.tolist() == list(range(40))
    assert torch.equal(data.test_images.pixels([39]), torch.full((1, 1, 2, 2), 39).byte())
    assert (data.count("search"), data.count("test")) == (15, 40)
    assert data.test_names == ["test"]
    assert len(data.test_dataloader()) == 1
    plain = ImageDataModule(Numbered(), batch_size=8)
    for part in ("train", "val"):  # do not depend on it
        assert _part(data, part) == _part(plain, part)


def test_without_them_search_images_are_test_images():
    data = ImageDataModule(Numbered())
    assert data.search_images is None
    assert data.search_labels.tolist() == [i % 2 for i in data.search_indices.tolist()]


def test_search_images_are_training_images_where_there_are_no_others():
    data = ImageDataModule(Numbered(), search_images=Elsewhere(train_count=9, test_count=0))
    assert len(data.search_images) == 9


@pytest.mark.parametrize(
    ("elsewhere", "message"),
    [
        (Elsewhere(0, 0), "`search_images` has neither test nor training images"),
        (Elsewhere(size=(2, 3)), r"`search_images` are \(1, 2, 3\), the test images \(1, 2, 2\)"),
        (Noise(5, 2), r"`search_images` are \(3, 2, 2\), the test images \(1, 2, 2\)"),
        (Numbered(), "`search_images` are the test images: leave it out"),
    ],
)
def test_search_images_that_do_not_fit_are_refused(elsewhere: ImageSource, message: str):
    with pytest.raises(ValueError, match=message):
        ImageDataModule(Numbered(), search_images=elsewhere).setup("fit")


def test_noise_is_no_data_set_of_its_own():
    with pytest.raises(ValueError, match="`source` must have classes, Noise has none"):
        ImageDataModule(Noise())


def test_noise_follows_the_root_seed_unless_it_has_its_own():
    def drawn(seed: int, own: int | None = None) -> Tensor:
        noise = Noise(4, 16, own)
        data = ImageDataModule(Shapes(20, 20, 16), seed=seed, search_images=noise)
        assert data.search_images is not None
        return data.search_images.pixels(range(4))

    assert torch.equal(drawn(1), drawn(1))
    assert not torch.equal(drawn(1), drawn(2))
    assert torch.equal(drawn(1, 2), drawn(2))


def test_a_source_without_any_image():
    with pytest.raises(ValueError, match="`source` has neither training nor test images"):
        ImageDataModule(Numbered(0, 0)).setup("fit")


@pytest.mark.parametrize("seed", [0, 1])
@pytest.mark.parametrize(
    ("fraction", "counts"),
    [
        (0.0, (0, 0)),
        (0.5, (5, 2)),
        (0.64, (6, 3)),  # 6.4 and 2.56 images
        (0.66, (7, 3)),  # 6.6 and 2.64
        (1.0, (10, 4)),
    ],
)
def test_stratified_split_of_a_pool(seed: int, fraction: float, counts: tuple[int, int]):
    labels = torch.tensor([7] * 20 + [3] * 8)
    pool = torch.arange(0, 28, 2)
    first, rest = stratified_split(labels, pool, fraction, seed)
    assert torch.equal(torch.cat([first, rest]).sort().values, pool)
    assert ((labels[first] == 7).sum(), (labels[first] == 3).sum()) == counts


@pytest.mark.parametrize(
    ("name", "allowed", "refused"),
    [
        ("val_fraction", [0, 0.5], [-0.1, 1, 1.5, float("nan")]),
        ("search_fraction", [0.5, 1], [-0.1, 0, 1.5, float("nan")]),
        ("test_fraction", [0.5], [-0.1, 0, 1, float("nan")]),
    ],
)
def test_fractions(name: str, allowed: list[float], refused: list[float]):
    for value in allowed:
        ImageDataModule(**{name: value})
    for value in refused:
        with pytest.raises(ValueError, match=rf"`{name}` must lie in .0, 1., got {value}"):
            ImageDataModule(**{name: value})


def _rank(data: ImageDataModule, rank: int, world_size: int) -> None:
    data.trainer = SimpleNamespace(  # type: ignore[assignment]
        world_size=world_size, global_rank=rank, strategy=CPU
    )


def _indices(loader: Any) -> list[int]:
    return [i for batch in loader for i in batch.index.tolist()]


@pytest.mark.parametrize("world_size", [1, 2, 3])
def test_ranks_share_the_images_and_repeat_no_test_image(world_size: int):
    data = ImageDataModule(Numbered(60, 41), batch_size=4, val_fraction=0.25)
    val, test, train = [], [], []
    for rank in range(world_size):
        _rank(data, rank, world_size)
        val += _indices(data.val_dataloader())
        test += _indices(data.test_dataloader()[0])
        train += _indices(data.train_dataloader())
    assert sorted(test) == list(range(41))
    for name, seen in (("val", val), ("train", train)):  # repeats only fill the last round
        assert set(seen) == set(_part(data, name))
        assert len(seen) < len(_part(data, name)) + world_size


def test_batches_carry_image_label_index_and_texture():
    data = ImageDataModule(Shapes(30, 20, 16), batch_size=8)
    data.setup("test")
    loaders = data.test_dataloader()
    assert data.test_names == ["test", "test_random_texture"]
    assert len(loaders) == 2
    for loader, images in zip(
        loaders, (data.source.test(), data.source.shifted_tests()["random_texture"]), strict=True
    ):
        batches = list(loader)
        assert [len(batch.image) for batch in batches] == [8, 8, 4]
        for batch in batches:
            assert torch.equal(batch.image, images.pixels(batch.index))
            assert torch.equal(batch.label, images.labels[batch.index])
            assert torch.equal(batch.texture, images.textures[batch.index])


def test_properties_of_the_source_are_passed_on():
    data = ImageDataModule(Numbered())
    assert (data.num_classes, data.image_size, data.class_names) == (2, (2, 2), ("even", "odd"))
    assert isinstance(ImageDataModule().source, Shapes)


def test_training_without_validation_is_no_cause_for_a_warning():
    data = ImageDataModule(Numbered(), val_fraction=0)
    module = _fit(data, max_epochs=1)
    assert data.val_dataloader() == []
    assert not module.validated
    assert sorted(sum(module.orders[0], [])) == list(range(60))  # noqa: RUF017


class Recorder(L.LightningModule):
    """Remembers every training batch, epoch by epoch."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(()))
        self.epochs: list[list[Batch]] = []
        self.validated: list[Batch] = []

    def on_train_epoch_start(self) -> None:
        self.epochs.append([])

    def training_step(self, batch: Batch) -> Tensor:
        self.epochs[-1].append(batch)
        return self.weight * batch.image.mean()

    def validation_step(self, batch: Batch) -> None:
        self.validated.append(batch)

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), lr=0.1)

    @property
    def orders(self) -> list[list[list[int]]]:
        return [[batch.index.tolist() for batch in epoch] for epoch in self.epochs]

    @property
    def images(self) -> list[Tensor]:
        return [torch.cat([batch.image for batch in epoch]) for epoch in self.epochs]


def _data(seed: int = 0) -> ImageDataModule:
    augmentation = Augmentation(shift=3, horizontal_flip=True)
    source = Shapes(50, 20, 16)
    return ImageDataModule(source, 8, augmentation, val_fraction=0.2, seed=seed)


def _fit(data: ImageDataModule, max_epochs: int = 2, **settings: Any) -> Recorder:
    module = Recorder()
    L.Trainer(
        max_epochs=max_epochs,
        accelerator="cpu",
        devices=1,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        **settings,
    ).fit(module, datamodule=data)
    return module


def test_training_order_and_augmentation_depend_on_seed_and_epoch_alone():
    data = _data()
    first, second_fit, fresh = _fit(data), _fit(data), _fit(_data())
    torch.manual_seed(123)
    for again in (second_fit, fresh, _fit(_data(), num_sanity_val_steps=0)):
        assert again.orders == first.orders
        assert all(map(torch.equal, again.images, first.images))

    one, two = (sum(order, []) for order in first.orders)  # noqa: RUF017
    assert sorted(one) == sorted(two) == _part(data, "train")
    assert one != two
    assert one != sorted(one)
    assert [len(batch) for batch in first.orders[0]] == [8, 8, 8, 8, 8]
    assert _fit(_data(seed=1)).orders != first.orders
    # the draws of the augmentation change from epoch to epoch, too
    pairs = zip(first.images, (one, two), strict=True)
    shown = [image[torch.tensor(order).argsort()] for image, order in pairs]
    assert (shown[0] != shown[1]).flatten(1).any(1).double().mean() > 0.9


def test_a_second_fit_repeats_the_draws_of_the_first():
    data = _data()
    first, second = _fit(data, max_epochs=1), _fit(data, max_epochs=1)  # both end in epoch 0
    assert torch.equal(first.images[0], second.images[0])


def test_only_training_images_are_augmented():
    data = _data()
    module = _fit(data, max_epochs=1, num_sanity_val_steps=1)
    source = data.source.train()
    assert source is not None
    for batches, intact in ((module.validated, True), (module.epochs[0], False)):
        for batch in batches:
            assert batch.image.dtype == torch.float32
            assert 0 <= batch.image.min() < batch.image.max() <= 1
            expected = source.pixels(batch.index).float() / 255
            assert torch.equal(batch.image, expected) is intact


def test_images_are_floats_without_a_trainer_and_foreign_batches_pass():
    data = _data()
    images = torch.tensor([[0, 51], [255, 102]], dtype=torch.uint8).view(1, 1, 2, 2)
    batch = data.on_after_batch_transfer(Batch(images, torch.ones(1), torch.zeros(1)), 0)
    assert batch.image.dtype == torch.float32
    assert batch.image.flatten().tolist() == pytest.approx([0, 0.2, 1, 0.4])
    assert batch.label == 1
    step: Any = 3  # a search counts steps
    assert data.on_after_batch_transfer(step, 0) == 3


class Unread(Numbered):
    """Images that processes read."""

    def __init__(self, num_workers: int | None, test_count: int = 40) -> None:
        super().__init__(60, test_count)
        self.num_workers = num_workers

    def _images(self, count: int) -> MemoryImages | None:
        images = super()._images(count)
        if images is not None:
            images.num_workers = self.num_workers
        return images


@pytest.fixture
def workers(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many workers each DataLoader was given; none of them starts. The machine has 8 cores."""
    given = []

    class Recorded(DataLoader[Batch]):
        def __init__(self, *args: Any, num_workers: int, **kwargs: Any) -> None:
            given.append(num_workers)
            super().__init__(*args, **kwargs | {"persistent_workers": False})

    monkeypatch.setattr("iscp_lightning.data.images.DataLoader", Recorded)
    monkeypatch.setattr("iscp_lightning.data.datamodule.DataLoader", Recorded)
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(8)), raising=False)
    monkeypatch.delenv("LOCAL_WORLD_SIZE", raising=False)
    return given


@pytest.mark.parametrize(
    "poison", [None, Poison(Trigger(size=1), poison_before_augmentation=False)]
)
@pytest.mark.parametrize(
    ("given", "of_source", "devices", "expected"),
    [
        (3, None, 4, 3),  # what the data module is given holds for every reader
        (3, 5, 1, 3),
        (3, 0, 1, 3),
        (0, 5, 1, 0),
        (None, 5, 4, 5),
        (None, 0, 4, 0),
        (None, None, 1, 8),  # the cores are shared out
        (None, None, 4, 2),
        (None, None, 16, 1),
    ],
)
def test_workers_of_every_reader(
    workers: list[int],
    poison: Poison | None,
    given: int | None,
    of_source: int | None,
    devices: int,
    expected: int,
):
    data = ImageDataModule(Unread(of_source), batch_size=4, num_workers=given, poison=poison)
    data.setup("fit")  # before it has a trainer
    data.trainer = SimpleNamespace(  # type: ignore[assignment]
        world_size=2 * devices, global_rank=0, num_devices=devices, strategy=CPU
    )
    data.setup("fit")
    data.train_dataloader(), data.val_dataloader(), data.test_dataloader()
    assert workers == [expected] * 3
    for images in (data.test_images, data.train_images[0]):
        workers.clear()
        images.read(torch.arange(40))
        list(images.batches(torch.arange(40).split(2)))
        assert workers == [min(1, expected), expected]  # no more workers than batches


@pytest.mark.parametrize(("given", "expected"), [(3, 3), (None, 5)])
def test_workers_read_search_images_from_elsewhere(workers: list[int], given, expected):
    elsewhere = Unread(5, test_count=30)
    data = ImageDataModule(Numbered(), num_workers=given, search_images=elsewhere)
    data.setup("fit")
    list(data.search_images.batches(torch.arange(30).split(2)))
    assert workers == [expected]


def test_workers_share_the_cores_under_torchrun(
    workers: list[int], monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "4")
    list(ImageDataModule(Unread(None)).test_images.batches(torch.arange(40).split(2)))
    assert workers == [2]


def test_too_little_shared_memory_is_no_crash(workers: list[int], monkeypatch: pytest.MonkeyPatch):
    """There is room for 8 batches of 16 bytes, and the reader holds two of them."""
    free = SimpleNamespace(free=8 * 16)
    monkeypatch.setattr("iscp_lightning.data.workers.MIB", 1)
    monkeypatch.setattr("shutil.disk_usage", lambda _: free)
    data = ImageDataModule(Unread(6), batch_size=4)
    for loader in (data.train_dataloader, data.val_dataloader, data.test_dataloader):
        with pytest.warns(UserWarning, match=r"/dev/shm .*128 MiB free.*6 workers need 224: 3"):
            loader()
    with pytest.warns(UserWarning, match="/dev/shm"):
        list(data.test_images.batches(torch.arange(40).split(4)))
    assert workers == [3] * 4
    free.free = 3 * 16
    with pytest.warns(UserWarning, match="no workers"):
        data.test_images.read(torch.arange(4))
    assert workers[-1] == 0


def test_a_negative_number_of_workers_is_refused():
    with pytest.raises(ValueError, match="`num_workers` must be 0 or more, got -1"):
        ImageDataModule(num_workers=-1)


@pytest.fixture
def process_group() -> Iterator[None]:
    yield
    if torch.distributed.is_initialized():
        torch.distributed.destroy_process_group()


@pytest.mark.usefixtures("process_group")
def test_distributed_training_keeps_batch_size_and_order():
    """Lightning replaces samplers it does not know as soon as the strategy is a parallel one."""
    plain, parallel = _fit(_data()), _fit(_data(), strategy=DDPStrategy())
    assert parallel.orders == plain.orders
    assert [batch.index.tolist() for batch in parallel.validated] == [
        batch.index.tolist() for batch in plain.validated
    ]


def test_epoch_draws_differ_between_ranks():
    data = _data()
    images = data.source.train().pixels(range(20))
    batch = Batch(images, torch.zeros(20), torch.arange(20))
    shown = []
    for rank in (0, 1, 0):
        fresh = _data()
        fresh.trainer = SimpleNamespace(  # type: ignore[assignment]
            training=True, current_epoch=0, global_rank=rank
        )
        shown.append(fresh.on_after_batch_transfer(batch, 0).image)
    assert torch.equal(shown[0], shown[2])
    assert not torch.equal(shown[0], shown[1])


NAMES = ("ant", "bee", "cat")


@pytest.mark.parametrize(
    ("given", "expected"),
    [(None, [0, 1, 2]), (["cat", 0], [2, 0]), ([2, 1], [2, 1]), ([], []), (("bee",), [1])],
)
def test_class_indices(given: Any, expected: list[int]):
    assert class_indices(given, NAMES) == expected


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (["dog"], "`classes` has 'dog'; allowed are 0 to 2 and the names ant, bee, cat$"),
        ([3], "`classes` has 3"),
        ([-1], "`classes` has -1"),
        ([0, "ant"], r"`classes` names a class twice: \[0, 'ant'\]"),
    ],
)
def test_class_index_errors(given: Any, message: str):
    with pytest.raises(ValueError, match=message):
        class_indices(given, NAMES)


def test_class_index_error_does_not_list_a_thousand_names():
    with pytest.raises(ValueError, match=r"names 0, .*, 19, \.\.\.$"):
        class_indices(["x"], [str(i) for i in range(1000)])


@pytest.mark.parametrize("train_count", [0, 60])
def test_an_unknown_target_is_named_before_anything_else(train_count):
    data = ImageDataModule(Numbered(train_count), poison=Poison(Trigger(size=1), target=2))
    with pytest.raises(ValueError, match="`target` is 2; allowed are 0 to 1"):
        data.setup("test")


@pytest.mark.parametrize(
    ("options", "epochs"),
    [
        ({"max_epochs": 2000}, 2000),
        ({"max_epochs": 0}, 0),
        ({"max_steps": 50}, 5),
        ({"max_steps": 15, "max_epochs": 9}, 2),
        ({"max_steps": 10, "accumulate_grad_batches": 4}, 4),
        ({"max_epochs": -1}, 1000),
    ],
)
def test_how_many_epochs_are_planned(options, epochs):
    data = ImageDataModule(Numbered(train_count=40), batch_size=4, val_fraction=0)
    defaults = {"max_epochs": None, "max_steps": -1, "accumulate_grad_batches": 1, "world_size": 1}
    trainer = SimpleNamespace(**(defaults | options))
    assert planned_epochs(trainer, data) == epochs  # type: ignore[arg-type]
