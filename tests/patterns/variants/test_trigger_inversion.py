import warnings

import pytest
import torch
from toys import Linear, grey_images

from iscp_lightning.classifiers.subject import Subject
from iscp_lightning.data import MemoryImages
from iscp_lightning.patterns import SearchSettings
from iscp_lightning.patterns.search import require_applicable, run_search, warn_of_unsearched
from iscp_lightning.patterns.variants import (
    Algorithm1,
    AreaConstrained,
    Problems,
    TriggerInversion,
)


class RedCorner(Linear):
    """Says class 1 where four pixels are red: bright in the first channel, dark in the others."""

    def __init__(self) -> None:
        super().__init__(torch.zeros(2, 8, 8), scale=1.0)
        self.register_buffer("colour", torch.tensor([1.0, -1.0, -1.0]).view(3, 1, 1))

    def forward(self, images):
        redness = (images[:, :, 1:3, 5:7] * self.colour).sum((1, 2, 3))
        return torch.stack([torch.full_like(redness, 1.5), redness], 1) + super().forward(images)


def problems(progress: float) -> Problems:
    return Problems(torch.ones(1, 3, 8, 8), torch.ones(1).long(), torch.ones(1), progress)


def test_it_finds_place_and_colour_of_a_trigger():
    subject = Subject(RedCorner(), MemoryImages(*grey_images(80)), "ab", torch.arange(80))
    settings = SearchSettings(variant=TriggerInversion(4 / 64), search_epochs=20, seed=0)
    found = run_search(subject, settings, [1]).gathered().measured(subject, [4 / 64], "full")
    selected = found.selected(4 / 64)[0]
    assert selected[1:3, 5:7].all()
    pixels = found.stamps([4 / 64]).pixels[0, 0][:, 1:3, 5:7]
    assert pixels[0].min() > 200
    assert pixels[1:].max() < 55
    assert pixels.dtype == torch.uint8
    assert found.power.attack_success_rate.tolist() == [[1.0]]
    assert found.canvas_indices.tolist() == [-1]


def test_threshold_and_temperature_fall():
    """With scores 0 to 63 the mask passes half, at last half of the pixels: those beyond k."""
    scores = torch.arange(64.0).view(1, 8, 8)
    variables = {"scores": scores, "canvas": torch.zeros(1, 3, 8, 8)}
    variant = TriggerInversion(4 / 64)
    for progress, pixels, temperature in (
        (0.0, 32, 0.33),
        (0.25, 11, 0.33 * (1 / 11) ** 0.25),
        (0.75, 4, 0.33 * (1 / 11) ** 0.75),
    ):
        stamp = variant.stamps(variables, problems(progress))
        expected = ((scores - (63.5 - pixels)) / temperature).sigmoid()
        torch.testing.assert_close(stamp.mask[0, 0], expected)
        assert (stamp.pixels == 0.5).all()
    assert variant.stamps(variables, problems(1.0)).mask.sum() == 4


def test_sizes_that_were_not_searched_for_are_warned_of():
    images = MemoryImages(*grey_images(8))
    said = "TriggerInversion searches for patterns of 6.25 %: for 25 %, 50 % it only ranks pixels"
    with pytest.warns(UserWarning, match=said):
        require_applicable(
            SearchSettings(variant=TriggerInversion(4 / 64)), images, [4 / 64, 0.25, 0.5]
        )
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        require_applicable(SearchSettings(variant=TriggerInversion(4 / 64)), images, [4 / 64])
        require_applicable(SearchSettings(variant=AreaConstrained([0.25])), images, [0.1, 0.25])
        warn_of_unsearched(Algorithm1(), [0.25])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"pattern_size": 0}, r"`pattern_size` must lie in \(0, 1\), got 0"),
        ({"learning_rate": -1}, "`learning_rate` must be finite and above 0, got -1"),
        ({"canvas_learning_rate": 0}, "`canvas_learning_rate` must be finite and above 0, got 0"),
        ({"learning_rate": torch.inf}, "`learning_rate` must be finite and above 0, got inf"),
    ],
)
def test_options_out_of_range(arguments, message):
    with pytest.raises(ValueError, match=message):
        TriggerInversion(**arguments)
