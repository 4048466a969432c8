"""The claims of docs/claims: numbers, verdicts, runs; the document is that of the numbers."""

import json
import math
import sys
from pathlib import Path

import pytest
import torch
import yaml

from iscp_lightning import PatternSet

DOCS = Path(__file__).parents[1] / "docs"
sys.path.insert(0, str(DOCS / "claims"))

import evaluate  # noqa: E402
import hard_loss  # noqa: E402
import on_shapes  # noqa: E402
import overlaps  # noqa: E402
import runs  # noqa: E402

CLAIMS = yaml.safe_load((DOCS / "claims" / "claims.yaml").read_text())
EVERY = [
    *CLAIMS["paper"],
    *CLAIMS["probes"],
    *CLAIMS["inversions"],
    *CLAIMS["ours"],
    *CLAIMS["cifar10"],
]


def test_the_document_is_made_from_the_numbers():
    stored = evaluate.Stored(json.loads((DOCS / "claims" / "numbers.json").read_text()))
    assert (DOCS / "claims.md").read_text() == evaluate.document(stored)


@pytest.mark.parametrize("claim", EVERY, ids=lambda claim: claim["number"])
def test_every_claim_asks_for_runs_that_are_made(claim):
    class AllMade(evaluate.Stored):
        def of(self, run, key):
            assert run in self.runs
            self.used[run] = None
            if key.startswith(("canvases/", "hard_loss/")):
                return torch.full((10 if key.endswith("count") else 30,), 3.0).double()
            return torch.ones(1 if key.startswith("test/") else 10, dtype=torch.float64)

    stored = AllMade(runs.commands())
    function, *arguments = claim["value"]
    assert len(getattr(stored, function)(*arguments)) > 0
    assert stored.used
    assert {"above", "below"} & claim.keys()


@pytest.mark.parametrize(
    ("bounds", "ends", "said"),
    [
        ({"above": 0}, (0.1, 0.2), "agrees"),
        ({"above": 0}, (-0.1, 0.2), "undecided"),
        ({"above": 0}, (-0.2, -0.1), "contradicts"),
        ({"below": 1}, (0.1, 0.2), "agrees"),
        ({"below": 1}, (1.1, 1.2), "contradicts"),
        ({"above": -1, "below": 1}, (-0.5, 0.5), "agrees"),
        ({"above": -1, "below": 1}, (-1.5, 0.5), "undecided"),
        ({"above": -1, "below": 1}, (1.5, 2.5), "contradicts"),
    ],
)
def test_verdicts_by_hand(bounds, ends, said):
    assert evaluate.verdict(bounds, *ends) == said


def test_differences_are_paired_by_seed_and_class_where_both_are_there():
    powers = {"a_0": [0.5, 0.7], "b_0": [0.1, 0.1], "a_1": [0.3, 0.3], "b_2": [0.0, 0.0]}
    stored = evaluate.Stored({name: {"power": of} for name, of in powers.items()})
    assert stored.difference("power", "a", "b").tolist() == pytest.approx([0.5])
    assert stored.number("power", "a").tolist() == pytest.approx([0.6, 0.3])
    assert stored.spread("power", "a").tolist() == pytest.approx([0.1, 0])


def test_what_draws_attention_is_compared_with_random_pixels():
    kinds = {"attention_before/0.1": 0.2, "attention_after/0.1": 0.5}
    kinds |= {"chance_attention_before/0.1": 0.1, "chance_attention_after/0.1": 0.15}
    stored = evaluate.Stored({"a_0": {key: [value] for key, value in kinds.items()}})
    assert stored.attention_drawn("0.1", "a").tolist() == pytest.approx([0.25])


def test_intervals_by_hand():
    low, high = evaluate.interval(torch.tensor([1.0, 2.0, 3.0]))
    assert (low, high) == pytest.approx((2 - 4.302653 / 3**0.5, 2 + 4.302653 / 3**0.5))
    assert all(map(math.isnan, evaluate.interval(torch.tensor([1.0]))))


def test_triggers_that_were_not_learned_are_left_out():
    found = {}
    for name, asr in zip(on_shapes.LOCAL, (0.9, 0.2, 0.5, 0.1, 0.4), strict=True):
        found[f"badnets_{name}_augmented"] = {"test/attack_success_rate": [asr]}
        found[f"white_badnets_{name}_augmented"] = {"iou": [asr]}
        found[f"white_badnets_{name}"] = {"iou": [0.0]}
    assert evaluate.Stored(found).shifted_by_augmentation("iou", "white").tolist() == [0.9, 0.5]


