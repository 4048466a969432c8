"""Searches whose images D_n are not from the test set: noise, or another data set."""

import pytest
import torch
from torch import Tensor, nn
from toys import Linear, grey_images, planted_trigger, require_resumable

from iscp_lightning.classifiers import Classifier
from iscp_lightning.classifiers.subject import Subject
from iscp_lightning.data import ImageSet, MemoryImages, Noise, Shapes
from iscp_lightning.data.testset import fingerprint
from iscp_lightning.patterns import PatternSearch, PatternSet, SearchSettings, search_patterns
from iscp_lightning.patterns.canvas import Canvases, given_canvases
from iscp_lightning.patterns.search import measure_search, run_search

WHITE = SearchSettings(canvas="white")


def noise(count: int = 40, size: int = 8, seed: int = 5) -> ImageSet:
    return Noise(count, size, seed).test()


def search(classifier, pool, settings=WHITE, **kwargs) -> PatternSet:
    images, labels = grey_images()
    return search_patterns(
        classifier, images, labels, settings, search_images=pool, progress=False, **kwargs
    )


def network(classes: int = 2) -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Flatten(), nn.Linear(192, 20), nn.ReLU(), nn.Linear(20, classes))


def coloured(count: int, labels: Tensor) -> MemoryImages:
    generator = torch.Generator().manual_seed(3)
    pixels = torch.randint(0, 256, (count, 3, 8, 8), generator=generator)
    return MemoryImages(pixels.to(torch.uint8), labels)


def test_noise_finds_the_planted_trigger():
    """And its power is measured on all test images: none of them was searched."""
    classifier, corner = planted_trigger()
    found = search(classifier, noise(), SearchSettings(2.0, canvas="white"), classes=[1])
    assert torch.equal(found.selected(4 / 64)[0], corner)
    assert len(found.search_indices) == 0
    power = found.predictive_power(classifier, *grey_images(), pattern_sizes=[4 / 64])
    assert power.predictive_power.item() == 1 / power.clean_accuracy[1]
    assert (power.images.tolist(), power.shown.tolist()) == ([20, 20], [20])


def test_a_pool_is_searched_as_test_images_are():
    """To the bit: what is searched is the same, wherever it comes from."""
    pool = coloured(30, torch.arange(30) % 2)
    classifier = network()
    expected = search_patterns(
        classifier, pool, settings=WHITE, search_fraction=1.0, progress=False
    )
    found = search(classifier, pool)
    for name in ("masks", "mask_means", "objectives"):
        assert torch.equal(getattr(found, name), getattr(expected, name)), name
    assert found.masks.unique().numel() > 2


