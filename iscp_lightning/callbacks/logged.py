"""Findings in loggers: numbers in all of them, pictures and a table where they can be shown."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from lightning.pytorch.loggers import Logger, TensorBoardLogger, WandbLogger

from iscp_lightning.records import Findings, Picture, Pixels

LOGGED_SIDE = 128  # small pictures are enlarged for loggers, which would blur them
MOST_PICTURES = 50  # of one measurement; more are logged as one


def log_findings(
    logger: Logger, title: str, findings: Findings, past: Sequence[Findings], step: int
) -> None:
    """Log the defined numbers of a measurement, its pictures and the table of all epochs.

    Args:
        logger: Pictures go to W&B and TensorBoard, the table to W&B.
        title: Begins all names.
        findings: What was found; with `epoch` in its provenance.
        past: Findings of all epochs.
        step: The optimiser step.
    """
    epoch = findings.provenance["epoch"]
    defined = [record for record in findings.records if not math.isnan(record.value)]
    numbers = {f"{title}/{record.name}": record.value for record in defined}
    logger.log_metrics({**numbers, f"{title}/epoch": epoch}, step=step)
    for name, picture in shown(findings.pictures).items():
        pixels, key = enlarged(picture.pixels), f"{title}/{name}"
        if isinstance(logger, WandbLogger):
            caption = f"{picture.caption}, epoch {epoch:g}"
            logger.log_image(key, [pixels], step=step, caption=[caption])
        elif isinstance(logger, TensorBoardLogger):
            logger.experiment.add_image(key, pixels, step, dataformats="HWC")
    if past and isinstance(logger, WandbLogger):
        columns, rows = table(past)
        logger.log_table(title, columns=columns, data=rows, step=step)


def table(past: Sequence[Findings]) -> tuple[list[str], list[list[Any]]]:
    """Return columns and rows of a table with one row for every record, None where undefined.

    The columns are the epoch, whatever the records are about, the measure and the value.
    """
    abouts = dict.fromkeys(key for each in past for record in each.records for key in record.about)
    rows = [
        [
            each.provenance["epoch"],
            *(record.about.get(key) for key in abouts),
            record.measure,
            None if math.isnan(record.value) else record.value,
        ]
        for each in past
        for record in each.records
    ]
    return ["epoch", *abouts, "measure", "value"], rows


def shown(pictures: Mapping[str, Picture]) -> Mapping[str, Picture]:
    """Return the pictures, or one named `pictures` of more than `MOST_PICTURES`."""
    if len(pictures) <= MOST_PICTURES:
        return pictures
    pixels = grid([picture.pixels for picture in pictures.values()])
    return {"pictures": Picture(pixels, f"{len(pictures)} pictures")}


def grid(images: Sequence[Pixels]) -> Pixels:
    """Return images row by row in one that is about as high as wide, with white between them.

    Args:
        images: uint8 (H, W, 3) each, of any sizes.

    Returns:
        uint8 (rows * (H + 1), columns * (W + 1), 3) for the largest H and W.
    """
    height, width = (max(image.shape[axis] for image in images) + 1 for axis in (0, 1))
    columns = math.ceil(math.sqrt(len(images)))
    rows = math.ceil(len(images) / columns)
    sheet = np.full((rows * height, columns * width, 3), 255, np.uint8)
    for at, image in enumerate(images):
        top, left = at // columns * height, at % columns * width
        sheet[top : top + image.shape[0], left : left + image.shape[1]] = image
    return sheet


def enlarged(pixels: Pixels) -> Pixels:
    """Return an image (H, W, 3) with every pixel repeated until a side has `LOGGED_SIDE`."""
    factor = max(1, LOGGED_SIDE // min(pixels.shape[:2]))
    return pixels.repeat(factor, 0).repeat(factor, 1)
