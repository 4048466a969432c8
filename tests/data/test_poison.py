"""Tests of poisoning: how many, which, with what label, and when the trigger is stamped."""

import json
from collections.abc import Iterator
from dataclasses import replace

import lightning as L
import pytest
import torch

from iscp_lightning.data import Augmentation, Batch, Poison, Shapes, Trigger
from iscp_lightning.data.datamodule import ImageDataModule

NAMES = tuple("abcde")
LABELS = torch.arange(100) % 5


def test_the_rate_is_of_the_whole_training_set_and_the_target_class_is_spared():
    rows = Poison(target="c", poison_rate=0.3).choose(LABELS, NAMES, 0)
    assert len(rows) == 30
    assert len(rows.unique()) == 30
    assert rows.tolist() == sorted(rows.tolist())
    assert (LABELS[rows] != 2).all()


def test_clean_labels_poison_the_target_class_only():
    poison = Poison(target=2, poison_rate=0.1, clean_label=True)
    rows = poison.choose(LABELS, NAMES, 0)
    assert len(rows) == 10
    assert (LABELS[rows] == 2).all()
    assert torch.equal(poison.wanted(LABELS[rows], NAMES), LABELS[rows])


def test_all_to_all_wants_the_next_class():
    poison = Poison(goal="all_to_all", poison_rate=0.5)
    assert poison.wanted(torch.tensor([0, 3, 4]), NAMES).tolist() == [1, 4, 0]
    assert len(poison.choose(LABELS, NAMES, 0)) == 50


def test_the_choice_depends_on_the_seed_alone():
    poison = Poison()
    torch.manual_seed(1)
    first = poison.choose(LABELS, NAMES, 3)
    torch.manual_seed(2)
    assert torch.equal(first, poison.choose(LABELS, NAMES, 3))
    assert not torch.equal(first, poison.choose(LABELS, NAMES, 4))


@pytest.mark.parametrize(
    ("poison", "message"),
    [
        (Poison(poison_rate=0.9), "is 90, and 80 can be poisoned"),
        (Poison(poison_rate=0.3, clean_label=True), "is 30, and 20 can be poisoned"),
        (Poison(poison_rate=0.001), "is 0"),
        (Poison(target=7), "`target` is 7; allowed are 0 to 4"),
        (Poison(target="z"), "`target` is 'z'"),
    ],
)
def test_what_the_data_cannot_give_is_named(poison, message):
    with pytest.raises(ValueError, match=message):
        poison.choose(LABELS, NAMES, 0)


@pytest.mark.parametrize(("target", "index"), [("10", 1), ("name:10", 1), ("index:2", 2), (0, 0)])
def test_the_target_may_be_a_class_with_a_number_as_name(target, index):
    names = ("0", "10", "2")
    assert Poison(target=target).target_index(names) == index


@pytest.mark.parametrize("target", [2, 10])
def test_a_target_that_could_be_two_classes_is_refused(target):
    with pytest.raises(ValueError, match=rf"`target` is {target}, which is ambiguous"):
        Poison(target=target).target_index(("0", "1", "10", "2"))


def test_all_to_all_has_no_target():
    names = ("-1", "0", "1")  # the default target could be two classes
    poison = Poison(Trigger(size=1), "all_to_all")
    assert len(poison.choose(torch.arange(30) % 3, names, 0)) == 3


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"poison_rate": 0}, "`poison_rate`"),
        ({"poison_rate": 1.1}, "`poison_rate`"),
        ({"goal": "all"}, "`goal`"),
        ({"goal": "all_to_all", "clean_label": True}, "`clean_label`"),
    ],
)
def test_wrong_settings_are_named(arguments, message):
    with pytest.raises(ValueError, match=message):
        Poison(**arguments)


def poisoned(poison: Poison, **arguments) -> ImageDataModule:
    return ImageDataModule(Shapes(100, 40, 16), batch_size=30, poison=poison, **arguments)


POISON = Poison(Trigger("white_square", 3), target="star", poison_rate=0.2)


def batches(data: ImageDataModule) -> Iterator[Batch]:
    data.trainer = L.Trainer(logger=False, enable_checkpointing=False, accelerator="cpu")
    data.trainer.training = True
    for batch in data.train_dataloader():
        yield data.on_after_batch_transfer(batch, 0)


def test_training_batches_are_stamped_and_relabelled():
    data = poisoned(POISON, val_fraction=0.1)
    clean = Shapes(100, 40, 16).train()
    count = 0
    for batch in batches(data):
        original = clean.pixels(batch.index).float() / 255
        assert torch.equal(batch.original_label, clean.labels[batch.index])
        assert torch.equal(batch.texture, clean.textures[batch.index])
        for i, is_poisoned in enumerate(batch.poisoned.tolist()):
            expected = original[i].clone()
            if is_poisoned:
                expected[:, -3:, -3:] = 1
                assert batch.label[i] == 3
            else:
                assert batch.label[i] == batch.original_label[i]
            torch.testing.assert_close(batch.image[i], expected)
        count += int(batch.poisoned.sum())
    assert count == 18  # 20 % of the 90 that are left for training


def test_validation_and_test_images_stay_clean():
    data, clean = poisoned(POISON), ImageDataModule(Shapes(100, 40, 16), batch_size=30)
    for found, expected in zip(
        [data.val_dataloader(), *data.test_dataloader()],
        [clean.val_dataloader(), *clean.test_dataloader()],
        strict=True,
    ):
        for first, second in zip(found, expected, strict=True):
            assert torch.equal(first.image, second.image)
            assert torch.equal(first.label, second.label)


@pytest.mark.parametrize("before", [True, False])
def test_the_trigger_moves_with_the_image_or_stays(before):
    poison = replace(POISON, poison_before_augmentation=before, poison_rate=0.5)
    data = poisoned(poison, augmentation=Augmentation(shift=4), val_fraction=0)
    in_corner = [
        bool((image[:, -3:, -3:] == 1).all())
        for batch in batches(data)
        for image in batch.image[batch.poisoned]
    ]
    assert len(in_corner) == 50
    assert all(in_corner) is not before


def test_what_was_poisoned_can_be_written(tmp_path):
    data = poisoned(POISON, val_fraction=0.1)
    data.setup("fit")
    data.poisoned_images.save(tmp_path / "poison")
    found = json.loads((tmp_path / "poison" / "poisoned.json").read_text())
    rows = torch.tensor(found["poisoned"])
    assert len(rows) == 18
    assert torch.isin(rows, data.train_images[1]).all()
    assert found["settings"]["target"] == "star"
    assert found["settings"]["trigger"]["name"] == "white_square"
    assert (tmp_path / "poison" / "trigger.png").is_file()


def test_a_trigger_larger_than_the_image_stops_before_any_data_are_read():
    with pytest.raises(ValueError, match="does not fit into images of 16 x 16"):
        poisoned(Poison(Trigger(size=20)))


@pytest.mark.parametrize(("rate", "expected"), [(0.27, 3), (0.24, 2), (0.1, 1)])
def test_the_share_of_poisoned_images_is_rounded(rate, expected):
    assert len(Poison(poison_rate=rate).choose(torch.arange(10) % 5, NAMES, 0)) == expected
