"""Tests of the measures of reconstructions: answers known by hand, and what is refused."""

import math
from typing import Any

import pytest
import torch
from torch import Tensor
from torchmetrics.functional.image import structural_similarity_index_measure

from iscp_lightning.inversion.fidelity import (
    Judgement,
    fidelity,
    noise_variance,
    records,
    retrieval_rank,
)
from iscp_lightning.inversion.frechet import frechet_distance


def images_of(count: int) -> Tensor:
    return torch.rand(count, 3, 12, 12, generator=torch.Generator().manual_seed(0))


def given(**changed: Any) -> dict[str, Any]:
    """Four identical pairs of class 0 to 3, all right, with a judge that agrees."""
    images, sure = images_of(4), torch.eye(4)
    features = torch.arange(4.0).unsqueeze(1)
    return {
        "originals": images,
        "reconstructions": images,
        "logits": sure,
        "reconstructed_logits": sure,
        "labels": torch.arange(4),
        "judge": Judgement(sure, features, features),
        **changed,
    }


def test_identical_images():
    found = fidelity(**given())
    ones, rates = torch.ones(4), ("class_agreement", "judge_agreement", "judge_accuracy")
    for name in ("ssim", "logit_cosine", "pixel_retrieval_rank", "retrieval_rank", *rates):
        torch.testing.assert_close(found[name], ones)
    assert torch.equal(found["mse"], torch.zeros(4))
    assert torch.equal(found["psnr"], torch.full((4,), math.inf))
    assert {values.dtype for values in found.values()} == {torch.float32}


def test_constant_shift():
    flat = torch.full((4, 3, 12, 12), 0.4)
    shift = torch.tensor([0.0, 0.1, 0.2, 0.5]).view(4, 1, 1, 1)
    found = fidelity(**given(originals=flat, reconstructions=flat + shift))
    torch.testing.assert_close(found["mse"], torch.tensor([0, 0.01, 0.04, 0.25]))
    expected = torch.tensor([20, 10 * math.log10(25), 10 * math.log10(4)])
    torch.testing.assert_close(found["psnr"][1:], expected)
    # without variance, only the term of the means is left
    means = torch.tensor([0.4, 0.5, 0.6, 0.9])
    expected = (0.8 * means + 1e-4) / (0.16 + means**2 + 1e-4)
    torch.testing.assert_close(found["ssim"], expected, atol=1e-3, rtol=0)
    # all originals are alike, so none is nearer than another
    assert found["pixel_retrieval_rank"].tolist() == [2.5] * 4


def test_images_are_measured_one_by_one_in_chunks():
    images = images_of(300)
    sure = torch.zeros(300, 2)
    found = fidelity(images, images.flip(0), sure, sure, torch.zeros(300).long())
    assert not any("judge" in name or name == "retrieval_rank" for name in found)
    for row in (0, 299):
        pair = images[[row]], images.flip(0)[[row]]
        ssim = structural_similarity_index_measure(pair[1], pair[0], data_range=1.0)
        assert found["ssim"][row] == pytest.approx(float(ssim), abs=1e-5)
        assert found["mse"][row] == pytest.approx(float((pair[0] - pair[1]).square().mean()))


def test_what_classifiers_say():
    sure = torch.eye(4)
    said = sure[[0, 1, 2, 0]]  # the last original is classified wrongly
    again = sure[[0, 2, 2, 0]]
    judged = sure[[0, 1, 3, 3]]
    judge = Judgement(judged, torch.zeros(4, 1), torch.zeros(4, 1))
    found = fidelity(**given(logits=said, reconstructed_logits=again, judge=judge))
    assert found["class_agreement"].tolist() == [1, 0, 1, 1]
    assert found["judge_agreement"].tolist() == [1, 1, 0, 0]
    assert found["judge_accuracy"].tolist() == [1, 1, 0, 1]
    assert found["logit_cosine"].tolist() == [1, 0, 1, 1]
    assert found["retrieval_rank"].tolist() == [2.5] * 4


