"""Help, and the settings of runs: shown over the other screens."""

from __future__ import annotations

from typing import TYPE_CHECKING

from vcell.monitor import words
from vcell.monitor.lines import Line, keys, rule, spread
from vcell.monitor.lines import width as line_width
from vcell.monitor.screens.compare import letter
from vcell.monitor.settings import settings

if TYPE_CHECKING:
    from collections.abc import Sequence

    from vcell.monitor.view import Viewer

HINTS = (("↑↓", "scroll"), ("a", "all or different"), ("Esc", "back"))
HELP = (
    ("Everywhere", (
        ("1 2 3 4 5", "runs, one run, compare, GPUs, logs"),
        ("↑ ↓ j k", "the run above or below; PgUp PgDn Home End"),
        ("Space", "mark a run for comparing (3)"),
        ("d", "settings; with marked runs, those that differ"),
        ("c", "ask the run for a checkpoint"),
        ("p", "pause the run, with a checkpoint; p again: go on"),
        ("S S", "stop the run after its step, with a checkpoint"),
        ("Ctrl-P", "palette: everything by its name"),
        ("Esc  q", "back, quit (the run goes on)"),
    )),
    ("Runs", (
        ("/", "filter: status:running|paused lr>=1e-3 gain>0.2 -ridge"),
        ("o", "sort by last sign, state, best, loss, made, name"),
        ("u  l  Enter", "unmark all, logs, open"),
    )),
    ("Curves (one run, compare)", (
        ("Tab  m M", "next chart; next, last metric in it"),
        ("s  y  x", "smoothing; logarithmic; by step, hours or examples"),
        ("← →  + - 0", "cursor; zoom in, out, all"),
        ("z", "the chart alone"),
    )),
    ("GPUs", (("g  x  u", "one or all; 10 min, hour, run; power or busy"),)),
    ("Logs", (
        ("r  /  f", "source; search; hold or follow"),
        ("e E  Enter", "next, last problem; the whole entry"),
    )),
    ("Replay (--replay RUN)", (("p  < >", "hold; slower, faster"),)),
)  # fmt: skip


def hint_line(hints: Sequence[tuple[str, str]], columns: int, *, narrow: bool) -> Line:
    """Return the last line: keys of this screen, then help and quit at the right."""
    del narrow
    right: Line = [("?", "key"), (" help  ", "dim"), ("q", "key"), (" quit ", "dim")]
    return spread(keys(hints, columns - line_width(right)), right, columns)


def body(view: Viewer, width: int, height: int) -> list[Line]:
    """Draw the help or the settings, from the current scroll position."""
    lines = _help(width) if view.overlay == "help" else _settings(view, width)
    view.scroll = min(view.scroll, max(0, len(lines) - height))
    return lines[view.scroll : view.scroll + height]


def _help(width: int) -> list[Line]:
    lines: list[Line] = []
    for title, entries in HELP:
        lines.append([(f" {title}", "title")])
        for key, what in entries:
            lines.append([(f"   {key:<13}", "key"), (words.cut(what, width - 17), "")])
    lines.append([(" Colours are Okabe and Ito's; nothing depends on colour alone.", "dim")])
    return lines


def _settings(view: Viewer, width: int) -> list[Line]:
    marked = [view.watch.runs[name] for name in view.marks if name in view.watch.runs]
    one = view.one
    runs = marked if len(marked) > 1 else [one] if one is not None else []
    if not runs:
        return [[(" no run is selected", "dim")]]
    several = len(runs) > 1
    found = settings([r.meta for r in runs], only_different=several and view.only_different)
    mark = "-" if view.plain else "─"
    title = f"settings of {runs[0].name}"
    if several:
        title = "settings that differ" if view.only_different else "all settings"
    lines: list[Line] = [rule([(title, "title"), (f"  {len(found)}", "dim")], width, mark)]
    column = max(10, min(30, (width - 28) // len(runs) - 1))
    if several:
        lines.append([(" " * 27, "")])
        for i, run in enumerate(runs):
            head = f"{letter(i)} {words.cut(run.overview.short, column - 2)}"
            lines[-1].append((f"{head:<{column}} ", f"c{i}"))
    for setting in found:
        line: Line = [
            (f" {words.cut(setting.name, 24):<25} ", "key" * (several and setting.differs))
        ]
        if several:
            line += [(f"{words.cut(value, column):<{column}} ", "") for value in setting.values]
        else:
            room = max(8, width - 27 - 16)
            own = setting.origin not in ("default", "")  # set by the user
            value = words.cut(setting.values[0], room)
            line.append((f"{value:<{room}} ", "bold" if own else ""))
            line.append((setting.origin if own else "", "dim"))
        lines.append(line)
    return lines
