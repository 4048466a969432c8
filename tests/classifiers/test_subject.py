"""Tests of Subject: one frozen copy, its answers, and that nothing else is touched."""

import copy
import math
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
from torch import Tensor, nn

from iscp_lightning.classifiers import classifier_hash, create_classifier
from iscp_lightning.classifiers import subject as module
from iscp_lightning.classifiers.prepared import Prepared
from iscp_lightning.classifiers.subject import CHUNK, Subject
from iscp_lightning.data import MemoryImages, Noise
from iscp_lightning.data.datamodule import ImageDataModule
from iscp_lightning.data.testset import fingerprint

NAMES = [f"class {k}" for k in range(10)]


def images(count: int = 100, size: int = 8) -> MemoryImages:
    generator = torch.Generator().manual_seed(0)
    pixels = torch.randint(0, 256, (count, 3, size, size), generator=generator).to(torch.uint8)
    return MemoryImages(pixels, torch.arange(count) % 10)


def small_net() -> nn.Module:
    """Batch statistics and dropout: the modes matter."""
    torch.manual_seed(0)
    network = nn.Sequential(
        nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), nn.AdaptiveAvgPool2d(2), nn.Flatten(),
        nn.Dropout(0.3), nn.Linear(32, 10),
    )  # fmt: skip
    with torch.no_grad():
        network(torch.rand(32, 3, 8, 8))
    return network.train()


def plain_logits(network: nn.Module, given: MemoryImages) -> Tensor:
    with torch.no_grad():
        return copy.deepcopy(network).eval()(given.images / 255)


class Constant(nn.Module):
    """Says the same of every image, but of those that begin with a white pixel."""

    def __init__(self, logits: Tensor, of_white: float) -> None:
        super().__init__()
        self.logits = nn.Parameter(logits)
        self.of_white = of_white

    def forward(self, given: Tensor) -> Tensor:
        white = (given[:, :, 0, 0] == 1).all(1, keepdim=True)
        return torch.where(white, self.of_white, self.logits)


@pytest.mark.parametrize("count", [100, CHUNK + 1, 2 * CHUNK])
def test_logits_are_those_of_a_plain_forward(count):
    network, given = small_net(), images(count)
    subject = Subject(network, given, NAMES)
    assert subject.logits.shape == (count, 10)
    torch.testing.assert_close(subject.logits, plain_logits(network, given))
    assert torch.equal(subject.predictions, plain_logits(network, given).argmax(1))


def test_copies_are_made_once(monkeypatch):
    made: list[str] = []

    def count(name: str) -> None:
        original = getattr(module, name)

        def counted(*arguments: Any) -> Any:
            made.append(name)
            return original(*arguments)

        monkeypatch.setattr(module, name, counted)

    for name in ("frozen_copy", "prepare", "classifier_hash", "fingerprint"):
        count(name)
    subject = Subject(small_net(), images(), NAMES, torch.arange(20))
    assert made == []
    for _ in range(2):
        subject.logits.sum()
        subject.correct_and_seen(torch.arange(100))
        subject.classify(torch.rand(5, 3, 8, 8))
        assert subject.fast("fp32") is subject.fast()
        subject.fast("bf16")
        assert (subject.hash, subject.test_set) == (subject.hash, subject.test_set)
    assert sorted(made) == [
        *("classifier_hash", "fingerprint", "frozen_copy", "prepare", "prepare")
    ]
    assert subject.fast("bf16").dtype == torch.bfloat16


def test_the_network_is_asked_once_for_every_image():
    asked: list[int] = []
    network = small_net()
    network[0].register_forward_hook(lambda *arguments: asked.append(len(arguments[-1])))
    subject = Subject(network, images(CHUNK + 44), NAMES)
    subject.frozen[0].register_forward_hook(lambda *arguments: asked.append(len(arguments[-1])))
    asked.clear()
    for _ in range(2):
        subject.logits.sum(), subject.predictions.sum()
        subject.correct_and_seen(torch.arange(10))
    assert sum(asked) == 2 * (CHUNK + 44)  # the copy has both hooks


def test_the_given_classifier_is_untouched():
    network = small_net()
    network[1].eval()  # as in fine-tuning with frozen statistics
    network[0].weight.requires_grad_(False)
    before = copy.deepcopy(network)
    subject = Subject(network, images(), NAMES)
    subject.logits.sum()
    subject.fast("bf16")
    subject.classify(torch.rand(4, 3, 8, 8))
    for (name, known), (_, value) in zip(
        before.state_dict().items(), network.state_dict().items(), strict=True
    ):
        assert torch.equal(known, value), name
    assert [m.training for m in before.modules()] == [m.training for m in network.modules()]
    assert [p.requires_grad for p in network.parameters()] == [
        p.requires_grad for p in before.parameters()
    ]
    assert not any(part.training for part in subject.frozen.modules())
    assert not any(p.requires_grad for p in subject.frozen.parameters())
    shared = {p.data_ptr() for p in network.parameters()}
    for made in (subject.frozen, subject.fast()):
        assert not shared & {p.data_ptr() for p in made.parameters()}
    assert subject.hash == classifier_hash(network)


