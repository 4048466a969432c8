import numpy as np
import pytest
import torch

from iscp_lightning.patterns.pixels import pixel_count, top_pixels


@pytest.mark.parametrize("size", [0.01, 0.03, 0.1, 1.0])
@pytest.mark.parametrize("shape", [(32, 32), (16, 20), (10, 10)])
def test_top_pixels_keeps_the_budget(size, shape):
    masks = torch.rand(3, *shape).round(decimals=1)
    selected = top_pixels(masks, torch.zeros_like(masks), [size])
    assert selected.flatten(1).sum(1).tolist() == [round(size * shape[0] * shape[1])] * 3


def test_ties_go_to_the_mean_then_to_the_index():
    masks = torch.tensor([[[1.0, 1.0, 1.0, 0.2, 1.0]]])
    means = torch.tensor([[[0.3, 0.9, 0.5, 1.0, 0.5]]])
    first = [top_pixels(masks, means, [k / 5]).flatten().nonzero().flatten() for k in (1, 2, 3, 4)]
    assert [f.tolist() for f in first] == [[1], [1, 2], [1, 2, 4], [0, 1, 2, 4]]


def test_many_patterns_keep_what_sorting_each_keeps():
    generator = torch.Generator().manual_seed(0)
    masks, means = torch.rand(2, 600, 4, 5, generator=generator).round(decimals=1)
    expected = np.zeros((600, 20), bool)
    for row, mask, mean in zip(expected, masks.numpy(), means.numpy(), strict=True):
        row[np.lexsort((np.arange(20), -mean.ravel(), -mask.ravel()))[:7]] = True
    assert np.array_equal(top_pixels(masks, means, [0.35]).flatten(1), expected)


@pytest.mark.parametrize("size", [0, -0.1, 1.1, 0.001])
def test_impossible_sizes_are_named(size):
    with pytest.raises(ValueError, match=r"`pattern_size`.*4 x 5 pixels"):
        pixel_count(size, (4, 5))


def test_many_sizes_are_the_sizes_one_by_one():
    masks, means = torch.rand(2, 3, 6, 6).round(decimals=1)
    sizes = [0.1, 0.5, 0.2]
    together = top_pixels(masks, means, sizes)
    for column, size in enumerate(sizes):
        assert torch.equal(together[:, column], top_pixels(masks, means, [size])[:, 0])
