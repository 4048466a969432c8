"""Tests of reading built and published robust sets."""

import json
import math
import os
import pickle
import struct

import pytest
import torch
from safetensors.torch import save_file

from iscp_lightning.data import RobustData, Shapes
from iscp_lightning.data.datamodule import ImageDataModule

IMAGES = torch.randint(0, 256, (20, 3, 16, 16), dtype=torch.uint8)
LABELS = torch.arange(20) % 10
ORIGIN = Shapes(30, 40, 16)


def test_a_built_set_replaces_the_training_images_only(tmp_path):
    save_file({"images": IMAGES, "labels": LABELS}, tmp_path / "train.safetensors")
    source = RobustData(str(tmp_path), ORIGIN)
    assert torch.equal(source.train().pixels(range(20)), IMAGES)
    assert torch.equal(source.train().labels, LABELS)
    assert torch.equal(source.test().pixels(range(40)), ORIGIN.test().pixels(range(40)))
    assert list(source.shifted_tests()) == ["random_texture"]
    assert source.class_names == ORIGIN.class_names
    data = ImageDataModule(source, batch_size=7)
    assert sum(len(batch.label) for batch in data.train_dataloader()) == 20


def test_only_the_images_asked_for_are_in_memory(tmp_path):
    """A file of 60 GiB or twice the machine's memory, of which the disk holds but the header."""
    side, memory = 1024, os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    count = max(2 * memory, 60 * 2**30) // (3 * side * side)
    shapes = {"labels": ("I64", [count], 8), "images": ("U8", [count, 3, side, side], 1)}
    header, end = {}, 0
    for name, (kind, shape, item) in shapes.items():
        start, end = end, end + item * math.prod(shape)
        header[name] = {"dtype": kind, "shape": shape, "data_offsets": [start, end]}
    text = json.dumps(header).encode()
    with (tmp_path / "train.safetensors").open("wb") as file:
        file.write(struct.pack("<Q", len(text)) + text)
        file.truncate(8 + len(text) + end)
        file.seek(-1, os.SEEK_END)
        file.write(bytes([7]))
    train = RobustData(str(tmp_path), Shapes(size=side)).train()
    assert len(train) == count
    last = train.pixels([0, count - 1])
    assert last.shape == (2, 3, side, side)
    assert (last.sum(), last[1, 2, -1, -1]) == (7, 7)


def test_workers_are_handed_no_images(tmp_path):
    save_file({"images": IMAGES, "labels": LABELS}, tmp_path / "train.safetensors")
    text = pickle.dumps(RobustData(str(tmp_path), ORIGIN).train())
    assert len(text) < IMAGES.nbytes / 5
    assert torch.equal(pickle.loads(text).pixels([3, 1]), IMAGES[[3, 1]])


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"labels": LABELS}, "cannot be read"),
        ({"images": IMAGES / 255, "labels": LABELS}, r"F32 \[20, 3, 16, 16\] and 20 labels"),
        ({"images": IMAGES[0], "labels": LABELS}, r"U8 \[3, 16, 16\] and 20 labels"),
        ({"images": IMAGES, "labels": LABELS[:19]}, "and 19 labels, no built images"),
        ({"images": IMAGES, "labels": LABELS, "x": IMAGES + 1}, "no built images"),
    ],
)
def test_a_file_of_something_else_is_refused(content, message, tmp_path):
    save_file(content, tmp_path / "train.safetensors")
    with pytest.raises(ValueError, match=message):
        RobustData(str(tmp_path), ORIGIN).train()


def test_half_a_file_is_refused(tmp_path):
    path = tmp_path / "train.safetensors"
    save_file({"images": IMAGES, "labels": LABELS}, path)
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(ValueError, match="cannot be read"):
        RobustData(str(tmp_path), ORIGIN).train()


def test_the_published_format_is_read(tmp_path):
    torch.save([image[None] / 255 for image in IMAGES], tmp_path / "CIFAR_ims")
    torch.save([label[None] for label in LABELS], tmp_path / "CIFAR_lab")
    train = RobustData(str(tmp_path), ORIGIN).train()
    assert torch.equal(train.pixels(range(20)), IMAGES)
    assert torch.equal(train.labels, LABELS)


def test_unstacked_images_are_read_too(tmp_path):
    torch.save([image / 255 for image in IMAGES], tmp_path / "CIFAR_ims")
    torch.save(LABELS.tolist(), tmp_path / "CIFAR_lab")
    train = RobustData(str(tmp_path), ORIGIN).train()
    assert torch.equal(train.pixels(range(20)), IMAGES)
    assert torch.equal(train.labels, LABELS)


class Harm:
    def __reduce__(self):
        return (open, ("harm", "w"))


def test_nothing_in_a_published_file_is_executed(tmp_path):
    torch.save([Harm()], tmp_path / "CIFAR_ims")
    torch.save(LABELS, tmp_path / "CIFAR_lab")
    with pytest.raises(ValueError, match="CIFAR_ims cannot be read"):
        RobustData(str(tmp_path), ORIGIN).train()
    assert not (tmp_path / "harm").exists()


def test_an_origin_without_test_images_is_refused(tmp_path):
    save_file({"images": IMAGES, "labels": LABELS}, tmp_path / "train.safetensors")
    origin = Shapes(30, 40, 16)
    origin.test = lambda: None
    with pytest.raises(ValueError, match="`origin` has no test images"):
        ImageDataModule(RobustData(str(tmp_path), origin)).setup("fit")


def test_an_empty_folder_and_images_that_do_not_fit_are_named(tmp_path):
    with pytest.raises(ValueError, match=r"neither train\.safetensors nor CIFAR_ims"):
        RobustData(str(tmp_path), ORIGIN)
    save_file({"images": IMAGES, "labels": LABELS}, tmp_path / "train.safetensors")
    with pytest.raises(ValueError, match=r"images of \(16, 16\).*\(32, 32\)"):
        RobustData(str(tmp_path), Shapes()).train()


@pytest.mark.parametrize(("label", "allowed"), [(9, True), (10, False), (-1, False)])
def test_labels_are_those_of_the_origin(label, allowed, tmp_path):
    labels = torch.full((20,), label)
    save_file({"images": IMAGES, "labels": labels}, tmp_path / "train.safetensors")
    source = RobustData(str(tmp_path), ORIGIN)
    if allowed:
        assert len(source.train()) == 20
    else:
        with pytest.raises(ValueError, match="labels"):
            source.train()
