"""A long series as a few hundred points, each with the lowest and highest value that it covers."""

from __future__ import annotations

import math
from array import array
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Sequence

    from vcell.runs import EventTable

_MOST = 1024  # buckets; about five per dot across a wide chart


class Bucket(NamedTuple):
    """Consecutive rows as one point."""

    first: int  # row
    last: int
    mean: float
    low: float
    high: float


def bucket(values: Sequence[float], first: int, stop: int) -> Bucket | None:
    """Summarise rows `first` to `stop`; None if none of them is a number."""
    part = values[first:stop]
    total, n = math.fsum(part) if stop - first < 32 else sum(part), stop - first
    if math.isfinite(total):
        return Bucket(first, stop - 1, total / n, min(part), max(part))
    known = [value for value in part if math.isfinite(value)]
    if not known:
        return None
    return Bucket(first, stop - 1, sum(known) / len(known), min(known), max(known))


def buckets(values: Sequence[float], first: int, stop: int, most: int = _MOST) -> list[Bucket]:
    """Summarise a range of rows in at most `most` buckets of equal size."""
    rows = max(1, -(-(stop - first) // most))
    found = (bucket(values, i, min(i + rows, stop)) for i in range(first, stop, rows))
    return [one for one in found if one is not None]


class Summary:
    """Buckets of a growing column: an update costs time only for new rows."""

    def __init__(self) -> None:
        self._rows = 1  # per bucket
        self._full: list[Bucket | None] = []
        self._edits = 0

    def update(self, table: EventTable, name: str) -> list[Bucket]:
        """Add the new rows, and return all buckets, at most `_MOST`."""
        values = table.columns.get(name, array("d"))
        if self._edits != table.edits:
            self.__init__()  # type: ignore[misc]  # rows were dropped: start over
            self._edits = table.edits
        while len(values) // self._rows >= _MOST:
            self._rows *= 2
            self._full = []
        done, rows = len(self._full), self._rows
        self._full += [
            bucket(values, i * rows, (i + 1) * rows) for i in range(done, len(values) // rows)
        ]
        rest = bucket(values, len(self._full) * rows, len(values)) if len(values) % rows else None
        return [one for one in (*self._full, rest) if one is not None]


def smoothed(means: Sequence[float], rows: Sequence[int], over: float) -> list[float]:
    """Return the exponential moving average over about `over` rows, without a bias at the start.

    Each mean represents a number of rows; values and weights decay together, as in Adam.
    """
    if over <= 1:
        return list(means)
    decay, total, weight, found = 1 - 1 / over, 0.0, 0.0, []
    for mean, count in zip(means, rows, strict=True):
        keep = decay**count
        total = keep * total + (1 - keep) * mean
        weight = keep * weight + (1 - keep)
        found.append(total / weight)
    return found
