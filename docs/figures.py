"""Figures that join several runs, drawn from what `search` has left.

    python docs/figures.py triggers FILE.png RUN RUN ...     the chosen pattern of each run
    python docs/figures.py compare FILE.png NAME=RUN ...     classes x runs at 10 %

`triggers` takes searches KIND_badnets_NAME of five backdoored classifiers a row, in the same order.
"""

import argparse
import json
from pathlib import Path

from iscp_lightning import PatternSet, figures
from iscp_lightning.metrics.connectedness import connectedness
from iscp_lightning.patterns.drawings import canvas_pixels, pattern_pixels
from iscp_lightning.patterns.stored import pattern_path
from iscp_lightning.runs import save_figure

COLUMNS, SIZE = 5, 0.1


def read(run: str) -> tuple[PatternSet, dict]:
    """Return the patterns and the results of a search."""
    patterns = PatternSet.load(pattern_path(run))
    return patterns, json.loads((Path(run) / "results.json").read_text())


def triggers(file: Path, runs: list[str]) -> None:
    """Draw canvas and chosen pattern of the target class of each run."""
    images, captions, labels = [], [], []
    for start in range(0, len(runs), COLUMNS):
        rows, texts = ([], []), ([], [])
        for run in runs[start : start + COLUMNS]:
            patterns, results = read(run)
            recovery = results["trigger_recovery"]
            size, target = recovery["pattern_size"], recovery["class"]
            (entry,) = (e for e in results["classes"] if e["class"] == target)
            (chosen,) = (c for c in recovery["canvases"] if c["chosen"])
            (row,) = (r for r in patterns.winners.tolist() if patterns.targets[r] == target)
            rows[0].append(canvas_pixels(patterns, row))
            rows[1].append(pattern_pixels(patterns, row, size))
            texts[0].append(f"{entry['canvas']['kind']} canvas")
            texts[1].append(
                f"IoU {chosen['iou']:.2f}, {chosen['center_distance']:.1f} px\n"
                f"PW {entry['predictive_power'][f'{size:g}']:.2f}"
            )
            print(Path(run).name, texts[1][-1].replace("\n", ", "))
        images += rows
        captions += texts
        kind = Path(runs[start]).name.partition("_badnets_")[0]
        labels += [kind.replace("_", " "), f"pattern of {100 * size:g} %"]
    columns = [Path(run).name.partition("_badnets_")[2] for run in runs[:COLUMNS]]
    for cells, texts in zip(images, captions, strict=True):  # the last rows may be shorter
        cells += [None] * (len(columns) - len(cells))
        texts += [""] * (len(columns) - len(texts))
    save_figure(
        file,
        figures.pattern_grid(images, row_labels=labels, column_labels=columns, captions=captions),
    )


def compare(file: Path, runs: list[str]) -> None:
    """Draw the winning patterns of every class, a column for each run."""
    named = {name: read(run) for name, _, run in (item.partition("=") for item in runs)}
    classes = next(iter(named.values()))[0].class_names
    grid = [[None] * len(named) for _ in classes]
    captions = [[""] * len(named) for _ in classes]
    for column, (name, (patterns, results)) in enumerate(named.items()):
        for row, entry in zip(patterns.winners.tolist(), results["classes"], strict=True):
            power = entry["predictive_power"][f"{SIZE:g}"]
            grid[entry["class"]][column] = pattern_pixels(patterns, row, SIZE)
            captions[entry["class"]][column] = "PW -" if power is None else f"PW {power:.2f}"
        chosen = patterns[patterns.winners].selected(SIZE)
        print(f"{name}: connectedness {float(connectedness(chosen).nanmean()):.3f}")
    heads = [f"{n}\naccuracy {100 * r['clean_accuracy']:.0f} %" for n, (_, r) in named.items()]
    save_figure(
        file,
        figures.pattern_grid(grid, row_labels=classes, column_labels=heads, captions=captions),
    )


def main() -> None:
    """Draw one figure."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("figure", choices=["triggers", "compare"])
    parser.add_argument("file", type=Path)
    parser.add_argument("runs", nargs="+")
    args = parser.parse_args()
    {"triggers": triggers, "compare": compare}[args.figure](args.file, args.runs)


if __name__ == "__main__":
    main()
