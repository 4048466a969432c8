"""Pattern files of format 1, written before searches had variants."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from iscp_lightning.patterns.power import PatternPower


def from_format_1(tensors: dict[str, Tensor], metadata: dict[str, Any]) -> dict[str, Any]:
    """Return the fields of a pattern set from a file's content.

    Such files do not say how many images of each class were measured, so that the accuracy on all
    images and the number of images behind a rate are not known.
    """
    fields: dict[str, Any] = dict(tensors)
    return {
        "variables": {"mask": fields.pop("masks")},
        "means": {"mask": fields.pop("mask_means")},
        "class_names": tuple(metadata["class_names"]),
        "settings": metadata["settings"],
        "provenance": metadata["provenance"],
        "power": _power(tensors, metadata) if metadata["results"] else None,
        **fields,
    }


def _power(tensors: dict[str, Tensor], metadata: dict[str, Any]) -> PatternPower:
    results, classes = metadata["results"], len(metadata["class_names"])
    sizes = list(results["mean_predictive_power"])
    targets = tensors["targets"]
    clean = torch.full((classes,), torch.nan, dtype=torch.float64)
    power = torch.full((len(targets), len(sizes)), torch.nan, dtype=torch.float64)
    for entry in results["classes"]:
        clean[entry["class"]] = _number(entry["clean_accuracy"])
        for canvas in entry["canvases"]:
            found = canvas["predictive_power"] or {}
            rows = (targets == entry["class"]) & (tensors["canvas_indices"] == canvas["index"])
            values = [_number(found.get(size)) for size in sizes]
            power[rows] = torch.tensor(values, dtype=torch.float64)
    return PatternPower(
        targets,
        tuple(map(float, sizes)),
        power * clean[targets].unsqueeze(1),
        torch.zeros_like(targets),
        clean,
        torch.zeros(classes, dtype=torch.int64),
        results["measured_on"],
    )


def _number(value: float | None) -> float:
    return torch.nan if value is None else value
