"""What every variant of the package keeps: bits, files, names on the command line."""

import importlib
import inspect
import pkgutil
from pathlib import Path

import pytest
import torch

from iscp_lightning.classifiers.subject import Subject
from iscp_lightning.cli import main
from iscp_lightning.data import MemoryImages, Shapes
from iscp_lightning.patterns import PatternSearch, PatternSet, SearchSettings, engine, variants
from iscp_lightning.patterns.search import problems_of, run_search
from iscp_lightning.patterns.variants import Problems, Variant

MODULES = [
    importlib.import_module(f"{variants.__name__}.{info.name}")
    for info in pkgutil.iter_modules(variants.__path__)
]
SHIPPED = [
    value
    for module in MODULES
    for value in vars(module).values()
    if inspect.isclass(value)
    and issubclass(value, Variant)
    and value.__module__ == module.__name__
    and not inspect.isabstract(value)
]
every_variant = pytest.mark.parametrize("kind", SHIPPED, ids=lambda kind: kind.__name__)


@pytest.fixture(scope="module")
def shapes() -> MemoryImages:
    test = Shapes(train_count=10, test_count=60).test()
    return MemoryImages(test.pixels(range(60)), test.labels)


def settings(kind, **changes) -> SearchSettings:
    return SearchSettings(
        **{"canvas": "random", "canvases_per_class": 2, "search_epochs": 2, "seed": 0} | changes,
        variant=kind(),
    )


def subject(classifier, images) -> Subject:
    """Twenty search images, five of class 3, whose passes are shorter by a step therefore."""
    of_class_3 = images.labels == 3
    chosen = torch.cat([(~of_class_3).nonzero()[:15], of_class_3.nonzero()[:5]]).flatten()
    return Subject(classifier, images, [str(k) for k in range(10)], chosen.sort().values)


def require_equal(one: PatternSet, other: PatternSet) -> None:
    assert torch.equal(one.objectives, other.objectives)
    for name in one.variables:
        assert torch.equal(one.variables[name], other.variables[name]), name
    for name in one.means:
        assert torch.equal(one.means[name], other.means[name]), name


@every_variant
def test_same_bits_for_every_batching_and_order_of_classes(kind, trained, shapes):
    search = run_search(subject(trained, shapes), settings(kind), [3, 7])
    assert search.order.steps_of(search.owned).unique().tolist() == [4, 5]
    whole = search.gathered()
    small = settings(kind, micro_batch_size=4)
    require_equal(whole, run_search(subject(trained, shapes), small, [3, 7]).gathered())
    turned = run_search(subject(trained, shapes), settings(kind), [7, 3]).gathered()
    order = torch.cat([(turned.targets == target).nonzero().flatten() for target in (3, 7)])
    require_equal(whole, turned[order])
    alone = run_search(subject(trained, shapes), settings(kind), [7]).gathered()
    require_equal(whole[whole.targets == 7], alone)
    assert any(len(value.unique()) > 2 for value in whole.variables.values())


@every_variant
@pytest.mark.parametrize("steps", [3, 7], ids=["in the first pass", "in the second pass"])
def test_a_search_goes_on_from_its_state(kind, steps, trained, shapes):
    given = subject(trained, shapes)
    canvases = problems_of(given, settings(kind), [3, 7])
    whole, broken, resumed = (PatternSearch(given, canvases, settings(kind)) for _ in range(3))
    for search, last in ((whole, whole.total_steps), (broken, steps)):
        while search.done < last:
            search.step()
    torch.save(broken.state(), "state.pt")
    resumed.restore(torch.load("state.pt", weights_only=True))
    while resumed.done < resumed.total_steps:
        resumed.step()
    whole.finish()
    resumed.finish()
    require_equal(whole.gathered(), resumed.gathered())
    assert torch.equal(whole.active, resumed.active)


@every_variant
def test_processes_find_what_one_does(kind, trained, shapes, monkeypatch):
    """Three, of which one has no problem where there is one for each class."""
    chosen, given = settings(kind), subject(trained, shapes)
    whole = run_search(given, chosen, [3, 7])
    ranks = []
    for rank in range(3):
        monkeypatch.setattr(engine, "share", lambda items, r=rank: list(items)[r::3])
        problems = whole.problems_per_forward
        ranks.append(PatternSearch(given, whole.canvases, chosen, problems))
    end_pass, said = PatternSearch._end_pass, []
    monkeypatch.setattr(PatternSearch, "_end_pass", lambda _: None)
    for step in range(1, whole.total_steps + 1):
        for search in ranks:
            search.step()
        if step % whole.order.steps_per_epoch == 0:
            said.clear()
            monkeypatch.setattr(engine, "sum_over_ranks", lambda mine: said.append(mine) or mine)
            for search in ranks:
                search._outcome()
            monkeypatch.setattr(engine, "sum_over_ranks", lambda mine: sum(said))
            for search in ranks:
                end_pass(search)
    for search in ranks:
        search.finish()
        assert torch.equal(search.active, whole.active)
    parts = [(search.owned, search.patterns()) for search in ranks]
    require_equal(PatternSet.joined(parts), whole.gathered())


