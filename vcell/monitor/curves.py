"""The curves of runs: their names, and their points by step, hours or examples."""

from __future__ import annotations

import math
from bisect import bisect_left
from typing import TYPE_CHECKING, Any, NamedTuple

from vcell.monitor import words
from vcell.monitor.chart import Point
from vcell.monitor.summary import Bucket, Summary, buckets, smoothed

if TYPE_CHECKING:
    from collections.abc import Sequence

    from vcell.monitor.watch import Watched
    from vcell.runs import EventTable, History

AXES = ("step", "hours", "examples")
SMOOTHING = (0, 1, 10, 50, 200, 1000)  # steps; 0 chooses by the length
_TITLES = {
    "grad_norm": "gradient norm", "lr": "learning rate", "examples_per_s": "examples a second",
    "data_wait": "share waiting for data", "memory": "memory", "loss_scale": "loss scale",
}  # fmt: skip
_LAST = ("examples_per_s", "data_wait", "memory", "loss_scale")
STEADY = ("lr", "loss_scale", "memory")  # nothing to smooth
_NEVER = ("best", "examples")


class CurveName(NamedTuple):
    """The name of a curve: a kind of event and the name of a value."""

    kind: str
    name: str

    @property
    def title(self) -> str:
        """Its title."""
        return words.clean(_TITLES.get(self.name, self.name))


def curves(history: History, meta: dict[str, Any]) -> list[CurveName]:
    """Return the available curves, in order: loss, deciding metric, gradients, others."""
    metrics = [CurveName("metric", name) for name in history.names("metric") if name not in _NEVER]
    evals = [CurveName("eval", name) for name in history.names("eval") if name not in _NEVER]
    monitor = meta.get("monitor")
    first = [
        CurveName("metric", "loss"),
        CurveName("eval", str(monitor)) if monitor else (evals or [CurveName("eval", "score")])[0],
        CurveName("metric", "grad_norm"),
        CurveName("metric", "lr"),
    ]
    rest = [one for one in (*evals, *metrics) if one not in first and one.name not in _LAST]
    late = [one for one in metrics if one.name in _LAST]
    return [*first, *rest, *late]


class Plots:
    """Points of curves, computed once and then updated."""

    def __init__(self) -> None:
        self._summaries: dict[tuple[int, str, str], Summary] = {}

    def points(
        self,
        one: Watched,
        curve: CurveName,
        *,
        axis: str = "step",
        over: float = 1,
        window: tuple[float, float] | None = None,
    ) -> list[Point]:
        """Return a curve's points.

        Parameters
        ----------
        one
            The run.
        curve
            The curve.
        axis
            ``step``, ``hours`` trained or ``examples`` seen.
        over
            Steps over which to smooth.
        window
            The part of the axis to draw in detail.
        """
        history = one.history
        table = history.table(curve.kind)
        key = (id(history), curve.kind, curve.name)
        found = self._summaries.setdefault(key, Summary()).update(table, curve.name)
        if window is not None and table and len(table) > len(found):
            found = self._in_detail(one, curve, found, (axis, window))
        xs = _places(one, table, [(b.first + b.last) // 2 for b in found], axis)
        if curve.kind == "eval" or curve.name in STEADY:
            over = 1
        elif over == 0:
            over = automatic(len(table))
        rows = [b.last - b.first + 1 for b in found]
        means = smoothed([b.mean for b in found], rows, over)
        return [Point(x, y, b.low, b.high) for x, y, b in zip(xs, means, found, strict=True)]

    def _in_detail(
        self,
        one: Watched,
        curve: CurveName,
        found: list[Bucket],
        part: tuple[str, tuple[float, float]],
    ) -> list[Bucket]:
        axis, (low, high) = part
        table = one.history.table(curve.kind)
        xs = _places(one, table, [b.first for b in found], axis)
        start = found[max(0, bisect_left(xs, low) - 1)].first if found else 0
        stop_at = bisect_left(xs, high)
        stop = found[stop_at].last + 1 if stop_at < len(found) else len(table)
        return buckets(table.columns[curve.name], start, stop)

    def forget(self, kept: set[int]) -> None:
        """Drop the points of all histories except those with the given ids."""
        for key in [key for key in self._summaries if key[0] not in kept]:
            del self._summaries[key]


def automatic(rows: int) -> int:
    """Return the number of steps to smooth a curve over: a hundredth of its length."""
    return max(1, min(1000, rows // 100))


def _places(one: Watched, table: EventTable, rows: Sequence[int], axis: str) -> list[float]:
    """Return the positions of rows on an axis."""
    if axis == "hours":
        seconds = one.history.seconds([table.times[row] for row in rows])
        return [second / 3600 for second in seconds]
    if axis == "examples":
        return [examples_at(one, table.steps[row]) for row in rows]
    return [float(table.steps[row]) for row in rows]


def examples_at(one: Watched, step: int) -> float:
    """Return the number of examples up to a step, from its record or from the batch size."""
    table = one.history.table("metric")
    counted = table.columns.get("examples")
    if counted is not None and len(table):
        at = min(len(table) - 1, bisect_left(table.steps, step))
        if math.isfinite(counted[at]) and table.steps[at] == step:
            return counted[at]
    batch = one.meta.get("config", {}).get("batch_size")
    return float(step) * (batch if isinstance(batch, int) else 1)


def axis_label(axis: str, value: float) -> str:
    """Format a position on an axis."""
    if axis == "hours":
        return words.duration(value * 3600)
    return words.count(value) if abs(value) >= 1e5 else f"{value:,.0f}"


def value_at(points: Sequence[Point], x: float) -> Point | None:
    """Return the point at or next after a position, for the cursor."""
    if not points:
        return None
    at = bisect_left([point.x for point in points], x)
    return points[min(at, len(points) - 1)]
