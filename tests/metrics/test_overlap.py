"""Tests of the overlap of pixel sets: by hand, and of random sets against chance."""

import pytest
import torch

from iscp_lightning.metrics import chance_overlap, overlap


def test_overlap_by_hand():
    first = torch.tensor([[[1, 1], [0, 0]], [[1, 1], [0, 0]], [[1, 0], [0, 0]]]).bool()
    second = torch.tensor([[[1, 1], [0, 0]], [[0, 1], [1, 0]], [[0, 0], [1, 1]]]).bool()
    assert overlap(first, second).tolist() == pytest.approx([1, 1 / 3, 0])
    assert torch.equal(overlap(first, second), overlap(second, first))


def test_empty_sets_have_no_overlap():
    empty = torch.zeros(1, 2, 2).bool()
    assert overlap(empty, empty).isnan().all()
    assert overlap(empty, ~empty).item() == 0


@pytest.mark.parametrize(("share", "expected"), [(1, 1), (0.5, 1 / 3), (0.05, 0.05 / 1.95)])
def test_chance_by_hand(share, expected):
    assert chance_overlap(share) == pytest.approx(expected)


@pytest.mark.parametrize("share", [0.05, 0.3])
def test_random_sets_overlap_by_chance(share):
    """1000 pairs of sets of exactly this share of 32 x 32 pixels."""
    values = torch.rand(2, 1000, 1024, generator=torch.Generator().manual_seed(0))
    chosen = values.argsort(-1).argsort(-1) < share * 1024
    first, second = chosen.view(2, 1000, 32, 32)
    assert overlap(first, second).mean().item() == pytest.approx(chance_overlap(share), rel=0.05)
