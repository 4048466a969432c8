"""Tests of choosing images evenly over the classes."""

from typing import Any

import numpy as np
import pytest
import torch
import yaml

from iscp_lightning.cli import main
from iscp_lightning.data.splits import class_indices, stratified_choice, stratified_split

LABELS = torch.tensor([0] * 50 + [1] * 30 + [2] * 2)


def test_counts_per_class_differ_by_one_at_most():
    for count in (1, 2, 4, 5):
        counts = LABELS[stratified_choice(LABELS, count, 0)].bincount(minlength=3)
        assert counts.sum() == count
        assert counts.max() - counts.min() <= 1


def test_a_small_class_gives_all_it_has():
    chosen = stratified_choice(LABELS, 22, 0)
    assert LABELS[chosen].bincount().tolist() == [10, 10, 2]
    assert torch.equal(chosen, chosen.sort().values)
    assert torch.equal(stratified_choice(LABELS, 100, 0), torch.arange(82))


def test_the_seed_fixes_the_choice():
    first = stratified_choice(LABELS, 9, 1)
    assert torch.equal(first, stratified_choice(LABELS, 9, 1))
    assert not torch.equal(first, stratified_choice(LABELS, 9, 2))


MODEL = ("--model", "PatternSearchModule", "--model.init_args.classifier", "test_resnet")
NUMBERED = ("0", "1", "10", "2")  # folders sort like this: "10" has index 2, "2" has index 3
PADDED = ("00000", "00001", "00002")
ODD = ("-1", "True", "index:1", "name:-1")


@pytest.mark.parametrize(
    ("names", "given", "expected"),
    [
        (NUMBERED, [0, 1], [0, 1]),  # index and name agree
        (NUMBERED, ["10", "2"], [2, 3]),
        (NUMBERED, ["name:10", "name:2"], [2, 3]),
        (NUMBERED, ["index:2", "index:3"], [2, 3]),
        (PADDED, [2, "00001", "name:00000"], [2, 1, 0]),
        (PADDED, np.arange(3), [0, 1, 2]),
        (ODD, ["index:1"], [2]),  # the class really has this name
        (ODD, ["name:-1"], [3]),
        (ODD, ["name:index:1", "name:name:-1", "index:0"], [2, 3, 0]),
        (ODD, [1], [1]),
    ],
)
def test_numbers_as_class_names(names: tuple[str, ...], given: Any, expected: list[int]):
    assert class_indices(given, names) == expected


@pytest.mark.parametrize(
    ("names", "given", "message"),
    [
        (NUMBERED, [2], "has 2, which is ambiguous.*`index:2` .class 10. or `name:2`$"),
        (NUMBERED, [3], None),
        (NUMBERED, [10], "has 10, which is ambiguous.*`index:10` .* `name:10`$"),
        (("00005", "00006", "5"), [2], None),
        (("00001", "00002"), [1], "ambiguous.*`index:1` .class 00002. or `name:00001`$"),
        (("01", "1"), [1], "ambiguous.*`index:1` .class 1. or `name:01`$"),
        (ODD, [-1], "ambiguous.*`name:-1`"),
        (ODD, [True], "has True; allowed are 0 to 3"),
        (ODD, [np.True_], "allowed are 0 to 3"),
        (ODD, ["index:4"], "has 'index:4' .*; allowed are 0 to 3"),
        (ODD, ["index:-1"], "has 'index:-1'"),
        (ODD, ["index:"], "has 'index:'"),
        (ODD, [1.0], "has 1.0; allowed"),
        (ODD, [0, "name:0"], "has 'name:0'"),
        (NUMBERED, ["index:3", "name:2"], "names a class twice"),
        (
            ("airplane", "Bird"),
            ["airplaine"],
            "has 'airplaine' .did you mean 'airplane'..; allowed",
        ),
        (("airplane", "Bird"), ["BIRD"], "did you mean 'Bird'"),
        (("airplane", "Bird"), ["name:brid"], "did you mean 'Bird'"),
        (("airplane", "Bird"), ["zebra"], "has 'zebra'; allowed"),
    ],
)
def test_what_could_be_two_classes_or_none_is_refused(
    names: tuple[str, ...], given: Any, message: str | None
):
    if message is None:
        assert class_indices(given, names) == given
        return
    with pytest.raises(ValueError, match=message):
        class_indices(given, names)


@pytest.mark.parametrize(
    ("typed", "expected"),
    [
        ("[1, 0]", [1, 0]),
        ("[name:10, index:3]", [2, 3]),
        ('["name:10"]', [2]),
        ("[10]", None),  # which the parser makes of "10", too
        ('["10"]', None),
    ],
)
def test_classes_with_numbers_as_names_can_be_typed(capsys: Any, typed: str, expected: Any):
    with pytest.raises(SystemExit):
        main(["search", *MODEL, "--model.init_args.classes", typed, "--print_config"])
    parsed = yaml.safe_load(capsys.readouterr().out)["model"]["init_args"]["classes"]
    if expected is None:
        with pytest.raises(ValueError, match=r"`classes` has 10, which is ambiguous.*`name:10`"):
            class_indices(parsed, NUMBERED)
    else:
        assert class_indices(parsed, NUMBERED) == expected


@pytest.mark.parametrize(
    ("fraction", "expected"), [(0.3, 3), (0.2, 2), (0.25, 2), (0.05, 0), (1.0, 9)]
)
def test_the_share_of_a_class_is_rounded_to_the_nearest_image(fraction, expected):
    """Of nine images each: 2.7, 1.8, 2.25, 0.45 and 9."""
    labels = torch.arange(18) % 2
    first, rest = stratified_split(labels, torch.arange(18), fraction, 0)
    assert labels[first].bincount(minlength=2).tolist() == [expected, expected]
    assert labels[rest].bincount(minlength=2).tolist() == [9 - expected, 9 - expected]
    assert torch.equal(torch.cat([first, rest]).sort().values, torch.arange(18))
