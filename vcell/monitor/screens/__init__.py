"""The screens: functions of the view and a size that return lines of text with styles."""

from __future__ import annotations

from typing import TYPE_CHECKING

from vcell.monitor import words
from vcell.monitor.lines import Line, fit, shortened, spread, stretch
from vcell.monitor.lines import width as line_width
from vcell.monitor.screens import compare, gpus, logs, overlays, run, runs

if TYPE_CHECKING:
    from collections.abc import Callable

    from vcell.monitor.view import Viewer

WIDE = 100  # columns from which optional parts are shown
NAMED = 60  # columns from which there is room for the names of all screens and the time
SMALLEST = (40, 12)
_DRAWN: dict[str, Callable[[Viewer, int, int], list[Line]]] = {
    "runs": runs.body,
    "run": run.body,
    "compare": compare.body,
    "gpus": gpus.body,
    "logs": logs.body,
}
_HINTS: dict[str, tuple[tuple[str, str], ...]] = {
    "runs": runs.HINTS,
    "run": run.HINTS,
    "compare": compare.HINTS,
    "gpus": gpus.HINTS,
    "logs": logs.HINTS,
}


def draw(view: Viewer, width: int, height: int) -> list[Line]:
    """Draw the current screen: header, body, a line for messages, hints of keys."""
    if width < SMALLEST[0] or height < SMALLEST[1]:
        shown: list[Line] = [[(f"too small: {width}x{height}", "warn")], [("q quit", "dim")]]
        return [fit(line, width) for line in stretch(shown, height)]
    if view.overlay:
        body = overlays.body(view, width, height - 3)
        hints: tuple[tuple[str, str], ...] = overlays.HINTS
    else:
        body = _DRAWN[view.screen](view, width, height - 3)
        hints = _HINTS[view.screen]
    page = [_header(view, width), *stretch(body, height - 3), _message(view, width)]
    page.append(overlays.hint_line(hints, width, narrow=width < WIDE))
    return [fit(shortened(line, width), width) for line in page]


def tab_at(view: Viewer, column: int, width: int) -> str:
    """Return the screen whose tab is at a column of the header, or ""."""
    left, tabs = _head_line(view, width)
    at = line_width(left)
    for (text, _), name in zip(tabs, _DRAWN, strict=True):
        if at <= column < at + len(text):
            return name
        at += len(text)
    return ""


def _head_line(view: Viewer, width: int) -> tuple[Line, Line]:
    """Return what stands before the tabs, and the tabs: all by name, or only the one shown."""
    tabs: Line = []
    for i, name in enumerate(_DRAWN, 1):
        here = name == view.screen and not view.overlay
        label = f"{i} {name}" if here or width >= NAMED else str(i)
        tabs.append((f"[{label}]" if here else f" {label} ", "title" if here else "dim"))
    left: Line = [(" vcell monitor  ", "bold")] if width >= WIDE else [(" ", "")]
    if width >= WIDE:
        left.append((words.cut(words.clean(str(view.watch.path)), 28) + "  ", "dim"))
    return left, tabs


def header(view: Viewer, width: int, height: int) -> Line | None:
    """Return only the first line: tabs and the time."""
    if width < SMALLEST[0] or height < SMALLEST[1]:
        return None
    return fit(_header(view, width), width)


def _header(view: Viewer, width: int) -> Line:
    left, tabs = _head_line(view, width)
    time = words.clock(view.clock())
    right: Line = [(time, "dim")]
    if view.replay is not None:
        state = "held" if view.replay.held else "over" if view.replay.over else "replay"
        right = [(f"{state} ×{view.replay.speed:g}  ", "warn"), (time, "dim")]
    elif width >= WIDE:
        many = len(view.watch.runs)
        right = [(f"{many:,} run{'s' * (many != 1)}  {time}", "dim")]
    return spread([*left, *tabs], [*right, (" ", "")], width)


def _message(view: Viewer, width: int) -> Line:
    """Return the current message, else problems, else the progress of reading."""
    text, style = view.message
    if view.typing is not None:
        return [(f" {view.typing}: ", "bold"), (getattr(view, view.typing), ""), ("█", "key")]
    if text:
        return [(f" {words.clean(text)}", style)]
    loading = [
        (one.overview.short, one.loading)
        for one in view.watch.runs.values()
        if one.loading is not None and one.name in view.to_read()[1]
    ]
    if loading:
        name, share = loading[0]
        return [(f" reading the history of {name}: {words.percent(share)}", "dim")]
    if view.screen == "runs" and not view.overlay:
        return runs.troubles(view, width)
    return []
