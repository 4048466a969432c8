"""The seam: two toy variants, each all that a new way to search takes."""

from pathlib import Path

import pytest
import torch
from torch import nn
from toys import Linear, grey_images, planted_trigger

from iscp_lightning.classifiers.subject import Subject
from iscp_lightning.cli import main
from iscp_lightning.data import MemoryImages
from iscp_lightning.data.stamps import Stamp
from iscp_lightning.patterns import PatternSearch, PatternSet, SearchSettings, engine
from iscp_lightning.patterns.canvas import Canvases
from iscp_lightning.patterns.search import problems_of, run_search
from iscp_lightning.patterns.variants import Algorithm1, Variant
from iscp_lightning.patterns.variants.base import variant_named


class Perturbation(Variant):
    """An additive perturbation of its own size, with a weight that reacts: no mask, no canvas."""

    needs_canvas = False

    def __init__(self, growth: float = 2.0) -> None:
        self.growth = growth

    def variables(self, canvases):
        return {"pixels": torch.zeros_like(canvases), "weight": canvases.new_ones(len(canvases))}

    def stamps(self, variables, problems):
        pixels = variables["pixels"].unsqueeze(1)
        return Stamp(torch.ones_like(pixels[:, :, :1]), pixels, additive=True)

    def penalty(self, variables, problems):
        size = variables["pixels"].abs().mean((1, 2, 3))
        return problems.sparsity * variables["weight"].detach() * size

    def optimizer(self, variables, step_size):
        return torch.optim.Adam([variables["pixels"]], lr=step_size)

    def react(self, outcome, variables):
        grows = outcome.successes[outcome.owned] > 0.5
        variables["weight"][grows] *= self.growth

    def pasted(self, variables, means, canvases, sizes):
        pixels = variables["pixels"].unsqueeze(1).expand(-1, len(sizes), -1, -1, -1)
        return Stamp(torch.ones_like(pixels[:, :, :1]), pixels, additive=True)


