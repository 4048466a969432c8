import math

import pytest
import torch
from torch import Tensor

from iscp_lightning.metrics import (
    chance_components,
    chance_connectedness,
    components,
    connectedness,
)


def drawn(text: str) -> Tensor:
    return torch.tensor([[cell == "#" for cell in row] for row in text.split()])


CHECKERBOARD = drawn("#.#. .#.# #.#. .#.#")
SQUARE = drawn(".... .##. .##. ....")
TWO = drawn("##.. .... ...# ...#")
LINE = drawn("#### .... .... ....")


@pytest.mark.parametrize(
    ("pixels", "neighbours", "expected"),
    [
        (SQUARE, 8, 3 / 8),
        (SQUARE, 4, 2 / 4),
        (CHECKERBOARD, 4, 0.0),
        # corners 1 of 3; on sides 2 of 5 (four), inside 4 of 8 (two)
        (CHECKERBOARD, 8, (2 * 1 / 3 + 4 * 2 / 5 + 2 * 1 / 2) / 8),
        # neighbours beyond the frame do not count
        (LINE, 4, (2 * 1 / 2 + 2 * 2 / 3) / 4),
        (torch.ones(4, 4, dtype=torch.bool), 8, 1.0),
    ],
)
def test_connectedness_by_hand(pixels, neighbours, expected):
    both = torch.stack([pixels, torch.zeros_like(pixels)])
    found = connectedness(both, neighbours)
    assert found.dtype == torch.float64
    assert found[0].item() == pytest.approx(expected, abs=1e-6)
    assert found[1].isnan()


@pytest.mark.parametrize("neighbours", [4, 8])
def test_chance_is_what_random_pixels_have(neighbours):
    generator = torch.Generator().manual_seed(0)
    order = torch.rand(4000, 30, generator=generator).argsort(1)
    random = (order < 7).view(4000, 5, 6)  # seven pixels each
    mean = connectedness(random, neighbours).mean().item()
    assert mean == pytest.approx(chance_connectedness(7, (5, 6)), abs=0.005)
    assert chance_connectedness(7, (5, 6)) == 6 / 29


@pytest.mark.parametrize(
    ("pixels", "neighbours", "number", "largest"),
    [
        (SQUARE, 8, 1, 1.0),
        (CHECKERBOARD, 8, 1, 1.0),
        (CHECKERBOARD, 4, 8, 1 / 8),
        (TWO, 8, 2, 1 / 2),
        (torch.zeros(4, 4, dtype=torch.bool), 8, 0, math.nan),
    ],
)
def test_components_by_hand(pixels, neighbours, number, largest):
    found = components(pixels[None], neighbours)
    assert found.number.tolist() == [number]
    assert found.largest.tolist() == pytest.approx([largest], nan_ok=True)


def test_components_of_random_pixels():
    def chance(count: int, seed: int = 0) -> tuple[float, float]:
        found = chance_components(count, (1, 3), torch.Generator().manual_seed(seed))
        return found.number.item(), found.largest.item()

    assert chance(1) == (1, 1)
    assert chance(3) == (1, 1)
    number, largest = chance(2)  # apart in one of three pairs
    assert number == pytest.approx(4 / 3, abs=0.15)
    assert largest == pytest.approx(5 / 6, abs=0.08)
    assert chance(2) == (number, largest)
    assert len({chance(2, seed) for seed in range(5)}) > 1


@pytest.mark.parametrize("measure", [connectedness, components])
def test_other_neighbours_are_refused(measure):
    with pytest.raises(ValueError, match="`neighbours` must be 4 or 8, got 6"):
        measure(SQUARE[None], 6)
