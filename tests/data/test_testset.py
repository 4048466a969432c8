"""One test set is told from another, whatever decodes its images."""

from dataclasses import replace

import pytest
import torch
from toys import Linear, grey_images, planted_trigger

from iscp_lightning.data import MemoryImages
from iscp_lightning.data.testset import difference, fingerprint, require_names
from iscp_lightning.patterns import PatternSet, SearchSettings, search_patterns

IMAGES, LABELS = grey_images(200)


def searched() -> PatternSet:
    settings = SearchSettings(canvas="white", search_epochs=1)
    classifier = Linear(torch.zeros(2, 8, 8))
    return search_patterns(classifier, IMAGES, LABELS, settings, progress=False)


def test_a_fingerprint_by_hand():
    images = torch.zeros(3, 1, 2, 2, dtype=torch.uint8)
    images[1], images[2, 0, 0, 0] = 255, 102
    found = fingerprint(MemoryImages(images, torch.tensor([1, 0, 0])))
    assert found["images"] == 3
    assert found["pixel_means"] == [0, 1, 0.1]
    assert found["labels"] != fingerprint(MemoryImages(images, torch.tensor([0, 1, 0])))["labels"]


def test_at_most_64_images_from_first_to_last_are_read():
    images = torch.zeros(1000, 1, 1, 1, dtype=torch.uint8)
    images[0], images[-1] = 51, 255
    means = fingerprint(MemoryImages(images, torch.zeros(1000)))["pixel_means"]
    assert (len(means), means[0], means[-1], sum(means)) == (64, 0.2, 1, 1.2)


@pytest.mark.parametrize(
    ("images", "labels", "words"),
    [
        (IMAGES[:150], LABELS[:150], "150 images, not 200"),
        (IMAGES, 1 - LABELS, "other labels"),
        (IMAGES, LABELS.sort().values, "same in another order"),
        (IMAGES + 100, LABELS, "mean pixel values differ by up to 0.39"),
        (IMAGES.flip(0).roll(1, 0), LABELS, "other images"),  # as many of each label
    ],
    ids=["count", "labels", "order", "brightness", "images"],
)
def test_patterns_are_measured_on_the_set_that_was_searched_alone(images, labels, words, tmp_path):
    patterns, classifier = searched(), planted_trigger()[0]
    patterns.save(tmp_path / "patterns.safetensors")
    for given in (patterns, PatternSet.load(tmp_path / "patterns.safetensors")):
        with pytest.raises(ValueError, match=f"not the test set that was searched.*{words}"):
            given.predictive_power(classifier, images, labels, pattern_sizes=[0.1])


def test_another_decoder_makes_no_other_set():
    torch.manual_seed(0)
    noise = torch.randint(-4, 5, IMAGES.shape)
    decoded = (IMAGES.int() + noise).clamp(0, 255).to(torch.uint8)
    assert not torch.equal(decoded, IMAGES)
    searched().predictive_power(planted_trigger()[0], decoded, LABELS, pattern_sizes=[0.1])


def test_files_without_a_fingerprint_are_not_checked():
    old = replace(searched(), provenance={"versions": {}})
    old.predictive_power(planted_trigger()[0], IMAGES + 100, LABELS, pattern_sizes=[0.1])


def test_equal_sets_do_not_differ():
    same = [fingerprint(MemoryImages(IMAGES.clone(), LABELS.clone())) for _ in range(2)]
    assert difference(*same) == ""


@pytest.mark.parametrize("labels", [torch.arange(40) % 3, torch.arange(40) % 2 - 1])
def test_a_label_without_a_name_is_refused_before_anything_is_computed(labels):
    class Never(Linear):
        def forward(self, images):
            raise AssertionError("the classifier was asked")

    images, _ = grey_images(40)
    with pytest.raises(ValueError, match=r"`class_names` has 2 names, so labels must be 0 to 1"):
        search_patterns(
            Never(torch.zeros(3, 8, 8)), images, labels, class_names=["a", "b"], progress=False
        )


def test_two_classes_of_one_name_are_refused():
    _, labels = grey_images()
    with pytest.raises(ValueError, match=r"`class_names` must differ .* got 'a' twice"):
        require_names(labels, ["a", "b", "a"])


def test_images_of_any_number_of_channels_are_searched_kept_and_measured(tmp_path):
    torch.manual_seed(0)
    images, labels = torch.rand(20, 4, 8, 8), torch.arange(20) % 2
    classifier = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(256, 2))
    settings = SearchSettings(canvas="random", canvases_per_class=2, search_epochs=1)
    search_patterns(classifier, images, labels, settings, progress=False).save(
        tmp_path / "four.safetensors"
    )
    found = PatternSet.load(tmp_path / "four.safetensors")
    assert found.canvases.shape == (4, 4, 8, 8)
    power = found.predictive_power(classifier, images, labels, pattern_sizes=[0.1])
    assert power.predictive_power.shape == (4, 1)


def test_darker_and_brighter_images_are_other_images():
    dark, bright = (
        fingerprint(MemoryImages(torch.full((3, 1, 2, 2), value), torch.arange(3)))
        for value in (0.2, 0.6)
    )
    assert "differ by up to 0.40" in difference(dark, bright)
    assert "differ by up to 0.40" in difference(bright, dark)
