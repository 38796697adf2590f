"""Parts that several screens share: states in words and colours, charts of a run."""

from __future__ import annotations

from typing import TYPE_CHECKING

from vcell.monitor import words
from vcell.monitor.chart import ChartFrame, Trace, chart
from vcell.monitor.curves import STEADY, CurveName, axis_label, value_at
from vcell.monitor.lines import Line, Piece, rule

if TYPE_CHECKING:
    from vcell.monitor.overview import Overview
    from vcell.monitor.view import Viewer
    from vcell.monitor.watch import Watched

_STYLES = {
    "running": "good", "paused": "warn", "stalled": "warn", "crashed": "bad", "failed": "bad",
    "stopped": "dim", "interrupted": "warn", "done": "",
}  # fmt: skip


def state(status: str) -> Piece:
    """Return the state of a run; problems are in capitals, not only in colour."""
    loud = status in ("stalled", "crashed", "failed")
    return (status.upper() if loud else status, _STYLES.get(status, ""))


def left_or_took(run: Overview) -> str:
    """Return the time left of a running run, or the time taken of one that has ended."""
    if run.status == "running":
        return words.duration(run.eta_s)
    if run.status in ("paused", "stalled"):
        return "–"
    return words.duration(run.took_s)


def run_chart(
    view: Viewer, one: Watched, curve: CurveName, size: tuple[int, int], *, focused: bool = False
) -> list[Line]:
    """Return a titled chart of one curve of a run; `size` is width and height."""
    width, height = size
    looks = view.looks
    log = curve.name in looks.log
    window = looks.window
    points = view.plots.points(one, curve, axis=looks.unit, over=looks.over, window=window)
    guides: list[float] = []
    best = one.overview.best
    if curve.kind == "eval" and curve.name == one.overview.monitor and best is not None:
        guides.append(best)
    title = _title(view, one, curve, focused=focused, room=width - 4)
    frame = ChartFrame(
        width,
        height - 1,
        log=log,
        x_label=lambda value: axis_label(view.looks.unit, value),
        x_range=window,
        guides=guides,
        cursor=looks.cursor,
        plain=view.plain,
    )
    if looks.cursor is not None and (point := value_at(points, looks.cursor)) is not None:
        at = axis_label(view.looks.unit, point.x)
        title = [*title, (f"  at {at}: {words.number(point.y)}", "bold")]
    mark = "-" if view.plain else "─"
    return [rule(title, width, mark), *chart([Trace(points)], frame)]


def _title(view: Viewer, one: Watched, curve: CurveName, *, focused: bool, room: int) -> Line:
    last = one.history.series(curve.name, curve.kind).last
    pointer = (">" if view.plain else "▶") + " " if focused else ""
    title: Line = [(f"{pointer}{curve.title} ", "title"), (words.number(last), "bold")]
    if curve.kind == "eval" and curve.name == one.overview.monitor:
        at = f" at {one.overview.best_step:,}" if one.overview.best_step is not None else ""
        title.append((f"  best {words.number(one.overview.best)}{at}", "c2"))
    notes = []
    smooth = curve.kind == "metric" and curve.name not in STEADY
    if smooth and (mean := view.smoothing_of(one)):
        notes.append(mean)
    if curve.name in view.looks.log:
        notes.append("log")
    used = sum(len(piece) for piece, _ in title)
    if notes and used + len(", ".join(notes)) + 2 <= room:
        title.append(("  " + ", ".join(notes), "dim"))
    return title
