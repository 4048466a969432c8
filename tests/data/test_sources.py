"""Tests of the sources: folders, drawn shapes, and torchvision's layouts without a download."""

import inspect
from pathlib import Path
from typing import Any
from urllib.error import URLError

import numpy as np
import pytest
import torch
import torchvision
from PIL import Image
from torch import Tensor

from iscp_lightning.data import (
    CIFAR10,
    CIFAR100,
    MNIST,
    SVHN,
    FashionMNIST,
    FileImages,
    ImageFolder,
    MemoryImages,
    Noise,
    Shapes,
)
from iscp_lightning.data.sources import TorchvisionSource

CLASSES = ("ant", "bee")
COUNTS = {"train": 3, "test": 2, "val": 1}  # files per class
SIZE = (4, 6)


def _pictures(part: str) -> Tensor:
    """Pictures of one part in the order of their files: class after class."""
    rng = np.random.default_rng(COUNTS[part])
    shape = (2 * COUNTS[part], 3, *SIZE)
    return torch.from_numpy(rng.integers(0, 256, shape, dtype=np.uint8))


def _folder(root: Path, *parts: str) -> str:
    for part in parts:
        pictures = iter(_pictures(part).permute(0, 2, 3, 1).numpy())
        for name in CLASSES:
            (root / part / name).mkdir(parents=True)
            for i in range(COUNTS[part]):
                Image.fromarray(next(pictures)).save(root / part / name / f"{i}.png")
            (root / part / name / "notes.txt").write_text("no image")
    return str(root)


def _check(images: Any, part: str | None) -> None:
    if part is None:
        assert images is None
        return
    assert torch.equal(images.pixels(range(len(images))), _pictures(part))
    count = COUNTS[part]
    assert images.labels.tolist() == [0] * count + [1] * count
    assert images.labels.dtype == torch.int64


@pytest.mark.parametrize("memory_gib", [4.0, 0.0])
@pytest.mark.parametrize(
    ("parts", "train", "test"),
    [
        (["train", "test"], "train", "test"),
        (["train", "val"], "train", "val"),
        (["train", "test", "val"], "train", "test"),
        (["train"], "train", None),
        (["val"], None, "val"),
        (["test"], None, "test"),
    ],
)
def test_image_folder(
    tmp_path: Path, memory_gib: float, parts: list[str], train: str | None, test: str | None
):
    source = ImageFolder(_folder(tmp_path, *parts), memory_gib=memory_gib, num_workers=0)
    assert source.class_names == CLASSES
    assert source.num_classes == 2
    assert source.image_size == SIZE
    source.prepare()
    _check(source.train(), train)
    _check(source.test(), test)
    held = source.train() or source.test()
    assert isinstance(held, MemoryImages if memory_gib else FileImages)


@pytest.mark.parametrize(("missing_bytes", "kind"), [(0, MemoryImages), (1, FileImages)])
def test_memory_budget_counts_all_parts(tmp_path: Path, missing_bytes: int, kind: type):
    total = 3 * SIZE[0] * SIZE[1] * 2 * (COUNTS["train"] + COUNTS["test"])
    budget = (total - missing_bytes) / 2**30
    root = _folder(tmp_path, "train", "test")
    source = ImageFolder(root, memory_gib=budget, num_workers=0)
    assert isinstance(source.train(), kind)
    assert isinstance(source.test(), kind)


@pytest.mark.parametrize("given", [True, False])
def test_cache_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, given: bool):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "user"))
    cache = tmp_path / "given" if given else tmp_path / "user" / "iscp_lightning"
    root = _folder(tmp_path / "images", "train", "test")
    ImageFolder(root, cache_dir=str(cache) if given else None, num_workers=0).prepare()
    assert len(list(cache.glob("*.npy"))) == 2


