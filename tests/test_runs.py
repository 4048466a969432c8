"""Tests of the atomic writer, the JSON it writes, and provenance."""

import json
import math
from pathlib import Path
from types import SimpleNamespace

import pytest

from iscp_lightning.runs import (
    Run,
    atomic_path,
    finite,
    is_first_process,
    may_write,
    provenance,
    write_json,
)


def test_atomic_path_replaces_the_old_file_only_at_the_end(tmp_path: Path):
    path = tmp_path / "new folder" / "result.json"
    for text in ("first", "second"):
        old = path.read_text() if path.exists() else None
        with atomic_path(path) as temporary:
            assert temporary.parent == path.parent  # a rename across file systems is a copy
            assert temporary.suffix == path.suffix  # writers choose their format by it
            temporary.write_text(text)
            assert (path.read_text() if path.exists() else None) == old
        assert path.read_text() == text
        assert list(path.parent.iterdir()) == [path]


def test_two_writers_of_one_path_never_share_a_temporary_file(tmp_path: Path):
    """Process ids repeat over the containers that write to one folder."""
    path = tmp_path / "result.json"
    with atomic_path(path) as first, atomic_path(path) as second:
        assert first != second
        first.write_text("first")
        second.write_text("second")
    assert path.read_text() == "first"  # the last to come to its end
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("old", [None, "old"])
def test_atomic_path_leaves_no_trace_of_a_failure(tmp_path: Path, old: str | None):
    path = tmp_path / "result.json"
    if old is not None:
        path.write_text(old)

    def write():
        with atomic_path(path) as temporary:
            temporary.write_text("half")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write()
    assert [file.read_text() for file in tmp_path.iterdir()] == ([] if old is None else [old])


def test_write_json_turns_what_json_cannot_hold_into_null(tmp_path: Path):
    path = tmp_path / "results.json"
    content = {
        "nan": math.nan,
        "classes": [{"power": {0.01: -math.inf, 0.05: 0.5}}, (math.inf, 1, "nan")],
        "flag": True,
    }
    write_json(path, content)

    def refuse(constant: str):
        raise AssertionError(f"{constant} is not JSON")

    assert json.loads(path.read_text(), parse_constant=refuse) == {
        "nan": None,
        "classes": [{"power": {"0.01": None, "0.05": 0.5}}, [None, 1, "nan"]],
        "flag": True,
    }


def test_write_json_keeps_the_old_file_when_the_content_is_no_json(tmp_path: Path):
    path = tmp_path / "results.json"
    write_json(path, {"good": 1})
    with pytest.raises(TypeError):
        write_json(path, {"bad": object()})
    assert [json.loads(file.read_text()) for file in tmp_path.iterdir()] == [{"good": 1}]


@pytest.mark.parametrize(
    ("value", "expected"),
    [(1.5, 1.5), (math.nan, None), ([math.inf], [None]), ("inf", "inf"), (None, None), (3, 3)],
)
def test_finite(value: object, expected: object):
    assert finite(value) == expected


@pytest.mark.parametrize(
    ("rank_zero", "dry", "expected"),
    [(True, False, True), (False, False, False), (True, 1, False), (False, 1, False)],
)
def test_only_rank_zero_of_a_real_run_writes(rank_zero: bool, dry: int, expected: bool):
    assert may_write(SimpleNamespace(is_global_zero=rank_zero, fast_dev_run=dry)) is expected


def test_provenance_holds_versions_time_and_the_given_facts():
    facts = provenance(seed=3, classifier="abc")
    assert set(facts) == {"versions", "created", "seed", "classifier"}
    packages = {"python", "iscp-lightning", "torch", "torchvision", "lightning", "timm"}
    assert set(facts["versions"]) == packages
    assert all(version[0].isdigit() for version in facts["versions"].values())
    assert facts["created"].endswith("Z")
    assert json.loads(json.dumps(facts)) == facts


@pytest.mark.parametrize(
    ("variables", "expected"),
    [
        ({}, True),
        ({"RANK": "0", "LOCAL_RANK": "0"}, True),
        ({"RANK": "4", "LOCAL_RANK": "0"}, False),  # torchrun, first process of a second node
        ({"SLURM_PROCID": "0"}, True),
        ({"SLURM_PROCID": "3"}, False),
        ({"LOCAL_RANK": "1"}, False),
        ({"NODE_RANK": "0", "LOCAL_RANK": "0"}, True),
        ({"NODE_RANK": "1"}, False),  # started by hand on a second node
        ({"NODE_RANK": "1", "LOCAL_RANK": "0"}, False),
    ],
)
def test_the_first_process_is_known_under_every_launcher(variables, expected, monkeypatch):
    for name in ("RANK", "SLURM_PROCID", "LOCAL_RANK", "NODE_RANK"):
        monkeypatch.delenv(name, raising=False)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    assert is_first_process() is expected


def replacing(tmp_path: Path) -> Run:
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "old").touch()
    run = Run(["fit"])
    run.folder, run.replaces = tmp_path / "a", True
    return run


def test_a_run_replaces_another_once_it_has_an_artefact(tmp_path: Path):
    run = replacing(tmp_path)
    assert (run.folder / "old").exists()
    run.start()
    assert [path.name for path in run.folder.iterdir()] == ["run.json"]
    assert len(list(tmp_path.glob(".a.*/old"))) == 1
    run.keep()
    run.abandon()
    assert [path.name for path in tmp_path.iterdir()] == ["a"]
    assert [path.name for path in run.folder.iterdir()] == ["run.json"]


def test_a_run_without_artefact_gives_way_to_what_it_replaced(tmp_path: Path):
    run = replacing(tmp_path)
    run.abandon()
    assert (run.folder / "old").exists()
    run.start()
    run.abandon()
    assert [str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*")] == ["a", "a/old"]


def test_only_the_first_process_touches_the_folder(tmp_path: Path, monkeypatch):
    monkeypatch.setenv("NODE_RANK", "1")
    run = replacing(tmp_path)
    run.start()
    run.abandon()
    assert (run.folder / "old").exists()


def test_a_run_that_goes_on_keeps_its_id_and_its_folder(tmp_path: Path):
    first = Run(["fit"])
    first.folder = tmp_path / "a"
    first.start()
    again = Run(["fit", "--resume", "a"])
    again.go_on(first.folder)
    assert again.id == first.id
    again.start()
    again.abandon()
    record = json.loads((first.folder / "run.json").read_text())
    assert [command["arguments"] for command in record["commands"]] == [
        ["fit"],
        ["fit", "--resume", "a"],
    ]


def test_a_run_starts_once(tmp_path: Path):
    run = replacing(tmp_path)
    run.start()
    (run.folder / "new").touch()
    run.start()
    assert (run.folder / "new").exists()
    assert len(json.loads((run.folder / "run.json").read_text())["commands"]) == 1
    assert len(list(tmp_path.glob(".a.*"))) == 1
