import pytest
import torch
import torch.nn.functional as F
from toys import Linear, grey_images, planted_trigger

from iscp_lightning.classifiers.subject import Subject
from iscp_lightning.data import MemoryImages
from iscp_lightning.data.images import to_float
from iscp_lightning.patterns import SearchSettings, engine
from iscp_lightning.patterns.canvas import OUTSIDE, Canvases
from iscp_lightning.patterns.engine import PatternSearch
from iscp_lightning.patterns.search import run_search
from iscp_lightning.patterns.variants import LearnedCanvas

GREY = torch.full((3, 8, 8), 100, dtype=torch.uint8)


def subject_on(classifier, images, labels, names="ab") -> Subject:
    return Subject(classifier, MemoryImages(images, labels), names, torch.arange(len(images)))


def begin(variant, classifier=None, targets=(1,), labels=None, **settings) -> PatternSearch:
    """A search of given classes on grey canvases."""
    images, balanced = grey_images(24)
    labels = balanced if labels is None else labels
    classifier = classifier or planted_trigger()[0]
    names = "abc"[: classifier.maps.shape[0]]
    indices = torch.full((len(targets),), OUTSIDE)
    pixels = GREY.expand(len(targets), -1, -1, -1)
    canvases = Canvases("given", torch.tensor(targets), indices, pixels)
    settings = SearchSettings(seed=0, variant=variant, **settings)
    return PatternSearch(subject_on(classifier, images, labels, names), canvases, settings)


def test_mask_and_canvas_move_in_turn_step_by_step():
    """Sparsity alone moves the mask down; brightness of the corner is what the class is."""
    search = begin(LearnedCanvas("3/255", steps_each=2), sparsity=0.0, step_size=0.02)
    _, corner = planted_trigger()
    expected_mask, expected_canvas = 0.5, 100 / 255
    for step in range(6):
        search.step()
        if step % 4 < 2:
            expected_mask += 0.02
        else:
            expected_canvas += 3 / 255
        mask, canvas = (search.variables[name][0].detach() for name in ("mask", "canvas"))
        torch.testing.assert_close(mask[corner], torch.full((4,), expected_mask))
        torch.testing.assert_close(canvas[:, corner], torch.full((3, 4), expected_canvas))
    assert search.variables["steps"].tolist() == [6]


def eq_4(classifier, canvas, images, target, order, settings, variant):
    """Alternating sign steps as printed, one problem alone; `order` holds a pass's images a row."""
    mask, canvas, step = torch.full(images.shape[2:], 0.5), canvas.clone(), 0
    for rows in order:
        for batch in rows[rows >= 0].split(settings.course.search_batch_size):
            mask.requires_grad_(), canvas.requires_grad_()
            mixed = mask * canvas + (1 - mask) * images[batch]
            log_probability = F.log_softmax(classifier(mixed), 1)[:, target]
            loss = (-log_probability + settings.sparsity * mask.mean()).sum()
            of_mask, of_canvas = torch.autograd.grad(loss, (mask, canvas))
            mask, canvas = mask.detach(), canvas.detach()
            if step // variant.steps_each % 2 == 0:
                mask = (mask - settings.course.step_size * of_mask.sign()).clamp(0, 1)
            else:
                canvas = (canvas - variant.canvas_step_size * of_canvas.sign()).clamp(0, 1)
            step += 1
    return mask, canvas


def test_equals_the_paper_written_plainly():
    torch.manual_seed(0)
    classifier = torch.nn.Sequential(
        torch.nn.Flatten(), torch.nn.Linear(192, 20), torch.nn.ReLU(), torch.nn.Linear(20, 2)
    )
    images, labels = grey_images(30)
    variant = LearnedCanvas("20/255", steps_each=3)
    settings = SearchSettings(
        0.5, step_size=0.1, canvas="random", canvases_per_class=2, variant=variant, seed=0
    )
    search = run_search(subject_on(classifier, images, labels), settings, [0, 1])
    for row, target in enumerate(search.targets.tolist()):
        order = torch.stack([search.order.of_pass(epoch)[row] for epoch in range(5)])
        canvas = to_float(search.canvas_pixels[row])
        mask, canvas = eq_4(classifier, canvas, to_float(images), target, order, settings, variant)
        torch.testing.assert_close(search.variables["mask"][row].detach(), mask)
        torch.testing.assert_close(search.variables["canvas"][row].detach(), canvas)
    assert search.variables["canvas"].min() == 0  # clipped
    assert search.variables["mask"].max() == 1


