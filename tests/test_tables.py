"""The tables of docs/results.md are those of the stored numbers, which are those of runs."""

import importlib.util
import json
from pathlib import Path

import pytest
import yaml

DOCS = Path(__file__).parents[1] / "docs"
SPEC = importlib.util.spec_from_file_location("tables", DOCS / "tables.py")
tables = importlib.util.module_from_spec(SPEC)
SPEC.loader.exec_module(tables)

RESULTS = {
    "asked": {
        "test": {"test/clean_accuracy": 0.9},
        "records": [
            {"network": name, "split": split, "measure": "mse", "value": value, "interval": ends}
            for name, split, value, ends in (
                ("a", "all", 0.0512, [0.04, 0.0625]),
                ("b", "all", 0.25, [0.2, 0.3]),
                ("b", "wrong", 0.5, [0.4, 0.6]),
            )
        ],
    },
    "searched": {
        "mean_predictive_power": {"0.1": 0.5},
        "mean_predictive_power_interval": {"0.1": [0.4, 0.6]},
        "classes": [
            {
                "name": "star",
                "predictive_power": {"0.1": 0.75, "0.2": 1.5},
                "predictive_power_interval": {"0.1": [0.5, 1.0], "0.2": [1.0, 2.0]},
                "attack_success_rate": {"0.1": 0.7, "0.2": 1.0},
                "base_rate": 0.1,
                "base_rate_interval": [0.0, 0.2],
            }
        ],
        "mean_clean_accuracy": 0.8,
    },
}
OF_RECORDS = {
    "head": "of",
    "where": {"run": "asked", "measure": "mse", "split": "all"},
    "columns": {"all": {}, "wrong": {"split": "wrong", "digits": 1}},
    "rows": {"first": {"network": "a", "only": ["all"]}, "second": {"network": "b"}},
}


def test_cells_are_the_records_that_rows_and_columns_ask_for():
    cells = tables.read(OF_RECORDS, RESULTS)
    assert cells["first"] == {"all": {"asked": [0.0512, 0.04, 0.0625]}}
    assert tables.markdown(OF_RECORDS, cells).splitlines() == [
        "| of | all | wrong |",
        "| --- | --- | --- |",
        "| first | 0.051 (0.040 to 0.062) |  |",
        "| second | 0.250 (0.200 to 0.300) | 0.5 (0.4 to 0.6) |",
    ]


def test_classes_means_tests_and_several_runs():
    power = {"run": "searched", "measure": "predictive_power", "size": "0.1"}
    accuracy = {"run": ["asked", "again"], "measure": "test/clean_accuracy"}
    rows = {
        "star": {**power, "class": "star"},
        "mean": {**power, "measure": "mean_predictive_power"},
        "seeds": accuracy,
        "nothing": {"run": "searched", "measure": "base_rate", "class": "star"},
        "accuracy": {"run": "searched", "measure": "mean_clean_accuracy"},
    }
    after_training = {"title": "patterns", "run": "trained", "measure": "mean_predictive_power"}
    rows["snapshot"] = {**after_training, "size": "0.1"}
    table = {"columns": {"is": {}}, "rows": rows}
    again = {"again": {"test": {"test/clean_accuracy": 0.8}}}
    again["trained"] = {"patterns": RESULTS["searched"]}
    text = tables.markdown(table, tables.read(table, RESULTS | again))
    assert text.splitlines()[2:] == [
        "| star | 0.750 (0.500 to 1.000) |",
        "| mean | 0.500 (0.400 to 0.600) |",
        "| seeds | 0.900, 0.800 |",
        "| nothing | 0.100 (0.000 to 0.200) |",
        "| accuracy | 0.800 |",
        "| snapshot | 0.500 (0.400 to 0.600) |",
    ]


def test_rows_and_columns_together_name_a_run():
    table = {
        "where": {"run": "{what}ed", "measure": "mse", "network": "a", "split": "all"},
        "columns": {"mse": {"what": "ask"}, "same": {"run": "asked", "what": "no part of records"}},
        "rows": {"first": {}},
    }
    found = {"asked": [0.0512, 0.04, 0.0625]}
    assert tables.read(table, RESULTS) == {"first": {"mse": found, "same": found}}


@pytest.mark.parametrize(
    ("row", "message"),
    [({"split": "wrong", "network": "a"}, "0 records are"), ({}, "2 records are")],
)
def test_a_cell_is_one_record(row, message):
    table = {**OF_RECORDS, "columns": {"all": {}}, "rows": {"first": row}}
    with pytest.raises(ValueError, match=f"asked: {message}"):
        tables.read(table, RESULTS)


def test_cells_of_other_runs_stay_as_they_are_stored():
    columns = {"a": {"run": "asked"}, "b": {"run": "elsewhere"}}
    about = {"measure": "mse", "network": "a"}
    table = {"columns": columns, "rows": {"mse": about}}
    fresh = tables.read(table, RESULTS)
    assert fresh == {"mse": {"a": {"asked": [0.0512, 0.04, 0.0625]}}}
    stored = {"mse": {"a": {"asked": [1.0]}, "b": {"elsewhere": [2.0]}}}
    assert tables.merged(table, stored, fresh) == {"mse": {**fresh["mse"], "b": stored["mse"]["b"]}}
    stored["mse"]["b"] = {"another": [2.0]}
    with pytest.raises(ValueError, match="`mse`, `b`: give the folder of elsewhere"):
        tables.merged(table, stored, fresh)
    with pytest.raises(ValueError, match="`mse`, `b`: give the folder of elsewhere"):
        tables.merged(table, {}, fresh)


def test_folders_have_runs_and_every_name_once(tmp_path):
    for folder in ("a", "b"):
        (tmp_path / folder / "runs" / "x").mkdir(parents=True)
    (tmp_path / "a" / "runs" / "x" / "results.json").write_text('{"records": []}')
    assert tables.runs_in([tmp_path / "a"]) == {"x": {"records": []}}
    with pytest.raises(ValueError, match="b has no runs"):
        tables.runs_in([tmp_path / "b"])
    with pytest.raises(ValueError, match="another folder has a run of that name"):
        tables.runs_in([tmp_path / "a"] * 2)


def test_the_document_has_the_tables_of_the_stored_numbers():
    known = yaml.safe_load((DOCS / "tables.yaml").read_text())
    numbers = json.loads((DOCS / "tables.json").read_text())
    text = (DOCS / "results.md").read_text()
    assert tables.written(text, known, numbers) == text
    assert text.count("<!-- table ") == len(known)
    with pytest.raises(ValueError, match="no <!-- table "):
        tables.written("", known, numbers)