def test_ranks_of_permuted_originals():
    places = torch.tensor([[0.0], [1], [3], [7]])
    assert retrieval_rank(places, places).tolist() == [1, 1, 1, 1]
    assert retrieval_rank(places, places.flip(0)).tolist() == [4, 2, 3, 4]
    # half of the way between two, and everything at one place
    assert retrieval_rank(places, torch.full((4, 1), 0.5)).tolist() == [1.5, 1.5, 3, 4]
    assert retrieval_rank(torch.zeros(5, 2), torch.ones(5, 2)).tolist() == [3] * 5
    many = torch.arange(600.0).unsqueeze(1)  # more than one chunk
    assert retrieval_rank(many, many.flip(0))[[0, 299, 300]].tolist() == [600, 2.5, 2.5]
    image = images_of(1).flatten(1).repeat(600, 1)
    assert retrieval_rank(image, 1 - image).tolist() == [300.5] * 600


def test_variance_over_noise():
    samples = torch.zeros(3, 2, 1, 2, 2)
    samples[:, 1, 0, 0, 0] = torch.tensor([0.0, 0.5, 1.0])  # variance 1/4 at one of four pixels
    torch.testing.assert_close(noise_variance(samples), torch.tensor([0, 1 / 16]))
    for wrong in (samples[:1], samples[0]):
        with pytest.raises(ValueError, match=r"`samples` must be \(S, N, C, H, W\) with S of 2"):
            noise_variance(wrong)


def test_records_split_by_who_is_right():
    right = torch.tensor([True] * 60 + [False] * 40)
    measures = {"mse": right.float(), "ssim": torch.arange(100.0) % 2}
    features = torch.randn(100, 3, generator=torch.Generator().manual_seed(0))
    judge = Judgement(torch.zeros(100, 2), features, 2 * features)
    found = records(measures, right, judge, {"classifier": "a"})
    assert all(record.about["classifier"] == "a" for record in found)
    table = {(record.measure, record.about["split"]): record for record in found}
    assert len(table) == len(found) == 12
    for split, count, mse in (("all", 100, 0.6), ("right", 60, 1), ("wrong", 40, 0)):
        assert table["images", split].value == count
        assert table["mse", split].value == pytest.approx(mse)
        assert table["ssim", split].value == pytest.approx(0.5)
    low, high = table["mse", "all"].interval
    assert low == pytest.approx(0.6 - 1.96 * math.sqrt(0.24 / 100), abs=0.02)
    assert high == pytest.approx(0.6 + 1.96 * math.sqrt(0.24 / 100), abs=0.02)
    assert table["mse", "right"].interval == (1, 1)
    wrong = table["fid", "wrong"]
    assert wrong.value == frechet_distance(features[60:], 2 * features[60:])
    assert wrong.interval[0] < wrong.value < wrong.interval[1]


def test_records_of_a_classifier_that_is_always_right():
    found = records({"mse": torch.ones(4)}, torch.ones(4, dtype=torch.bool), given()["judge"])
    found = {record.name: record for record in found}
    assert found["images/wrong"].value == 0
    assert math.isnan(found["mse/wrong"].value)
    assert math.isnan(found["fid/wrong"].value)
    assert found["mse/wrong"].interval is found["fid/wrong"].interval is None


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"originals": torch.zeros(4, 3, 10, 12)}, r"`originals` must be .* 11 x 11 .*, 10, 12\)"),
        ({"originals": torch.zeros(0, 3, 12, 12)}, r"`originals` must be .* got \(0, 3, 12, 12\)"),
        ({"reconstructions": images_of(3)}, r"`reconstructions` must be \(4, 3, 12, 12\), got \(3"),
        ({"reconstructions": images_of(4) + 1}, r"`reconstructions` must be floats in \[0, 1\]"),
        (
            {"originals": torch.ones(4, 3, 12, 12).byte()},
            "`originals` must be floats in",
        ),
        ({"logits": torch.eye(4)[:3]}, r"`logits` must be \(4, 4\), got \(3, 4\)"),
        ({"logits": torch.full((4, 4), math.nan)}, "`logits` must be finite"),
        ({"reconstructed_logits": torch.zeros(4, 5)}, r"`reconstructed_logits` must be \(4, 4\)"),
        ({"labels": torch.zeros(4, 1).long()}, r"`labels` must be \(4,\), got \(4, 1\)"),
        (
            {"judge": Judgement(torch.eye(4), torch.zeros(4, 2), torch.zeros(4, 3))},
            r"`judge.reconstructed` must be \(4, 2\), got \(4, 3\)",
        ),
    ],
)
def test_what_it_refuses(changed: dict[str, Any], message: str):
    with pytest.raises(ValueError, match=message):
        fidelity(**given(**changed))
