import pytest
import torch

from iscp_lightning.inversion.report import differences, lines_of


def test_differences_are_paired_by_image():
    mse = torch.linspace(0.1, 0.9, 50)
    measures = {
        "one": {"mse": mse + 0.05, "psnr": -mse, "judge_agreement": mse},
        "other": {"mse": mse, "psnr": -mse},
    }
    found = differences(measures)
    assert [record.measure for record in found] == ["mse_difference", "psnr_difference"]
    for record, value in zip(found, (0.05, 0.0), strict=True):
        assert (record.about["inversion"], record.about["other"]) == ("one", "other")
        assert record.value == pytest.approx(value, abs=1e-7)
        # of unpaired images it would be 0.1 wide
        assert record.interval == pytest.approx((value, value), abs=1e-7)
    assert lines_of(found) == ["mse: one - other = 0.050 (0.050 to 0.050)"]


def test_one_inversion_differs_from_nobody():
    assert differences({"one": {"mse": torch.ones(3)}}) == []