def test_copies_compute_in_fp32():
    network = small_net().bfloat16()
    subject = Subject(network, images(), NAMES)
    assert {p.dtype for p in subject.frozen.parameters()} == {torch.float32}
    assert subject.logits.dtype == torch.float32
    assert {p.dtype for p in network.parameters()} == {torch.bfloat16}


def test_right_predictions_are_counted_by_class():
    given = MemoryImages(torch.zeros(6, 3, 4, 4), torch.tensor([0, 1, 1, 1, 2, 2]))
    given.images[2] = 255  # what makes its logits 0, so class 0
    subject = Subject(Constant(torch.tensor([0.0, 2.0, 1.0]), 0.0), given, NAMES[:3])
    right, seen = subject.correct_and_seen(torch.tensor([0, 1, 2, 5]))
    assert (right.tolist(), seen.tolist()) == ([0, 1, 0], [1, 2, 1])


def test_nan_is_refused_by_the_first_image_that_has_it():
    given = images()
    given.images[[37, 52]] = 255
    subject = Subject(Constant(torch.arange(10.0), math.nan), given, NAMES)
    with pytest.raises(
        ValueError, match=r"logits are NaN, first for an image of class 7 \(index 37"
    ):
        subject.logits  # noqa: B018


@pytest.mark.parametrize(
    ("logits", "classes", "message"),
    [
        (torch.eye(10)[3] * 0.9 + 0.01, 10, "`classifier` returns probabilities"),
        (torch.arange(9.0), 10, "`classifier` has 9 logits for 10 classes"),
    ],
)
def test_what_is_no_classifier_of_these_classes_is_refused(logits, classes, message):
    subject = Subject(Constant(logits, -1.0), images(), NAMES[:classes])
    with pytest.raises(ValueError, match=message):
        subject.logits  # noqa: B018


def test_more_logits_than_classes_are_allowed():
    subject = Subject(Constant(torch.arange(12.0), 0.0), images(), NAMES)
    assert subject.logits.shape == (100, 12)
    assert subject.correct_and_seen(torch.arange(100))[0].tolist() == [0] * 10


def test_every_label_needs_a_name():
    with pytest.raises(ValueError, match="`class_names` has 9 names"):
        Subject(small_net(), images(), NAMES[:9])


class Linear(nn.Module):
    """Two logits of large size that differ by the first pixel, from -0.5 to 0.5, times `gap`."""

    def __init__(self, gap: float) -> None:
        super().__init__()
        self.gap = nn.Parameter(torch.tensor(gap))
        self.asked = 0

    def forward(self, given: Tensor) -> Tensor:
        self.asked += len(given)
        edge = self.gap * (given[:, 0, 0, 0] - 0.5)
        return torch.stack([edge, -edge, torch.full_like(edge, -10.0)], 1)


class Erring(Prepared):
    """Moves the two best logits apart or together, by a part of their spread that images decide."""

    def __init__(self, network: nn.Module, error: float) -> None:
        super().__init__(copy.deepcopy(network))
        self.error = error

    def forward(self, given: Tensor) -> Tensor:
        logits = self.network(given)
        spread = logits.amax(1) - logits.amin(1)
        error = self.error * spread * torch.sin(1000 * given.sum((1, 2, 3)))
        return logits + torch.stack([error, -error, 0 * error], 1)


@pytest.mark.parametrize("gap", [1.0, 4.0])
def test_every_image_gets_the_answer_of_the_given_classifier(gap):
    """Also where the fast copy says something else, within what it was seen to differ."""
    given = MemoryImages(images(300).images, torch.arange(300) % 3)
    subject = Subject(Linear(gap), given, NAMES[:3])
    subject._fast["fp32"] = Erring(subject.frozen, error=1e-3)
    assert 5e-4 < subject._difference <= 1.01e-3
    generator = torch.Generator().manual_seed(1)
    many = torch.rand(5000, 3, 8, 8, generator=generator)
    many[:2000, 0, 0, 0] = 0.5 + (many[:2000, 0, 0, 0] - 0.5) / 100  # near-ties
    many[0, 0, 0, 0] = 0.5  # a tie goes to the first class, as `argmax` decides
    with torch.no_grad():
        expected = subject.frozen(many).argmax(1)
        wrong = subject.fast()(many).argmax(1) != expected
    assert wrong.sum() > 50
    subject.frozen.asked = 0
    assert torch.equal(subject.classify(many), expected)
    assert wrong.sum() < subject.frozen.asked < 5000  # only where there is doubt
    assert expected[0] == 0


