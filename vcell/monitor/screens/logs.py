"""The messages of a run, by source, with full entries on demand."""

from __future__ import annotations

from typing import TYPE_CHECKING

from vcell import console
from vcell.monitor import words
from vcell.monitor.lines import Line, fit, rule, spread
from vcell.monitor.logs import LogEntry, when

if TYPE_CHECKING:
    from vcell.monitor.view import Viewer

HINTS = (
    ("r", "source"), ("/", "search"), ("e E", "problems"), ("g G", "top, end"), ("f", "hold"),
    ("Enter", "whole entry"), ("Esc", "back"),
)  # fmt: skip


def shown_entries(view: Viewer) -> list[LogEntry]:
    """Return the entries of the selected source that match the search."""
    one, logs = view.one, view.logs()
    if one is None or logs is None:
        return []
    until = view.clock() if view.replay is not None else None
    found = logs.entries(view.source, one.history, until)
    wanted = view.search.lower()
    if not wanted:
        return found
    return [entry for entry in found if wanted in f"{entry.source} {entry.text}".lower()]


def body(view: Viewer, width: int, height: int) -> list[Line]:
    """Draw the end of the log, or the part around the selected entry."""
    one, logs = view.one, view.logs()
    if one is None or logs is None:
        return [[(" no run is selected", "dim")]]
    entries = shown_entries(view)
    at = len(entries) - 1 if view.entry is None else min(view.entry, len(entries) - 1)
    block = [_head(view, logs.sources, entries, width), rule([], width, _mark(view))]
    rows = height - 3
    more = _opened(view, entries[at], width, rows // 2) if view.opened_entry and entries else []
    rows -= len(more)
    top = max(0, len(entries) - rows)
    if view.entry is not None:
        top = min(top, max(0, at - rows // 2))
    shown = entries[top : top + rows]
    here = at if view.entry is not None or view.opened_entry else -1
    lines = [_line(view, e, width, here=top + i == here) for i, e in enumerate(shown)]
    if not lines:
        lines = [[(" nothing fits the search" if view.search else " no output yet", "dim")]]
    block += [*lines, *([] for _ in range(rows - len(lines))), *more]
    where = "following the end (f holds)" if view.following else "holding (f follows)"
    text = f" {where}   {console.count(len(entries), 'entry', 'entries')}"
    if len(entries) > rows:
        text += f", {top + 1:,} to {min(top + rows, len(entries)):,} shown"
    return [*block, [(text, "dim")]]


def _mark(view: Viewer) -> str:
    return "-" if view.plain else "─"


def _head(view: Viewer, sources: list[str], entries: list[LogEntry], width: int) -> Line:
    one = view.one
    name = "" if one is None else one.name if width >= 100 else one.overview.short
    left: Line = [(f" {name}  ", "title")]
    for source in sources:
        here = source == view.source
        left.append((f"[{source}]" if here else f" {source} ", "title" if here else "dim"))
    if view.search:
        left += [("  search: ", "dim"), (view.search, "bold")]
    bad = sum(entry.level == "bad" for entry in entries)
    warned = sum(entry.level == "warn" for entry in entries)
    right: Line = []
    if bad:
        right.append((f"{bad} error{'s' * (bad > 1)} (e) ", "bad"))
    if warned:
        right.append((f"{warned} warning{'s' * (warned > 1)}{'' if bad else ' (e)'} ", "warn"))
    return spread(left, right, width)


def _line(view: Viewer, entry: LogEntry, width: int, *, here: bool) -> Line:
    wide = width >= 100
    letter = {"bad": "E", "warn": "W"}.get(entry.level, " ")
    source = entry.source if wide else entry.source.replace("rank ", "r").replace("console", "con")
    more = f"  (+{console.count(len(entry.more), 'line')})" if entry.more else ""
    head = f" {when(entry, view.clock()):>11} {source:<{9 if wide else 5}} {letter} "
    text = words.cut(entry.text, max(4, width - len(head) - len(more)))
    line: Line = [(head, "dim" if not entry.level else entry.level), (text, entry.level)]
    line.append((more, "dim"))
    return fit(line, width, "cursor") if here else line


def _opened(view: Viewer, entry: LogEntry, width: int, rows: int) -> list[Line]:
    """Return all lines of an entry, or its end if it is long."""
    title: Line = [(f"{entry.source}, {when(entry, view.clock())}", "title")]
    text = entry.text
    lines = [text[i : i + width - 4] for i in range(0, max(1, len(text)), width - 4)]
    texts = [*lines, *(words.cut(one, width - 4) for one in entry.more)]
    if len(texts) > rows - 1:
        kept = [texts[0], f"… {len(texts) - rows + 2} lines", *texts[-(rows - 3) :]]
        texts = kept
    return [rule(title, width, _mark(view)), *([(f"  {one}", entry.level)] for one in texts)]
