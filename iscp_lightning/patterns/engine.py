"""PatternSearch: the engine that runs a variant on all (class, canvas) problems together.

A step mixes B images with the stamps of each problem, runs one forward over all mixtures and takes
one gradient with respect to the problems' variables alone. The classifier is frozen and the losses
are summed, so every problem goes exactly where it would go on its own.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn

from iscp_lightning.classifiers.frozen import full_fp32
from iscp_lightning.classifiers.subject import Subject
from iscp_lightning.data.images import to_float
from iscp_lightning.patterns.canvas import Canvases
from iscp_lightning.patterns.order import SearchOrder
from iscp_lightning.patterns.pasting import pasted_loss
from iscp_lightning.patterns.pattern import PatternSet
from iscp_lightning.patterns.settings import SearchSettings
from iscp_lightning.patterns.variants.base import Outcome, Problems
from iscp_lightning.ranks import gather, gather_to_first, in_order, share, sum_over_ranks
from iscp_lightning.runs import provenance

ROWS_AT_ONCE = 64  # problems that are copied together: bounds the memory of many at a time


class PatternSearch(nn.Module):
    """A search with its state: variables, their update, the order of images, sums and objectives.

    A process holds the problems that it owns, every world-size-th one, and nothing of the others.

    Args:
        subject: The classifier and the test images.
        canvases: All P problems, also those of other processes.
        settings: The search's settings.
        problems_per_forward: Problems in one forward pass; None balances them under
            `micro_batch_size`. In bf16 passes are padded to it, so that results depend on nothing
            else.

    Attributes:
        variables: By name, those of the owned problems (n, ...).
        objectives: (n,) float32 of the owned problems, NaN until `finish`; infinite for problems
            that the variant has dropped.
        done: Number of steps that are made.

    Raises:
        ValueError: if no search image is left for a problem.
    """

    objectives: Tensor

    def __init__(
        self,
        subject: Subject,
        canvases: Canvases,
        settings: SearchSettings,
        problems_per_forward: int | None = None,
    ) -> None:
        super().__init__()
        self.subject = subject
        self.canvases = canvases
        self.settings = settings
        self.course = settings.course
        self.variant = settings.method
        device = subject.device
        count = len(canvases.targets)
        self.owned = torch.tensor(list(share(range(count)))).long()
        self.order = SearchOrder(
            subject, canvases, self.owned, self.course.search_batch_size, settings.seed or 0
        )
        self.targets = canvases.targets[self.owned].to(device)
        self.canvas_pixels = canvases.read(subject, self.owned).to(device)
        self.sparsity = settings.sparsity_of(
            canvases.targets[self.owned], len(subject.class_names)
        ).to(device)
        start = self._start()
        self.canvas_pixels = self.canvas_pixels[:, : self.order.images.shape[1]]
        self.variables = nn.ParameterDict({name: nn.Parameter(v) for name, v in start.items()})
        self.optimizer = self.variant.optimizer(dict(self.variables), self.course.step_size)
        self._searched = [  # the others need no gradient
            name for name, v in self.variables.items() if any(v is p for p in self._optimized)
        ]
        if self.course.final_step_size is not None:
            for group in self.optimizer.param_groups:
                group.setdefault("initial_lr", group["lr"])
        self.sums = {name: torch.zeros_like(start[name]) for name in self.variant.averaged}
        self.register_buffer("objectives", torch.full((len(self.owned),), torch.nan, device=device))
        self.active = torch.ones(count, dtype=torch.bool)
        self.done = 0
        self._pass = torch.zeros(3, len(self.owned), device=device)  # losses, hits, images
        self.problems_per_forward = problems_per_forward or self._balanced()

    @property
    def total_steps(self) -> int:
        """Number of steps of the whole search."""
        return self.order.steps_per_epoch * self.course.search_epochs

    @property
    def progress(self) -> float:
        """Share of the search that is made, from 0 for the first step to 1 once all are made.

        It counts passes of the class that has most search images, whether it is searched or not:
        no problem may depend on which others are searched.
        """
        made, total = self._made_of_longest
        return made / total

    @full_fp32()
    def step(self, optimizer: Any = None) -> Tensor:  # noqa: ANN401
        """Make one step of every owned problem that goes on and has images left in this pass.

        Args:
            optimizer: What makes the update, such as a Trainer's wrapper of `self.optimizer`, by
                which it counts steps; None is `self.optimizer` itself.

        Returns:
            (number of such problems,) float32 losses per image before the update.

        Raises:
            ValueError: if a loss is NaN; names the class.
        """
        epoch, at = divmod(self.done, self.order.steps_per_epoch)
        batches = self.order.batch(epoch, at)  # (owned, B)
        running = self.active[self.owned] & (batches[:, 0] >= 0)
        rows, batches = running.nonzero().flatten(), batches[running]
        for variable in self._optimized:
            if variable.grad is None:
                variable.grad = torch.zeros_like(variable)
            variable.grad.zero_()
        together = self.problems_per_forward
        chunks = zip(rows.split(together), batches.split(together), strict=True)
        losses = [self._gradient(*chunk) for chunk in chunks if len(chunk[0])]
        loss = torch.cat(losses) if losses else torch.zeros(0, device=self.subject.device)
        self._require_finite(rows, loss)
        self._update(optimizer or self.optimizer, (~running).nonzero().flatten())
        self.done += 1
        if epoch == self.course.search_epochs - 1:
            for name, total in self.sums.items():
                for some in rows.split(ROWS_AT_ONCE):
                    total[some] += self.variables[name].detach()[some]
        if at == self.order.steps_per_epoch - 1:
            self._end_pass()
        return loss

    @full_fp32()
    @torch.no_grad()
    def finish(self) -> None:
        """Compute the objectives, means over each problem's search images: see `winner_size`.

        Raises:
            ValueError: if an objective is NaN; names the class.
        """
        size = self.settings.winner_size
        pasted = None if size is None else self.patterns().stamps([size])
        going_on = self.active[self.owned].nonzero().flatten()
        most = max(1, self.settings.images_per_forward // self._stamps_per_problem)
        self.objectives.fill_(torch.inf)
        for variable in self._optimized:
            variable.grad = None  # as large as they are
        with self.subject.bar(len(going_on), "objectives") as bar:
            for row in going_on:
                rows = row.unsqueeze(0)
                chunks = self.order.candidates(int(row)).split(most)
                images = (to_float(self.order.images[chunk]) for chunk in chunks)
                losses = [
                    self._outputs(self._rows(rows), rows, some[None])[0][0]
                    if pasted is None
                    else pasted_loss(self.subject.frozen, pasted, rows, self.targets[rows], some)
                    for some in images
                ]
                self.objectives[rows] = torch.cat(losses).cpu().double().mean().float()
                bar.update()
        self._require_finite(going_on, self.objectives[going_on])

    def patterns(self) -> PatternSet:
        """Return the owned problems' patterns, on the CPU."""
        subject, network = self.subject, self.subject.fast(self.settings.precision)
        elsewhere = {} if subject.search_set is None else {"search_images": subject.search_set}
        steps = self.order.steps_of(self.owned)
        means = {
            name: (total / steps.to(total.device).view(-1, *[1] * (total.ndim - 1))).cpu()
            for name, total in self.sums.items()
        }
        return PatternSet(
            targets=self.targets.cpu(),
            canvas_indices=self.canvases.indices[self.owned],
            canvases=self.canvas_pixels.cpu(),
            variables={name: v.detach().cpu() for name, v in self.variables.items()},
            means=means,
            objectives=self.objectives.cpu(),
            search_indices=subject.search_indices,
            class_names=subject.class_names,
            settings=self.settings.plain() | {"canvas": self.canvases.kind},
            provenance=provenance(
                fast_copy=", ".join(network.changes) or "unchanged",
                classifier_hash=subject.hash,
                test_set=subject.test_set,
                **elsewhere,
            ),
        )

    def gathered(self) -> PatternSet:
        """Return every process's patterns in the order of the problems; a collective."""
        return PatternSet.joined(gather((self.owned, self.patterns())))

    def state(self) -> dict[str, Any]:
        """Return what the search goes on from, on the CPU: all problems' on rank 0; a collective.

        The canvases' pixels are not in it where they can be read from the test set.
        """
        mine = {f"variable {n}": v.detach() for n, v in self.variables.items()}
        if self.done > self.total_steps - self.order.steps_per_epoch:  # zero until the last pass
            mine |= {f"sum {n}": v for n, v in self.sums.items()}
        mine |= {f"state {n}": v for n, v in self._optimizer_rows()}
        mine |= {"objectives": self.objectives, "pass": self._pass.T}
        rows = {}
        for name, value in mine.items():  # one at a time: rank 0 holds them all
            if shares := gather_to_first((self.owned, value.cpu())):
                rows[name] = in_order(shares)
        return {
            "canvases": list(self.canvases),
            "problems_per_forward": self.problems_per_forward,
            "done": self.done,
            "active": self.active.clone(),
            "rows": rows,
            "optimizer": copy.deepcopy(self.optimizer.state_dict()),
        }

    def restore(self, state: dict[str, Any]) -> None:
        """Go on from what `state` returned, on any number of processes."""
        rows = {name: value[self.owned] for name, value in state["rows"].items()}
        device = self.subject.device
        self.optimizer.load_state_dict(state["optimizer"])
        for index, parameter in enumerate(self._optimized):
            for name in list(self.optimizer.state[parameter]):
                if f"state {index} {name}" in rows:
                    value = rows[f"state {index} {name}"].to(device)
                    self.optimizer.state[parameter][name] = value
        with torch.no_grad():
            for name, variable in self.variables.items():
                variable.copy_(rows[f"variable {name}"])
            for name, total in self.sums.items():
                total.copy_(rows.get(f"sum {name}", torch.zeros(())))
            self.objectives.copy_(rows["objectives"])
        self._pass.copy_(rows["pass"].T)
        self.done, self.active = state["done"], state["active"].clone()

    def _start(self) -> dict[str, Tensor]:
        """Return what the owned problems start with, some at a time: canvases as floats are big."""
        chunks = self.canvas_pixels.split(ROWS_AT_ONCE)
        parts = [self.variant.variables(to_float(some)) for some in chunks]
        return {name: torch.cat([part[name] for part in parts]) for name in parts[0]}

    def _update(self, optimizer: Any, idle: Tensor) -> None:  # noqa: ANN401
        """Step, but leave the rows of idle problems alone: momentum would move them."""
        if self.course.final_step_size is not None:
            made, total = self._made_of_longest
            factor = self.course.step_size_at(made / max(1, total - 1)) / self.course.step_size
            for group in self.optimizer.param_groups:
                group["lr"] = group["initial_lr"] * factor
        before = [(tensor, tensor.detach()[idle].clone()) for tensor in self._per_problem()]
        optimizer.step()
        with torch.no_grad():
            self.variant.after_step(
                {n: v.detach() for n, v in self.variables.items()}, self.progress
            )
            for tensor, kept in before:
                tensor[idle] = kept

    @property
    def _made_of_longest(self) -> tuple[int, int]:
        """How many steps are made, and all, of a class with the longest pass of the data set."""
        longest = self.order.longest_pass
        epoch, at = divmod(self.done, max(1, self.order.steps_per_epoch))
        return epoch * longest + at, max(1, self.course.search_epochs * longest)

    @property
    def _optimized(self) -> list[Tensor]:
        return [tensor for group in self.optimizer.param_groups for tensor in group["params"]]

    def _per_problem(self) -> Iterator[Tensor]:
        yield from self.variables.values()
        for _, tensor in self._optimizer_rows():
            yield tensor

    def _optimizer_rows(self) -> Iterator[tuple[str, Tensor]]:
        """Yield the optimiser's state that has one row for each owned problem, by name."""
        for index, parameter in enumerate(self._optimized):
            for name, value in self.optimizer.state.get(parameter, {}).items():
                if isinstance(value, Tensor) and value.shape == parameter.shape:
                    yield f"{index} {name}", value

    def _gradient(self, rows: Tensor, batches: Tensor) -> Tensor:
        """Add the gradients of some problems, return their mean losses (r,)."""
        count = len(rows)
        if self.settings.precision == "bf16":
            padding = self.problems_per_forward - count
            rows = torch.cat([rows, rows[-1:].expand(padding)])
            batches = torch.cat([batches, batches[-1:].expand(padding, -1)])
        images = to_float(self.order.images[batches.clamp(min=0)])  # (r, B, C, H, W)
        real = (batches >= 0).to(self.subject.device)
        chosen = self._rows(rows)
        of = [chosen[name].requires_grad_() for name in self._searched]
        with torch.enable_grad():
            losses, hits = self._outputs(chosen, rows, images)
            losses = torch.where(real, losses, 0)
            gradients = torch.autograd.grad(
                losses.sum(), of, allow_unused=True, materialize_grads=True
            )
        for name, gradient in zip(self._searched, gradients, strict=True):
            into = self.variables[name].grad
            assert into is not None
            into[rows[:count]] = gradient[:count]
        sums = torch.stack([losses.detach().sum(1), (hits & real).sum(1), real.sum(1)])[:, :count]
        self._pass[:, rows[:count]] += sums
        return sums[0] / sums[2]

    def _outputs(
        self, variables: dict[str, Tensor], rows: Tensor, images: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Return what is minimised and whether the target is said, for each mixed image.

        Args:
            variables: Those of the problems `rows`.
            rows: (r,) owned problems.
            images: float32 (r, B, C, H, W) in [0, 1].

        Returns:
            (r, B) float32, mean over the M stamps of a problem, and (r, B) bool, for all of them.
        """
        problems = self._problems(rows)
        stamp = self.variant.stamps(variables, problems)
        over_images = stamp._replace(mask=stamp.mask.unsqueeze(2), pixels=stamp.pixels.unsqueeze(2))
        mixed = over_images(images.unsqueeze(1))  # (r, M, B, C, H, W)
        shape = mixed.shape[:3]
        logits = self.subject.fast(self.settings.precision)(mixed.flatten(0, 2)).float()
        targets = problems.targets.repeat_interleave(shape[1] * shape[2])
        loss = self.variant.loss(logits, targets, problems.progress).view(shape).mean(1)
        hits = (logits.detach().argmax(1) == targets).view(shape).all(1)
        return loss + self.variant.penalty(variables, problems).unsqueeze(1), hits

    def _rows(self, rows: Tensor) -> dict[str, Tensor]:
        return {name: variable.detach()[rows] for name, variable in self.variables.items()}

    def _problems(self, rows: Tensor) -> Problems:
        canvases = to_float(self.canvas_pixels[rows])
        return Problems(canvases, self.targets[rows], self.sparsity[rows], self.progress)

    def _end_pass(self) -> None:
        outcome = self._outcome()
        variables = {name: v.detach() for name, v in self.variables.items()}
        going_on = self.variant.react(outcome, variables)
        if going_on is not None:
            self.active &= going_on.cpu()
            left = self.canvases.targets[self.active].unique()
            if len(left) < len(self.canvases.targets.unique()):
                raise ValueError("the search variant dropped all problems of a class")
        self._pass.zero_()

    def _outcome(self) -> Outcome:
        everyone = torch.zeros(3, len(self.active), dtype=torch.float64)
        everyone[:, self.owned] = self._pass.cpu().double()
        losses, hits, images = sum_over_ranks(everyone)
        return Outcome(
            self.canvases.targets,
            losses / images,
            hits / images,
            self.owned,
            self.done / self.total_steps,
        )

    def _require_finite(self, rows: Tensor, losses: Tensor) -> None:
        broken = rows[losses.isnan().cpu()]
        if len(broken):
            raise ValueError(
                f"the search for class {int(self.targets[broken[0]])} met NaN logits: "
                "the classifier is not finite on mixed images"
            )

    @property
    def _stamps_per_problem(self) -> int:
        rows = torch.arange(min(1, len(self.owned)))
        stamp = self.variant.stamps(self._rows(rows), self._problems(rows))
        return max(stamp.mask.shape[1], stamp.pixels.shape[1])

    def _balanced(self) -> int:
        """Return how many problems go into a forward pass, so that passes are about equal."""
        images = self.course.search_batch_size * self._stamps_per_problem
        fitting = max(1, self.settings.images_per_forward // images)
        count = len(self.canvases.targets)
        return max(1, math.ceil(count / max(1, math.ceil(count / fitting))))
