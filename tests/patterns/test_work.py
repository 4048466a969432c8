import pytest
import torch
from toys import grey_images, planted_trigger

from iscp_lightning import SearchSettings, Subject
from iscp_lightning.data import MemoryImages
from iscp_lightning.patterns.search import measure_search, run_search
from iscp_lightning.patterns.variants import AreaConstrained
from iscp_lightning.patterns.work import search_work
from iscp_lightning.work import Work


@pytest.mark.parametrize(("canvases", "measured"), [("all", 3), ("winners", 1)])
def test_it_counts_what_a_search_does(canvases, measured):
    images, labels = grey_images(60)
    labels[:10] = 1  # the classes differ in size
    classifier = planted_trigger()[0]
    indices = torch.arange(0, 60, 3)
    subject = Subject(classifier, MemoryImages(images, labels), ["off", "on"], indices)
    settings = SearchSettings(canvas="random", canvases_per_class=3, search_epochs=2, seed=7)
    search = run_search(subject, settings, [0, 1])
    found = measure_search(search, [0.1, 0.2], canvases=canvases)
    held_out = torch.tensor([i for i in range(60) if i % 3])
    ranking, searching, objectives, measuring = search_work(
        labels,
        (3, 8, 8),
        [0, 1],
        settings,
        search_labels=labels[indices],
        canvases=3,
        sizes=2,
        measured=measured,
        measured_images=held_out,
    )
    mixed = sum(len(search.order.candidates(row)) for row in range(6))
    own = sum(int(i) in indices for i in found.canvas_indices)  # left out of their own problems
    assert ranking.forwards == 60
    assert mixed <= objectives.forwards <= mixed + own
    assert searching.gradients == 2 * objectives.forwards
    controls = 3 * int(found.power[found.winners].shown.sum())
    shown = 2 * int(found.power.shown.sum()) + controls
    assert shown <= measuring.forwards <= shown + 5 * 6
    held = sum(t.nbytes for t in (*search.variables.values(), *search.sums.values()))
    assert searching.device_bytes == search.canvas_pixels.nbytes + held * 3 // 2 + 20 * 192


def test_search_images_of_no_class_are_mixed_for_every_target():
    labels = torch.arange(100) % 10
    searched = torch.tensor([-1] * 30 + [0] * 5 + [12] * 2)
    _, searching, objectives, _ = search_work(
        labels,
        (3, 8, 8),
        [0, 9],
        SearchSettings(search_epochs=3),
        search_labels=searched,
        canvases=2,
        sizes=1,
        measured=1,
        measured_images=torch.arange(100),
    )
    assert objectives.forwards == 2 * (32 + 37)
    assert searching.gradients == 3 * 2 * (32 + 37)
    assert searching.stage == "searching"


def test_other_variants_are_estimated_as_algorithm_1():
    labels = torch.arange(100) % 10
    given = {"canvases": 1, "sizes": 1, "measured": 1, "measured_images": torch.arange(100)}
    settings = SearchSettings(variant=AreaConstrained())
    works = search_work(labels, (3, 8, 8), [0], settings, search_labels=labels, **given)
    assert works[1].stage == "searching, as Algorithm 1 takes it"


def test_processes_share_memory_but_not_work():
    def work(processes: int) -> Work:
        labels = torch.arange(100) % 10
        indices = torch.arange(20)
        return search_work(
            labels,
            (3, 8, 8),
            range(10),
            SearchSettings(),
            search_labels=labels[indices],
            canvases=4,
            sizes=1,
            measured=1,
            measured_images=indices,
            processes=processes,
        )[1]

    pool = 20 * 192
    assert work(8).gradients == work(1).gradients
    assert work(8).device_bytes - pool == (work(1).device_bytes - pool) // 8


def test_work_is_done_several_times_one_after_the_other():
    work = Work("searching", 1, 2, 3, 4, 5).times(10)
    assert work == Work("searching", 10, 20, 30, 4, 5)
