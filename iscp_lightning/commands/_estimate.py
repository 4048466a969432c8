"""`--estimate`: what a command would take, without running it."""

from __future__ import annotations

from collections.abc import Sequence

from iscp_lightning.classifiers.rates import Rates
from iscp_lightning.work import Work

GIB = 2**30


def estimated(works: Sequence[Work], rates: Rates, processes: int, device: str) -> str:
    """Return stages, images, memory and time as a table, and what was measured for it.

    Args:
        works: The stages.
        rates: Of one process.
        processes: How many share the work.
        device: Of what kind their devices are.
    """
    head = ["stage", "forward", "gradient", "update", "time"]
    rows = [[w.stage, *_counts(w), duration(seconds(w, rates) / processes)] for w in works]
    total = sum(seconds(work, rates) for work in works) / processes
    rows.append(["total", "", "", "", duration(total)])
    widths = [max(len(row[i]) for row in [head, *rows]) for i in range(len(head))]
    lines = [
        "  ".join([row[0].ljust(widths[0]), *map(str.rjust, row[1:], widths[1:])])
        for row in [head, *rows]
    ]
    data = size(max(work.device_bytes for work in works))
    first = size(max(work.host_bytes for work in works))
    network = f", {size(rates.peak_bytes)} for the network" if rates.peak_bytes else ""
    return "\n".join(
        [
            *lines,
            f"memory: {data} of data on each device{network}; {first} besides in the first process",
            f"{processes} x {device}, measured now: {rates.forwards:,.0f} images a second forward, "
            f"{rates.gradients:,.0f} with gradient, {rates.updates:,.0f} updates; reading images, "
            "augmentation and figures are not counted",
        ]
    )


def seconds(work: Work, rates: Rates) -> float:
    """Return how long one process would take."""
    return (
        work.forwards / rates.forwards
        + work.gradients / rates.gradients
        + work.updates / rates.updates
    )


def duration(time: float) -> str:
    """Return a time in words, such as `45 s`, `3.2 min`, `14 h` or `3.1 days`."""
    for unit, length in (("days", 86400), ("h", 3600), ("min", 60)):
        if time >= 2 * length:
            return f"{time / length:.{0 if time >= 10 * length else 1}f} {unit}"
    return f"{time:.0f} s"


def size(number: float) -> str:
    """Return a number of bytes in words, such as `12 MiB` or `7.4 GiB`."""
    return f"{number / GIB:.1f} GiB" if number >= GIB else f"{number / 2**20:.0f} MiB"


def _counts(work: Work) -> list[str]:
    return [f"{n:,}" if n else "-" for n in (work.forwards, work.gradients, work.updates)]
