"""The list of runs, with charts of the selected one."""

from __future__ import annotations

from typing import TYPE_CHECKING

from vcell.monitor import query, words
from vcell.monitor.lines import Line, bar, fit, rule, side_by_side, spread
from vcell.monitor.overview import STATES
from vcell.monitor.screens.parts import left_or_took, run_chart, state

if TYPE_CHECKING:
    from vcell.monitor.overview import Overview
    from vcell.monitor.view import Viewer

HINTS = (
    ("Enter", "open"), ("Space", "mark"), ("3", "compare"), ("/", "filter"), ("o", "sort"),
    ("d", "settings"), ("l", "logs"), ("c", "checkpoint"), ("p", "pause"), ("S", "stop"),
)  # fmt: skip
_NARROWEST_NAME, _WIDEST_NAME = 18, 40  # columns


def body(view: Viewer, width: int, height: int) -> list[Line]:
    """Draw the list and, if there is room, two charts of the selected run."""
    found = view.listed()
    _ = view.one  # selects a run if none is selected
    least, most = (13, 20) if height >= 34 else (9, 12) if height >= 19 else (0, 0)
    preview = min(most, max(least, height - 4 - len(found)))
    rows = view.rows = max(3, height - 3 - preview)
    block = [_summary(view, found, width), *_head(view, found, width)]
    top = first_listed(view, found)
    shown = found[top : top + rows]
    if len(found) > top + rows:
        shown = shown[:-1]
    block += [_row(view, run, found, width) for run in shown]
    if len(found) > top + len(shown):
        block.append([(f"   … {len(found) - top - len(shown)} more", "dim")])
    if not found:
        words_ = "no run fits the filter" if view.watch.runs else "no runs here any more"
        block.append([(f"   {words_}", "dim")])
    block += [[] for _ in range(3 + rows - len(block))]
    one = view.one
    if preview and one is not None:
        half = (width - 2) // 2
        left = run_chart(view, one, view.curve(0, one), (half, preview))
        right = run_chart(view, one, view.curve(1, one), (width - 2 - half, preview))
        block += side_by_side(left, right, half)
    return block


def first_listed(view: Viewer, found: list[Overview]) -> int:
    """Return the index of the run in the first row, so that the selected one is visible."""
    names = [run.name for run in found]
    at = names.index(view.selected) if view.selected in names else 0
    return min(max(0, at - view.rows // 2), max(0, len(found) - view.rows))


def _summary(view: Viewer, found: list[Overview], width: int) -> Line:
    counts: dict[str, int] = {}
    for run in found:
        counts[run.status] = counts.get(run.status, 0) + 1
    left: Line = [(" ", "")]
    if view.filter or view.typing == "filter":
        left += [("filter: ", "dim"), (view.filter, "bold"), ("  ", "")]
    for status in STATES:
        if status in counts:
            text, style = state(status)
            left += [(f"{counts[status]} ", "bold"), (f"{text}  ", style)]
    right: Line = [(f"by {list(query.SORTS)[view.sort]} (o)", "dim")]
    if view.marks:
        right = [(f"{len(view.marks)} marked  ", "key"), *right]
    return spread(left, [*right, (" ", "")], width)


def _columns(width: int, found: list[Overview]) -> list[tuple[str, int, str]]:
    """Return headings, widths and alignments of the columns that fit."""
    longest = max((len(_name(run)) for run in found), default=_NARROWEST_NAME)
    name = min(_WIDEST_NAME, max(_NARROWEST_NAME, longest))
    wide = [
        ("state", 11, "<"), ("run", name, "<"), ("model", 12, "<"), ("done", 15, "<"),
        ("loss", 8, ">"), ("best", 9, ">"), ("ex/s", 6, ">"), ("wait", 5, ">"),
        ("left/took", 9, ">"), ("heard", 6, ">"),
    ]  # fmt: skip
    order = ["heard", "ex/s", "wait", "model"]  # columns to drop, first to last
    while sum(w + 1 for _, w, _ in wide) + 3 > width and order:
        wide = [column for column in wide if column[0] != order[0]]
        order.pop(0)
    if order == []:
        wide = [(h, 5 if h == "done" else w, s) for h, w, s in wide]
    if sum(w + 1 for _, w, _ in wide) + 3 > width:
        spare = sum(w + 1 for _, w, _ in wide) + 3 - width
        wide = [
            (head, max(_NARROWEST_NAME, w - spare) if head == "run" else w, side)
            for head, w, side in wide
        ]
    return wide


def _head(view: Viewer, found: list[Overview], width: int) -> list[Line]:
    monitors = {run.monitor for run in found if run.monitor}
    best = f"best {next(iter(monitors))}" if len(monitors) == 1 else "best"
    best = best if len(best) <= 9 else "best"
    line: Line = [("   ", "")]
    for head, size, side in _columns(width, found):
        line.append((f"{best if head == 'best' else head:{side}{size}} ", "dim"))
    return [line, rule([], width, "-" if view.plain else "─")]


def _row(view: Viewer, run: Overview, found: list[Overview], width: int) -> Line:
    here = run.name == view.selected
    pointer = (">" if view.plain else "▶") if here else " "
    marked = run.name in view.marks
    mark = (chr(ord("A") + view.marks.index(run.name))) if marked else " "
    line: Line = [(f"{pointer}{mark} ", "key" if marked else "title")]
    for head, size, side in _columns(width, found):
        text, style = _cell(view, run, head, size)
        line.append((f"{words.cut(text, size):{side}{size}} ", style))
    return fit(line, width, "cursor") if here else line


def _cell(view: Viewer, run: Overview, head: str, size: int) -> tuple[str, str]:
    if head == "state":
        return state(run.status)
    if head == "done":
        if run.share is None:
            return "", ""
        if size < 10:
            return words.percent(run.share), ""
        return f"{bar(run.share, 10, plain=view.plain)} {words.percent(run.share):>4}", ""
    texts = {
        "run": _name(run),
        "model": run.model,
        "loss": words.number(run.loss),
        "best": words.number(run.best),
        "ex/s": words.number(run.examples_per_s, 3) if run.status == "running" else "–",
        "wait": words.percent(run.wait) if run.status == "running" else "–",
        "left/took": left_or_took(run),
        "heard": words.ago(max(0.0, view.clock() - run.last_sign)),
    }
    high_wait = head == "wait" and run.status == "running" and (run.wait or 0) > 0.2
    nan = head == "loss" and run.loss is not None and run.loss != run.loss
    return texts[head], "bad" if nan else "warn" if high_wait else ""


def _name(run: Overview) -> str:
    name = run.name[4:] if run.name[:8].isdecimal() else run.name  # without the year
    if run.parts is None:
        return name
    done, most = run.parts
    return f"{name}, {done}{f' of {most}' if most else ''} runs"


def troubles(view: Viewer, width: int) -> Line:
    """Return problems of runs, and errors in reading them, in one line."""
    found = [
        f"{run.short}: {run.reason}"
        for run in view.listed()
        if run.reason and run.status in ("stalled", "crashed", "failed")
    ]
    selected = view.one
    if selected is not None and selected.overview.reason:
        found.insert(0, f"{selected.overview.short}: {selected.overview.reason}")
    found = [*view.watch.problems.values(), *dict.fromkeys(found)]
    if not found:
        return []
    more = f"  (and {len(found) - 1} more)" if len(found) > 1 else ""
    text = words.cut(words.clean(found[0]), max(10, width - len(more) - 4))
    return [(f" ! {text}{more}", "warn")]
