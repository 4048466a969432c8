"""The tables of docs/results.md that are made from stored runs.

python docs/tables.py [FOLDER ...] writes every table of tables.yaml between its marks, from the
numbers in tables.json; those of runs that lie in a folder given replace these first.
"""

import argparse
import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from string import Formatter
from typing import Any

import yaml

HERE = Path(__file__).resolve().parent
MARK, END = "<!-- table {} -->", "<!-- end -->"
OF_SIZES = ("predictive_power", "attack_success_rate", "random_mask_rate")
OF_ALL = ("clean_accuracy", "base_rate", "whole_canvas_rate")
NOT_IN_RECORDS = ("run", "digits", "only")


def entries(results: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    """Yield what a results.json says, each as a record: what it is about, value and interval."""
    for measure, value in results.get("test", {}).items():
        yield {"measure": measure, "value": value}
    of_classes = [({"class": entry["name"]}, entry) for entry in results.get("classes", [])]
    for about, entry in [({}, results), *of_classes]:
        for measure in (prefix + name for name in OF_SIZES for prefix in ("", "mean_", "std_")):
            intervals = entry.get(f"{measure}_interval", {})
            for size, value in entry.get(measure, {}).items():
                found = {"size": size, "measure": measure, "value": value}
                yield {**about, **found, "interval": intervals.get(size, [])}
        for measure in (prefix + name for name in OF_ALL for prefix in ("", "mean_")):
            if measure in entry:
                found = {"measure": measure, "value": entry[measure]}
                yield {**about, **found, "interval": entry.get(f"{measure}_interval", [])}
    yield from results.get("records", [])
    for title, each in results.items():
        if isinstance(each, Mapping) and "mean_predictive_power" in each:  # of a training
            yield from ({"title": title, **entry} for entry in entries(each))


def cells_of(table: Mapping[str, Any]) -> Iterator[tuple[str, str, Mapping[str, Any]]]:
    """Yield row, column and what is wanted of every cell that is not blank."""
    everywhere = table.get("where", {})
    parts = [everywhere, *table["columns"].values(), *table["rows"].values()]
    templates = [text for part in parts for text in _runs(part)]
    fields = {name for text in templates for _, name, *_ in Formatter().parse(text) if name}
    for row, of_row in table["rows"].items():
        for column in of_row.get("only", table["columns"]):
            wanted = {**everywhere, **table["columns"][column], **of_row}
            record = {key: value for key, value in wanted.items() if key not in fields}
            yield row, column, {**record, "run": [r.format_map(wanted) for r in _runs(wanted)]}


def _runs(part: Mapping[str, Any]) -> Sequence[str]:
    runs: str | Sequence[str] = part.get("run", ())
    return [runs] if isinstance(runs, str) else runs


def read(table: Mapping[str, Any], results: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """Return the cells whose runs are there, by row and column: [value, low, high] by run.

    Args:
        table: `columns` and `rows` by name, and `where`, what holds for all of them. Together they
            say which `run` (or runs) and which of its records a cell is, and its `digits`. `{key}`
            in the name of a run is what they say of that key, which is then of no record. A row
            that is not of all columns says of which it is `only`.
        results: The runs' results.json by name.

    Raises:
        ValueError: if a cell names no run, or asks for what is not exactly one record of a run.
    """
    found: dict[str, dict[str, Any]] = {}
    for row, column, wanted in cells_of(table):
        runs = wanted["run"]
        if not runs:
            raise ValueError(f"`{row}`, `{column}` name no run")
        if all(run in results for run in runs):
            record = {key: of for key, of in wanted.items() if key not in NOT_IN_RECORDS}
            values = {run: _value(run, results[run], record) for run in runs}
            found.setdefault(row, {})[column] = values
    return found


def _value(run: str, results: Mapping[str, Any], wanted: Mapping[str, Any]) -> list[float]:
    matching = [
        entry
        for entry in entries(results)
        if all(entry.get(key) == value for key, value in wanted.items())
    ]
    if len(matching) != 1:
        raise ValueError(f"{run}: {len(matching)} records are {wanted}")
    (entry,) = matching
    return [round(number, 6) for number in (entry["value"], *entry.get("interval", ()))]


def markdown(table: Mapping[str, Any], cells: Mapping[str, Mapping[str, Any]]) -> str:
    """Return a table: one run's value with its interval, or the values of several runs."""
    texts: dict[str, dict[str, str]] = {row: {} for row in table["rows"]}
    for row, column, wanted in cells_of(table):
        digits = wanted.get("digits", 3)
        of_runs = [cells[row][column][run] for run in wanted["run"]]
        numbers = [[f"{number:.{digits}f}" for number in of] for of in of_runs]
        text = ", ".join(value[0] for value in numbers)
        if len(numbers) == 1 and len(numbers[0]) > 1:
            text += " ({1} to {2})".format(*numbers[0])
        texts[row][column] = text
    lines = [[table.get("head", ""), *table["columns"]], ["---"] * (1 + len(table["columns"]))]
    lines += [
        [row, *(of.get(column, "") for column in table["columns"])] for row, of in texts.items()
    ]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def written(text: str, tables: Mapping[str, Any], numbers: Mapping[str, Any]) -> str:
    """Return a text with every table between its marks.

    Raises:
        ValueError: if a table has no marks there.
    """
    for name, table in tables.items():
        before, mark, rest = text.partition(MARK.format(name))
        _, end, after = rest.partition(END)
        if not mark or not end:
            raise ValueError(f"no {MARK.format(name)} … {END}")
        text = f"{before}{mark}\n{markdown(table, numbers[name])}\n{end}{after}"
    return text


def merged(
    table: Mapping[str, Any], stored: Mapping[str, Any], fresh: Mapping[str, Any]
) -> dict[str, dict[str, Any]]:
    """Return every cell of a table, fresh where there is one, else as stored of the same runs.

    Raises:
        ValueError: if there is neither.
    """
    found: dict[str, dict[str, Any]] = {}
    for row, column, wanted in cells_of(table):
        known = {**stored.get(row, {}), **fresh.get(row, {})}.get(column, {})
        if set(known) != set(wanted["run"]):
            runs = ", ".join(wanted["run"])
            raise ValueError(f"`{row}`, `{column}`: give the folder of {runs}")
        found.setdefault(row, {})[column] = known
    return found


def runs_in(folders: Sequence[Path]) -> dict[str, Any]:
    """Return the results of the runs in folders, by name.

    Raises:
        ValueError: if a folder has no runs, or a run's name is there twice.
    """
    results: dict[str, Any] = {}
    for folder in folders:
        files = list(folder.glob("runs/*/results.json"))
        if not files:
            raise ValueError(f"{folder} has no runs/*/results.json")
        for file in files:
            if file.parent.name in results:
                raise ValueError(f"{file.parent}: another folder has a run of that name")
            results[file.parent.name] = json.loads(file.read_text())
    return results


def main() -> None:
    """Read the runs that are there, and write."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folders", type=Path, nargs="*", help="each with runs/")
    tables = yaml.safe_load((HERE / "tables.yaml").read_text())
    store, document = HERE / "tables.json", HERE / "results.md"
    stored = json.loads(store.read_text()) if store.is_file() else {}
    try:
        results = runs_in(parser.parse_args().folders)
        numbers = {
            name: merged(table, stored.get(name, {}), read(table, results))
            for name, table in tables.items()
        }
        text = written(document.read_text(), tables, numbers)
    except ValueError as error:
        parser.error(str(error))
    lines = [
        f"{json.dumps(name)}: {{\n"
        + ",\n".join(f"  {json.dumps(row)}: {json.dumps(cells)}" for row, cells in rows.items())
        + "\n}"
        for name, rows in numbers.items()
    ]
    store.write_text("{\n" + ",\n".join(lines) + "\n}\n")
    document.write_text(text)


if __name__ == "__main__":
    main()
