"""The tables of docs/results.md that are made from stored runs.

python docs/tables.py [FOLDER ...] writes every table of tables.yaml between its marks, from the
numbers in tables.json; those of runs that lie in a folder given replace these first.
"""

import argparse
import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

HERE = Path(__file__).resolve().parent
MARK, END = "<!-- table {} -->", "<!-- end -->"
POWER, RATE = "predictive_power", "attack_success_rate"


def entries(results: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    """Yield what a results.json says, each as a record: what it is about, value and interval."""
    for measure, value in results.get("test", {}).items():
        yield {"measure": measure, "value": value}
    of_classes = [({"class": entry["name"]}, entry) for entry in results.get("classes", [])]
    for about, entry in [({}, results), *of_classes]:
        for measure in (POWER, RATE, f"mean_{POWER}", f"mean_{RATE}"):
            intervals = entry.get(f"{measure}_interval", {})
            for size, value in entry.get(measure, {}).items():
                found = {"size": size, "measure": measure, "value": value}
                yield {**about, **found, "interval": intervals.get(size, [])}
    yield from results.get("records", [])


def read(table: Mapping[str, Any], results: Mapping[str, Any]) -> dict[str, dict[str, list[Any]]]:
    """Return the cells whose runs are there, by row and column: [value, low, high] of each run.

    Args:
        table: `columns` and `rows` by name, and `where`, what holds for all of them. Together they
            say which run and which of its records a cell is. Rows and columns may say `digits`.
        results: The runs' results.json by name.

    Raises:
        ValueError: if several records, or none of a row, are what a cell asks for.
    """
    found: dict[str, dict[str, list[Any]]] = {}
    for row, of_row in table["rows"].items():
        for column, of_column in table["columns"].items():
            wanted = {**table.get("where", {}), **of_column, **of_row}
            wanted.pop("digits", None)
            runs = wanted.pop("run")
            runs = [runs] if isinstance(runs, str) else runs
            if all(run in results for run in runs):
                values = [_cell(results[run], wanted) for run in runs]
                found.setdefault(row, {})[column] = [value for value in values if value]
        if row in found and not any(found[row].values()):
            raise ValueError(f"`{row}`: no record of its run is {of_row}")
    return found


def _cell(results: Mapping[str, Any], wanted: Mapping[str, Any]) -> list[float]:
    matching = [
        entry
        for entry in entries(results)
        if all(entry.get(key) == value for key, value in wanted.items())
    ]
    if len(matching) > 1:
        raise ValueError(f"{len(matching)} records are {wanted}")
    return [
        round(number, 6)
        for entry in matching
        for number in (entry["value"], *entry.get("interval", ()))
    ]


def markdown(table: Mapping[str, Any], cells: Mapping[str, Mapping[str, Sequence[Any]]]) -> str:
    """Return a table: one run's value with its interval, or the values of several runs."""
    lines = [f"| {' | '.join([table.get('head', ''), *table['columns']])} |"]
    lines.append("|" + " --- |" * (1 + len(table["columns"])))
    for row in table["rows"]:
        texts = []
        for column, about in table["columns"].items():
            values = cells[row].get(column, [])
            digits = {**about, **table["rows"][row]}.get("digits", 3)
            numbers = [[f"{number:.{digits}f}" for number in value] for value in values]
            text = ", ".join(value[0] for value in numbers)
            if len(numbers) == 1 and len(numbers[0]) > 1:
                text += " ({1} to {2})".format(*numbers[0])
            texts.append(text)
        lines.append(f"| {' | '.join([row, *texts])} |")
    return "\n".join(lines)


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


def main() -> None:
    """Read the runs that are there, and write."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folders", type=Path, nargs="*", help="each with runs/")
    folders = parser.parse_args().folders
    files = [file for folder in folders for file in folder.glob("runs/*/results.json")]
    results = {file.parent.name: json.loads(file.read_text()) for file in files}
    tables = yaml.safe_load((HERE / "tables.yaml").read_text())
    store = HERE / "tables.json"
    stored = json.loads(store.read_text()) if store.is_file() else {}
    numbers = {}
    for name, table in tables.items():
        rows = stored.get(name, {}) | read(table, results)
        if missing := [row for row in table["rows"] if row not in rows]:
            parser.error(f"table {name}: nobody has given the runs of {', '.join(missing)}")
        numbers[name] = {row: rows[row] for row in table["rows"]}
    lines = [
        f"{json.dumps(f'{name}')}: {{\n"
        + ",\n".join(f"  {json.dumps(row)}: {json.dumps(cells)}" for row, cells in rows.items())
        + "\n}"
        for name, rows in numbers.items()
    ]
    store.write_text("{\n" + ",\n".join(lines) + "\n}\n")
    document = HERE / "results.md"
    document.write_text(written(document.read_text(), tables, numbers))


if __name__ == "__main__":
    main()
