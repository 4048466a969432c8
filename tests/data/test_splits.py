"""Tests of choosing images evenly over the classes."""

import torch

from iscp_lightning.data.splits import stratified_choice

LABELS = torch.tensor([0] * 50 + [1] * 30 + [2] * 2)


def test_counts_per_class_differ_by_one_at_most():
    for count in (1, 2, 4, 5):
        counts = LABELS[stratified_choice(LABELS, count, 0)].bincount(minlength=3)
        assert counts.sum() == count
        assert counts.max() - counts.min() <= 1


def test_a_small_class_gives_all_it_has():
    chosen = stratified_choice(LABELS, 22, 0)
    assert LABELS[chosen].bincount().tolist() == [10, 10, 2]
    assert torch.equal(chosen, chosen.sort().values)
    assert torch.equal(stratified_choice(LABELS, 100, 0), torch.arange(82))


def test_the_seed_fixes_the_choice():
    first = stratified_choice(LABELS, 9, 1)
    assert torch.equal(first, stratified_choice(LABELS, 9, 1))
    assert not torch.equal(first, stratified_choice(LABELS, 9, 2))
