"""Tests of the image sets: exact pixels from memory, files and the cache."""

import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import ExifTags, Image
from torch import Tensor
from torch.utils.data import DataLoader

from iscp_lightning.data import FileImages, MemoryImages
from iscp_lightning.data.images import ChosenImages, as_is, to_float

RGB = np.random.default_rng(0).integers(0, 256, (12, 5, 7, 3), dtype=np.uint8)
EXACT = torch.from_numpy(RGB).permute(0, 3, 1, 2)


def _write(folder: Path, arrays: Sequence[Any] = RGB) -> list[str]:
    paths = [str(folder / f"{i:04}.png") for i in range(len(arrays))]
    for path, array in zip(paths, arrays, strict=True):
        (array if isinstance(array, Image.Image) else Image.fromarray(array)).save(path)
    return paths


def _labels(count: int = len(RGB)) -> Tensor:
    return torch.arange(count) % 5


def test_float_images_are_rounded_to_eight_bits():
    images = torch.tensor([0, 0.4, 0.6, 127.49, 127.51, 254.6, 255]).view(-1, 1, 1, 1) / 255
    stored = MemoryImages(images, torch.zeros(7)).pixels(range(7))
    assert stored.dtype == torch.uint8
    assert stored.flatten().tolist() == [0, 0, 1, 127, 128, 255, 255]


def test_every_stored_value_survives_the_way_to_float_and_back():
    stored = torch.arange(256, dtype=torch.uint8).view(-1, 1, 1, 1)
    images = to_float(stored)
    assert images.dtype == torch.float32
    assert (images.min(), images.max()) == (0, 1)
    assert torch.equal(MemoryImages(images, torch.zeros(256)).images, stored)


@pytest.mark.parametrize(
    ("images", "message"),
    [
        (torch.full((2, 1, 1, 1), 1.01), r"must lie in \[0, 1\], got \[1.01, 1.01\]"),
        (torch.full((2, 1, 1, 1), -0.5), r"must lie in \[0, 1\], got \[-0.5, -0.5\]"),
        (torch.full((2, 1, 1, 1), torch.nan), r"must lie in \[0, 1\]"),
        (torch.zeros(2, 4, 4), r"one of the 2 labels each, got shape \(2, 4, 4\)"),
        (torch.zeros(3, 1, 4, 4), r"one of the 2 labels each, got shape \(3, 1, 4, 4\)"),
    ],
)
def test_unfit_images_are_refused(images: Tensor, message: str):
    with pytest.raises(ValueError, match=message):
        MemoryImages(images, torch.zeros(2))


@pytest.mark.parametrize("textures", [None, torch.arange(12) + 50])
def test_batches_from_memory(textures: Tensor | None):
    batch = MemoryImages(EXACT, _labels(), textures).__getitems__([7, 2])
    assert torch.equal(batch.image, EXACT[[7, 2]])
    assert batch.label.tolist() == [2, 2]
    assert batch.label.dtype == torch.int64
    assert batch.index.tolist() == [7, 2]
    assert (batch.texture is None) if textures is None else batch.texture.tolist() == [57, 52]


def test_files_are_decoded_exactly(tmp_path: Path):
    files = FileImages(_write(tmp_path), _labels())
    assert files.size == (5, 7)
    assert len(files) == len(RGB)
    for indices in ([3, 0, 11], torch.tensor([3, 0, 11])):
        pixels = files.pixels(indices)
        assert pixels.dtype == torch.uint8
        assert torch.equal(pixels, EXACT[[3, 0, 11]])


def test_grey_and_palette_files_become_rgb(tmp_path: Path):
    grey, palette = RGB[0, ..., 0], Image.fromarray(RGB[1]).quantize(4)
    files = FileImages(_write(tmp_path, [grey, palette]), _labels(2))
    pixels = files.pixels([0, 1])
    assert torch.equal(pixels[0], torch.from_numpy(grey).expand(3, -1, -1))
    colours = np.asarray(palette.getpalette(), np.uint8).reshape(-1, 3)
    assert np.array_equal(pixels[1].permute(1, 2, 0), colours[np.asarray(palette)])


