"""Tests of factors, on shapes and on squares whose place, size and colour are known by hand."""

import math

import pytest
import torch
from small import examined_colours

from iscp_lightning.data.drawing import SHAPES, TEXTURES
from iscp_lightning.data.shapes import ShapeFactors, draw_shapes, shape_factors
from iscp_lightning.inversion.analyses import Factors
from iscp_lightning.inversion.analyses.factors import within
from iscp_lightning.inversion.estimates import estimates
from iscp_lightning.inversion.regression import explained, predicted_by_lines

COUNT = 60


def _factors(background):
    """Return random factors but for the background's colour."""
    draws = torch.Generator().manual_seed(1)
    numbers = [torch.randn(len(background), generator=draws) for _ in range(4)]
    colours = [torch.rand(len(background), 3, generator=draws) for _ in range(2)]
    return ShapeFactors(*numbers, background, *colours, torch.arange(len(background)) % 2)


def _of(examined):
    found = Factors(3)(examined)
    return {(r.measure, r.about["factor"]): r for r in found.records}


def _examined(**settings):
    examined = examined_colours(COUNT, **settings)
    colours = 0.1 + 0.8 * torch.rand(COUNT, 3, generator=torch.Generator().manual_seed(2))
    examined.subject.images.labels[:] = torch.arange(COUNT) % 3  # not the shapes
    examined.images = colours[..., None, None].repeat(1, 1, 16, 16)
    examined.factors = _factors(colours)
    return examined


def test_a_square_is_found_where_it_is():
    images = torch.full((3, 3, 20, 16), 0.5)
    images[0, :, 4:8, 10:14] = torch.tensor([1.0, 0.5, 0.0])[:, None, None]
    images[1] = torch.tensor([0.2, 0.4, 0.6])[:, None, None]
    images[2, 0, 18:, :] = 1  # a part of the border
    found = estimates(images, torch.tensor([1, 1, 0]))
    assert found["x"][:, 0].tolist() == [11.5, 7.5, 7.5]
    assert found["y"][:, 0].tolist() == [5.5, 9.5, 18.5]
    assert found["radius"][:, 0].tolist() == pytest.approx([4, 0, 32**0.5])
    assert found["background"].flatten().tolist() == pytest.approx(
        [0.5, 0.5, 0.5, 0.2, 0.4, 0.6, 0.5, 0.5, 0.5]
    )


def test_drawn_shapes_are_seen_as_they_were_drawn():
    drawn, factors = draw_shapes(300, seed=5), shape_factors(300, seed=5)
    known = factors._asdict()
    plain = (drawn.textures == TEXTURES.index("plain")).unsqueeze(1)
    known["color"] = torch.where(plain, factors.first, (factors.first + factors.second) / 2)
    for name, seen in estimates(drawn.images / 255, factors.shape).items():
        shown = seen.isfinite().all(1)
        labels = drawn.labels[shown]
        truth = within(known[name].reshape(300, -1)[shown], labels)
        share, _ = explained(truth, predicted_by_lines(within(seen[shown], labels), truth))
        assert share > 0.9, name


def test_a_turn_is_measured_in_radians_from_the_shape_as_it_is():
    drawn, factors = draw_shapes(400, size=64, seed=6), shape_factors(400, size=64, seed=6)
    seen = estimates(drawn.images / 255, factors.shape)["rotation"][:, 0]
    discs = torch.tensor([SHAPES.index("circle"), SHAPES.index("ring")])
    turnless = torch.isin(factors.shape, discs)
    assert torch.equal(seen.isnan(), turnless)
    grey = torch.full((10, 3, 16, 16), 0.5)
    flat = estimates(grey, torch.arange(10))["rotation"][:, 0]
    assert torch.equal(flat.nan_to_num(0), torch.zeros(10))
    away = (seen - factors.rotation)[~turnless].abs()
    assert away.median() < 0.02
    assert away.quantile(0.95) < 0.1


def test_a_mean_colour_holds_the_background_and_nothing_else():
    found = _of(_examined())
    assert found["decodable", "background"].value > 0.99
    assert found["kept", "background"].value > 0.99
    assert found["ceiling", "background"].value == pytest.approx(1)
    assert found["left_open", "background"].value == pytest.approx(0, abs=1e-6)
    for name in ("x", "y", "radius", "rotation", "first", "second"):
        assert found["decodable", name].value < 0.3
    assert found["kept", "x"].value < 0.3
    assert found["kept", "rotation"].value < 0.3  # there is no object
    assert ("kept", "first") not in found
    low, high = found["decodable", "background"].interval
    assert low <= found["decodable", "background"].value <= high


def test_images_that_do_not_show_a_factor_are_left_out():
    examined = _examined()
    whole = _of(examined)["decodable", "x"]
    few = examined.factors.x.clone()
    few[::2] = math.nan
    examined.factors = examined.factors._replace(x=few, y=torch.full((COUNT,), math.nan))
    found = _of(examined)
    assert math.isfinite(found["decodable", "x"].value)
    assert found["decodable", "x"].value != whole.value
    assert math.isnan(found["decodable", "y"].value)


def test_what_noise_moves_is_left_open(monkeypatch):
    examined = _examined(judge=False, same_classes=False)
    colours = torch.tensor([[0.0] * 3, [0.3] * 3, [0.9] * 3])  # of draws 1, 2, 3
    monkeypatch.setattr(
        type(examined.inverter),
        "images",
        lambda self, vectors, draw=0: colours[max(draw - 1, 0)][:, None, None].expand(
            len(vectors), 3, 16, 16
        ),
    )
    answer = _of(examined)
    assert answer["kept", "background"].value == pytest.approx(0)  # one colour for all
    assert answer["ceiling", "background"].value == pytest.approx(1)
    found = answer["left_open", "background"]
    given = examined.factors.background
    halves = [given[half::2] - given[half::2].mean(0) for half in (0, 1)]  # the classes
    spread = sum(float(each.square().sum()) for each in halves) / (COUNT - 2)
    expected = math.sqrt(3 * 0.21 / spread)  # the variance of 0, 0.3, 0.9 is 0.21
    assert found.value == pytest.approx(expected, rel=1e-4)
    assert found.interval == pytest.approx((expected, expected), rel=1e-4)


def test_without_an_object_there_is_no_place_to_speak_of():
    found = _of(_examined())
    assert math.isnan(found["left_open", "x"].value)  # the middle of every original
    assert found["ceiling", "x"].value == pytest.approx(0)


def test_factors_are_those_of_the_chosen_images():
    examined = _examined()
    examined.indices = torch.arange(COUNT).flip(0)
    examined.images = examined.images.flip(0)
    assert _of(examined)["decodable", "background"].value > 0.99


def test_it_wants_factors_and_some_images():
    assert not Factors().applies(examined_colours())
    assert Factors().applies(_examined())
    assert not Factors().applies(_examined().first(2))
    with pytest.raises(ValueError, match="`samples` must be 2 or more, got 1"):
        Factors(1)
