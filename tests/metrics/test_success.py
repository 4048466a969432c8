"""Tests of StampSuccess: counts by hand, and those of torchmetrics' confusion matrix."""

from typing import Any

import pytest
import torch
import torch.distributed as dist
from torch import Tensor, nn
from torchmetrics.classification import MulticlassConfusionMatrix

from iscp_lightning.classifiers.subject import Subject
from iscp_lightning.data import MemoryImages
from iscp_lightning.data.stamps import Stamp
from iscp_lightning.metrics import StampSuccess
from iscp_lightning.metrics.success import count_success

ALL_TO_ONE = torch.tensor([[1, 1, 1]])
ALL_TO_ALL = torch.tensor([[1, 2, 0]])
LABELS = torch.tensor([0, 0, 0, 1, 1, 2, 2])
PREDICTED = torch.tensor([1, 1, 0, 1, 2, 2, 0])


@pytest.mark.parametrize(
    ("wanted", "hits", "kept", "shown"),
    [
        (ALL_TO_ONE, [2, 0, 0], [1, 0, 1], [3, 0, 2]),
        (ALL_TO_ALL, [2, 1, 1], [1, 1, 1], [3, 2, 2]),
        (torch.tensor([[0, 1, 2]]), [0, 0, 0], [0, 0, 0], [0, 0, 0]),  # nothing is to change
    ],
)
@pytest.mark.parametrize("batches", [1, 2, 7])
def test_counts_by_hand(wanted, hits, kept, shown, batches):
    metric = StampSuccess(wanted)
    for predicted, labels in zip(PREDICTED.chunk(batches), LABELS.chunk(batches), strict=True):
        metric.update(0, predicted, labels)
    success = metric.compute()
    assert success.hits.tolist() == [hits]
    assert success.kept.tolist() == [kept]
    assert success.shown.tolist() == [shown]
    total = sum(shown)
    expected = torch.tensor([sum(hits), sum(kept)], dtype=torch.float64) / total
    rates = torch.cat([success.rate, success.robust_accuracy])
    torch.testing.assert_close(rates, expected, equal_nan=True)  # NaN of no image
    by_class = torch.tensor([hits], dtype=torch.float64) / torch.tensor([shown])
    torch.testing.assert_close(success.rate_by_class, by_class, equal_nan=True)


def test_stamps_are_counted_apart():
    metric = StampSuccess(torch.tensor([[0, 0], [1, 1], [1, 0]]))
    metric.update(1, torch.tensor([1, 0]), torch.tensor([0, 0]))
    metric.update(2, torch.tensor([1, 1, 0]), torch.tensor([0, 1, 1]))
    success = metric.compute()
    assert success.hits.tolist() == [[0, 0], [1, 0], [1, 1]]
    assert success.kept.tolist() == [[0, 0], [1, 0], [0, 1]]
    assert success.shown.tolist() == [[0, 0], [2, 0], [1, 2]]
    assert success.rate.isnan().tolist() == [True, False, False]
    metric.reset()
    metric.update(0, torch.tensor([0]), torch.tensor([1]))
    assert metric.compute().hits.tolist() == [[0, 1], [0, 0], [0, 0]]


@pytest.mark.parametrize("goal", ["all_to_one", "all_to_all", "any"])
def test_agrees_with_a_confusion_matrix(goal):
    """Rows are true classes, columns predictions; what shows the wanted class is left out."""
    generator, classes = torch.Generator().manual_seed(0), 6
    labels = torch.randint(0, classes, (500,), generator=generator)
    predicted = torch.randint(0, classes, (500,), generator=generator)
    wanted = {
        "all_to_one": torch.full((classes,), 2),
        "all_to_all": (torch.arange(classes) + 1) % classes,
        "any": torch.tensor([0, 5, 5, 1, 4, 0]),
    }[goal]
    metric = StampSuccess(wanted.unsqueeze(0))
    metric.update(0, predicted, labels)
    success = metric.compute()
    changed = wanted[labels] != labels
    assert torch.equal(metric.affects(0, labels), changed)
    matrix = MulticlassConfusionMatrix(classes)(predicted[changed], labels[changed])
    hits = matrix.gather(1, wanted.unsqueeze(1)).squeeze(1) * (wanted != torch.arange(classes))
    assert torch.equal(success.hits[0], hits)
    assert torch.equal(success.kept[0], matrix.diagonal())
    assert torch.equal(success.shown[0], matrix.sum(1))
    assert success.rate.item() == hits.sum().item() / matrix.sum().item()
    assert success.robust_accuracy.item() == matrix.trace().item() / matrix.sum().item()