WHITE, COLOUR = (255, 255, 255), (10, 20, 30)


@pytest.mark.parametrize(
    ("mode", "value", "suffix", "options", "expected"),
    [
        ("1", 1, "png", {}, WHITE),
        ("L", 100, "png", {}, (100, 100, 100)),
        ("L", 100, "png", {"transparency": 100}, WHITE),
        ("L", 100, "png", {"transparency": 99}, (100, 100, 100)),
        ("I;16", 65535, "png", {}, WHITE),
        ("I;16", 100 * 257, "png", {}, (100, 100, 100)),
        ("I;16", 100 * 257 + 129, "png", {}, (101, 101, 101)),
        ("I;16", 256, "png", {}, (1, 1, 1)),
        ("I;16", 25700, "png", {"transparency": 25700}, WHITE),
        ("I;16", 25700, "png", {"transparency": 25701}, (100, 100, 100)),
        ("I;16", 25700, "tiff", {}, (100, 100, 100)),
        ("I;16B", 25700, "tiff", {}, (100, 100, 100)),
        ("I;16", 25700, "pgm", {}, (100, 100, 100)),
        ("LA", (100, 255), "png", {}, (100, 100, 100)),
        ("LA", (100, 0), "png", {}, WHITE),
        ("LA", (100, 51), "png", {}, (224, 224, 224)),  # 100 / 5 + 255 * 4 / 5
        ("P", 1, "png", {}, COLOUR),
        ("P", 1, "png", {"transparency": 1}, WHITE),
        ("P", 1, "png", {"transparency": bytes([255, 0])}, WHITE),
        ("P", 1, "gif", {"transparency": 1}, WHITE),
        ("RGB", COLOUR, "png", {}, COLOUR),
        ("RGB", COLOUR, "png", {"transparency": COLOUR}, WHITE),
        ("RGBA", (*COLOUR, 255), "png", {}, COLOUR),
        ("RGBA", (*COLOUR, 0), "png", {}, WHITE),
        ("RGBA", (*COLOUR, 51), "png", {}, (206, 208, 210)),
        ("CMYK", (255, 0, 51, 0), "tiff", {}, (0, 255, 204)),
    ],
)
@pytest.mark.parametrize("size", [None, (2, 2)])
def test_every_mode_becomes_rgb_over_white(
    tmp_path: Path, mode: str, value: Any, suffix: str, options: Any, expected: Any, size: Any
):
    path = str(tmp_path / f"0.{suffix}")
    picture = Image.new(mode, (4, 4), value)
    if mode == "P":
        picture.putpalette([0, 0, 0, *COLOUR])
    picture.save(path, **options)
    pixels = FileImages([path], _labels(1), size).pixels([0])[0]
    assert pixels.flatten(1).unique(dim=1).tolist() == [[level] for level in expected]


@pytest.mark.parametrize(("mode", "value"), [("I", 25700), ("F", 0.5)])
def test_numbers_without_a_known_range_are_refused(tmp_path: Path, mode: str, value: float):
    path = str(tmp_path / "0.tiff")
    Image.new(mode, (4, 4), value).save(path)
    with pytest.raises(ValueError, match=rf"0\.tiff cannot be read .* mode {mode}, .*8 or 16 bits"):
        FileImages([path], _labels(1), (4, 4)).pixels([0])


STORED = {  # of an upright picture (H, W, 3), by the orientation that its Exif data give
    1: lambda upright: upright,
    2: lambda upright: upright[:, ::-1],
    3: lambda upright: upright[::-1, ::-1],
    4: lambda upright: upright[::-1],
    5: lambda upright: upright.transpose(1, 0, 2),
    6: lambda upright: np.rot90(upright, 1),
    7: lambda upright: np.rot90(upright, 2).transpose(1, 0, 2),
    8: lambda upright: np.rot90(upright, -1),
}


