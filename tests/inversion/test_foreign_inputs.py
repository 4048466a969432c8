"""Tests of foreign inputs, on a classifier of colours and a painter of what it says."""

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from PIL import Image
from small import examined_colours, small_data

from iscp_lightning.data import ImageSource, MemoryImages, Shapes, Trigger
from iscp_lightning.data.testset import fingerprint
from iscp_lightning.inversion.analyses import ForeignInputs
from iscp_lightning.inversion.foreign import elsewhere, patterns_pasted, triggered
from iscp_lightning.patterns.pattern import PatternSet

COLOURS = ("red", "green", "blue")


class Plain(ImageSource):
    """Images of one colour, as bright as their number."""

    num_classes = 1
    image_size = (7, 12)
    class_names = ("plain",)

    def __init__(self, channels: int = 3) -> None:
        self.channels = channels

    def train(self):
        levels = torch.tensor([50, 100, 150], dtype=torch.uint8).view(3, 1, 1, 1)
        return MemoryImages(levels.expand(3, self.channels, 7, 12), torch.zeros(3))

    def test(self):
        return None


def patterns(**settings) -> PatternSet:
    """Two patterns of each class: its own colour and, which is worse, black."""
    canvases = torch.zeros(6, 3, 16, 16, dtype=torch.uint8)
    canvases[:3] = 255 * torch.eye(3, dtype=torch.uint8)[..., None, None]
    mask = torch.ones(6, 16, 16)
    given = PatternSet(
        targets=torch.arange(6) % 3,
        canvas_indices=torch.arange(6),
        canvases=canvases,
        variables={"mask": mask},
        means={"mask": mask.clone()},
        objectives=torch.arange(6.0),
        search_indices=torch.tensor([0, 1, 2]),
        class_names=COLOURS,
        settings={},
    )
    return replace(given, **settings)


def _values(found, kind, pictures=None):
    about = {"analysis": "foreign inputs", "kind": kind}
    about |= {"pictures": pictures} if pictures else {}
    return {r.measure: r.value for r in found.records if r.about == about}


def test_greys_say_nothing_and_are_painted():
    found = ForeignInputs()(examined_colours())
    assert list(found.sheets) == ["test images", "uniform noise", "grey"]
    grey = _values(found, "grey")
    assert grey["confidence"] == pytest.approx(1 / 3)
    assert grey["mse"] == pytest.approx(0, abs=1e-3)  # but for the pixel of noise
    noise = _values(found, "uniform noise")
    assert noise["mse"] == pytest.approx(1 / 12, abs=0.005)  # the variance of its values
    assert _values(found, "test images")["confidence"] > 0.5 > noise["confidence"]
    assert _values(found, "test images", "reconstruction")["judge_agreement"] == 1
    assert found.sheets["grey"].images[:, 0].mean((1, 2, 3)).tolist() == pytest.approx(
        [level / 7 for level in range(8)]
    )
    again = ForeignInputs()(examined_colours())
    assert [r.value for r in again.records] == [r.value for r in found.records]


def test_large_patterns_are_seen_and_shown_and_small_ones_are_not_when_pasted():
    patterns().save("p.safetensors")
    for size, pasted in ((0.5, 1), (0.1, 0)):
        found = ForeignInputs(patterns="p.safetensors", pattern_size=size)(examined_colours())
        for pictures in ("input", "reconstruction"):
            for kind in ("pattern on black", "pattern on grey"):
                values = _values(found, kind, pictures)
                assert values == {"says_target": 1, "shows_target": 1, "judge_agreement": 1}
            values = _values(found, "pasted pattern", pictures)
            assert values == {"says_target": pasted, "shows_target": pasted, "judge_agreement": 1}
        original = _values(found, "pasted pattern", "original")
        assert original == {"says_target": 0, "shows_target": 0}
    alone = found.sheets["pattern on grey"]
    assert alone.rows == [f"target {name}\ntaken for {name}" for name in COLOURS]
    values, counts = alone.images[0, 0, 0].unique(return_counts=True)  # red on grey
    assert dict(zip(values.tolist(), counts.tolist(), strict=True)) == {0.5: 256 - 26, 1: 26}


def test_held_out_images_get_patterns_of_other_classes_in_turn():
    examined = examined_colours()
    (kind,) = patterns_pasted(examined, patterns()[torch.arange(3)], 0.5)
    assert len(kind.images) == len(kind.originals) == 27
    assert torch.equal(kind.originals, examined.images[3:])
    assert (kind.targets != examined.labels[3:]).all()
    assert (kind.targets.bincount() == 9).all()
    only_red = patterns()[torch.tensor([0])]
    (kind,) = patterns_pasted(examined, only_red, 0.5)
    assert len(kind.images) == 18  # without red images
    assert patterns_pasted(examined.first(1), only_red, 0.5) == []