@pytest.mark.parametrize("architecture", ["resnet20", "test_vit"])
def test_a_real_network_answers_as_itself(architecture):
    torch.manual_seed(0)
    network = create_classifier(architecture, 10, 16).train()
    with torch.no_grad():
        network(torch.rand(32, 3, 16, 16))
    subject = Subject(network, images(200, 16), NAMES)
    many = torch.rand(500, 3, 16, 16)
    with torch.no_grad():
        expected = copy.deepcopy(network).eval()(many).argmax(1)
    assert torch.equal(subject.classify(many), expected)


def test_doubt_about_nan_asks_the_given_classifier():
    subject = Subject(Constant(torch.tensor([0.0, 2.0, 1.0]), 0.0), images(), NAMES)
    subject._fast["fp32"] = Erring(subject.frozen, error=0.0)
    subject._difference  # noqa: B018 - measured on a sound copy
    subject._fast["fp32"].error = math.nan
    assert subject.classify(torch.rand(4, 3, 8, 8)).tolist() == [1] * 4


def test_batches_are_the_chosen_images_in_their_order():
    given = images()
    chosen = torch.tensor([7, 3, 99, 3, 0])
    batches = list(Subject(small_net(), given, NAMES).batches(chosen, 2))
    assert [len(batch.label) for batch in batches] == [2, 2, 1]
    assert torch.cat([batch.index for batch in batches]).tolist() == chosen.tolist()
    assert torch.equal(torch.cat([batch.label for batch in batches]), given.labels[chosen])
    pixels = torch.cat([batch.image for batch in batches])
    assert torch.equal(pixels, given.pixels(chosen).float() / 255)
    assert batches[0].texture is None


def test_a_subject_of_a_data_module(data):
    network = nn.Sequential(nn.Flatten(), nn.Linear(3 * 16 * 16, 10))
    data = ImageDataModule(data.source, search_fraction=0.3, seed=5)
    subject = Subject.of(network, data)
    assert subject.images is data.test_images
    assert subject.class_names == data.class_names
    assert torch.equal(subject.search_indices, data.search_indices)
    assert (subject.seed, subject.device, subject.progress) == (5, torch.device("cpu"), False)
    assert subject.test_set == fingerprint(data.test_images)
    assert len(Subject(network, data.test_images, data.class_names).search_indices) == 0


def test_search_images_from_elsewhere(data):
    network = nn.Sequential(nn.Flatten(), nn.Linear(3 * 16 * 16, 10))
    data = ImageDataModule(data.source, search_images=Noise(50, 16))
    subject = Subject.of(network, data)
    assert subject.search_images is data.search_images
    assert len(subject.search_indices) == 0
    assert subject.search_set == fingerprint(data.search_images)
    assert subject.test_set == fingerprint(data.test_images)
    small = Subject.of(network, data, small=True)
    assert (len(small.images), len(small.search_images), len(small.search_indices)) == (100, 20, 0)
    plain = Subject.of(network, ImageDataModule(data.source))
    assert (plain.search_images, plain.search_set) == (None, None)


def test_the_fast_copy_is_prepared_on_test_images_where_none_is_searched(monkeypatch):
    shown: list[Tensor] = []
    prepare = module.prepare
    monkeypatch.setattr(
        module, "prepare", lambda *args: [shown.append(args[-1]), prepare(*args)][1]
    )
    given = images()
    Subject(small_net(), given, NAMES, search_images=Noise(50, 8).test()).fast()
    assert torch.equal(shown[0], given.images[:4] / 255)


def test_search_images_are_of_one_kind():
    with pytest.raises(ValueError, match="give `search_indices` or `search_images`, not both"):
        Subject(small_net(), images(), NAMES, torch.arange(5), search_images=images())


@pytest.mark.parametrize(
    ("asked", "rank", "shown"), [(True, 0, True), (True, 1, False), (False, 0, False)]
)
def test_only_the_first_process_shows_bars(asked, rank, shown, monkeypatch):
    monkeypatch.setattr(module, "rank_and_size", lambda: (rank, 2))
    subject = Subject(small_net(), images(), NAMES, progress=asked)
    assert subject.progress == shown
    with subject.bar(3, "title") as bar:
        assert bar.disable != shown


def rank_logits(rank: int, count: int, folder: Path) -> None:
    dist.init_process_group("gloo", f"file://{folder}/store", rank=rank, world_size=2)
    torch.save(Subject(small_net(), images(count), NAMES).logits, folder / f"{rank}.pt")
    dist.destroy_process_group()


@pytest.mark.parametrize("count", [100, 3 * CHUNK - 5])
def test_ranks_share_the_work_and_have_the_same(count, tmp_path):
    """To the bit; of 100 images the second process has none to classify."""
    torch.multiprocessing.start_processes(
        rank_logits, (count, tmp_path), nprocs=2, start_method="fork"
    )
    alone = Subject(small_net(), images(count), NAMES).logits
    for rank in (0, 1):
        assert torch.equal(torch.load(tmp_path / f"{rank}.pt"), alone)
