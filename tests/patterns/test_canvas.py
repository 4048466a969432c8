import pytest
import torch
from toys import Linear, grey_images, planted_trigger, subject_of

from iscp_lightning.classifiers.subject import Subject
from iscp_lightning.data import MemoryImages
from iscp_lightning.patterns import SearchSettings, search_patterns
from iscp_lightning.patterns.canvas import (
    GIVEN,
    WHITE,
    MissingCanvasError,
    choose_canvases,
    given_canvases,
)

LABELS = torch.tensor([0, 0, 0, 1, 1, 1, 1])
IMAGES = MemoryImages(torch.arange(7 * 3 * 4 * 4).reshape(7, 3, 4, 4).to(torch.uint8), LABELS)
SAID = torch.tensor([0, 0, 1, 1, 0, 0, 1])
LOGIT = torch.tensor([1.0, 3.0, 2.0, 5.0, 9.0, 8.0, 6.0])
NAMES = ("cat", "dog")


def saying(said=SAID, logit=LOGIT) -> Subject:
    """A subject whose classifier says what the test wants, with these logits."""
    subject = Subject(Linear(torch.zeros(2, 4, 4)), IMAGES, NAMES)
    logits = torch.zeros(7, 2).scatter(1, said.unsqueeze(1), logit.unsqueeze(1))
    subject.__dict__["logits"] = logits
    return subject


def choose(kind, number=5, classes=(0, 1), subject=None, seed=0, **kwargs):
    return choose_canvases(subject or saying(), classes, kind, number, seed, **kwargs)


@pytest.mark.parametrize(
    ("kind", "number", "expected"),
    [
        ("positive", 1, [1, 6]),
        ("positive", 2, [1, 0, 6, 3]),
        ("negative", 1, [4, 2]),
        ("white", 5, [WHITE, WHITE]),
    ],
)
def test_most_confident_first(kind, number, expected):
    canvases = choose(kind, number)
    assert canvases.indices.tolist() == expected
    assert canvases.targets.tolist() == sorted([0, 1] * (len(expected) // 2))


def test_canvas_pixels_are_the_images_and_white_is_white():
    rows = torch.arange(2)
    assert torch.equal(choose("positive", 1).read(saying(), rows), IMAGES.images[[1, 6]])
    assert (choose("white").read(saying(), rows) == 255).all()


def test_random_canvases_depend_on_seed_and_class_alone():
    both, one = choose("random", 3), choose("random", 3, classes=[1])
    assert both.indices[3:].tolist() == one.indices.tolist()
    assert both.indices[:3].tolist() != one.indices.tolist()
    other = choose("random", 3, classes=[1], seed=1)
    assert other.indices.tolist() != one.indices.tolist()
    assert len(set(one.indices.tolist())) == 3


def test_fewer_candidates_are_used_with_a_warning():
    with pytest.warns(UserWarning, match=r"fewer than 2 negative canvases.*: dog \(1\)$"):
        canvases = choose("negative", 2)
    assert canvases.indices.tolist() == [4, 5, 2]


def test_no_candidate_names_the_class_and_what_would_work():
    never = saying(torch.zeros(7, dtype=torch.int64), torch.ones(7))
    with pytest.raises(MissingCanvasError, match=r"class 1 \(dog\).*positive.*random, white"):
        choose("positive", 1, subject=never)
    with pytest.raises(MissingCanvasError, match=r"class 1 \(dog\).*negative.*random, white"):
        choose("negative", 1, subject=never)
    right = saying(LABELS, torch.ones(7))
    with pytest.raises(MissingCanvasError, match=r"can be positive, random, white"):
        choose("negative", 1, subject=right)
    with pytest.warns(UserWarning, match="no positive canvas, so left out: dog$"):
        left = choose("positive", 1, subject=never, skip_missing=True)
    assert left.targets.tolist() == [0]


def test_given_positions_and_images_are_canvases_of_every_class():
    of_set = given_canvases(saying(), [1, 0], [4, 2])
    assert (of_set.kind, of_set.targets.tolist()) == (GIVEN, [1, 1, 0, 0])
    assert of_set.indices.tolist() == [4, 2, 4, 2]
    assert torch.equal(of_set.read(saying(), torch.tensor([0, 3])), IMAGES.images[[4, 2]])
    own = torch.rand(2, 3, 4, 4)
    outside = given_canvases(saying(), [1], own)
    assert outside.indices.tolist() == [-2, -3]  # left out of no one's search images
    expected = (own * 255).round().to(torch.uint8)
    assert torch.equal(outside.read(saying(), torch.arange(2)), expected)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ([7], r"positions 0 to 6.*\[7\]"),
        ([], "positions 0 to 6"),
        (torch.zeros(1, 3, 5, 4), r"\(3, 5, 4\), the test images \(3, 4, 4\)"),
        (torch.full((1, 3, 4, 4), 2.0), r"`canvases` must lie in \[0, 1\]"),
        ("no.safetensors", "no.safetensors"),
    ],
)
def test_canvases_that_do_not_fit_are_refused(given, message):
    with pytest.raises((ValueError, FileNotFoundError), match=message):
        given_canvases(saying(), [0], given)


def test_the_canvases_of_a_pattern_file_are_used_again(tmp_path):
    classifier, _ = planted_trigger()
    images, labels = grey_images()
    settings = SearchSettings(canvas="random", canvases_per_class=2, search_epochs=1)
    first = search_patterns(classifier, images, labels, settings, progress=False)
    path = tmp_path / "first.safetensors"
    first.save(path)
    for given in (str(path), first):
        again = search_patterns(
            classifier, images, labels, settings, canvases=given, progress=False
        )
        assert torch.equal(again.masks, first.masks)
        assert torch.equal(again.canvas_indices, first.canvas_indices)
        assert again.settings["canvas"] == GIVEN
    other = MemoryImages(images.flip(0), labels.flip(0))
    elsewhere = given_canvases(subject_of(classifier, other), [0, 1], first)
    assert elsewhere.indices.tolist() == [-2, -3, -4, -5]
    assert torch.equal(elsewhere.images, first.canvases)
    of_one = first[first.targets == 1]
    with pytest.raises(MissingCanvasError, match="`canvases` has none for 0"):
        given_canvases(subject_of(classifier, other), [0, 1], of_one)
    with pytest.warns(UserWarning, match="no given canvas, so left out: 0"):
        left = given_canvases(subject_of(classifier, other), [0, 1], of_one, skip_missing=True)
    assert left.targets.tolist() == [1, 1]
