"""The runs that the claims are tested on.

    python docs/claims/runs.py FOLDER [--only NAME ...]     make those that FOLDER/runs lacks

With `--only`, those and the runs that they need. One that was interrupted is made anew. Those
called `cifar10_...` need CIFAR-10 as image files: FOLDER/cifar10, a folder or a link to one, with
train/<class>/ and test/<class>/.
"""

from __future__ import annotations

import argparse
import json
import re
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import on_cifar10
import on_shapes


def commands() -> dict[str, list[str]]:
    """Return the arguments of `python -m iscp_lightning`, or script and arguments, of every run."""
    return on_shapes.commands() | on_cifar10.commands()


def run(folder: Path, only: Sequence[str]) -> list[str]:
    """Make the runs that are not there; return those that failed."""
    folder.mkdir(parents=True, exist_ok=True)
    failed = []
    for name, arguments in commands().items():
        if (only and name not in only) or is_made(folder, name):
            continue
        print(name, flush=True)
        program = [] if arguments[0].endswith(".py") else ["-m", "iscp_lightning"]
        command = [sys.executable, *program, *arguments]
        with (folder / f"{name}.log").open("w") as log:
            made = subprocess.run(
                [*command, "--run", name, "--overwrite"],
                cwd=folder,
                stdout=log,
                stderr=subprocess.STDOUT,
                check=False,
            )
        if made.returncode:
            print(f"failed: {name}, see {folder / name}.log", flush=True)
            failed.append(name)
    return failed


def is_made(folder: Path, name: str) -> bool:
    """Return whether a run is there.

    Raises:
        ValueError: if what is there was made by other arguments than `commands` has.
    """
    run = folder / "runs" / name
    if not (run / "results.json").is_file():
        return False
    record = run / "run.json"  # scripts leave none
    if record.is_file():
        given = json.loads(record.read_text())["commands"][0]["arguments"]
        where = given.index("--run")
        given = [part for part in given[:where] + given[where + 2 :] if part != "--overwrite"]
        if sorted(map(_last_name, given)) != sorted(map(_last_name, commands()[name])):
            raise ValueError(f"{run} was made by another command: give another folder")
    return True


def _last_name(argument: str) -> str:
    fraction = re.fullmatch(r"[\d.]+/[\d.]+", argument)
    return argument if fraction else argument.rpartition("/")[-1]


def needed(names: Sequence[str]) -> list[str]:
    """Return runs and the runs that they need: those that their arguments name."""
    every, found = commands(), dict.fromkeys(names)
    for name in names:
        of = {other for part in every[name] for other in re.findall(r"\bruns/(\w+)", part)}
        found |= dict.fromkeys(needed([other for other in every if other in of]))
    return list(found)


def main() -> None:
    """Make the runs."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--only", nargs="+", default=[], choices=list(commands()), metavar="NAME")
    given = parser.parse_args()
    if failed := run(given.folder, needed(given.only)):
        sys.exit(f"failed: {' '.join(failed)}")


if __name__ == "__main__":
    main()
