"""Measurement: what is measured of a classifier; when, and where it goes, is decided elsewhere."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from iscp_lightning.classifiers.subject import Subject
from iscp_lightning.records import Findings
from iscp_lightning.work import Work

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from iscp_lightning.data.datamodule import ImageDataModule


class Measurement(ABC):
    """Measures a classifier on the test images of a data set.

    Attributes:
        title: What its findings are called in logs and results.
    """

    title: str

    @abstractmethod
    def measure(self, subject: Subject, last: bool = False) -> Findings | None:
        """Return what is found, None where there is nothing; every rank enters and gets the same.

        Random draws come from generators of its own, derived from the subject's seed.

        Args:
            subject: The classifier and the test images.
            last: Whether this is the last one of a training.
        """

    def check(self, data: ImageDataModule) -> None:
        """Refuse data that it cannot be measured on, before a training starts; keep what it needs.

        Raises:
            ValueError: if it cannot; says why.
        """

    def work(
        self, data: ImageDataModule, processes: int, times: int = 1, last: bool = False
    ) -> list[Work]:
        """Return what it takes, for `--estimate`.

        Args:
            data: The images.
            processes: How many share the work.
            times: How often it is measured.
            last: Whether the last one of a training is among them.
        """
        del data, processes, times, last
        return []

    def small(self) -> Measurement:
        """Return a cheap version of itself, for runs that only try everything out."""
        return self

    def go_on(self, folder: Path, past: Sequence[Findings]) -> None:
        """Take up what the measurements of a training that is resumed have left; on every rank.

        Args:
            folder: The run folder.
            past: As for `history`.
        """

    def history(self, folder: Path, past: Sequence[Findings]) -> dict[str, Figure]:
        """Return figures by file name of what was found in the course of a training.

        Args:
            folder: The run folder, with the artefacts that the findings saved.
            past: Findings in order of their epochs (`provenance["epoch"]`), records alone: neither
                pictures nor lines. `provenance["saved_as"]` is the name that `save` was given.
        """
        return {}
