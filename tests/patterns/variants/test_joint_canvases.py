"""One mask for several canvases: where all of them show the trigger; with one, Algorithm 1."""

from dataclasses import replace

import pytest
import torch
from toys import grey_images, planted_trigger

from iscp_lightning.classifiers.subject import Subject
from iscp_lightning.data import Shapes
from iscp_lightning.data.datamodule import ImageDataModule
from iscp_lightning.data.images import MemoryImages
from iscp_lightning.patterns import SearchSettings, search_patterns
from iscp_lightning.patterns.canvas import Canvases, joined_canvases
from iscp_lightning.patterns.engine import PatternSearch
from iscp_lightning.patterns.measurement import PatternMeasurement
from iscp_lightning.patterns.order import SearchOrder
from iscp_lightning.patterns.search import problems_of, run_search
from iscp_lightning.patterns.variants import JointCanvases

IMAGES, LABELS = grey_images()


def searched(canvases, variant=None, **changes):
    settings = SearchSettings(**{"search_epochs": 10, "sparsity": 0.5} | changes, variant=variant)
    model, _ = planted_trigger()
    given = {"classes": [1], "canvases": canvases, "progress": False}
    return search_patterns(model, IMAGES, LABELS, settings, **given)


def test_the_mask_lies_where_every_canvas_shows_the_trigger():
    canvases = torch.full((2, 3, 8, 8), 255, dtype=torch.uint8)
    canvases[1, :, :, 6] = 0  # of the trigger's two columns the left one is missing
    joint = searched(canvases, JointCanvases())
    assert joint.masks.shape == (1, 8, 8)
    wanted = torch.zeros(8, 8).bool()
    wanted[6:, 7] = True
    assert torch.equal(joint.selected(2 / 64)[0], wanted)
    assert joint.masks[0, 6:, 6].max() <= 0.5  # white on the first canvas, black on the second
    assert joint.masks[0, 6:, 7].min() > 0.65
    alone = searched(canvases[:1], JointCanvases())
    assert alone.masks[0, 6:, 6].min() > 0.65
    assert torch.equal(joint.canvases[0], canvases[0])  # what is pasted
    assert torch.equal(joint.variables["canvases"][0], canvases.flatten(0, 1) / 255)


def test_with_one_canvas_it_is_algorithm_1():
    canvas = IMAGES[1:2]
    joint, plain = searched(canvas, JointCanvases()), searched(canvas)
    assert torch.equal(joint.masks, plain.masks)
    assert torch.equal(joint.objectives, plain.objectives)


def test_canvases_of_a_class_are_stacked_and_repeated_where_there_are_fewer():
    model, _ = planted_trigger()
    subject = Subject(model, MemoryImages(IMAGES, LABELS), ["a", "b"])
    every = Canvases("random", torch.tensor([1, 1, 1, 0]), torch.tensor([5, 6, 7, 8]))
    joined = joined_canvases(subject, every)
    assert joined.targets.tolist() == [1, 0]
    assert joined.indices.tolist() == [5, 8]
    assert joined.positions.tolist() == [[5, 6, 7], [8, -1, -1]]
    assert joined.chosen(torch.tensor([1])).positions.tolist() == [[8, -1, -1]]
    assert torch.equal(joined.images[0], IMAGES[5:8].flatten(0, 1))
    assert torch.equal(joined.images[1], IMAGES[[8, 8, 8]].flatten(0, 1))


def black_and_white() -> Subject:
    """Images that are classified right, white ones of the second class."""
    model, _ = planted_trigger()
    images = torch.where(LABELS.view(-1, 1, 1, 1) == 1, 255, torch.zeros_like(IMAGES))
    return Subject(model, MemoryImages(images, LABELS), ["a", "b"], torch.arange(12))