@pytest.mark.parametrize(
    ("image_size", "expected"), [(None, SIZE), (5, (5, 5)), ((3, 2), (3, 2)), ([3, 2], (3, 2))]
)
def test_image_size(tmp_path: Path, image_size: Any, expected: tuple[int, int]):
    root = _folder(tmp_path, "train")
    source = ImageFolder(root, image_size, num_workers=0, crop_fraction=1.0)
    assert tuple(source.image_size) == expected
    train = source.train()
    assert train is not None
    assert train.pixels([0]).shape == (1, 3, *expected)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"crop_fraction": 0}, r"`crop_fraction` must lie in \(0, 1\], got 0$"),
        ({"crop_fraction": 1.5}, r"`crop_fraction` must lie in \(0, 1\], got 1.5$"),
        ({"crop_fraction": 87.5}, r"got 87.5 \(did you mean 0.875\?\)$"),
        ({"memory_gib": -1}, "`memory_gib` must be 0 or more, got -1"),
        ({"memory_gib": float("nan")}, "`memory_gib` must be 0 or more, got nan"),
        ({"num_workers": -1}, "`num_workers` must be 0 or more, got -1"),
        ({"image_size": 0}, "`image_size` must be 1 or more pixels, got 0"),
        ({"image_size": (4, 0)}, r"`image_size` must be 1 or more pixels, got \(4, 0\)"),
        ({"image_size": [-4, 4]}, r"`image_size` must be 1 or more pixels, got \[-4, 4\]"),
    ],
)
def test_numbers_out_of_range_are_refused(tmp_path: Path, arguments: Any, message: str):
    root = _folder(tmp_path, "train")
    with pytest.raises(ValueError, match=message):
        ImageFolder(root, **({"image_size": 4} | arguments))


def test_image_folder_without_parts(tmp_path: Path):
    with pytest.raises(ValueError, match=r"`root`=.* must hold a folder `train`, `test` or `val`"):
        ImageFolder(str(tmp_path))


def test_image_folder_without_classes(tmp_path: Path):
    (tmp_path / "train").mkdir()
    with pytest.raises(ValueError, match=r"`root`=.*: no class folder in .*train"):
        ImageFolder(str(tmp_path))


def test_image_folder_with_an_empty_class(tmp_path: Path):
    root = _folder(tmp_path, "train")
    (tmp_path / "train" / "cat").mkdir()
    with pytest.raises(ValueError, match=r"train: .*cat"):
        ImageFolder(root)


def test_image_folder_whose_parts_have_other_classes(tmp_path: Path):
    root = _folder(tmp_path, "train", "test")
    (tmp_path / "test" / "cat").mkdir()
    with pytest.raises(ValueError, match=r"classes of `test` differ from the rest: \['cat'\]"):
        ImageFolder(root)


def test_shapes():
    source = Shapes(train_count=30, test_count=20, size=16)
    assert source.class_names[:2] == ("circle", "square")
    assert source.num_classes == len(source.class_names) == 10
    assert source.image_size == (16, 16)
    shifted = source.shifted_tests()
    assert list(shifted) == ["random_texture"]
    sets = [source.train(), source.test(), shifted["random_texture"]]
    assert [len(images) for images in sets] == [30, 20, 20]
    for images in sets:
        batch = images.__getitems__([0, 1])
        assert batch.image.shape == (2, 3, 16, 16)
        assert batch.texture is not None
        assert batch.texture.dtype == torch.int64
    pixels = torch.cat([images.pixels(range(len(images))) for images in sets])
    assert len(pixels.flatten(1).unique(dim=0)) == 70  # the sets share no picture


def test_classes_of_shapes_may_be_textures_or_pairs():
    by_shape = Shapes(300, 200, 16, 0.1)
    for labels in ("texture", "shape_texture"):
        source = Shapes(300, 200, 16, 0.1, labels=labels)
        pairs = [(by_shape.train(), source.train()), (by_shape.test(), source.test())]
        pairs += [(by_shape.shifted_tests()["random_texture"], *source.shifted_tests().values())]
        for given, found in pairs:
            assert torch.equal(given.pixels(range(200)), found.pixels(range(200)))
            shapes = 10 * given.labels if labels == "shape_texture" else 0
            assert torch.equal(found.labels, shapes + given.textures)
            assert found.textures is None  # no class is a texture beside a shape
    assert source.num_classes == len(set(source.class_names)) == 100
    assert source.class_names[56] == "ring/dots"  # shape 5, texture 6
    assert Shapes(labels="texture").class_names[6] == "dots"
    assert Shapes(labels="texture").num_classes == 10


