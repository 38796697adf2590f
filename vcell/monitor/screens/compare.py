"""Several runs in one plot: one metric, values at the same step, settings that differ."""

from __future__ import annotations

from bisect import bisect_right
from typing import TYPE_CHECKING

from vcell.monitor import words
from vcell.monitor.chart import ChartFrame, Trace, chart
from vcell.monitor.curves import CurveName, axis_label
from vcell.monitor.lines import Line, rule, side_by_side, wrap
from vcell.monitor.settings import settings

if TYPE_CHECKING:
    from vcell.monitor.view import Viewer
    from vcell.monitor.watch import Watched

HINTS = (
    ("m", "metric"), ("x", "axis"), ("s", "smooth"), ("y", "log"), ("←→", "cursor"),
    ("+-0", "zoom"), ("d", "all settings"), ("u", "unmark all"), ("Esc", "back"),
)  # fmt: skip
_ASCII = "*o+x#%@"


def letter(at: int) -> str:
    """Return the letter of a compared run."""
    return chr(ord("A") + at)


def body(view: Viewer, width: int, height: int) -> list[Line]:
    """Draw the overlay and the two tables."""
    runs = view.compared()
    if not runs:
        return [[(" no runs to compare", "dim")]]
    curve = view.common_curve(runs)
    wide = width >= 100
    half = (width - 2) // 2
    left, step = _at_same_step(view, runs, curve, half if wide else width)
    right = _settings(view, runs, width - 2 - half if wide else width)
    tables = side_by_side(left, right, half) if wide else [*left, *right]
    verdict = _verdict(runs, curve, step, width)
    rows = max(8, height - 1 - len(tables) - len(verdict))
    block = [*_legend(view, runs, width), *_chart(view, runs, curve, width, rows)]
    room = height - len(block) - len(verdict)
    return [*block, *tables[: max(0, room)], *verdict]


def _legend(view: Viewer, runs: list[Watched], width: int) -> list[Line]:
    line: Line = [(" ", "")]
    share = max(6, (width - 4) // len(runs) - 4)
    for i, one in enumerate(runs):
        mark = f" {_ASCII[i]}" if view.plain else ""
        name = one.name if share > len(one.name) else one.overview.short
        line += [(f"{letter(i)}{mark} {words.cut(name, share)}", f"c{i}"), ("   ", "")]
    if not view.marks:
        line.append(("(Space in the list marks which)", "dim"))
    return [line]


def _chart(
    view: Viewer, runs: list[Watched], curve: CurveName, width: int, rows: int
) -> list[Line]:
    looks = view.looks
    traces = []
    for i, one in enumerate(runs):
        points = view.plots.points(
            one, curve, axis=looks.unit, over=looks.over, window=looks.window
        )
        mark = _ASCII[i] if view.plain else letter(i)
        traces.append(Trace(points, i, mark, band=False))
    notes = [f"by {view.looks.unit} (x)"]
    if curve.kind == "metric" and (mean := view.smoothing_of(runs[0])):
        notes.append(f"{mean} (s)")
    if curve.name in looks.log:
        notes.append("log (y)")
    title: Line = [(f"{curve.title}", "title"), (f" (m)  {'  '.join(notes)}", "dim")]
    if looks.cursor is not None:
        title.append((f"  at {axis_label(view.looks.unit, looks.cursor)}", "bold"))
    frame = ChartFrame(
        width,
        rows - 1,
        log=curve.name in looks.log,
        x_label=lambda value: axis_label(view.looks.unit, value),
        x_range=looks.window,
        cursor=looks.cursor,
        plain=view.plain,
        names=True,
        empty=f"none of these runs has measured {curve.title}",
    )
    return [rule(title, width, "-" if view.plain else "─"), *chart(traces, frame)]


def _at(one: Watched, curve: CurveName, step: int) -> float | None:
    """Return a curve's last value up to a step."""
    table = one.history.table(curve.kind)
    column = table.columns.get(curve.name)
    if column is None:
        return None
    at = bisect_right(table.steps, step) - 1
    return column[at] if at >= 0 else None


def _at_same_step(
    view: Viewer, runs: list[Watched], curve: CurveName, width: int
) -> tuple[list[Line], int | None]:
    steps = [one.overview.step for one in runs if one.overview.step is not None]
    common = min(steps, default=None)
    if common is not None and view.looks.cursor is not None and view.looks.unit == "step":
        common = min(common, int(view.looks.cursor))
    mark = "-" if view.plain else "─"
    title: Line = [("at the same step", "title")]
    if common is not None:
        title.append((f" {common:,}", "bold"))
    block = [rule(title, width, mark), _letters(runs)]
    others = dict.fromkeys(
        CurveName("eval", name)
        for one in runs
        for name in one.history.names("eval")
        if name != "best"
    )
    rows = dict.fromkeys([curve, *others, CurveName("metric", "loss")])
    if common is not None:
        for row in rows:
            values = [words.number(_at(one, row, common)) for one in runs]
            block.append(_row(row.title, values))
    speeds = [words.number(one.overview.seconds_a_step, 3) for one in runs]
    block.append(_row("seconds a step", speeds))
    block.append(_row("waits for data", [words.percent(one.overview.wait) for one in runs]))
    return block, common


def _letters(runs: list[Watched]) -> Line:
    return [(" " * 19, ""), *((f"{letter(i):>10}", f"c{i}") for i in range(len(runs)))]


def _row(name: str, values: list[str]) -> Line:
    cut = words.cut(name, 18)
    return [(f" {cut:<18}", "dim"), *((f"{words.cut(v, 9):>10}", "") for v in values)]


def _settings(view: Viewer, runs: list[Watched], width: int) -> list[Line]:
    mark = "-" if view.plain else "─"
    found = settings([one.meta for one in runs], only_different=True)
    block = [rule([("settings that differ", "title"), (" (d: all)", "dim")], width, mark)]
    if len(runs) < 2:
        return [*block, [(" there is one run only", "dim")]]
    if not found:
        return [*block, [(" none", "dim")]]
    return [*block, _letters(runs), *(_row(one.name, one.values) for one in found)]


def _verdict(runs: list[Watched], curve: CurveName, step: int | None, width: int) -> list[Line]:
    """Describe which run leads at the same step, and which wait for data."""
    differences = []
    if step is not None and len(runs) > 1:
        values = {i: _at(one, curve, step) for i, one in enumerate(runs)}
        known = {i: v for i, v in values.items() if v is not None and v == v}  # noqa: PLR0124
        higher = all(one.overview.higher_is_better for one in runs) and curve.kind == "eval"
        if len(known) > 1 and (curve.name == runs[0].overview.monitor or curve.name == "loss"):
            order = sorted(known, key=lambda i: known[i], reverse=higher)
            lead = abs(known[order[0]] - known[order[1]])
            differences.append(
                f"{letter(order[0])} leads {letter(order[1])} by {words.number(lead, 3)} in "
                f"{curve.title} at step {step:,} (one run each: not conclusive)"
            )
    for i, one in enumerate(runs):
        if (one.overview.wait or 0) > 0.2:
            differences.append(
                f"{letter(i)} waits for data {words.percent(one.overview.wait)} of a step"
            )
    if not differences:
        return []
    return [[(f" {line}", "bold")] for line in wrap("; ".join(differences), width - 2)]
