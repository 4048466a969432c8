import pytest
import torch
from toys import Linear, grey_images

from iscp_lightning.classifiers.subject import Subject
from iscp_lightning.data import MemoryImages
from iscp_lightning.patterns import SearchSettings
from iscp_lightning.patterns.engine import PatternSearch
from iscp_lightning.patterns.search import measure_search, problems_of, run_search
from iscp_lightning.patterns.variants import Algorithm1, SuccessiveHalving
from iscp_lightning.patterns.variants.base import Outcome

NAN = float("nan")


def outcome(losses, targets, progress=0.2) -> Outcome:
    losses = torch.tensor(losses, dtype=torch.float64)
    return Outcome(torch.tensor(targets), losses, losses, torch.arange(0), progress)


@pytest.mark.parametrize(
    ("losses", "targets", "progress", "going_on"),
    [
        ([3, 1, 2, 5, 4], [0] * 5, 0.2, [1, 2, 0]),
        ([3, 1, 2, NAN, NAN], [0] * 5, 0.4, [1, 2]),
        ([NAN, 2, 1, NAN, NAN], [0] * 5, 0.6, [2]),
        ([NAN, NAN, 1, NAN, NAN], [0] * 5, 0.8, [2]),
        ([1, 1, 1], [0] * 3, 0.2, [0, 1]),  # ties: the more confident canvas
        ([9, 8, 1, 2], [0, 1, 0, 1], 0.2, [2, 3]),  # every class has its own
        ([5, 1, 2], [7, 4, 4], 0.2, [0, 1]),  # one is never dropped
        ([3, 1, 2, 5, 4], [0] * 5, 0.5, [1, 2]),  # two rounds at once, as in a quick schedule
        ([3, 1, 2, 5, 4], [0] * 5, 0.1, [0, 1, 2, 3, 4]),
    ],
)
def test_who_goes_on(losses, targets, progress, going_on):
    said = SuccessiveHalving().react(outcome(losses, targets, progress), {})
    assert said.nonzero().flatten().tolist() == sorted(going_on)


def test_nobody_is_dropped_after_the_last_pass():
    assert SuccessiveHalving().react(outcome([3, 1, 2], [0, 0, 0], 1.0), {}) is None


@pytest.mark.parametrize(
    ("keep", "canvases", "left"),
    [
        (0.5, 5, [5, 3, 2, 1, 1]),
        (0.5, 16, [16, 8, 4, 2, 1]),
        (0.9, 3, [3, 2, 1, 1, 1]),  # one fewer at least
        (0.55, 20, [20, 11, 7, 4, 3]),
        (0.1, 5, [5, 1, 1, 1, 1]),
    ],
)
def test_how_many_are_left(keep, canvases, left):
    variant = SuccessiveHalving(keep)
    assert [variant.left(canvases, rounds) for rounds in range(5)] == left


def subject(count=24) -> Subject:
    """Twelve search images, so that every class's passes fill their batches."""
    torch.manual_seed(0)
    images = MemoryImages(*grey_images(count))
    return Subject(Linear(torch.randn(2, 8, 8), 0.2), images, "ab", torch.arange(16))


def searched(variant, **changes) -> tuple[PatternSearch, int]:
    """A search of canvases that are no search images, and its mixtures with a gradient."""
    chosen = SearchSettings(seed=0, variant=variant, **changes)
    given, count = subject(), 0

    def counted(_, images):
        nonlocal count
        count += len(images[0])

    handle = given.fast().register_forward_pre_hook(counted)
    canvases = problems_of(given, chosen, [0, 1], [16, 18, 20, 22, 23])
    search = PatternSearch(given, canvases, chosen)
    while search.done < search.total_steps:
        search.step()
    handle.remove()
    search.finish()
    return search, count


def test_it_saves_half_of_the_evaluations_and_does_not_disturb_the_winner():
    """Five canvases and five passes: 5 + 3 + 2 + 1 + 1 passes of 25."""
    halved, some = searched(SuccessiveHalving())
    whole, everything = searched(Algorithm1())
    a_pass = 2 * 8  # of both classes on one canvas
    assert everything == 25 * a_pass
    assert some == 12 * a_pass
    found, expected = halved.gathered(), whole.gathered()
    assert halved.active.sum() == 2
    assert found.objectives.isinf().sum() == 8
    for row in halved.active.nonzero().flatten().tolist():
        assert row in found.winners
        assert torch.equal(found.masks[row], expected.masks[row])
        assert torch.equal(found.mask_means[row], expected.mask_means[row])
        assert found.objectives[row] == expected.objectives[row]


def test_dropped_patterns_are_kept_but_not_measured():
    search, _ = searched(SuccessiveHalving())
    found = measure_search(search, [0.1])
    measured = ~found.power.attack_success_rate.isnan().flatten()
    assert torch.equal(measured, search.active)
    assert (found.masks != 0.5).flatten(1).any(1).all()  # they have made a pass


def test_the_first_pass_decides_by_its_mean_loss():
    search, _ = searched(SuccessiveHalving(0.1, [0.2]), search_epochs=5)
    once, _ = searched(Algorithm1())
    first = PatternSearch(once.subject, once.canvases, once.settings)
    for _ in range(first.order.steps_per_epoch - 1):
        first.step()
    last = first.step()  # of the pass, whose sums are cleared after it
    assert last.shape == (10,)
    losses = torch.zeros(10)
    again = PatternSearch(once.subject, once.canvases, once.settings)
    for _ in range(again.order.steps_per_epoch):
        losses += again.step()
    best = [losses[:5].argmin().item(), 5 + losses[5:].argmin().item()]
    assert search.active.nonzero().flatten().tolist() == best


def test_a_single_canvas_is_algorithm_1():
    chosen = [
        SearchSettings(seed=0, canvas="white", variant=v) for v in (SuccessiveHalving(), None)
    ]
    masks = [run_search(subject(), each, [0, 1]).gathered().masks for each in chosen]
    assert torch.equal(*masks)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"keep": 0.0}, r"`keep` must lie in \(0, 1\), got 0.0"),
        ({"keep": 1.0}, r"`keep` must lie in \(0, 1\), got 1.0"),
        ({"after": []}, r"`after` must list shares of the search in \(0, 1\), got \[\]"),
        ({"after": [1, 3]}, r"`after` must list shares of the search in \(0, 1\), got \[1, 3\]"),
    ],
)
def test_what_is_out_of_range_is_named(arguments, message):
    with pytest.raises(ValueError, match=message):
        SuccessiveHalving(**arguments)
