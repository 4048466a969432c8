"""Tests of the drawn shapes: the statistics of their cues and the clarity of the drawing."""

from __future__ import annotations

import pickle
from itertools import combinations, pairwise
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor

from iscp_lightning.data.drawing import (
    FILLS,
    OUTLINES,
    SHAPES,
    TEXTURES,
    contrasting_colours,
)
from iscp_lightning.data.shapes import draw_shapes, shape_factors, shape_masks


def _silhouettes(images: Tensor) -> Tensor:
    """Object masks, found from outside: whatever differs from the frame's colour."""
    pixels = images.float() / 255
    frame = torch.cat([pixels[..., 0, :], pixels[..., -1, :]], -1).median(-1).values
    squares: Tensor = (pixels - frame[..., None, None]).square().sum(1)
    return squares > 0.3**2


def _unit_grid(
    resolution: int = 101, extent: float = 1.2
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    axis = np.linspace(-extent, extent, resolution, dtype=np.float32)
    x, y = np.meshgrid(axis, axis)
    return x, y


def _global_random_state() -> tuple[bytes, bytes]:
    numpy_state = pickle.dumps(np.random.get_state())  # noqa: NPY002
    return torch.get_rng_state().numpy().tobytes(), numpy_state


def test_names_are_the_published_ones() -> None:
    expected = "circle square triangle star cross ring crescent hexagon arrow heart"
    assert tuple(expected.split()) == SHAPES
    assert len(set(TEXTURES)) == len(TEXTURES) == len(SHAPES)


def test_same_arguments_give_the_same_bytes() -> None:
    # 300 pictures are more than one chunk of the drawing.
    for first, again in zip(draw_shapes(300, seed=3), draw_shapes(300, seed=3), strict=True):
        assert torch.equal(first, again)


def test_seeds_give_different_pictures() -> None:
    one, two = draw_shapes(40, seed=1), draw_shapes(40, seed=2)
    assert not torch.equal(one.labels, two.labels)
    # No picture of one seed turns up under the other, in whatever order.
    distances = torch.cdist(one.images.flatten(1).float(), two.images.flatten(1).float())
    assert distances.min() > 100


def test_pictures_of_one_call_differ_across_chunks() -> None:
    images = draw_shapes(600, texture_correlation=1).images.flatten(1)
    assert len(torch.unique(images, dim=0)) == 600


def test_global_random_state_is_untouched() -> None:
    before = _global_random_state()
    draw_shapes(10)
    assert _global_random_state() == before


@pytest.mark.parametrize("size", [8, 16, 32, 64])
def test_kinds_and_shapes_of_the_tensors(size: int) -> None:
    images, labels, textures = draw_shapes(12, size=size)
    assert images.shape == (12, 3, size, size)
    assert labels.shape == textures.shape == (12,)
    assert (images.dtype, labels.dtype, textures.dtype) == (torch.uint8, torch.int64, torch.int64)
    # The object covers a fair part of the picture, and never most of it.
    area = _silhouettes(images).float().mean((1, 2))
    assert area.min() > 0.03
    assert area.max() < 0.7


@pytest.mark.parametrize("count", [1, 7, 100, 1234])
def test_labels_are_balanced(count: int) -> None:
    sizes = draw_shapes(count, size=8).labels.bincount(minlength=len(SHAPES))
    assert sizes.sum() == count
    assert sizes.max() - sizes.min() <= 1


def test_labels_are_shuffled() -> None:
    labels = draw_shapes(1000, size=8).labels
    ascending = sum(int(b == (a + 1) % len(SHAPES)) for a, b in pairwise(labels.tolist()))
    assert 50 < ascending < 150  # 100 expected; unshuffled labels have 999


@pytest.mark.parametrize("correlation", [0.0, 0.1, 0.8, 1.0])
def test_texture_correlation(correlation: float) -> None:
    drawn = draw_shapes(6000, size=8, texture_correlation=correlation)
    own = drawn.textures == drawn.labels
    assert own.double().mean().item() == pytest.approx(correlation, abs=0.02)
    if correlation in (0, 1):
        assert bool(own.all()) if correlation else not own.any()
    if correlation < 1:
        # Away from its own, a class's textures are the nine others, equally often.
        steps = ((drawn.textures - drawn.labels) % len(TEXTURES))[~own].bincount(minlength=10)
        shares = steps[1:].double() / steps.sum()
        assert (shares - 1 / 9).abs().max() < 0.03


def test_cue_conflict_overrides_the_correlation() -> None:
    drawn = draw_shapes(2000, size=8, texture_correlation=1, cue_conflict=True)
    assert not (drawn.textures == drawn.labels).any()
    assert len(torch.unique(drawn.labels * 10 + drawn.textures)) == 90


def test_textures_are_the_only_thing_the_correlation_changes() -> None:
    own = draw_shapes(200, texture_correlation=1)
    other = draw_shapes(200, cue_conflict=True)
    assert torch.equal(own.labels, other.labels)
    changed = (own.images != other.images).any(1)
    assert changed.flatten(1).any(1).all()
    # Both fillings are inside one outline; only its blended edge is left to the threshold.
    assert (changed & ~_silhouettes(own.images)).float().mean() < 0.02
    assert (_silhouettes(own.images) != _silhouettes(other.images)).float().mean() < 0.02


def test_masks_are_where_the_shapes_are() -> None:
    drawn, masks = draw_shapes(400, seed=2, texture_correlation=1), shape_masks(400, seed=2)
    assert masks.shape == (400, 32, 32)
    assert masks.dtype == torch.bool
    plain = drawn.textures == TEXTURES.index("plain")  # whose whole surface stands out
    found, known = _silhouettes(drawn.images[plain]), masks[plain]
    agreement = (found == known).float().mean((1, 2))
    assert agreement.mean() > 0.97
    assert (known.sum() / found.sum()).item() == pytest.approx(1, abs=0.03)
    for step in (-1, 1):
        moved = (found == known.roll(step, 2)).float().mean((1, 2))
        assert moved.mean() < agreement.mean()
    # a circle of radius r has pi r^2 of the pixels
    radius = known.any(1).sum(1) / 2
    assert (known.sum((1, 2)) / (torch.pi * radius**2)).mean().item() == pytest.approx(1, abs=0.03)


def test_masks_are_those_of_any_textures() -> None:
    one, other = draw_shapes(300, seed=3), draw_shapes(300, seed=3, cue_conflict=True)
    around = shape_masks(300, seed=3).float().unsqueeze(1)
    around = torch.nn.functional.max_pool2d(around, 5, 1, 2)[:, 0] > 0  # with the soft outline
    changed = (one.images != other.images).any(1)
    # 300 pictures are more than one chunk of the drawing
    assert changed[256:].any()
    # tips of crescents are thinner than half a pixel
    assert (changed & ~around).sum() < 1e-3 * changed.sum()
    with pytest.raises(ValueError, match="`size` is 7; it must be at least 8"):
        shape_masks(3, size=7)


def test_masks_can_be_drawn_anew_from_the_factors() -> None:
    # 300 pictures are more than one chunk of the drawing
    labels = draw_shapes(300, seed=3).labels
    masks, factors = shape_masks(300, seed=3), shape_factors(300, seed=3)
    columns, rows = np.meshgrid(np.arange(32), np.arange(32))
    for i, label in enumerate(labels):
        x, y, radius, angle = (float(each[i]) for each in factors[:4])
        point = ((columns - x) + 1j * (y - rows)) / radius * np.exp(-1j * angle)
        distance = OUTLINES[SHAPES[label]](point.real, point.imag)
        certain = np.abs(distance) > 1e-3
        assert np.array_equal(masks[i].numpy()[certain], distance[certain] < 0), i


def test_factors_tell_the_colours() -> None:
    drawn = draw_shapes(400, seed=2, texture_correlation=1)
    masks, factors = shape_masks(400, seed=2), shape_factors(400, seed=2)
    assert torch.equal(factors.shape, drawn.labels)
    assert {each.dtype for each in factors[:-1]} == {torch.float32}
    for i, texture in enumerate(drawn.textures):
        pixels, inside = drawn.images[i].float() / 255, masks[i]
        # noise and slope, which are at most 0.16 either way, leave the median about where it is
        outside = pixels[:, ~inside].median(1).values
        torch.testing.assert_close(outside, factors.background[i], atol=0.1, rtol=0)
        shown = {"plain": [factors.first], "gradient": []}  # neither of its colours is sure to be
        for colours in shown.get(TEXTURES[texture], [factors.first, factors.second]):
            nearest = (pixels[:, inside].T - colours[i]).abs().amax(1).min()
            assert nearest < 0.01, TEXTURES[texture]


def test_silhouette_stands_out_in_every_texture() -> None:
    drawn = draw_shapes(1000, texture_correlation=0.1, seed=5)
    plain = draw_shapes(1000, texture_correlation=1, seed=5)
    found, reference = _silhouettes(drawn.images), _silhouettes(plain.images)
    overlap = (found & reference).sum((1, 2)) / (found | reference).sum((1, 2))
    for texture in range(len(TEXTURES)):
        assert overlap[drawn.textures == texture].quantile(0.05) > 0.8, TEXTURES[texture]


def test_classes_differ_in_their_silhouettes() -> None:
    drawn = draw_shapes(1000, seed=4, texture_correlation=0.1)
    masks = _silhouettes(drawn.images).float()
    centred = torch.stack([_centred(mask) for mask in masks])
    halves = [
        torch.stack([half[labels == label].mean(0) for label in range(len(SHAPES))])
        for half, labels in zip(centred.chunk(2), drawn.labels.chunk(2), strict=True)
    ]
    distances = torch.cdist(halves[0].flatten(1), halves[1].flatten(1), p=1)
    own = distances.diagonal()
    others = distances + torch.diag(torch.full((len(SHAPES),), torch.inf))
    assert (others.min(1).values > 2 * own).all(), (own, others.min(1).values)


def _centred(mask: Tensor) -> Tensor:
    """Stretch a mask's bounding box to 16 x 16."""
    rows, columns = mask.any(1).nonzero().flatten(), mask.any(0).nonzero().flatten()
    box = mask[None, None, rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
    return torch.nn.functional.interpolate(box, (16, 16), mode="bilinear")[0, 0]


def test_shapes_fill_the_unit_disc_and_stay_inside() -> None:
    x, y = _unit_grid()
    for name, field in OUTLINES.items():
        reach = np.hypot(x, y)[field(x, y) < 0].max()
        assert 0.9 < reach <= 1, name


def test_outlines_differ_from_one_another() -> None:
    x, y = _unit_grid()
    masks = {name: field(x, y) < 0 for name, field in OUTLINES.items()}
    for one, two in combinations(SHAPES, 2):
        overlap = (masks[one] & masks[two]).sum() / (masks[one] | masks[two]).sum()
        assert overlap < 0.85, (one, two)


def test_edges_are_equally_sharp_everywhere() -> None:
    """Next to the outline the fields are distances, or the soft edge would vary in width."""
    x, y = _unit_grid(241)
    step = float(x[0, 1] - x[0, 0])
    for name, field in OUTLINES.items():
        distance = field(x, y)
        slope = np.hypot(*np.gradient(distance, step))[np.abs(distance) < 0.05]
        assert 0.9 < np.quantile(slope, 0.1) <= np.quantile(slope, 0.9) < 1.2, name


def test_ring_has_a_hole_and_arrow_points_right() -> None:
    zero = np.zeros(1, np.float32)
    assert OUTLINES["ring"](zero, zero)[0] > 0.3
    x, y = _unit_grid()
    arrow = OUTLINES["arrow"](x, y) < 0
    assert np.array_equal(arrow, arrow[::-1])
    assert arrow[:, x[0] > 0].sum() > 1.2 * arrow[:, x[0] < 0].sum()


def test_colours_contrast() -> None:
    candidates = np.random.default_rng(0).random((5000, 16, 3, 3), dtype=np.float32)
    backdrop, first, second = contrasting_colours(candidates)
    assert np.linalg.norm(second - first, axis=1).min() > 0.4
    for share in np.linspace(0, 1, 11):
        mixture = first + share * (second - first)
        assert np.linalg.norm(backdrop - mixture, axis=1).min() > 0.4


def test_textures_differ_from_one_another() -> None:
    u, v = _unit_grid(extent=2)
    fills = [field(u, v).clip(0, 1) for field in FILLS.values()]
    for (one, first), (two, second) in combinations(zip(TEXTURES, fills, strict=True), 2):
        assert np.abs(first - second).mean() > 0.15, (one, two)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"count": 0}, "`count` is 0; it must be at least 1"),
        ({"count": 5, "size": 7}, "`size` is 7; it must be at least 8"),
        ({"count": 5, "seed": -1}, "`seed` is -1; it must be at least 0"),
        (
            {"count": 5, "texture_correlation": 1.5},
            "`texture_correlation` is 1.5; it must be between 0 and 1",
        ),
        ({"count": 5, "texture_correlation": -0.1}, "`texture_correlation` is -0.1"),
        ({"count": 5, "texture_correlation": float("nan")}, "`texture_correlation` is nan"),
    ],
)
def test_errors_name_the_argument(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        draw_shapes(**arguments)