@pytest.mark.parametrize(("correlation", "own"), [(0.1, 0.1), (0.8, 0.8)])
def test_pairs_are_equally_likely_where_textures_say_nothing(correlation: float, own: float):
    source = Shapes(20_000, 1, 8, correlation, labels="shape_texture")
    shares = source.train().labels.bincount(minlength=100).view(10, 10) / 20_000
    expected = torch.full((10, 10), (1 - own) / 90).fill_diagonal_(own / 10)
    torch.testing.assert_close(shares, expected, atol=0.003, rtol=0.5)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"labels": "colour"}, "`labels` must be one of shape, texture, shape_texture; got colour"),
        (
            {"labels": "shape_texture", "cue_conflict": True},
            "`cue_conflict` must be false with `labels`=shape_texture",
        ),
    ],
)
def test_labels_that_shapes_cannot_have(settings: dict[str, Any], message: str):
    with pytest.raises(ValueError, match=message):
        Shapes(**settings)


@pytest.mark.parametrize(("seed", "equal"), [(0, True), (1, False)])
def test_shapes_depend_on_the_seed_alone(seed: int, equal: bool):
    sources = [Shapes(20, 20, 16, seed=s) for s in (0, seed)]
    for first, second in (
        [source.train() for source in sources],
        [source.test() for source in sources],
        [source.shifted_tests()["random_texture"] for source in sources],
    ):
        assert torch.equal(first.pixels(range(20)), second.pixels(range(20))) is equal


@pytest.mark.parametrize(
    ("settings", "train", "test"),
    [
        ({"texture_correlation": 1.0}, 1.0, 1.0),
        ({"texture_correlation": 0.8}, 0.8, 0.8),
        ({"texture_correlation": 1.0, "cue_conflict": True}, 1.0, 0.0),
    ],
)
def test_textures_of_the_parts(settings: dict[str, Any], train: float, test: float):
    source = Shapes(1000, 1000, 8, **settings)
    for images, expected in (
        (source.train(), train),
        (source.test(), test),
        (source.shifted_tests()["random_texture"], 0.1),
    ):
        assert images.textures is not None
        own = (images.textures == images.labels).double().mean().item()
        assert own == pytest.approx(expected, abs=0.05)


@pytest.mark.parametrize(("size", "shape"), [(6, (6, 6)), ((4, 5), (4, 5)), ([4, 5], (4, 5))])
def test_noise_shows_no_class(size: Any, shape: tuple[int, int]):
    source = Noise(7, size)
    assert (source.num_classes, source.class_names, source.train()) == (0, (), None)
    assert source.image_size == shape
    images = source.test()
    assert images.labels.tolist() == [-1] * 7
    pixels = images.pixels(range(7))
    assert (pixels.shape, pixels.dtype) == ((7, 3, *shape), torch.uint8)


def test_noise_is_uniform_and_independent():
    """All 256 levels about equally often, by chi-squared; no neighbour tells of another."""
    pixels = Noise(100, 32).test().pixels(range(100))
    counts = pixels.flatten().bincount(minlength=256).double()
    expected = pixels.numel() / 256
    assert ((counts - expected) ** 2 / expected).sum() < 350  # 255 +- 23
    values = pixels.double() - 127.5
    for axis in range(4):
        neighbours = values * values.roll(1, axis)
        assert abs(neighbours.mean()) < 5 * values.var() / pixels.numel() ** 0.5


@pytest.mark.parametrize(
    ("seed", "root", "equal"), [(None, 0, True), (None, 3, False), (0, 3, True), (3, 0, False)]
)
def test_noise_is_seeded_by_its_own_seed_or_else_the_root(seed: Any, root: int, equal: bool):
    wanted = Noise(3, 8, seed=0).test().pixels(range(3))
    state = torch.get_rng_state()
    drawn = Noise(3, 8, seed).seeded(root).test().pixels(range(3))
    assert torch.equal(drawn, wanted) is equal
    assert torch.equal(torch.get_rng_state(), state)
    assert torch.equal(Noise(3, 8).test().pixels(range(3)), wanted)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"count": 0}, "`count` must be 1 or more, got 0"),
        ({"image_size": 0}, "`image_size` must be 1 or more pixels, got 0"),
        ({"image_size": (4, 0)}, r"`image_size` must be 1 or more pixels, got \(4, 0\)"),
    ],
)
def test_noise_of_no_size_is_refused(arguments: Any, message: str):
    with pytest.raises(ValueError, match=message):
        Noise(**arguments)


