"""Tests of the atomic writer, the JSON it writes, and provenance."""

import json
import math
from pathlib import Path
from types import SimpleNamespace

import pytest

from iscp_lightning.runs import atomic_path, finite, may_write, provenance, write_json


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
