"""Tests of the file that keeps what was found in the course of a training."""

import json
import math

import pytest

from iscp_lightning.callbacks.history import read_history, write_history
from iscp_lightning.records import Findings, Picture, Record


def test_what_is_read_is_what_was_written(tmp_path):
    path = tmp_path / "measurements" / "m.json"
    about = {"pattern_size": 0.05, "class": "ring", "canvas": 7}
    records = [Record("power", 0.1 + 0.2, about), Record("mean", math.nan)]
    records.append(Record("n", 3.0, interval=(2.5, 3.5)))
    picture = Picture(None, "left out")
    first = Findings(records, {"p": picture}, ["left out"], {"epoch": 1, "seed": 0})
    write_history(path, [first, Findings(provenance={"epoch": 2.5})])
    read = read_history(path)
    assert [each.provenance for each in read] == [{"epoch": 1, "seed": 0}, {"epoch": 2.5}]
    power, mean, number = read[0].records
    assert power == records[0]
    assert (mean.measure, mean.about, number) == ("mean", {}, records[2])
    assert math.isnan(mean.value)
    assert (read[0].pictures, read[0].lines, read[1].records) == ({}, (), [])
    assert json.loads(path.read_text())["measured"][0]["records"][1]["value"] is None
    write_history(path, [])
    assert read_history(path) == []
    assert [file.name for file in path.parent.iterdir()] == ["m.json"]


def test_without_a_file_nothing_was_measured(tmp_path):
    assert read_history(tmp_path / "nowhere" / "m.json") == []


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"measured": [{"records": [{}]}]}'])
def test_another_file_is_named(text, tmp_path):
    path = tmp_path / "m.json"
    path.write_text(text)
    with pytest.raises(ValueError, match=r"m\.json is no history of measurements"):
        read_history(path)