class Halving(Algorithm1):
    """Algorithm 1 that goes on with the better half of each class's canvases after a pass."""

    def react(self, outcome, variables):
        going_on = torch.zeros(len(outcome.targets), dtype=torch.bool)
        for target in outcome.targets.unique():
            rows = ((outcome.targets == target) & ~outcome.losses.isnan()).nonzero().flatten()
            best = rows[outcome.losses[rows].argsort()]
            going_on[best[: (len(best) + 1) // 2]] = True
        return going_on


class SizeEach(Algorithm1):
    """One mask for each of two sizes, the smaller one with more weight on its mean."""

    def __init__(self, sizes=(4 / 64, 8 / 64)):
        self.sizes = list(sizes)

    def variables(self, canvases):
        return {"mask": canvases.new_full((len(canvases), 2, *canvases.shape[2:]), 0.5)}

    def stamps(self, variables, problems):
        return Stamp(variables["mask"].unsqueeze(2), problems.canvases.unsqueeze(1))

    def penalty(self, variables, problems):
        weights = problems.sparsity.new_tensor([10.0, 1.0])
        return problems.sparsity * (weights * variables["mask"].mean((2, 3))).sum(1)

    def pasted(self, variables, means, canvases, sizes):
        one = super().pasted
        parts = [
            one({"mask": variables["mask"][:, k]}, {"mask": means["mask"][:, k]}, canvases, [size])
            for size in sizes
            for k in [self.sizes.index(size)]
        ]
        return Stamp(torch.cat([part.mask for part in parts], 1), canvases.unsqueeze(1))


def subject(classifier=None, count=40) -> Subject:
    images = MemoryImages(*grey_images(count))
    return Subject(classifier or planted_trigger()[0], images, "ab", torch.arange(20))


def settings(variant, **changes) -> SearchSettings:
    return SearchSettings(
        **{"sparsity": 0.1, "seed": 0, "search_epochs": 3} | changes, variant=variant
    )


def test_a_perturbation_needs_neither_mask_nor_canvas(tmp_path):
    chosen = settings(Perturbation(growth=3.0), step_size=0.1, canvas="positive")
    search = run_search(subject(), chosen, [0, 1])
    assert search.canvases.indices.tolist() == [-1, -1]  # one problem for each class
    weight = search.variables["weight"].detach()
    assert weight[1] == 3.0**3  # the trigger works in every pass
    found = search.gathered()
    assert set(found.variables) == {"pixels", "weight"}
    found.measured(subject(), [1.0]).save(tmp_path / "p.safetensors")
    back = PatternSet.load(tmp_path / "p.safetensors")
    assert back.variant.growth == 3.0
    assert back.power.attack_success_rate[1, 0] == 1
    stamp = back.stamps([1.0])
    assert (stamp.mask.shape, stamp.additive) == ((2, 1, 1, 8, 8), True)
    _, corner = planted_trigger()
    pixels = found.variables["pixels"][1].mean(0)
    assert pixels[corner].min() > pixels[~corner].abs().max()


def test_dropped_problems_stay_as_they_are_and_never_win():
    search = run_search(
        subject(), settings(Halving(), canvas="random", canvases_per_class=4), [0, 1]
    )
    assert search.active.sum() == 2  # 4, 2, 1 canvases of two classes
    found = search.gathered()
    assert found.objectives.isinf().sum() == 6
    assert set(found.winners.tolist()) == set(search.active.nonzero().flatten().tolist())
    alone = settings(None, canvas="random", canvases_per_class=4, search_epochs=1)
    after_one_pass = run_search(subject(), alone, [0, 1]).gathered()
    dropped_first = torch.arange(8)[(found.masks == after_one_pass.masks).flatten(1).all(1)]
    assert len(dropped_first) == 4
    whole = run_search(
        subject(), settings(None, canvas="random", canvases_per_class=4), [0, 1]
    ).gathered()
    for row in found.winners.tolist():  # what goes on is not disturbed
        assert torch.equal(found.masks[row], whole.masks[row])


def test_one_mask_for_each_size():
    found = run_search(subject(), settings(SizeEach(), canvas="white"), [1]).gathered()
    assert found.variables["mask"].shape == (1, 2, 8, 8)
    stamp = found.stamps([4 / 64, 8 / 64])
    assert stamp.mask.flatten(3).sum(3).flatten().tolist() == [4, 8]
    assert found.selected(8 / 64).sum() == 8
    power = found.measured(subject(), [4 / 64, 8 / 64]).power
    assert power.attack_success_rate.tolist() == [[1, 1]]


@pytest.mark.parametrize("variant", [Perturbation(), Halving(), SizeEach()])
def test_two_processes_find_what_one_does(variant, monkeypatch):
    """Each rank owns every second problem; what a pass came to is summed over both."""
    chosen = settings(variant, canvas="random", canvases_per_class=2)
    whole = run_search(subject(), chosen, [0, 1])
    canvases = problems_of(subject(), chosen, [0, 1])
    ranks = []
    for rank in range(2):
        monkeypatch.setattr(engine, "share", lambda items, r=rank: list(items)[r::2])
        ranks.append(PatternSearch(subject(), canvases, chosen))
    end_pass = PatternSearch._end_pass
    monkeypatch.setattr(PatternSearch, "_end_pass", lambda self: None)
    for step in range(1, whole.total_steps + 1):
        for search in ranks:
            search.step()
        if step % whole.order.steps_per_epoch == 0:
            said: list = []
            monkeypatch.setattr(
                engine, "sum_over_ranks", lambda mine, s=said: s.append(mine) or mine
            )
            for search in ranks:
                search._outcome()
            monkeypatch.setattr(engine, "sum_over_ranks", lambda mine, s=said: s[0] + s[1])
            for search in ranks:
                end_pass(search)
    for rank, search in enumerate(ranks):
        assert torch.equal(search.active, whole.active)
        for name, value in search.variables.items():
            assert torch.equal(value, whole.variables[name][rank::2]), name


def test_adam_goes_on_from_a_state_and_leaves_idle_problems_alone():
    chosen = settings(Perturbation(), step_size=0.1)
    canvases = Canvases("white", torch.tensor([0, 1]), torch.tensor([-1, -1]))
    whole, broken, resumed = (PatternSearch(subject(), canvases, chosen) for _ in range(3))
    for search, steps in ((whole, whole.total_steps), (broken, 4)):
        for _ in range(steps):
            search.step()
    resumed.restore(broken.state())
    while resumed.done < resumed.total_steps:
        resumed.step()
    for name, value in resumed.variables.items():
        assert torch.equal(value, whole.variables[name])
    whole.active[0] = False
    whole.done -= 1
    before = whole.variables["pixels"].detach().clone()
    whole.step()
    assert torch.equal(whole.variables["pixels"][0], before[0])
    assert not torch.equal(whole.variables["pixels"][1], before[1])


CONFIGURATION = """
model:
  class_path: PatternSearchModule
  init_args:
    classes: [1, 2]
    pattern_sizes: [1.0]
    search:
      search_epochs: 1
      variant: {class_path: test_variants.Perturbation, init_args: {growth: 3.0}}
data:
  source: {class_path: Shapes, init_args: {test_count: 60, train_count: 20}}
trainer: {accelerator: cpu, enable_progress_bar: false, logger: false}
"""


def test_one_line_of_yaml_names_a_variant():
    Path("search.yaml").write_text(CONFIGURATION)
    weights = Path(__file__).parents[2] / "checkpoints" / "shapes_resnet20.safetensors"
    main(["search", "-c", "search.yaml", "--model.classifier", str(weights), "--run", "r"])
    found = PatternSet.load("runs/r/patterns/white.safetensors")
    assert found.settings["variant"] == {"name": "Perturbation", "growth": 3.0}
    assert found.variables["pixels"].shape == (2, 3, 32, 32)
    assert found.power.attack_success_rate.shape == (2, 1)


def test_variants_are_looked_up_and_never_imported():
    assert isinstance(variant_named({"name": "Halving"}), Halving)
    assert variant_named(Perturbation(4.0).describe()).growth == 4.0
    with pytest.raises(ValueError, match=r"'os' is not loaded; known are Algorithm1"):
        variant_named({"name": "os"})


def test_a_variant_without_a_reaction_or_penalty_is_complete():
    class Plain(Perturbation):
        penalty = Variant.penalty
        react = Variant.react

    search = run_search(subject(Linear(nn.Parameter(torch.zeros(2, 8, 8)))), settings(Plain()), [0])
    torch.testing.assert_close(search.objectives, torch.tensor([2.0]).log())
