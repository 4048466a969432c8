"""Tests of vectors of which only the largest entries are kept."""

import pytest
import torch
from small import examined_colours

from iscp_lightning.inversion.analyses import TopLogits
from iscp_lightning.inversion.analyses.top_logits import largest_kept, numbers_up_to


def _values(found, measure):
    return {r.about["strength"]: r.value for r in found.records if r.measure == measure}


@pytest.mark.parametrize(
    ("size", "numbers"), [(1, [0, 1]), (3, [0, 1, 2, 3]), (4, [0, 1, 2, 4]), (5, [0, 1, 2, 4, 5])]
)
def test_numbers_double_up_to_all(size, numbers):
    assert numbers_up_to(size) == numbers


def test_the_largest_entries_are_kept_where_they_are():
    vectors = torch.tensor([[3.0, -5.0, 4.0], [1.0, 2.0, -9.0]])
    others = torch.tensor([10.0, 20.0, 30.0])
    assert largest_kept(vectors, others, 0).tolist() == [[10, 20, 30]] * 2
    assert largest_kept(vectors, others, 1).tolist() == [[10, 20, 4], [10, 2, 30]]
    assert largest_kept(vectors, others, 2).tolist() == [[3, 20, 4], [1, 2, 30]]
    assert largest_kept(vectors, others, 3).equal(vectors)


def test_all_entries_make_the_reconstruction_and_none_the_same_for_all():
    examined = examined_colours()
    examined.inverter.standardise.mean.fill_(-0.2)
    found = TopLogits()(examined)
    whole = examined.fidelity_of(examined.reconstructions)
    for measure in ("mse", "ssim", "class_agreement", "judge_agreement", "retrieval_rank"):
        values = _values(found, measure)
        assert list(values) == [0, 1, 2, 3]
        assert values[3] == pytest.approx(whole[measure].mean().item())
    assert not found.sheets[""].images[:, 1, :, 8, 8].any()  # the mean is painted black
    assert _values(found, "class_agreement")[0] < 0.5  # one class for a third of the images
    assert _values(found, "mse")[0] > _values(found, "mse")[3]


def test_the_sheet_has_a_column_for_each_number():
    found = TopLogits()(examined_colours(judge=False))
    assert found.sheets[""].images.shape == (8, 5, 3, 16, 16)
    assert found.sheets[""].columns == ["original", "0", "1", "2", "3"]
    assert "judge_agreement" not in {r.measure for r in found.records}
    found = TopLogits()(examined_colours(same_classes=False))
    measures = {r.measure for r in found.records}
    assert "retrieval_rank" in measures
    assert "judge_agreement" not in measures
