import pytest
import torch
from toys import Linear

from iscp_lightning.data import MemoryImages
from iscp_lightning.patterns import canvas
from iscp_lightning.patterns.canvas import (
    WHITE,
    MissingCanvasError,
    Predictions,
    choose_canvases,
    predict,
)

LABELS = torch.tensor([0, 0, 0, 1, 1, 1, 1])
IMAGES = MemoryImages(torch.arange(7 * 3 * 4 * 4).reshape(7, 3, 4, 4).to(torch.uint8), LABELS)
PREDICTIONS = Predictions(
    label=torch.tensor([0, 0, 1, 1, 0, 0, 1]),
    logit=torch.tensor([1.0, 3.0, 2.0, 5.0, 9.0, 8.0, 6.0]),
)
NAMES = ("cat", "dog")


def choose(kind, number=5, classes=(0, 1), predictions=PREDICTIONS, **kwargs):
    return choose_canvases(predictions, IMAGES, classes, kind, number, 0, NAMES, **kwargs)


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
    assert torch.equal(choose("positive", 1).images, IMAGES.images[[1, 6]])
    assert (choose("white").images == 255).all()


def test_random_canvases_depend_on_seed_and_class_alone():
    both, one = choose("random", 3), choose("random", 3, classes=[1])
    assert both.indices[3:].tolist() == one.indices.tolist()
    assert both.indices[:3].tolist() != one.indices.tolist()
    other = choose_canvases(PREDICTIONS, IMAGES, [1], "random", 3, 1, NAMES)
    assert other.indices.tolist() != one.indices.tolist()
    assert len(set(one.indices.tolist())) == 3


def test_fewer_candidates_are_used_with_a_warning():
    with pytest.warns(UserWarning, match=r"fewer than 2 negative canvases.*: dog \(1\)$"):
        canvases = choose("negative", 2)
    assert canvases.indices.tolist() == [4, 5, 2]


def test_no_candidate_names_the_class_and_what_would_work():
    never = Predictions(torch.zeros(7, dtype=torch.int64), torch.ones(7))
    with pytest.raises(MissingCanvasError, match=r"class 1 \(dog\).*positive.*random, white"):
        choose("positive", 1, predictions=never)
    with pytest.raises(MissingCanvasError, match=r"class 1 \(dog\).*negative.*random, white"):
        choose("negative", 1, predictions=never)
    right = Predictions(LABELS, torch.ones(7))
    with pytest.raises(MissingCanvasError, match=r"can be positive, random, white"):
        choose("negative", 1, predictions=right)
    with pytest.warns(UserWarning, match="no positive canvas, so left out: dog$"):
        left = choose("positive", 1, predictions=never, skip_missing=True)
    assert left.targets.tolist() == [0]


def test_predict_gives_label_and_its_logit():
    maps = torch.zeros(2, 4, 4)
    maps[1] = 1
    network = Linear(maps)
    images = MemoryImages(torch.full((3, 3, 4, 4), 51, dtype=torch.uint8), torch.tensor([0, 1, 0]))
    predictions = predict(network, images, torch.device("cpu"), 2)
    assert predictions.label.tolist() == [1, 1, 1]
    torch.testing.assert_close(predictions.logit, torch.full((3,), 48 * 0.2))


def test_nan_logits_name_the_class():
    network = Linear(torch.full((2, 4, 4), torch.nan))
    with pytest.raises(ValueError, match=r"NaN.*class 0 \(index 0\)"):
        predict(network, IMAGES, torch.device("cpu"), 2)


def test_fewer_logits_than_classes_are_refused():
    with pytest.raises(ValueError, match="2 logits for 3 classes"):
        predict(Linear(torch.zeros(2, 4, 4)), IMAGES, torch.device("cpu"), 3)


def test_predictions_of_several_ranks_are_joined(monkeypatch):
    """Each rank fills in its own images: label and logit alike are summed."""
    maps = torch.ones(2, 4, 4) * torch.tensor([1.0, 2.0]).view(2, 1, 1)
    alone = predict(Linear(maps), IMAGES, torch.device("cpu"), 2)
    monkeypatch.setattr(canvas, "sum_over_ranks", lambda mine: 3 * mine)
    joined = predict(Linear(maps), IMAGES, torch.device("cpu"), 2)
    assert torch.equal(joined.label, 3 * alone.label)
    assert alone.label.any()
    assert torch.equal(joined.logit, 3 * alone.logit)


def test_probabilities_are_refused():
    class Softmax(Linear):
        def forward(self, images):
            return super().forward(images).softmax(1)

    with pytest.raises(ValueError, match="logits are needed"):
        predict(Softmax(torch.rand(2, 4, 4)), IMAGES, torch.device("cpu"), 2)
