"""Tests of reconstructions and of what they are compared with, by hand."""

import math

import pytest
import torch
from small import examined_colours

from iscp_lightning.inversion.analyses import (
    ClassMean,
    Optimisation,
    Reconstruction,
    reconstruction,
)
from iscp_lightning.inversion.analysis import rows_of


def _values(found, **about):
    return {
        r.measure: r.value
        for r in found.records
        if all(r.about.get(key) == value for key, value in about.items())
    }


def test_a_painted_mean_colour_keeps_the_class_and_loses_the_noise():
    examined = examined_colours()
    found = Reconstruction()(examined)
    values = _values(found, split="all")
    assert values["images"] == 30
    assert values["class_agreement"] == values["judge_agreement"] == values["judge_accuracy"] == 1
    within = (examined.images - examined.images.mean((2, 3), keepdim=True)).square().mean()
    assert values["mse"] == pytest.approx(within.item(), rel=0.05)  # but for the pixel of noise
    assert _values(found, split="right")["images"] == 30
    wrong = _values(found, split="wrong")
    assert wrong["images"] == 0
    assert math.isnan(wrong["mse"])
    draws = found.sheets[""].images[:, 1:, 0, 0, 0]
    assert len(draws.unique()) == draws.numel()  # three noises, eight images


def test_without_a_judge_it_is_not_asked():
    found = Reconstruction()(examined_colours(judge=False))
    assert not {"judge_agreement", "fid"} & {r.measure for r in found.records}
    with pytest.raises(ValueError, match="there is no `judge`"):
        examined_colours(judge=False).judged(torch.rand(1, 3, 16, 16))


def test_classes_of_another_kind_are_not_split_by_who_is_right():
    examined = examined_colours(same_classes=False)
    splits = {r.about["split"] for r in Reconstruction()(examined).records}
    assert splits == {"all"}
    assert rows_of(examined)[:3] == ["red", "green", "blue"]
    assert not ClassMean().applies(examined)


def test_class_means_are_those_of_the_predicted_class():
    assert not ClassMean().applies(examined_colours())
    means = torch.eye(3)[..., None, None].expand(3, 3, 16, 16)
    examined = examined_colours(class_means=means)
    assert ClassMean().applies(examined)
    expected = (examined.images - means[examined.labels]).square().mean().item()
    assert _values(ClassMean()(examined), split="all")["mse"] == pytest.approx(expected)


def test_optimisation_and_generator_are_measured_on_the_same_first_images():
    examined = examined_colours()
    found = Optimisation(steps=60, smoothness=0, images=9)(examined)
    by_method = {m: _values(found, split="all", method=m) for m in ("optimisation", "generator")}
    assert [values["images"] for values in by_method.values()] == [9, 9]
    assert by_method["optimisation"]["class_agreement"] == 1
    assert by_method["optimisation"]["logit_cosine"] > 0.999
    few = examined.first(9)
    assert by_method["generator"]["mse"] == pytest.approx(
        (few.images - few.reconstructions).square().mean().item()
    )
    assert found.sheets[""].columns == ["original", "generator", "optimisation"]


def test_labels_say_what_an_image_is_taken_for():
    examined = examined_colours()
    examined.subject.images.labels[1] = 2
    assert rows_of(examined, 2) == ["red", "blue\n(taken for green)"]


def test_perceptual_measures_are_asked_for(monkeypatch):
    for name in ("lpips", "inception_fid"):
        assert name not in _values(Reconstruction()(examined_colours()))
    monkeypatch.setattr(reconstruction, "lpips", lambda images, _: torch.arange(len(images)))
    monkeypatch.setattr(reconstruction, "inception_fid", lambda *_: 7.0)
    values = _values(Reconstruction(perceptual=True)(examined_colours()), split="all")
    assert (values["lpips"], values["inception_fid"]) == (14.5, 7)


def test_other_noise_is_drawn_once():
    examined = examined_colours()
    assert examined.drawn(2) is examined.drawn(2)
    assert torch.equal(examined.drawn(2), examined.inverter.images(examined.answers.vectors, 2))
