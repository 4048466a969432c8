"""Records of a measure that every class has: its mean, and each class's."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from torch import Tensor

from iscp_lightning.metrics.intervals import mean_interval
from iscp_lightning.records import Record


def records_by_class(
    measure: str,
    values: Tensor,
    interval: Tensor | None,
    columns: Sequence[Mapping[str, str | float]],
    class_names: Sequence[str],
) -> list[Record]:
    """Return `mean_MEASURE` with its interval over the classes, and each class's, of every column.

    Args:
        measure: Its name.
        values: (K, n) float64, of K classes; NaN where undefined.
        interval: (K, n, 2) float64, ends of the classes' own intervals; None where there are none.
        columns: What each of the n columns is about.
        class_names: K names.
    """
    records = []
    means, ends_of_means = values.nanmean(0).tolist(), mean_interval(values).tolist()
    for column, about in enumerate(columns):
        low, high = ends_of_means[column]
        records.append(Record(f"mean_{measure}", means[column], about, (low, high)))
        for row, name in enumerate(class_names):
            ends = None
            if interval is not None:
                low, high = interval[row, column].tolist()
                ends = (low, high)
            value = float(values[row, column])
            records.append(Record(measure, value, {**about, "class": name}, ends))
    return records