@pytest.mark.parametrize("orientation", STORED)
@pytest.mark.parametrize("suffix", ["png", "tiff", "webp"])
def test_rotated_files_are_turned_upright(tmp_path: Path, orientation: int, suffix: str):
    path, exif = str(tmp_path / f"0.{suffix}"), Image.Exif()
    exif[ExifTags.Base.Orientation] = orientation
    options = {"lossless": True} if suffix == "webp" else {}
    stored = Image.fromarray(np.ascontiguousarray(STORED[orientation](RGB[0])))
    stored.save(path, exif=exif, **options)
    assert FileImages([path], _labels(1)).size == (5, 7)
    for size in (None, (5, 7)):
        assert torch.equal(FileImages([path], _labels(1), size).pixels([0])[0], EXACT[0])


def test_broken_exif_data_say_nothing(tmp_path: Path):
    path = str(tmp_path / "0.png")
    Image.fromarray(RGB[0]).save(path, exif=b"Exif\x00\x00no TIFF header")
    assert torch.equal(FileImages([path], _labels(1)).pixels([0])[0], EXACT[0])


@pytest.mark.parametrize("value", [0, -0.5, 1.5, 87.5, float("nan")])
def test_the_crop_is_a_share(tmp_path: Path, value: float):
    hint = " .did you mean 0.875" if value == 87.5 else "$"
    with pytest.raises(ValueError, match=rf"`crop_fraction` must lie in .0, 1., got {value}{hint}"):
        FileImages(_write(tmp_path), _labels(), (4, 4), value)


@pytest.mark.parametrize("mode", ["RGB", "L", "CMYK"])
@pytest.mark.parametrize("options", [{"quality": 20}, {"quality": 95, "progressive": True}])
def test_jpeg_files_are_decoded_as_pillow_does(tmp_path: Path, mode: str, options: dict[str, Any]):
    path = str(tmp_path / "0.JPG")
    Image.fromarray(RGB[0]).resize((47, 33)).convert(mode).save(path, **options)
    with Image.open(path) as image:
        expected = torch.from_numpy(np.array(image.convert("RGB"))).permute(2, 0, 1)
    assert torch.equal(FileImages([path], _labels(1)).pixels([0])[0], expected)
    assert torch.equal(FileImages([path], _labels(1), (33, 47)).pixels([0])[0], expected)


def test_a_truncated_jpeg_is_named(tmp_path: Path):
    path = tmp_path / "0.jpg"
    Image.fromarray(RGB[0]).save(path)
    path.write_bytes(path.read_bytes()[:-20])
    with pytest.raises(ValueError, match=r"0\.jpg cannot be read as an image: .*truncated"):
        FileImages([str(path)], _labels(1)).pixels([0])


def test_another_size_is_an_error_that_names_the_file(tmp_path: Path):
    paths = _write(tmp_path, [RGB[0], RGB[1].transpose(1, 0, 2)])
    with pytest.raises(ValueError, match=r"0001\.png is 7 x 5 .* 5 x 7: give `image_size`"):
        FileImages(paths, _labels(2)).pixels([0, 1])


