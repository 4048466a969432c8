"""Tests of turned, shifted and occluded images: quarter turns, whole pixels, counted areas."""

import math

import pytest
import torch
from torch import Tensor
from toys import planted_trigger, subject_of

from iscp_lightning.data.images import Batch, MemoryImages
from iscp_lightning.probes import Occlusion, Rotation, Translation
from iscp_lightning.probes.geometry import rotate, shift


def images_of(count: int, *size: int) -> Tensor:
    return torch.rand(count, 3, *size, generator=torch.Generator().manual_seed(0))


def batch_of(images: Tensor) -> Batch:
    return Batch(images, torch.zeros(len(images)).long(), torch.arange(len(images)))


def subject_with(seed: int):
    images = MemoryImages(images_of(4, 8, 8), torch.arange(4) % 2)
    return subject_of(planted_trigger()[0], images, seed)


def test_a_quarter_turn_goes_to_the_left_in_both_ways_of_reading():
    images = images_of(2, 6, 6)
    degrees = torch.tensor([90.0, -90.0])
    for mode in ("bilinear", "nearest"):
        found = rotate(images, degrees, mode)
        torch.testing.assert_close(found[0], images[0].rot90(1, (1, 2)), atol=1e-5, rtol=0)
        torch.testing.assert_close(found[1], images[1].rot90(-1, (1, 2)), atol=1e-5, rtol=0)


def test_a_wide_image_is_turned_without_being_squeezed():
    images = torch.zeros(1, 1, 9, 21)
    images[0, 0, 4, 13] = 1  # 3 to the right of the centre, which becomes 3 up
    found = rotate(images, torch.tensor([90.0]))
    assert found[0, 0].argmax().item() == 1 * 21 + 10
    assert found[0, 0, 1, 10].item() == pytest.approx(1, abs=1e-4)
    assert found.sum().item() == pytest.approx(1, abs=1e-3)


def test_pixels_are_shifted_down_and_right_and_the_border_goes_on():
    images = images_of(3, 5, 7)
    found = shift(images, torch.tensor([[2, 0], [0, -3], [0, 0]]))
    assert torch.equal(found[0, :, 2:], images[0, :, :3])
    assert torch.equal(found[0, :, 1], images[0, :, 0])
    assert torch.equal(found[1, :, :, :4], images[1, :, :, 3:])
    assert torch.equal(found[1, :, :, 6], images[1, :, :, 6])
    assert torch.equal(found[2], images[2])


def test_half_are_turned_to_the_left_by_the_degrees():
    images = images_of(60, 6, 6)
    subject, batch = subject_with(1), batch_of(images)
    found = Rotation(90)(subject, batch)
    left = [
        torch.allclose(a, b.rot90(1, (1, 2)), atol=1e-5) for a, b in zip(found, images, strict=True)
    ]
    right = [
        torch.allclose(a, b.rot90(-1, (1, 2)), atol=1e-5)
        for a, b in zip(found, images, strict=True)
    ]
    assert sum(left) + sum(right) == 60
    assert 15 < sum(left) < 45
    maps = images[:, :1]
    moved = Rotation(90).moved(subject, batch._replace(image=maps))
    torch.testing.assert_close(moved, found[:, :1], atol=1e-5, rtol=0)
    whole = Rotation(30).moved(subject, batch._replace(image=(maps > 0.5).float()))
    assert set(whole.unique().tolist()) == {0, 1}  # areas stay areas
    other = Rotation(90)(subject_with(2), batch)
    assert not torch.allclose(other, found, atol=1e-5)


def test_all_four_directions_are_drawn_and_a_stronger_shift_keeps_them():
    images = images_of(80, 8, 20)
    subject, batch = subject_with(1), batch_of(images)
    seen = []
    for share, down, right in ((0.25, 2, 5), (0.5, 4, 10), (0.01, 1, 1)):
        found = Translation(share)(subject, batch)
        options = torch.tensor([[0, right], [0, -right], [down, 0], [-down, 0]])
        every = torch.stack([shift(images, option.expand(80, 2)) for option in options])
        same = (every == found).flatten(2).all(2)
        assert (same.sum(0) == 1).all()
        seen.append(same.int().argmax(0))
        assert torch.equal(Translation(share).moved(subject, batch), found)
    assert all(torch.equal(seen[0], each) for each in seen)
    assert (seen[0].bincount(minlength=4) > 8).all()


@pytest.mark.parametrize(
    ("share", "size", "height", "width"),
    [(0.25, (8, 8), 4, 4), (0.1, (32, 32), 10, 10), (0.25, (8, 20), 4, 10), (1e-6, (8, 8), 1, 1)],
)
def test_one_grey_rectangle_hides_its_share(share, size, height, width):
    images = images_of(50, *size) * 0.4
    found = Occlusion(share)(subject_with(1), batch_of(images))
    hidden = (found == 0.5).all(1)
    assert torch.equal(found.where(~hidden.unsqueeze(1), 0), images.where(~hidden.unsqueeze(1), 0))
    rows, columns = hidden.any(2), hidden.any(1)
    assert torch.equal(hidden, rows.unsqueeze(2) & columns.unsqueeze(1))
    for sides, length in ((rows, height), (columns, width)):
        assert (sides.sum(1) == length).all()
        first = sides.int().argmax(1)
        assert (sides.flip(1).int().argmax(1) + first == sides.shape[1] - length).all()  # in one
        assert set(first.tolist()) >= {0, sides.shape[1] - length} or sides.shape[1] > 12
        assert len(first.unique()) > min(3, sides.shape[1] - length)


def test_an_occlusion_moves_nothing():
    batch = batch_of(images_of(2, 8, 8)[:, :1])
    assert Occlusion().moved(subject_with(1), batch) is batch.image


@pytest.mark.parametrize("value", [0, -1.0, 1.0, math.nan])
def test_shares_out_of_range(value):
    for kind in (Translation, Occlusion):
        with pytest.raises(ValueError, match=rf"`share` must lie in \(0, 1\), got {value}"):
            kind(value)


@pytest.mark.parametrize("value", [0, -30, 181, math.nan])
def test_degrees_out_of_range(value):
    with pytest.raises(ValueError, match=rf"`degrees` must lie in \(0, 180\], got {value}"):
        Rotation(value)


def test_what_records_are_about():
    assert Rotation(30).about == {"distortion": "rotation", "strength": 30.0}
    assert Translation(0.25).about == {"distortion": "translation", "strength": 0.25}
    assert Occlusion(0.25).about == {"distortion": "occlusion", "strength": 0.25}