class Brightest(nn.Module):
    """Logits are the pixels of a 1 x 1 x K image; fails on an empty batch."""

    def forward(self, images: Tensor) -> Tensor:
        assert len(images) > 0, "an empty batch"
        return 4 * images.flatten(1) - 1


def subject(labels: Tensor, classes: int = 3) -> Subject:
    """Every image is half bright where its class is."""
    images = torch.eye(classes)[labels][:, None, None] / 2
    return Subject(Brightest(), MemoryImages(images, labels), [str(k) for k in range(classes)])


def stamp(target: int, strength: float = 1.0) -> Stamp:
    """White where a class is, or a grey that only its own images outshine."""
    mask = torch.eye(3)[target][None, None]
    return Stamp(mask, torch.full((1, 1, 3), strength))


def test_what_stamps_make_of_images():
    labels = torch.tensor([0, 0, 1, 1, 1, 2])
    metric = StampSuccess(torch.tensor([[1, 1, 1], [2, 2, 2], [0, 0, 0]]))
    count_success(metric, subject(labels), [stamp(1), stamp(2, 0.25), stamp(0)], torch.arange(6))
    success = metric.compute()
    assert success.hits.tolist() == [[2, 0, 1], [0, 0, 0], [0, 3, 1]]
    assert success.kept.tolist() == [[0, 0, 0], [2, 3, 0], [0, 0, 0]]
    assert success.shown.tolist() == [[2, 0, 1], [2, 3, 0], [0, 3, 1]]


def test_only_the_chosen_images_are_stamped(monkeypatch):
    """And of these none that shows the wanted class: no network is asked in vain."""
    given, asked, metric = subject(torch.tensor([0, 0, 1, 2, 2])), [], StampSuccess(ALL_TO_ONE)
    classify = given.classify
    monkeypatch.setattr(given, "classify", lambda x: asked.append(len(x)) or classify(x))
    count_success(metric, given, [stamp(1)], torch.tensor([4, 2, 0]))
    assert metric.compute().shown.tolist() == [[1, 0, 1]]
    assert asked == [2]


def test_a_stamp_is_not_put_on_its_own_canvas():
    """`left_out` counts in the test set, not in what is measured."""
    labels, chosen = torch.tensor([0, 0, 1, 2, 2]), torch.tensor([1, 2, 3, 4])
    metric = StampSuccess(torch.tensor([[1, 1, 1], [1, 1, 1], [1, 1, 1]]))
    count_success(metric, subject(labels), [stamp(1)] * 3, chosen, left_out=[4, 0, 1])
    assert metric.compute().shown.tolist() == [[1, 0, 1], [1, 0, 2], [0, 0, 2]]


def test_no_empty_batch_reaches_the_classifier():
    """All images are of the class that the first stamp wants."""
    given, metric = subject(torch.tensor([1] * 4)), StampSuccess(torch.tensor([[1] * 3, [0] * 3]))
    count_success(metric, given, [stamp(1), stamp(0)], torch.arange(4))
    assert metric.compute().shown.tolist() == [[0, 0, 0], [0, 4, 0]]


def rank_counts(rank: int, sync: bool, folder: Any) -> None:
    dist.init_process_group("gloo", f"file://{folder}/store", rank=rank, world_size=2)
    metric = StampSuccess(ALL_TO_ONE, sync_on_compute=sync)
    metric.update(0, PREDICTED[rank::2], LABELS[rank::2])
    torch.save(tuple(metric.compute()), folder / f"{rank}.pt")
    dist.barrier()  # who left at once would close connections that the other still makes
    dist.destroy_process_group()


@pytest.mark.parametrize("sync", [True, False])
def test_ranks_are_summed_where_that_is_asked_for(sync, tmp_path):
    torch.multiprocessing.start_processes(
        rank_counts, (sync, tmp_path), nprocs=2, start_method="fork"
    )
    first, second = (torch.load(tmp_path / f"{rank}.pt") for rank in (0, 1))
    whole = StampSuccess(ALL_TO_ONE)
    whole.update(0, PREDICTED, LABELS)
    for mine, other, expected in zip(first, second, whole.compute(), strict=True):
        assert torch.equal(mine if sync else mine + other, expected)
        assert torch.equal(mine, other) or not sync
