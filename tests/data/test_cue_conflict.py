"""Cue-conflict images: what their names say, and which classes belong to which category."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from iscp_lightning.data.cue_conflict import CueConflictImages, read_categories

NAMES = ("bear/bear1-cat12.png", "bear/bear10-bear3.png", "cat/cat2-bear1.JPG")


def folder(root: Path, *names: str) -> str:
    for name in names:
        file = root / name
        file.parent.mkdir(parents=True, exist_ok=True)
        shade = sum(map(ord, name)) % 256
        Image.fromarray(np.full((4, 6, 3), shade, dtype=np.uint8)).save(file)
    return str(root)


def mapping(root: Path, content: object) -> str:
    file = root / "classes.json"
    file.write_text(content if isinstance(content, str) else json.dumps(content))
    return str(file)


def test_names_say_shape_and_texture(tmp_path: Path):
    root = folder(tmp_path, *NAMES)
    mapping(tmp_path, {"bear": [1], "cat": [2]})
    (tmp_path / "cat" / "notes.txt").write_text("no image")
    images = CueConflictImages(root)
    assert images.categories == ("bear", "cat")
    assert images.labels.tolist() == [0, 0, 1]
    assert images.textures.tolist() == [1, 0, 0]
    assert images.labels.dtype == images.textures.dtype == torch.int64
    pixels = images.pixels([0, 1, 2])
    assert pixels.shape == (3, 3, 4, 6)
    shades = [sum(map(ord, name)) % 256 for name in NAMES]
    assert pixels[:, 0, 0, 0].tolist() == pytest.approx(shades, abs=2)  # one is a JPEG
    batch = images.__getitems__([2, 0])
    assert batch.label.tolist() == [1, 0]
    assert batch.texture.tolist() == [0, 1]


def test_images_come_out_in_the_size_asked_for(tmp_path: Path):
    images = CueConflictImages(folder(tmp_path, *NAMES), size=(3, 5))
    assert images.pixels([1]).shape == (1, 3, 3, 5)


def test_categories_may_have_digits_and_hyphens(tmp_path: Path):
    names = ("t-shirt/t-shirt1-4x4-car2.png", "4x4-car/4x4-car2-t-shirt13.png")
    images = CueConflictImages(folder(tmp_path, *names))
    assert images.categories == ("4x4-car", "t-shirt")
    assert images.labels.tolist() == [0, 1]
    assert images.textures.tolist() == [1, 0]


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("cat/cat1.png", r"cat1.png: the name must be like cat1-TEXTURE1.png"),
        ("cat/cat-bear1.png", "the name must be like"),
        ("cat/cat1-bear.png", "the name must be like"),
        ("cat/bear1-cat1.png", "the name must be like cat1-TEXTURE1"),
        ("cat/cat1-dog2.png", "the texture `dog` is no category; there are bear, cat"),
    ],
)
def test_names_that_do_not_fit(tmp_path: Path, name: str, message: str):
    root = folder(tmp_path, *NAMES, name)
    with pytest.raises(ValueError, match=message):
        CueConflictImages(root)


def test_a_folder_without_images(tmp_path: Path):
    for root in (tmp_path, tmp_path / "missing"):
        with pytest.raises(ValueError, match=f"`root`={root} must hold images"):
            CueConflictImages(str(root))


def test_categories_come_in_the_order_asked_for(tmp_path: Path):
    path = mapping(tmp_path, {"bear": [3, 1], "cat": [2]})
    assert read_categories(path, ("cat", "bear")) == [[2], [3, 1]]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{", "cannot be read as JSON"),
        ([[1], [2]], r"must hold \{category: \[class indices\]\}, got \[\[1\], \[2\]\]"),
        ({"bear": [1]}, r"must list the categories bear, cat; they differ: \['cat'\]"),
        ({"bear": [1], "cat": [2], "dog": [3]}, r"they differ: \['dog'\]"),
        ({"bear": [], "cat": [2]}, r"`bear` must list its classes, got \[\]"),
        ({"bear": 1, "cat": [2]}, "`bear` must list its classes, got 1"),
        ({"bear": ["1"], "cat": [2]}, "`bear` must list class indices, got '1'"),
        ({"bear": [True], "cat": [2]}, "`bear` must list class indices, got True"),
        ({"bear": [-1], "cat": [2]}, "`bear` must list class indices, got -1"),
        ({"bear": [1, 2], "cat": [2]}, "class 2 is listed twice, again in `cat`"),
        ({"bear": [1, 1], "cat": [2]}, "class 1 is listed twice, again in `bear`"),
    ],
)
def test_mappings_that_cannot_be(tmp_path: Path, content: object, message: str):
    path = mapping(tmp_path, content)
    with pytest.raises(ValueError, match=rf"classes\.json.*{message}"):
        read_categories(path, ("bear", "cat"))


def test_a_mapping_that_is_not_there(tmp_path: Path):
    with pytest.raises(ValueError, match=r"no\.json cannot be read as JSON"):
        read_categories(str(tmp_path / "no.json"), ("bear",))