def test_a_class_does_not_depend_on_which_others_are_searched():
    subject = black_and_white()
    settings = SearchSettings(canvases_per_class=50, variant=JointCanvases())
    with pytest.warns(UserWarning, match="fewer than 50 positive canvases"):
        alone = problems_of(subject, settings, [1])
    with pytest.warns(UserWarning, match="fewer than 50 positive canvases"):
        both = problems_of(subject, settings, [0, 1])
    assert alone.positions.shape == (1, 50)
    assert torch.equal(both.chosen(both.targets == 1).images, alone.images)
    white = problems_of(subject, replace(settings, canvas="white"), [0, 1])
    assert white.positions.tolist() == [[-1], [-1]]
    counts = torch.tensor([0, 0, 0, 1, 1])
    given = Canvases("random", counts, torch.tensor([5, 6, 7, 8, 9]))
    of_one = problems_of(subject, settings, [1], given)
    assert of_one.positions.tolist() == [[8, 9, -1]]


def test_its_canvases_take_no_gradient():
    settings = SearchSettings(variant=JointCanvases())
    with pytest.warns(UserWarning, match="fewer than"):
        canvases = problems_of(black_and_white(), replace(settings, canvases_per_class=50), [1])
    search = PatternSearch(black_and_white(), canvases, settings)
    search.step()
    taken = {name for name, v in search.variables.items() if v.grad is not None}
    assert taken == {"mask"}
    assert search.variables["mask"].grad.abs().sum() > 0


def test_without_any_canvas_there_is_no_problem():
    settings = SearchSettings(canvas="negative", variant=JointCanvases())
    with pytest.warns(UserWarning, match="no negative canvas, so left out"):
        search = run_search(black_and_white(), settings, [1], skip_missing=True)
    assert len(search.active) == 0


def test_its_files_give_no_canvases_and_it_keeps_none_through_a_training(tmp_path):
    file = str(tmp_path / "p.safetensors")
    searched(IMAGES[1:3], JointCanvases()).save(file)
    words = "a pattern of JointCanvases is of several canvases"
    with pytest.raises(ValueError, match=words):
        searched(file)
    data = ImageDataModule(Shapes(train_count=20, test_count=100))
    search = SearchSettings(variant=JointCanvases())
    with pytest.raises(ValueError, match=words):
        PatternMeasurement(search, canvases=file).check(data)
    with pytest.raises(ValueError, match="`canvases`=first keeps one canvas a class"):
        PatternMeasurement(search, canvases="first").check(data)


def test_a_problem_is_not_mixed_with_any_of_its_canvases():
    model, _ = planted_trigger()
    searched = torch.arange(12)
    subject = Subject(model, MemoryImages(IMAGES, LABELS), ["a", "b"], searched)
    others = (LABELS[:12] != 1).nonzero().flatten()
    given = torch.cat([others[:2], torch.tensor([20, 20])])
    canvases = Canvases("random", torch.ones(4).long(), given)
    order = SearchOrder(subject, joined_canvases(subject, canvases), torch.tensor([0]), 2, 0)
    assert order.candidates(0).tolist() == others[2:].tolist()
    seen = order.of_pass(0)
    assert sorted(seen[seen >= 0].tolist()) == others[2:].tolist()
    assert order.steps_per_epoch == (len(others) - 2 + 1) // 2


def test_canvases_that_come_twice_count_once_and_stacked_ones_stay():
    model, _ = planted_trigger()
    subject = Subject(model, MemoryImages(IMAGES, LABELS), ["a", "b"], torch.arange(12))
    twice = Canvases("given", torch.ones(3).long(), torch.tensor([0, 0, 2]))
    joined = joined_canvases(subject, twice)
    assert joined.positions.tolist() == [[0, -1, 2]]
    assert joined_canvases(subject, joined) is joined
    order = SearchOrder(subject, joined, torch.tensor([0]), 2, 0)
    assert len(order.candidates(0)) == len(order.of_pass(0)[order.of_pass(0) >= 0])
