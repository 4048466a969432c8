"""Tests of search images that are not from the test set."""

import pytest
import torch

from iscp_lightning.data import MemoryImages
from iscp_lightning.data.pool import NO_CLASS, as_pool, pixels_hash, require_pool, unlabelled


def images(count: int = 100, channels: int = 3, size: int = 8, seed: int = 0) -> MemoryImages:
    generator = torch.Generator().manual_seed(seed)
    pixels = torch.randint(0, 256, (count, channels, size, size), generator=generator)
    return MemoryImages(pixels.to(torch.uint8), torch.arange(count) % 10)


def test_unlabelled_images_are_the_same_images():
    given = images()
    given.num_workers = 3
    shown = unlabelled(given)
    assert shown.labels.tolist() == [NO_CLASS] * 100
    assert shown.num_workers == 3
    assert torch.equal(shown.pixels([7, 3]), given.images[[7, 3]])
    assert given.labels.max() == 9  # those of the given set stay


def test_a_tensor_shows_none_of_the_classes():
    given = images(5)
    for pool in (as_pool(given.images), as_pool(given.images / 255)):
        assert torch.equal(pool.pixels(range(5)), given.images)
        assert pool.labels.tolist() == [NO_CLASS] * 5
    assert as_pool(given) is given


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (torch.zeros(3, 8, 8), r"`search_images` must be \(N, C, H, W\), got shape \(3, 8, 8\)"),
        (torch.full((1, 3, 8, 8), 1.5), r"float `search_images` must lie in \[0, 1\], got \[1.5"),
    ],
)
def test_what_is_no_set_of_images_is_refused(given, message):
    with pytest.raises(ValueError, match=message):
        as_pool(given)


@pytest.mark.parametrize(
    ("pool", "message"),
    [
        (images(0), "`search_images` has no image"),
        (images(size=9), r"are \(3, 9, 9\), the test images \(3, 8, 8\): .* must agree"),
        (images(channels=1), r"are \(1, 8, 8\), the test images \(3, 8, 8\): .* must agree"),
        (images(), "`search_images` are the test images: leave it out"),
        (unlabelled(images()), "`search_images` are the test images: leave it out"),
    ],
    ids=["none", "size", "channels", "the same", "the same without labels"],
)
def test_what_does_not_fit_the_test_images_is_refused(pool, message):
    with pytest.raises(ValueError, match=message):
        require_pool(pool, images())


@pytest.mark.parametrize("pool", [images(seed=1), images(99), images(1)])
def test_what_fits_is_accepted(pool):
    require_pool(pool, images())


def test_one_level_of_one_pixel_is_another_set():
    given, other = images(), images()
    assert pixels_hash(given) == pixels_hash(other)
    other.images[99, 2, 7, 7] ^= 1
    assert pixels_hash(given) != pixels_hash(other)