def test_idle_problems_keep_their_turn():
    """Class 2 alone makes fewer steps a pass than beside class 1: its turns are its own."""
    labels = torch.tensor([0] * 12 + [1] * 3 + [2] * 9)
    torch.manual_seed(1)
    classifier = Linear(torch.randn(3, 8, 8), 0.1)
    variant = LearnedCanvas("10/255", steps_each=3)
    together, alone = (
        begin(variant, classifier, targets, labels, search_epochs=3) for targets in ([1, 2], [2])
    )
    assert (together.order.steps_per_epoch, alone.order.steps_per_epoch) == (6, 4)
    for search in (together, alone):
        while search.done < search.total_steps:
            search.step()
    assert together.variables["steps"].tolist() == [18, 12]
    for name in ("mask", "canvas"):
        assert torch.equal(together.variables[name][1], alone.variables[name][0]), name


def test_a_falling_step_size_lowers_both():
    search = begin(
        LearnedCanvas("10/255", steps_each=1),
        sparsity=0.0,
        step_size=0.02,
        final_step_size=0.01,
        search_epochs=1,
        search_batch_size=3,
    )
    assert search.total_steps == 4
    _, corner = planted_trigger()
    seen = []
    for _ in range(4):
        search.step()
        mask, canvas = (search.variables[name][0].detach() for name in ("mask", "canvas"))
        seen.append((mask[corner].mean().item(), canvas[:, corner].mean().item()))
    masks, canvases = zip(*seen, strict=True)
    shares = [1, 5 / 6, 4 / 6, 1 / 2]  # of the first step size, step by step
    start = 100 / 255
    assert masks == pytest.approx(
        [0.52, 0.52, 0.52 + 0.02 * shares[2], 0.52 + 0.02 * shares[2]], abs=1e-6
    )
    first = start + 10 / 255 * shares[1]
    assert canvases == pytest.approx([start, first, first, first + 10 / 255 * shares[3]], abs=1e-6)


def test_what_is_pasted_is_the_learned_canvas_in_8_bits(tmp_path):
    search = begin(LearnedCanvas(0.0113))
    while search.done < search.total_steps:
        search.step()
    search.finish()
    found = search.gathered()
    learned = found.variables["canvas"]
    assert torch.equal(found.canvases[0], GREY)
    assert not torch.equal(learned * 255, (learned * 255).round())
    stamp = found.stamps([0.05, 0.1])
    assert stamp.pixels.dtype == torch.uint8
    assert stamp.pixels.shape == (1, 2, 3, 8, 8)
    assert stamp.mask.sum((3, 4)).flatten().tolist() == [3, 6]
    assert torch.equal(stamp.pixels[:, 0], (learned * 255).round().to(torch.uint8))
    assert torch.equal(found.cut_from, stamp.pixels[:, 0])  # what `describe` looks for edges in
    found.save(tmp_path / "p.safetensors")
    back = type(found).load(tmp_path / "p.safetensors")
    assert back.variant.describe() == LearnedCanvas(0.0113).describe()
    assert torch.equal(back.stamps([0.05]).pixels, stamp.pixels[:, :1])


def test_the_papers_steps_stay_on_the_8_bit_grid():
    """So that rounding changes nothing."""
    search = begin(LearnedCanvas(), search_epochs=2)
    while search.done < search.total_steps:
        search.step()
    levels = search.variables["canvas"].detach() * 255
    torch.testing.assert_close(levels, levels.round(), atol=1e-3, rtol=0)
    assert levels.unique().numel() > 1


def test_a_process_without_problems_makes_steps(monkeypatch):
    monkeypatch.setattr(engine, "share", lambda items: list(items)[:0])
    search = begin(LearnedCanvas())
    assert search.step().shape == (0,)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"canvas_step_size": 0}, r"`canvas_step_size` must lie in \(0, 1\], got 0"),
        ({"canvas_step_size": "300/255"}, r"`canvas_step_size` must lie in \(0, 1\], got 300/255"),
        ({"steps_each": 0}, "`steps_each` must be 1 or more, got 0"),
    ],
)
def test_what_is_out_of_range_is_named(arguments, message):
    with pytest.raises(ValueError, match=message):
        LearnedCanvas(**arguments)
