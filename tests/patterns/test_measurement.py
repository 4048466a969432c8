from dataclasses import replace

import pytest
import torch
from toys import Linear, grey_images

from iscp_lightning import SearchSettings, Shapes, Subject
from iscp_lightning.data import MemoryImages, Noise
from iscp_lightning.data.datamodule import ImageDataModule
from iscp_lightning.patterns.measurement import PatternMeasurement
from iscp_lightning.patterns.variants import TriggerInversion, UniversalPerturbation


@pytest.mark.filterwarnings("ignore:no positive canvas|fewer than")
def test_figures_of_a_training_show_the_classes_that_were_found(tmp_path):
    """An early network of many classes knows only the last ones."""
    names = [str(k) for k in range(60)]
    images, _ = grey_images(120)
    maps = torch.zeros(60, 8, 8)
    maps[55:] = 0.1
    subject = Subject(
        Linear(maps), MemoryImages(images, torch.arange(120) % 60), names, torch.arange(0, 120, 3)
    )
    measurement = PatternMeasurement(SearchSettings(search_epochs=1))
    found = measurement.measure(subject)
    found = replace(found, provenance={**found.provenance, "epoch": 1, "saved_as": "epoch001"})
    found.save(tmp_path, "epoch001")
    assert set(measurement.history(tmp_path, [found])) == {"learning_dynamics"}


@pytest.mark.filterwarnings("ignore:fewer than")
def test_search_images_from_elsewhere():
    """All test images are measured; every image of noise counts for every class."""
    source, noise = Shapes(train_count=20, test_count=100, size=8), Noise(15, 8)
    data = ImageDataModule(source, search_images=noise)
    measurement = PatternMeasurement(SearchSettings(canvas="white", search_epochs=1))
    measurement.check(data)
    works = {work.stage: work for work in measurement.work(data, 1)}
    assert works["searching"].gradients == works["final objectives"].forwards == 10 * 15
    found = measurement.measure(Subject.of(Linear(torch.rand(10, 8, 8)), data))
    assert found.results["measured_on"] == "held_out"
    assert found.results["measured_images"] == 100
    assert found.provenance["search_images"]["images"] == 15


def test_every_search_of_a_training_is_estimated():
    data = ImageDataModule(Shapes(train_count=20, test_count=100))
    search = SearchSettings(canvases_per_class=5)
    each, first = (PatternMeasurement(search, canvases=c) for c in ("each_epoch", "first"))
    one = sum(work.gradients for work in each.work(data, 1))
    assert sum(work.gradients for work in each.work(data, 1, 3)) == 3 * one
    assert sum(work.gradients for work in first.work(data, 1, 3)) == one + 2 * one // 5
    assert sum(work.gradients for work in each.work(data, 1, 3, last=True)) == 3 * one + one // 5


@pytest.mark.parametrize(
    ("variant", "message"),
    [
        (TriggerInversion(1e-5), "`pattern_size` must lie in"),
        (UniversalPerturbation(), r"`search` measures it with `pattern_sizes` \[1.0\]"),
    ],
)
def test_a_variant_that_does_not_fit_is_refused_before_the_training(variant, message):
    data = ImageDataModule(Shapes(train_count=20, test_count=100))
    with pytest.raises(ValueError, match=message):
        PatternMeasurement(SearchSettings(variant=variant)).check(data)