@pytest.mark.parametrize(
    ("on", "naturals"),
    [("", ("natural_0", "natural_2")), ("cifar10_", ("cifar10_resnet20", "cifar10_natural_2"))],
)
def test_the_lead_of_the_target_and_of_one_way_over_the_other(on, naturals):
    found, rates = {}, {}
    for name, (target, _) in on_shapes.TRIGGERS.items():
        of_classes = [0.8 if k == target else k / 10 for k in range(8)]
        found[f"{on}all_badnets_{name}"] = {"asr": of_classes}
        for seed, natural, rate in ((0, naturals[0], 0.2), (2, naturals[1], 0.4)):
            rates[f"rate/{on}positive_{seed}/{on}badnets_{name}"] = [rate]
            rates[f"rate/{on}all_badnets_{name}/{natural}"] = [rate / 2]
    rates |= {
        f"rate/{on}positive_0/{naturals[1]}": [0.5],
        f"rate/{on}positive_2/{naturals[0]}": [0.7],
    }
    stored = evaluate.Stored({**found, f"{on}transfer": rates})
    leads = [0.8 - (0.6 if target == 7 else 0.7) for target, _ in on_shapes.TRIGGERS.values()]
    assert stored.target_stands_out("asr", f"{on}all").tolist() == pytest.approx(leads)
    assert stored.to_backdoored_above_to_natural("rate", on).tolist() == pytest.approx([0.15] * 6)
    assert stored.to_backdoored_above_twins("rate", on).tolist() == pytest.approx([-0.3] * 6)


def test_canvases_chosen_by_their_power_elsewhere():
    held_out = {"power": [0.5, 0.1], "canvases/power": [0.5, 0.3, 0.1], "canvases/count": [2, 1]}
    searched = {"canvases/power": [0.2, 0.6, math.nan], "canvases/count": [2, 1]}
    stored = evaluate.Stored({"a_0": held_out, "b_0": searched})
    assert stored.chosen_by_power("power", "a", "b").tolist() == pytest.approx([-0.1])
    lost = {"hard_loss/0.05": [1.5, 1.2, 0.3]}
    stored = evaluate.Stored({"a_0": held_out, "b_0": lost})
    assert stored.chosen_by_hard_loss("power", "a", "b").tolist() == pytest.approx([-0.1])


def test_runs_that_fail_are_named(tmp_path, monkeypatch):
    monkeypatch.setattr(runs, "commands", lambda: {"broken": ["nonsense"]})
    assert runs.run(tmp_path, []) == ["broken"]


def test_a_run_of_another_command_is_not_taken_for_the_one_of_its_name(tmp_path, monkeypatch):
    monkeypatch.setattr(evaluate, "commands", lambda: ["natural_1"])
    run = tmp_path / "runs" / "natural_1"
    run.mkdir(parents=True)
    (run / "results.json").write_text(json.dumps({"test": {"test/clean_accuracy": 0.9}}))
    wanted = runs.commands()["natural_1"]
    for arguments in ([*wanted, "--run", "r"], ["fit", "--run", "r", "--overwrite", *wanted[1:]]):
        (run / "run.json").write_text(json.dumps({"commands": [{"arguments": arguments}]}))
        assert evaluate.collect(tmp_path) == {"natural_1": {"test/clean_accuracy": [0.9]}}
    other = ["fit", "--data.source", "ImageFolder", "--run", "natural_1"]
    (run / "run.json").write_text(json.dumps({"commands": [{"arguments": other}]}))
    with pytest.raises(ValueError, match="natural_1 was made by another command"):
        evaluate.collect(tmp_path)
    with pytest.raises(ValueError, match="give another folder"):
        runs.run(tmp_path, ["natural_1"])


def test_another_radius_is_another_command(tmp_path, monkeypatch):
    monkeypatch.setattr(
        runs, "commands", lambda: {"a": ["fit", "-c", "/here/a.yaml", "--e", "8/255"]}
    )
    run = tmp_path / "runs" / "a"
    run.mkdir(parents=True)
    (run / "results.json").write_text("{}")
    for radius in ("8/255", "2/255"):
        arguments = ["fit", "-c", "/there/a.yaml", "--e", radius, "--run", "a"]
        (run / "run.json").write_text(json.dumps({"commands": [{"arguments": arguments}]}))
        if radius == "8/255":
            assert runs.is_made(tmp_path, "a")
    with pytest.raises(ValueError, match="a was made by another command"):
        runs.is_made(tmp_path, "a")


