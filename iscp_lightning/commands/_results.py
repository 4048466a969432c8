"""What a command has found: results.json and the lines on the screen, the same for all commands."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import lightning as L

from iscp_lightning.classifiers import classifier_hash
from iscp_lightning.loggers import finish_wandb
from iscp_lightning.records import Findings
from iscp_lightning.runs import may_write, write_json


def report(model: L.LightningModule, trainer: L.Trainer, tested: str | None = None) -> None:
    """Write results.json and print what the model and the callbacks have found, on rank 0.

    Both have the findings by title, and the Trainer's metrics that are not among them. Those
    without a title lie at the top of results.json.

    Args:
        model: The module; its `findings`, if it has any, and those of the callbacks are taken.
        trainer: The Trainer, after its work.
        tested: The checkpoint whose weights were tested, None for those in memory.
    """
    if not may_write(trainer):
        return
    found: dict[str, Findings] = {}
    for source in (model, *trainer.callbacks):  # type: ignore[attr-defined]
        found |= getattr(source, "findings", {})
    recorded = {record.name for each in found.values() for record in each.records}
    metrics = {k: v.item() for k, v in trainer.callback_metrics.items() if k not in recorded}
    classifier = getattr(model, "classifier", None)
    hashed = None if classifier is None else classifier_hash(classifier)
    results = collect(found, metrics, trainer.state.fn.value if trainer.state.fn else "")
    results |= {"tested_classifier_hash": hashed} if hashed else {}
    results |= {"tested_checkpoint": tested} if tested else {}
    lines = [f"tested: {tested}"] if tested else []
    for title, each in found.items():
        lines += [*heading(title, each, hashed, tested), *each.lines]
    overall = {name: value for name, value in metrics.items() if name.count("/") == 1}
    lines += [f"{name}: {value:.3f}" for name, value in overall.items()]
    folder = Path(trainer.default_root_dir)
    paths = sorted((folder / "figures").glob("*.png"))
    if results:
        write_json(folder / "results.json", results)
        paths.append(folder / "results.json")
    finish_wandb()  # its own summary would push the lines out of sight
    for block in (lines, paths):
        sys.stdout.write("".join(f"{line}\n" for line in ["", *block] if block))


def collect(
    found: Mapping[str, Findings], metrics: Mapping[str, float], stage: str
) -> dict[str, Any]:
    """Return the content of results.json.

    Args:
        found: Findings by title; those that have lines alone are left out.
        metrics: Numbers of the Trainer, by name.
        stage: What they are called: `test`, ...
    """
    results: dict[str, Any] = {stage: dict(metrics)} if metrics else {}
    for title, each in found.items():
        if content := each.results:
            results |= {title: content} if title else content
    return results


def heading(title: str, found: Findings, hashed: str | None, tested: str | None) -> list[str]:
    """Return a line on which weights were measured, none where these are the tested ones.

    Args:
        title: Title of the findings.
        found: The findings; those with an `epoch` are of a training.
        hashed: Hash of the tested classifier.
        tested: Its checkpoint.
    """
    if "epoch" not in found.provenance:
        return []
    whose = f"the weights after epoch {found.provenance['epoch']:g}"
    if found.provenance["classifier_hash"] != hashed:
        whose += f", not of the tested {Path(tested or 'classifier').name}"
    on = found.results.get("measured_on")
    return [f"{title} of {whose}{f'; measured on {on} test images' if on else ''}:"]
