import numpy as np
import pytest
import torch

from iscp_lightning.patterns.mixing import mix, overlap, paste, pixel_count, top_pixels


def test_mix_is_equation_1():
    mask = torch.tensor([[0.0, 0.25], [0.5, 1.0]])
    canvas, image = torch.full((3, 2, 2), 0.8), torch.full((3, 2, 2), 0.4)
    expected = torch.tensor([[0.4, 0.5], [0.6, 0.8]]).expand(3, 2, 2)
    torch.testing.assert_close(mix(mask, canvas, image), expected)


def test_mix_broadcasts_problems_over_images():
    masks, canvases = torch.rand(5, 1, 4, 6), torch.rand(5, 1, 3, 4, 6)
    images = torch.rand(5, 2, 3, 4, 6)
    mixed = mix(masks, canvases, images)
    assert mixed.shape == (5, 2, 3, 4, 6)
    torch.testing.assert_close(mixed[3, 1], mix(masks[3, 0], canvases[3, 0], images[3, 1]))


def test_paste_is_hard():
    selected = torch.tensor([[True, False], [False, True]])
    pasted = paste(selected, torch.ones(1, 2, 2), torch.zeros(4, 1, 2, 2))
    assert torch.equal(pasted, selected.float().expand(4, 1, 2, 2))


@pytest.mark.parametrize("size", [0.01, 0.03, 0.1, 1.0])
@pytest.mark.parametrize("shape", [(32, 32), (16, 20), (10, 10)])
def test_top_pixels_keeps_the_budget(size, shape):
    masks = torch.rand(3, *shape).round(decimals=1)
    selected = top_pixels(masks, torch.zeros_like(masks), size)
    assert selected.flatten(1).sum(1).tolist() == [round(size * shape[0] * shape[1])] * 3


def test_ties_go_to_the_mean_then_to_the_index():
    masks = torch.tensor([[[1.0, 1.0, 1.0, 0.2, 1.0]]])
    means = torch.tensor([[[0.3, 0.9, 0.5, 1.0, 0.5]]])
    first = [top_pixels(masks, means, k / 5).flatten().nonzero().flatten() for k in (1, 2, 3, 4)]
    assert [f.tolist() for f in first] == [[1], [1, 2], [1, 2, 4], [0, 1, 2, 4]]


def test_many_patterns_keep_what_sorting_each_keeps():
    generator = torch.Generator().manual_seed(0)
    masks, means = torch.rand(2, 600, 4, 5, generator=generator).round(decimals=1)
    expected = np.zeros((600, 20), bool)
    for row, mask, mean in zip(expected, masks.numpy(), means.numpy(), strict=True):
        row[np.lexsort((np.arange(20), -mean.ravel(), -mask.ravel()))[:7]] = True
    assert np.array_equal(top_pixels(masks, means, 0.35).flatten(1), expected)


@pytest.mark.parametrize("size", [0, -0.1, 1.1, 0.001])
def test_impossible_sizes_are_named(size):
    with pytest.raises(ValueError, match=r"`pattern_size`.*4 x 5 pixels"):
        pixel_count(size, (4, 5))


def test_overlap_is_intersection_over_union():
    a = torch.tensor([[[True, True, False]], [[True, False, False]]])
    b = torch.tensor([[[True, False, True]], [[True, False, False]]])
    torch.testing.assert_close(overlap(a, b), torch.tensor([1 / 3, 1.0]))