@pytest.mark.parametrize(
    ("labels", "expected"),
    [
        ([0, 1, 0, 1, 1], {0: [1, 3, 4], 1: [0, 2]}),
        ([-1] * 5, {0: [0, 1, 2, 3, 4], 1: [0, 1, 2, 3, 4]}),
        ([-1, 0, 0, -1, 1], {0: [0, 3, 4], 1: [0, 1, 2, 3]}),
        ([7, 0, 0, 9, 1], {0: [0, 3, 4], 1: [0, 1, 2, 3]}),
    ],
)
@pytest.mark.parametrize("kind", ["white", "random", "given"])
def test_images_of_the_target_are_left_out_where_they_are_known(labels, expected, kind):
    """And no other: a canvas is an image of the test set, whatever stands at its place here."""
    pool = coloured(5, torch.tensor(labels))
    subject = Subject(network(), coloured(12, torch.arange(12) % 2), "ab", search_images=pool)
    settings = SearchSettings(
        canvas="random" if kind == "random" else "white", canvases_per_class=12, search_epochs=1
    )
    given = torch.rand(3, 3, 8, 8) if kind == "given" else None
    searched = run_search(subject, settings, [0, 1], given)
    for row, target in enumerate(searched.canvases.targets.tolist()):
        assert searched.order.candidates(row).tolist() == expected[target]
        used = searched.order.of_pass(0)[row]
        assert sorted(used[used >= 0].tolist()) == expected[target]
    rows = torch.arange(len(searched.owned))
    counts = [len(expected[target]) for target in searched.canvases.targets.tolist()]
    assert searched.order.steps_of(rows).tolist() == [-(-count // 4) for count in counts]


def test_a_falling_step_size_does_not_depend_on_the_other_classes():
    """Though classes have unequally many images, and most images show none."""
    pool = coloured(40, torch.tensor([0] * 20 + [1] * 9 + [-1] * 8 + [5] * 3))
    settings = SearchSettings(canvas="white", schedule="quick")
    together = search(network(), pool, settings)
    for target in (0, 1):
        alone = search(network(), pool, settings, classes=[target])
        assert torch.equal(alone.masks[0], together.masks[target])
    subject = Subject(network(), coloured(4, torch.arange(4) % 2), "ab", search_images=pool)
    order = run_search(subject, settings, [0]).order
    assert (order.steps_per_epoch, order.longest_pass) == (10, 16)  # 20 / 2, 31 / 2


FAST = {"canvases_per_class": 2, "search_epochs": 2, "canvas": "random"}


@pytest.fixture(scope="module")
def shapes() -> ImageSet:
    return Shapes(test_count=100).test()


def test_same_bits_for_every_batching(trained: Classifier, shapes):
    found = [
        search_patterns(
            trained,
            shapes,
            settings=SearchSettings(**FAST, micro_batch_size=size),
            classes=classes,
            search_images=noise(10, 32),
            progress=False,
        )
        for size, classes in [(128, [0, 3, 7]), (8, [0, 3, 7]), (128, [3])]
    ]
    assert torch.equal(found[0].masks, found[1].masks)
    assert torch.equal(found[0].mask_means, found[1].mask_means)
    assert torch.equal(found[0].masks[2:4], found[2].masks)
    assert found[0].masks.unique().numel() > 2


def test_it_goes_on_from_its_state():
    def begin() -> PatternSearch:
        images = coloured(20, torch.arange(20) % 2)
        subject = Subject(network(), images, "ab", search_images=noise(10))
        canvases = Canvases("random", torch.tensor([0, 0, 1]), torch.tensor([5, 6, 7]))
        return PatternSearch(subject, canvases, SearchSettings(**FAST, seed=0))

    require_resumable(begin, after=4)  # within the second pass


def test_a_tensor_is_a_pool_that_shows_no_class():
    pool = noise()
    assert isinstance(pool, MemoryImages)
    found = [search(network(), given) for given in (pool, pool.images, pool.images / 255)]
    for other in found[1:]:
        assert torch.equal(found[0].masks, other.masks)


def test_patterns_say_what_they_were_searched_on(tmp_path):
    pool = noise()
    found = search(planted_trigger()[0], pool, search_fraction=0.9)  # which says nothing here
    assert found.provenance["search_images"] == fingerprint(pool)
    assert found.provenance["test_set"]["images"] == 40
    found.save(tmp_path / "patterns.safetensors")
    stored = PatternSet.load(tmp_path / "patterns.safetensors")
    assert stored.provenance == found.provenance
    assert len(stored.search_indices) == 0
    assert "search_images" not in search(planted_trigger()[0], None).provenance


def test_canvases_of_another_search_are_used_again():
    """So that two searches differ in nothing but D_n."""
    images, labels = grey_images()
    on_test = search(network(), None, SearchSettings(**FAST))
    on_noise = search(network(), noise(), canvases=on_test)
    assert torch.equal(on_noise.canvas_indices, on_test.canvas_indices)
    assert torch.equal(on_noise.canvases, on_test.canvases)
    subject = Subject(network(), MemoryImages(images, labels), "01", search_images=noise())
    again = given_canvases(subject, [0, 1], on_noise)
    assert torch.equal(again.indices, on_test.canvas_indices)


def test_power_is_measured_on_all_test_images():
    images, labels = grey_images()
    subject = Subject(
        planted_trigger()[0], MemoryImages(images, labels), "ab", search_images=noise()
    )
    searched = run_search(subject, WHITE, [0, 1])
    held_out, full = (measure_search(searched, [0.1], on) for on in ("held_out", "full"))
    assert held_out.power.images.tolist() == full.power.images.tolist() == [20, 20]
    assert torch.equal(held_out.power.attack_success_rate, full.power.attack_success_rate)


def test_without_any_test_image_a_white_canvas_can_be_searched():
    """One image of any content says what images are like."""
    classifier, corner = planted_trigger()
    found = search_patterns(
        classifier,
        torch.zeros(1, 3, 8, 8),
        torch.zeros(1),
        SearchSettings(2.0, canvas="white"),
        class_names=["off", "on"],
        classes=["on"],
        search_images=noise(),
        progress=False,
    )
    assert torch.equal(found.selected(4 / 64)[0], corner)


@pytest.mark.parametrize(
    ("pool", "message"),
    [
        (noise(size=9), r"`search_images` are \(3, 9, 9\), the test images \(3, 8, 8\)"),
        (torch.zeros(4, 1, 8, 8), r"`search_images` are \(1, 8, 8\), the test images \(3, 8, 8\)"),
        (torch.zeros(3, 8, 8), r"`search_images` must be \(N, C, H, W\), got shape \(3, 8, 8\)"),
        (torch.zeros(0, 3, 8, 8), "`search_images` has no image"),
        (grey_images()[0], "`search_images` are the test images"),
        (
            coloured(4, torch.ones(4)),
            "no search image is left for class 1: give other `search_images`",
        ),
    ],
)
def test_search_images_that_do_not_fit_are_named(pool, message):
    with pytest.raises(ValueError, match=message):
        search(Linear(torch.zeros(2, 8, 8)), pool)