@every_variant
def test_a_pattern_file_knows_its_variant(kind, trained, shapes):
    given = subject(trained, shapes)
    found = run_search(given, settings(kind, search_epochs=1), [3]).gathered()
    found.save("p.safetensors")
    back = PatternSet.load("p.safetensors")
    assert type(back.variant) is kind
    assert back.variant.describe() == kind().describe()
    require_equal(found, back)


CONFIGURATION = """
model:
  class_path: PatternSearchModule
  init_args:
    classes: [1]
    pattern_sizes: [1.0]
    search:
      canvas: random
      canvases_per_class: 2
      search_epochs: 2
      variant: {}
data:
  source: {{class_path: Shapes, init_args: {{test_count: 60, train_count: 20}}}}
trainer: {{accelerator: cpu, devices: 1, enable_progress_bar: false, logger: false}}
"""


@pytest.mark.parametrize(
    ("written", "described"),
    [
        (
            "{class_path: TotalVariation, init_args: {smoothness: 1}}",
            {"name": "TotalVariation", "smoothness": 1},
        ),
        (
            "{class_path: LearnedCanvas, init_args: {canvas_step_size: 4/255, steps_each: 2}}",
            {"name": "LearnedCanvas", "canvas_step_size": 4 / 255, "steps_each": 2},
        ),
        (
            "{class_path: UniversalPerturbation, init_args: {epsilon: 16/255}}",
            {"name": "UniversalPerturbation", "epsilon": 16 / 255, "step_size": None},
        ),
        (
            "{class_path: SuccessiveHalving, init_args: {after: [0.5]}}",
            {"name": "SuccessiveHalving", "keep": 0.5, "after": [0.5]},
        ),
        ("TotalVariation", {"name": "TotalVariation", "smoothness": 0.2}),
    ],
)
def test_short_names_in_yaml(written, described):
    Path("search.yaml").write_text(CONFIGURATION.format(written))
    weights = Path(__file__).parents[3] / "checkpoints" / "shapes_resnet20.safetensors"
    main(["search", "-c", "search.yaml", "--model.classifier", str(weights), "--run", "r"])
    (file,) = Path("runs/r/patterns").iterdir()
    found = PatternSet.load(file)
    assert found.settings["variant"] == described
    assert not found[found.winners].power.attack_success_rate.isnan().any()


def killed(_):
    raise RuntimeError("killed")


def test_a_search_is_resumed_by_its_folder(monkeypatch):
    """The checkpoint of a variant with options is read back safely, and is of the same origin."""
    variant = "{class_path: LearnedCanvas, init_args: {canvas_step_size: 4/255}}"
    Path("search.yaml").write_text(CONFIGURATION.format(variant))
    weights = Path(__file__).parents[3] / "checkpoints" / "shapes_resnet20.safetensors"
    arguments = ["search", "-c", "search.yaml", "--model.classifier", str(weights)]
    with monkeypatch.context() as patched:
        patched.setattr(PatternSearch, "finish", killed)
        with pytest.raises(RuntimeError, match="killed"):
            main([*arguments, "--run", "broken"])
    main(["search", "--resume", "runs/broken"])
    main([*arguments, "--run", "whole"])
    broken, whole = (
        PatternSet.load(f"runs/{name}/patterns/random.safetensors") for name in ("broken", "whole")
    )
    require_equal(broken, whole)


@every_variant
@pytest.mark.parametrize("progress", [0.0, 0.5, 1.0])
def test_a_process_may_have_no_problem(kind, progress):
    canvases = torch.zeros(0, 3, 8, 8)
    problems = Problems(canvases, torch.zeros(0).long(), torch.zeros(0), progress)
    stamp = kind().stamps(kind().variables(canvases), problems)
    made = stamp(torch.zeros(0, 1, 3, 8, 8))
    assert (len(made), made.shape[2:]) == (0, (3, 8, 8))