@pytest.mark.parametrize(
    ("size", "crop_fraction", "sees_frame"),
    [
        ((10, 20), 1.0, (True, True)),  # the whole picture, half as large
        ((10, 10), 1.0, (True, False)),  # the central square
        ((20, 10), 1.0, (True, False)),
        ((10, 20), 0.5, (False, False)),
        ((20, 40), 0.5, (False, False)),  # the right size is no reason not to crop
    ],
)
def test_resizing_crops_around_the_centre(
    tmp_path: Path, size: tuple[int, int], crop_fraction: float, sees_frame: tuple[bool, bool]
):
    """A 20 x 40 picture: one colour, with a white frame 1 pixel high and 4 pixels wide."""
    colour = (10, 200, 30)
    picture = np.full((20, 40, 3), 255, np.uint8)
    picture[1:-1, 4:-4] = colour
    files = FileImages(_write(tmp_path, [picture]), _labels(1), size, crop_fraction)
    pixels = files.pixels([0])[0]
    assert pixels.shape == (3, *size)
    framed = (pixels != torch.tensor(colour, dtype=torch.uint8)[:, None, None]).any(0)
    middle_row, middle_column = framed[size[0] // 2], framed[:, size[1] // 2]
    assert not middle_row[4:-4].any()
    edges = (middle_column[[0, -1]].tolist(), middle_row[[0, -1]].tolist())
    assert edges == tuple([seen] * 2 for seen in sees_frame)


def test_resizing_is_bicubic(tmp_path: Path):
    """Cubic convolution with a = -1/2 at distances of 1/4, 3/4, 5/4 and 7/4 around a step."""
    step = np.repeat(np.array([100, 200], np.uint8), 4)
    picture = np.broadcast_to(step[:, None], (8, 8, 3))
    files = FileImages(_write(tmp_path, [np.ascontiguousarray(picture)]), _labels(1), (16, 16))
    row = files.pixels([0])[0, 0, 8].tolist()
    assert row == [100] * 5 + [98, 93, 120, 180, 207, 202] + [200] * 5


@pytest.mark.parametrize("content", [b"", b"no image", None])
@pytest.mark.parametrize("size", [None, (5, 7)])
def test_unreadable_files_are_named(tmp_path: Path, content: bytes | None, size: Any):
    path = Path(_write(tmp_path, RGB[:1])[0])
    path.write_bytes(path.read_bytes()[:60] if content is None else content)
    with pytest.raises(ValueError, match=r"0000\.png cannot be read as an image"):
        FileImages([str(path)], _labels(1), size).pixels([0])


def test_workers_yield_the_right_labels_and_indices(tmp_path: Path):
    files = FileImages(_write(tmp_path), _labels())
    order = list(reversed(range(len(RGB))))
    loader = DataLoader(files, 5, sampler=order, num_workers=1, collate_fn=as_is)
    batches = list(loader)
    assert [len(batch.index) for batch in batches] == [5, 5, 2]
    assert torch.cat([batch.index for batch in batches]).tolist() == order
    assert torch.equal(torch.cat([batch.label for batch in batches]), _labels()[order])
    assert torch.equal(torch.cat([batch.image for batch in batches]), EXACT[order])


@pytest.mark.filterwarnings("ignore:This DataLoader will create")
def test_whole_set_in_memory_keeps_its_order(tmp_path: Path):
    arrays = np.random.default_rng(1).integers(0, 256, (600, 2, 3, 3), dtype=np.uint8)
    paths = _write(tmp_path, arrays)
    held = FileImages(paths, _labels(600)).in_memory(tmp_path / "cache", 2)
    assert torch.equal(held.images, torch.from_numpy(arrays).permute(0, 3, 1, 2))
    assert torch.equal(held.labels, _labels(600))


@pytest.fixture
def decoded(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Names of the files that have been decoded, in their order."""
    names: list[str] = []
    decode = FileImages.decode

    def recording(self: FileImages, path: str) -> Any:
        names.append(Path(path).name)
        return decode(self, path)

    monkeypatch.setattr(FileImages, "decode", recording)
    return names


def test_cache_is_used_until_something_changes(tmp_path: Path, decoded: list[str]):
    paths, cache = _write(tmp_path, RGB[:3]), tmp_path / "cache"

    def load(**settings: Any) -> Tensor:
        decoded.clear()
        return FileImages(paths, _labels(3), **settings).in_memory(cache, 0).images

    assert torch.equal(load(), EXACT[:3])
    assert len(decoded) == 3
    assert torch.equal(load(), EXACT[:3])
    assert not decoded

    Image.fromarray(RGB[5]).save(paths[1])
    os.utime(paths[1], ns=(1, 1))  # no matter how coarse the clock of the file system
    assert torch.equal(load(), EXACT[[0, 5, 2]])
    assert len(decoded) == 3

    for settings in ({"size": (5, 6)}, {"size": (5, 7), "crop_fraction": 0.5}):
        load(**settings)
        assert len(decoded) == 3, settings
    assert load(size=(5, 6)).shape == (3, 3, 5, 6)
    assert not decoded


@pytest.mark.parametrize("num_workers", [0, 1])
def test_failure_while_decoding_leaves_nothing_in_the_cache(tmp_path: Path, num_workers: int):
    paths, cache = _write(tmp_path), tmp_path / "cache"
    Path(paths[-1]).write_bytes(b"no image")
    with pytest.raises(ValueError, match=r"0011\.png cannot be read"):
        FileImages(paths, _labels()).in_memory(cache, num_workers)
    assert list(cache.iterdir()) == []


def _spoil(path: Path, damage: str) -> None:
    content = bytearray(path.read_bytes())
    start, stop = {"start": (0, 8), "middle": (200, 260), "end": (len(content) - 4, len(content))}[
        damage
    ]
    content[start:stop] = bytes(stop - start)
    path.write_bytes(content)


DAMAGES: dict[str, Callable[[Path], Any]] = {
    "black images": lambda path: _spoil(path, "middle"),
    "another header": lambda path: _spoil(path, "start"),
    "no checksum": lambda path: _spoil(path, "end"),
    "cut off": lambda path: os.truncate(path, path.stat().st_size - 1),
    "half of it": lambda path: os.truncate(path, path.stat().st_size // 2),
    "too long": lambda path: path.write_bytes(path.read_bytes() + b"\0"),
    "empty": lambda path: path.write_bytes(b""),
    "images alone": lambda path: np.save(path, EXACT.numpy()),
    "other images": lambda path: np.save(path, EXACT[:-1].numpy()),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_cache_is_decoded_anew(tmp_path: Path, damage: str, decoded: list[str]):
    paths, cache = _write(tmp_path), tmp_path / "cache"

    def load() -> Tensor:
        decoded.clear()
        return FileImages(paths, _labels()).in_memory(cache, 0).images

    load()
    (file,) = cache.iterdir()
    DAMAGES[damage](file)
    with pytest.warns(UserWarning, match=rf"{file} .*decoded anew"):
        assert torch.equal(load(), EXACT)
    assert len(decoded) == len(paths)
    assert torch.equal(load(), EXACT)
    assert not decoded
    assert list(cache.iterdir()) == [file]


def test_a_cache_is_kept_only_if_it_holds_what_was_decoded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """Another process begins the same file while the last images are decoded."""
    arrays = np.full((501, 1, 1, 3), 200, np.uint8)
    paths, cache, decode = _write(tmp_path, arrays), tmp_path / "cache", FileImages.decode

    def spoiling(self: FileImages, path: str) -> Any:
        if path == paths[-1]:
            (file,) = cache.iterdir()
            begun = np.lib.format.open_memmap(file)
            np.lib.format.open_memmap(file, "w+", begun.dtype, begun.shape)
        return decode(self, path)

    monkeypatch.setattr(FileImages, "decode", spoiling)
    with pytest.raises(ValueError, match=r"`cache_dir`.*images 0 to 499"):
        FileImages(paths, _labels(501)).in_memory(cache, 0)
    assert list(cache.iterdir()) == []


def test_chosen_images_keep_their_textures():
    images = MemoryImages(torch.zeros(4, 1, 2, 2), torch.arange(4), torch.tensor([7, 8, 9, 6]))
    batch = ChosenImages(images, torch.tensor([3, 1])).__getitems__([0, 1])
    assert batch.texture.tolist() == [6, 8]
    assert batch.label.tolist() == [3, 1]


def test_an_orientation_in_xmp_is_followed(tmp_path: Path):
    """As some programs write it, without Exif data: 6 is a quarter turn clockwise."""
    xmp = b'<x:xmpmeta><rdf:RDF><rdf:Description tiff:Orientation="6"/></rdf:RDF></x:xmpmeta>'
    wide = np.zeros((8, 16, 3), np.uint8)
    wide[:, :8] = 255  # the left half is white, upright it is the upper one
    Image.fromarray(wide).save(tmp_path / "a.jpg", xmp=xmp, quality=100)
    pixels = FileImages([str(tmp_path / "a.jpg")], torch.tensor([0])).pixels([0])[0, 0]
    assert pixels.shape == (16, 8)
    assert pixels[:8].min() > 200
    assert pixels[8:].max() < 50