def test_patterns_of_other_data_are_refused():
    examined = examined_colours()
    Path("no.safetensors").write_text("no")
    images = examined.subject.images
    data = SimpleNamespace(
        test_images=images, class_names=COLOURS, image_size=(16, 16), num_classes=3, seed=0
    )
    known = fingerprint(images)
    for given, message in (
        ({"class_names": ("a", "b", "c")}, r"knows other classes \(a, b, c, \.\.\.\) than the"),
        ({"canvases": torch.zeros(6, 3, 8, 8).byte()}, r"are \(8, 8\), the images \(16, 16\)"),
        ({"provenance": {"test_set": known | {"images": 7}}}, "30 images, not 7"),
    ):
        patterns(**given).save("p.safetensors")
        with pytest.raises(ValueError, match=message):
            ForeignInputs(patterns="p.safetensors").check(data)
    with pytest.raises(ValueError, match="`patterns`=nowhere is neither a pattern file nor"):
        ForeignInputs(patterns="nowhere").check(data)
    with pytest.raises(ValueError, match="is not a safetensors file"):
        ForeignInputs(patterns="no.safetensors").check(data)
    patterns(provenance={"test_set": known}).save("p.safetensors")
    ForeignInputs(patterns="p.safetensors").check(data)


def test_a_trigger_is_stamped_on_images_of_other_classes():
    Image.new("RGBA", (14, 14), (0, 255, 0, 255)).save("green.png")
    examined = examined_colours()
    trigger = Trigger("green.png")
    found = ForeignInputs(trigger=trigger, target="green")(examined)
    for pictures in ("input", "reconstruction"):
        values = _values(found, "trigger", pictures)
        assert values == {"says_target": 1, "shows_target": 1, "judge_agreement": 1}
    assert _values(found, "trigger", "original")["says_target"] == 0
    (kind,) = triggered(examined, trigger, 1)
    assert torch.equal(kind.originals, examined.images[examined.labels != 1])
    assert torch.equal(kind.images[:, :, 0], kind.originals[:, :, 0])
    assert (kind.images[:, 1, 2:, 2:] == 1).all()
    green = of_class(examined, 1)
    assert triggered(green, trigger, 1) == []
    unknown = ForeignInputs(trigger=trigger)(examined)
    assert len(triggered(examined, trigger, None)[0].images) == 30
    assert "says_target" not in _values(unknown, "trigger", "input")
    assert not _values(unknown, "trigger", "original")


def of_class(examined, label):
    few = examined.first(30)
    few.indices = (examined.labels == label).nonzero().flatten()
    return few


def test_images_from_elsewhere_are_resized_and_chosen_by_the_seed():
    kind = elsewhere(examined_colours(), Plain())
    assert kind.name == "images of Plain"
    assert kind.images.shape == (3, 3, 16, 16)
    levels = kind.images.flatten(1)
    assert sorted(levels.mean(1).tolist()) == pytest.approx([50 / 255, 100 / 255, 150 / 255])
    assert levels.std(1).max() < 1e-6
    few = elsewhere(examined_colours(4), Shapes(20, 20, 16))
    assert torch.equal(few.images, elsewhere(examined_colours(4), Shapes(20, 20, 16)).images)
    test = Shapes(20, 20, 16).test().images / 255
    assert all((image == test).flatten(1).all(1).any() for image in few.images)
    found = ForeignInputs(Plain())(examined_colours())
    assert "images of Plain" in found.sheets
    for analysis, message in (
        (ForeignInputs(Plain(1)), "`source` must have images of 3 channels, got 1"),
        (ForeignInputs(trigger=Trigger("white_square"), target="cat"), "`target` is"),
        (ForeignInputs(trigger=Trigger("white_square", size=99)), "99"),
    ):
        with pytest.raises(ValueError, match=message):
            analysis.check(small_data())


def test_without_a_judge_and_with_other_classes_less_is_said():
    patterns().save("p.safetensors")
    analysis = ForeignInputs(patterns="p.safetensors")
    alone = analysis(examined_colours(judge=False))
    assert _values(alone, "pattern on grey", "input") == {"says_target": 1}
    other = analysis(examined_colours(same_classes=False))
    assert _values(other, "pattern on grey", "input") == {"shows_target": 1}
    assert other.sheets["pattern on grey"].rows == [f"target {name}" for name in COLOURS]
    assert other.sheets["grey"].rows[:2] == ["1", "2"]


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"pattern_size": 0}, r"`pattern_size` must lie in \(0, 1\], got 0"),
        ({"pattern_size": 1.5}, r"`pattern_size` must lie in \(0, 1\], got 1.5"),
        ({"target": "cat"}, "`target` goes with `trigger`, got cat without one"),
    ],
)
def test_wrong_settings_are_named(given, message):
    with pytest.raises(ValueError, match=message):
        ForeignInputs(**given)
