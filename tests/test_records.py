"""Tests of records: their names, their rows, and what results.json says of findings."""

import json
import math

import pytest

from iscp_lightning.records import Findings, Picture, Record


@pytest.mark.parametrize(
    ("about", "name"),
    [
        ({}, "power"),
        ({"class": "ring"}, "power/ring"),
        ({"pattern_size": 0.05, "class": "ring"}, "power/0.05/ring"),
        ({"class": "ring", "pattern_size": 0.1}, "power/ring/0.1"),
        ({"pattern_size": 1.0, "canvas": 12}, "power/1/12"),
    ],
)
def test_names_say_what_a_number_is_of(about, name):
    assert Record("power", 0.5, about).name == name


def test_a_row_has_measure_and_value_last():
    row = Record("power", 0.5, {"pattern_size": 0.05, "class": "ring"}).row()
    assert list(row.items()) == [
        *(("pattern_size", 0.05), ("class", "ring"), ("measure", "power"), ("value", 0.5))
    ]


def test_results_are_records_and_provenance_in_plain_values():
    picture = Picture(None, "not in results.json")
    records = [Record("power", 0.5, {"class": "ring"}), Record("mean", 0.25)]
    found = Findings(records, {"p": picture}, ["a line"], {"epoch": 3})
    assert json.loads(json.dumps(found.results)) == {
        "records": [
            {"class": "ring", "measure": "power", "value": 0.5},
            {"measure": "mean", "value": 0.25},
        ],
        "provenance": {"epoch": 3},
    }
    assert Findings().results == {}


def test_undefined_numbers_stay_undefined():
    assert math.isnan(Findings([Record("power", math.nan)]).results["records"][0]["value"])


def test_most_findings_have_nothing_to_save(tmp_path):
    Findings([Record("power", 0.5)]).save(tmp_path, "epoch001")
    assert list(tmp_path.iterdir()) == []
