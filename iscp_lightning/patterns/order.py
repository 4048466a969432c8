"""The search images D_n on the device that searches, and the order in which problems see them."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from iscp_lightning.classifiers.subject import Subject
from iscp_lightning.patterns.canvas import Canvases
from iscp_lightning.seeds import named_generator

ELSEWHERE = torch.iinfo(torch.int64).min  # position of what is not in the test set: no canvas's


class SearchOrder:
    """Which search images each problem is mixed with, and in which order.

    A problem sees the images of other classes, without its own canvases, once in a pass. The order
    depends on seed, class, canvas and pass alone.

    Args:
        subject: The classifier and the test images.
        canvases: All P problems of the search.
        owned: (n,) int64, those of this process.
        batch_size: B, images of a problem in a step.
        seed: Fixes the order.

    Attributes:
        images: uint8 (m, C, H, W), the pool of search images, on the subject's device.
        steps_per_epoch: Steps of a pass, of the problem that has most.
        longest_pass: Likewise, of any class of the data set, whether it is searched or not.

    Raises:
        ValueError: if there is no search image, or none is left for a problem.
    """

    def __init__(
        self, subject: Subject, canvases: Canvases, owned: Tensor, batch_size: int, seed: int
    ) -> None:
        if subject.search_images is None:
            pool, rows = subject.images, subject.search_indices
            self.indices, advice = rows, "increase `search_fraction` or the test set"
        else:
            pool, rows = subject.search_images, torch.arange(len(subject.search_images))
            self.indices, advice = torch.full_like(rows, ELSEWHERE), "give other `search_images`"
        if len(rows) == 0:
            raise ValueError(
                "`search_fraction` leaves no search image: increase it or the test set"
            )
        title = "reading search images" if subject.progress else None
        self.images = pool.read(rows, title).to(subject.device)
        self.test_labels = subject.images.labels
        self.labels = pool.labels[rows]
        self.canvases = canvases
        self.owned = owned
        self.batch_size = batch_size
        self.seed = seed
        fewest = self._of_classes(len(subject.class_names)).min()
        self.longest_pass = math.ceil((len(self.labels) - int(fewest)) / batch_size)
        self._pass: tuple[int, Tensor] = (-1, torch.empty(0))
        if len(canvases.targets) == 0:
            self.steps_per_epoch = 0
            return
        steps = self.steps_of(torch.arange(len(canvases.targets)))
        if int(steps.min()) == 0:
            target = int(canvases.targets[int(steps.argmin())])
            raise ValueError(f"no search image is left for class {target}: {advice}")
        self.steps_per_epoch = int(steps.max())

    def steps_of(self, problems: Tensor) -> Tensor:
        """Return how many steps some of the P problems make in a pass, (len(problems),) int64."""
        if len(problems) == 0:
            return problems
        targets, canvases = self.canvases.targets[problems], self.canvases.positions[problems]
        of_class = self._of_classes(int(self.canvases.targets.amax()) + 1)
        counts = len(self.labels) - of_class[targets]
        searched = torch.isin(canvases, self.indices)
        shows_target = self.test_labels[canvases.clamp(min=0)] == targets.unsqueeze(1)
        counts -= (searched & ~shows_target).sum(1)
        return (counts + self.batch_size - 1) // self.batch_size

    def candidates(self, row: int) -> Tensor:
        """Return the images of the pool that an owned problem is mixed with, (k,) int64."""
        problem = self.owned[row]
        target, canvases = self.canvases.targets[problem], self.canvases.positions[problem]
        kept = (self.labels != target) & ~torch.isin(self.indices, canvases)
        return kept.nonzero().squeeze(1)

    def batch(self, epoch: int, step: int) -> Tensor:
        """Return the images of the pool that a step mixes, (n, B) int64; -1 where there is none."""
        columns = slice(step * self.batch_size, (step + 1) * self.batch_size)
        return self.of_pass(epoch)[:, columns].long()

    def of_pass(self, epoch: int) -> Tensor:
        """Return (n, steps * B) int32 images of the pool, -1 where a problem idles."""
        if self._pass[0] != epoch:
            width = self.steps_per_epoch * self.batch_size
            order = torch.full((len(self.owned), width), -1, dtype=torch.int32)
            for row, problem in enumerate(self.owned.tolist()):
                target = int(self.canvases.targets[problem])
                canvas = int(self.canvases.indices[problem]) + 1
                generator = named_generator(self.seed, "search images", target, canvas, epoch)
                candidates = self.candidates(row)
                shuffled = torch.randperm(len(candidates), generator=generator)
                order[row, : len(candidates)] = candidates[shuffled].int()
            self._pass = (epoch, order)
        return self._pass[1]

    def _of_classes(self, number: int) -> Tensor:
        """Return how many images of the pool show each of the first classes, (number,) int64."""
        counts = (self.labels + 1).bincount(minlength=number + 1)  # the first shows no class
        return counts[1 : number + 1]
