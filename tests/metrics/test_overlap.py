"""Tests of the overlap of pixel sets: by hand, and of random sets against chance."""

import pytest
import torch

from iscp_lightning.metrics import chance_overlap, overlap, overlaps_by_class, shifted_overlap


def test_overlap_by_hand():
    first = torch.tensor([[[1, 1], [0, 0]], [[1, 1], [0, 0]], [[1, 0], [0, 0]]]).bool()
    second = torch.tensor([[[1, 1], [0, 0]], [[0, 1], [1, 0]], [[0, 0], [1, 1]]]).bool()
    assert overlap(first, second).tolist() == pytest.approx([1, 1 / 3, 0])
    assert torch.equal(overlap(first, second), overlap(second, first))


def test_shifted_overlap_finds_the_place_and_loses_no_pixel_at_the_edge():
    trigger = torch.zeros(6, 7).bool()
    trigger[:2, :3] = True
    elsewhere = trigger.roll((4, 4), (0, 1))
    half = elsewhere.clone()
    half[5] = False
    corner = torch.zeros(6, 7).bool()
    corner[5, 6] = True  # one of six pixels, wherever the trigger goes
    found = shifted_overlap(torch.stack([trigger, elsewhere, half, corner]), trigger)
    assert found.tolist() == pytest.approx([1, 1, 1 / 2, 1 / 6])


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


def test_overlap_within_and_between_classes():
    rows = ["##..", "#.#.", "..##", "...#"]
    selected = torch.tensor([[[cell == "#" for cell in row]] for row in rows])
    selected = selected.repeat_interleave(3000, dim=2)  # more than what is counted at once
    found = overlaps_by_class(selected, torch.tensor([4, 4, 1, 4]))
    # class 1 has one pattern; with the others it shares 0 of 4, 1 of 3 and 1 of 2 pixels
    between = (0 + 1 / 3 + 1 / 2) / 3
    assert found.within[0].isnan()
    assert found.within[1].item() == pytest.approx((1 / 3 + 0 + 0) / 3)
    assert found.between.tolist() == pytest.approx([between, between])


def test_patterns_of_one_class_alone():
    same = torch.eye(3, dtype=torch.bool)[None].repeat(2, 1, 1)
    found = overlaps_by_class(same, torch.tensor([2, 2]))
    assert found.within.tolist() == [1.0]
    assert found.between.isnan().all()