def test_of_a_test_under_attack_only_the_attacks_count():
    results = {"test": {"attacks/stadv": 0.4, "attacks/noise": 0.9, "test/clean_accuracy": 1.0}}
    assert evaluate.numbers(results | {"robustness": {}}) == {"attacks/stadv": [0.4]}


def test_hard_loss_is_that_of_the_search_images_of_other_classes_but_the_canvas():
    images = torch.arange(4, dtype=torch.uint8).mul(50).view(4, 1, 1, 1).expand(4, 3, 4, 5)

    def network(seen):
        assert seen.shape[1:] == (3, 4, 5)
        return seen.mean((1, 2, 3)).unsqueeze(1) * torch.tensor([0.0, 10.0])

    mask = torch.zeros(1, 4, 5)
    mask[0, 1, 2] = 1
    patterns = PatternSet(
        targets=torch.tensor([1]),
        canvas_indices=torch.tensor([0]),
        canvases=torch.full((1, 3, 4, 5), 255, dtype=torch.uint8),
        variables={"mask": mask},
        means={"mask": mask},
        objectives=torch.zeros(1),
        search_indices=torch.tensor([0, 1, 2]),
        class_names=("off", "on"),
        settings={"canvas": "positive"},
    )
    found = hard_loss.hard_loss(network, patterns, 0, images, torch.tensor([0, 0, 1, 0]))
    mean = (50 / 255) * 19 / 20 + 1 / 20  # one of 20 pixels is white
    assert found == pytest.approx(math.log1p(math.exp(-10 * mean)), rel=1e-4)


def test_numbers_of_a_run_by_hand():
    canvases = [{"predictive_power": {"0.05": 0.2}}, {"predictive_power": None}]
    canvases.append({"predictive_power": {"0.05": 0.6}})
    of_class = {"predictive_power": {"0.05": 0.6}, "canvases": canvases}
    of_class |= {"attack_success_rate": {"0.05": 0.5}, "random_mask_rate": {"0.05": None}}
    record = {"pattern_size": 0.05, "measure": "connectedness", "value": 0.3}
    found = evaluate.numbers(
        {
            "test": {"test/clean_accuracy": 0.9, "test/other": 1},
            "classes": [of_class],
            "records": [{**record, "class": "ring"}, record],
        }
    )
    (undefined,) = found.pop("random_mask_rate/0.05")
    assert math.isnan(undefined)
    first, undefined, last = found.pop("canvases/predictive_power/0.05")
    assert (first, last) == (0.2, 0.6)
    assert math.isnan(undefined)
    assert found == {
        "test/clean_accuracy": [0.9],
        "canvases/count": [3],
        "predictive_power/0.05": [0.6],
        "attack_success_rate/0.05": [0.5],
        "connectedness/0.05": [0.3],
    }  # who did not measure all canvases knows neither the first nor the best
    del canvases[1]
    found = evaluate.numbers({"classes": [of_class]})
    assert found["first_canvas/predictive_power/0.05"] == [0.2]
    assert found["best_canvas/predictive_power/0.05"] == [0.6]


def test_runs_are_made_with_those_that_they_need():
    assert set(runs.needed(["described_adversarial_1"])) == {
        "described_adversarial_1",
        "positive_adversarial_1",
        "adversarial_1",
        "start_1",
    }


def test_a_run_named_like_a_command_does_not_need_itself():
    assert {"transfer", "all_badnets_square", "natural_1"} <= set(runs.needed(["transfer"]))


def test_overlaps_of_two_searches_by_class():
    first = torch.tensor([[1, 1, 0, 0], [0, 0, 1, 1], [0, 1, 1, 0]]).bool().view(3, 2, 2)
    other = torch.tensor([[1, 1, 0, 0], [0, 1, 0, 1], [0, 0, 1, 1]]).bool().view(3, 2, 2)
    same, different = overlaps.overlaps(first, other)
    assert same.tolist() == pytest.approx([1, 1 / 3, 1 / 3])
    assert different.tolist() == pytest.approx([(1 / 3 + 0) / 2, (0 + 1) / 2, (1 / 3 + 1 / 3) / 2])
