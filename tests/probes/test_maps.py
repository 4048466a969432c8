"""What is measured of saliency maps under distortions, on networks whose maps are known."""

from types import SimpleNamespace

import pytest
import torch
from torch import nn
from toys import subject_of

from iscp_lightning.data import MemoryImages
from iscp_lightning.metrics.saliency import correlation, edge_of, gini, top_overlap
from iscp_lightning.probes import Clean, PatchShuffle, Saturation
from iscp_lightning.probes.maps import measure_maps
from iscp_lightning.probes.portraits import saliency_grid
from iscp_lightning.probes.saliency import saliency_maps

GENERATOR = torch.Generator().manual_seed(0)
PIXELS = torch.randint(0, 256, (12, 3, 8, 8), generator=GENERATOR).to(torch.uint8)
LABELS = torch.arange(12) % 3
OBJECTS = torch.zeros(12, 8, 8, dtype=torch.bool)
OBJECTS[:, 1:4, 5:7] = True


class Local(nn.Module):
    """Squares the pixels: the map of an image shows its own values, wherever they are."""

    def __init__(self):
        super().__init__()
        self.fc = nn.Linear(3, 3, bias=False)
        self.fc.weight.data = 0.01 * torch.eye(3)

    def forward(self, images):
        return self.fc(images.square().sum((2, 3)))


@pytest.fixture(scope="module")
def subject():
    return subject_of(Local(), MemoryImages(PIXELS, LABELS))


def patterns_of(targets, names=("0", "1", "2"), size=8):
    """Patterns of the classes: the pixels of their rows."""
    selected = torch.zeros(len(targets), size, size, dtype=torch.bool)
    for row, target in enumerate(targets):
        selected[row, target] = True

    class Patterns(SimpleNamespace):
        def __getitem__(self, rows):
            return Patterns(
                targets=self.targets[rows], selected=lambda _: selected[rows], class_names=names
            )

    return Patterns(
        targets=torch.tensor(targets),
        winners=torch.arange(len(targets)),
        canvases=torch.zeros(len(targets), 3, size, size),
        class_names=names,
    )


def value(records, measure, distortion):
    (found,) = (r for r in records if (r.measure, r.about["distortion"]) == (measure, distortion))
    return found


def test_each_number_is_the_mean_of_its_measure(subject):
    indices = torch.tensor([1, 4, 5, 9])
    mapped = measure_maps(
        subject, [Saturation(8)], indices, objects=OBJECTS, patterns=patterns_of([0, 1]), samples=3
    )
    assert [about["distortion"] for about in mapped.abouts] == ["clean", "saturation"]
    assert mapped.labels.tolist() == [1, 1, 2, 0]
    assert torch.equal(mapped.images[0], PIXELS[indices])
    clean = saliency_maps(
        subject, PIXELS[indices] / 255, LABELS[indices], samples=3, indices=indices
    )
    torch.testing.assert_close(mapped.maps[0], clean)
    records = mapped.records({"classifier": "a"})
    assert {r.about["classifier"] for r in records} == {"a"}
    area, edge = OBJECTS[indices], edge_of(OBJECTS[indices])
    first = OBJECTS.new_zeros(3, 8, 8)  # of the images of the classes that have a pattern
    first[[0, 1], 1] = True
    first[2, 0] = True
    for row, name in enumerate(("clean", "saturation")):
        maps = mapped.maps[row]
        on = ((maps * each).sum((1, 2)) / maps.sum((1, 2)) for each in (area, edge))
        expected = {
            "saliency_gini": gini(maps),
            "saliency_on_object": next(on),
            "saliency_on_edge": next(on),
            "chance_saliency_on_object": torch.full((4,), 6 / 64),
            "chance_saliency_on_edge": torch.full((4,), 20 / 64),
            "correlation_with_clean": correlation(maps, clean),
            "saliency_overlap": top_overlap(maps[[0, 1, 3]], first),
            "chance_saliency_overlap": torch.full((3,), (1 / 8) / (2 - 1 / 8)),
        }
        for measure, values in expected.items():
            record = value(records, measure, name)
            assert record.value == pytest.approx(float(values.mean()), rel=1e-5), measure
            low, high = record.interval
            assert low <= record.value + 1e-9, measure
            assert record.value <= high + 1e-9, measure
    assert value(records, "correlation_with_clean", "clean").value == pytest.approx(1)
    assert 0.5 < value(records, "correlation_with_clean", "saturation").value < 1


def test_what_belongs_to_a_shuffled_image_is_shuffled_with_it(subject):
    """The gradient of the logits is local: the map of a shuffled image is the shuffled map."""
    mapped = measure_maps(subject, [PatchShuffle(2)], objects=OBJECTS, samples=1, noise=0.0)
    assert not torch.equal(mapped.images[0], mapped.images[1])
    records = mapped.records()
    for measure in ("saliency_on_object", "saliency_on_edge", "chance_saliency_on_edge"):
        clean, shuffled = (value(records, measure, name) for name in ("clean", "patch shuffle"))
        assert shuffled.value == pytest.approx(clean.value, rel=1e-5)
    assert value(records, "correlation_with_clean", "patch shuffle").value == pytest.approx(1)


def test_a_map_of_what_was_learned_is_not_that_of_random_weights():
    """The logits are those of the red or the green channel; random ones mix the colours."""

    class Still(Local):
        def __init__(self):
            super().__init__()
            self.fc.reset_parameters = lambda: None

    images = MemoryImages(PIXELS, LABELS)
    still, redrawn = (
        measure_maps(subject_of(network, images), [], samples=2).records()
        for network in (Still(), Local())
    )
    assert value(still, "correlation_with_random", "clean").value == pytest.approx(1)
    assert value(redrawn, "correlation_with_random", "clean").value < 0.95


def test_twenty_images_are_drawn_by_default_as_many_of_each_class():
    images = MemoryImages(PIXELS.repeat(10, 1, 1, 1), LABELS.repeat(10))
    mapped = measure_maps(subject_of(Local(), images), [Clean()], samples=1)
    assert mapped.maps.shape == (1, 20, 8, 8)
    assert sorted(mapped.labels.bincount().tolist()) == [6, 7, 7]
    assert "saliency_on_object" not in mapped.values


def test_what_does_not_fit_is_refused(subject):
    with pytest.raises(ValueError, match=r"`objects` must be bool \(12, 8, 8\).*, got torch.bool"):
        measure_maps(subject, [], objects=OBJECTS[:5])
    for patterns in (patterns_of([0], size=6), patterns_of([0], names=("0", "1"))):
        with pytest.raises(ValueError, match=r"`patterns` must be of the 3 classes and \(8, 8\)"):
            measure_maps(subject, [], patterns=patterns)


def test_the_grid_shows_each_image_beside_its_map(subject):
    mapped = measure_maps(subject, [Saturation(8)], torch.arange(3), samples=1)
    figure = saliency_grid({"one": mapped, "two": mapped}, [0, 2])
    assert len(figure.axes) == 2 * 2 * 4
    assert [axes.get_title() for axes in figure.axes[:4]] == ["clean", "map", "saturation 8", "map"]
    assert [axes.get_ylabel() for axes in figure.axes[::4]] == [
        *("0\none", "0\ntwo", "2\none", "2\ntwo")
    ]
    shown = torch.tensor(figure.axes[8].images[0].get_array())
    assert torch.equal(shown, PIXELS[2].permute(1, 2, 0))
    grey = torch.tensor(figure.axes[9].images[0].get_array())
    assert torch.equal(grey[..., 0], grey[..., 1])
    assert grey.max() == 255
