"""Measures of saliency maps, by hand and beside scipy's."""

import math

import pytest
import scipy.stats
import torch

from iscp_lightning.metrics.overlap import overlap
from iscp_lightning.metrics.saliency import correlation, edge_of, gini, top_overlap

GENERATOR = torch.Generator().manual_seed(0)


def test_the_gini_index_by_hand():
    maps = torch.zeros(4, 2, 4)
    maps[0, 1, 2] = 3.0
    maps[1] = 0.7
    maps[2].flatten()[:4] = 1  # half of the pixels have everything
    assert gini(maps).tolist() == pytest.approx([1 - 1 / 8, 0, 1 / 2, math.nan], nan_ok=True)
    assert gini(maps).dtype == torch.float64


def test_the_gini_index_is_half_the_relative_mean_difference():
    maps = torch.rand(3, 5, 6, generator=GENERATOR, dtype=torch.float64)
    flat = maps.flatten(1)
    differences = (flat[:, :, None] - flat[:, None]).abs().mean((1, 2))
    torch.testing.assert_close(gini(maps), differences / (2 * flat.mean(1)))


def test_the_edge_is_a_pixel_inside_and_one_outside():
    masks = torch.zeros(3, 7, 8, dtype=torch.bool)
    masks[0, 2:6, 2:6] = True
    masks[1, :, :3] = True  # goes on beyond the frame
    expected = torch.zeros_like(masks)
    expected[0, 1:7, 1:7] = True
    expected[0, 3:5, 3:5] = False
    expected[1, :, 2:4] = True
    assert torch.equal(edge_of(masks), expected)
    assert torch.equal(edge_of(~masks), expected)


def test_the_correlation_is_scipys_with_ties_too():
    maps, others = torch.rand(2, 4, 6, 5, generator=GENERATOR)
    maps[0], others[1] = (maps[0] * 4).round(), (others[1] * 2).round()
    maps[2], others[2] = (maps[2] * 4).round(), (others[2] * 4).round()
    expected = [
        scipy.stats.spearmanr(one.flatten(), other.flatten()).statistic
        for one, other in zip(maps.numpy(), others.numpy(), strict=True)
    ]
    assert correlation(maps, others).tolist() == pytest.approx(expected, abs=1e-12)


def test_a_constant_map_has_no_correlation():
    maps = torch.rand(2, 3, 3, generator=GENERATOR)
    assert correlation(maps, maps**3).tolist() == pytest.approx([1, 1])
    assert correlation(maps, torch.ones(2, 3, 3)).isnan().all()


def test_the_overlap_with_as_many_pixels_by_hand():
    maps = torch.tensor([[[4.0, 3], [2, 1]]] * 3 + [[[1.0, 1], [1, 1]]])
    selected = torch.tensor(
        [[[1, 1], [0, 0]], [[0, 1], [1, 0]], [[0, 0], [0, 0]], [[1, 0], [0, 1]]], dtype=torch.bool
    )
    found = top_overlap(maps, selected)
    assert found.tolist() == pytest.approx([1, 1 / 3, math.nan, 1 / 3], nan_ok=True)
    assert found.dtype == torch.float64
    top = torch.tensor([[[True, True], [False, False]]]).expand(2, -1, -1)
    assert overlap(top, selected[:2]).tolist() == pytest.approx(found[:2].tolist())