# torchvision: how each set holds its images, from the images (N, C, H, W) that must come out
LAYOUTS: list[tuple[type[TorchvisionSource], str, bool]] = [
    (CIFAR10, "cifar", False),
    (CIFAR100, "cifar", False),
    (SVHN, "svhn", False),
    (MNIST, "mnist", True),
    (FashionMNIST, "mnist", True),
]


def _fake(
    layout: str, real: type, images: dict[bool, Tensor], labels: Tensor, downloads: list[bool]
) -> type:
    class Fake:
        def __init__(self, root: str, download: bool = False, **split: Any) -> None:
            inspect.signature(real).bind(root, download=download, **split)
            assert root == "somewhere"
            ((name, value),) = split.items()
            train = value if name == "train" else {"train": True, "test": False}[value]
            downloads.append(download)
            pixels = images[train]
            if layout == "svhn":
                self.data: Any = pixels.numpy()
                self.labels = labels.numpy()
                return
            self.classes = [f"{i} - name" for i in range(10)]
            if layout == "cifar":  # a view, as torchvision's own transposition makes it
                self.data, self.targets = pixels.numpy().transpose(0, 2, 3, 1), labels.tolist()
            else:
                self.data, self.targets = pixels[:, 0], labels

    return Fake


@pytest.mark.parametrize(("kind", "layout", "grey"), LAYOUTS)
def test_torchvision_layouts(
    monkeypatch: pytest.MonkeyPatch, kind: type[TorchvisionSource], layout: str, grey: bool
):
    generator = torch.Generator().manual_seed(0)
    shape = (4, 1 if grey else 3, *kind.image_size)
    images = {
        train: torch.randint(256, shape, dtype=torch.uint8, generator=generator)
        for train in (True, False)
    }
    labels, downloads = torch.tensor([3, 0, 9, 3]), list[bool]()
    real = getattr(torchvision.datasets, kind.dataset)
    fake = _fake(layout, real, images, labels, downloads)
    monkeypatch.setattr(torchvision.datasets, kind.dataset, fake)
    source = kind("somewhere")
    source.prepare()
    assert downloads == [True, True]

    for train, found in ((True, source.train()), (False, source.test())):
        assert found is not None
        pixels = found.pixels(range(4))
        assert pixels.dtype == torch.uint8
        assert pixels.is_contiguous()
        assert torch.equal(pixels, images[train].expand(-1, 3, -1, -1))
        assert torch.equal(found.labels, labels)
    assert not any(downloads[2:])
    assert source.class_names[3] == ("3" if layout == "svhn" else "3 - name")
    assert len(source.class_names) == 10


def test_torchvision_sets_are_not_downloaded_against_the_users_will(
    monkeypatch: pytest.MonkeyPatch,
):
    downloads = list[bool]()
    images = {train: torch.zeros(1, 3, 32, 32, dtype=torch.uint8) for train in (True, False)}
    fake = _fake("svhn", torchvision.datasets.SVHN, images, torch.zeros(1), downloads)
    monkeypatch.setattr(torchvision.datasets, "SVHN", fake)
    SVHN("somewhere", download=False).prepare()
    assert downloads == [False, False]


def test_an_unreachable_server_is_one_message(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    def unreachable(*_: Any, **__: Any) -> None:
        raise URLError("no network")

    monkeypatch.setattr("torchvision.datasets.SVHN", unreachable)
    with pytest.raises(ValueError, match="SVHN is not in `root`=here and cannot be downloaded"):
        SVHN("here").prepare()


def test_parts_of_different_seeds_never_share_images():
    parts = [part for seed in (0, 1, 2) for part in (Shapes(4, 4, 16, seed=seed),)]
    drawn = [
        images.pixels(range(4)).numpy().tobytes()
        for source in parts
        for images in (source.train(), source.test(), source.shifted_tests()["random_texture"])
    ]
    assert len(set(drawn)) == 9
