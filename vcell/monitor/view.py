"""The state of the display, and the effect of keys on it, without a terminal.

view = Viewer(watch)
view.tick()                  # read a little
view.press("down")           # answer a key
view.page(120, 40)           # lines of text with styles
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TYPE_CHECKING

from vcell.errors import UserError
from vcell.monitor import control, keys, query
from vcell.monitor.curves import CurveName, Plots, automatic, curves
from vcell.monitor.logs import Logs
from vcell.monitor.looks import Looks

if TYPE_CHECKING:
    from vcell.monitor.lines import Line
    from vcell.monitor.overview import Overview
    from vcell.monitor.replay import Replay
    from vcell.monitor.watch import Watch, Watched

_SECONDS_TO_CONFIRM = 10.0
_SECONDS_OF_A_MESSAGE = 8.0
_MOST_OPENED = 8  # histories kept in memory, unless more are shown at once
_MOST_MARKED = 7  # as many as there are colours


class Viewer:
    """State of the display.

    Parameters
    ----------
    watch
        The runs.
    clock
        Seconds since 1970.
    plain
        Use ASCII only.
    replay
        The replay that is shown, if any.
    """

    def __init__(
        self,
        watch: Watch,
        *,
        clock: Callable[[], float] = time.time,
        plain: bool = False,
        replay: Replay | None = None,
    ) -> None:
        self.watch, self.clock, self.plain, self.replay = watch, clock, plain, replay
        self.screen = "runs" if watch.only is None else "run"
        self.selected = watch.only.name if watch.only is not None else ""
        self.chosen = watch.only is not None  # by the user; until then the first run is selected
        self.marks: list[str] = []
        self.sort = 0
        self.filter = ""
        self.typing: str | None = None  # the "filter" or "search" being typed
        self.overlay = ""  # "help" or "settings"
        self.scroll = 0  # of overlays and of the log
        self.looks: Looks = Looks()
        self.plots = Plots()
        self.source, self.search, self.following = "all", "", True
        self.entry: int | None = None  # the log entry at the cursor
        self.opened_entry = False
        self.window, self.busy_chart = 0, False
        self.gpu: int = -1
        self.only_different = True
        self.rows: int = 20  # rows of the list, as last drawn
        self._logs: dict[str, Logs] = {}
        self._message: tuple[str, str, float] = ("", "", 0.0)
        self._confirm: tuple[str, float] = ("", 0.0)
        self._opened: list[str] = []  # runs whose history was shown, oldest first
        self.done = False

    # -- which runs ----------------------------------------------------------------------------

    def listed(self) -> list[Overview]:
        """Return the runs that match the filter, in the selected order."""
        try:
            fits = query.parse(self.filter)
        except query.BadQuery:
            fits = query.parse("")
        overviews = [one.overview for one in self.watch.runs.values()]
        return sorted(filter(fits, overviews), key=list(query.SORTS.values())[self.sort])

    @property
    def one(self) -> Watched | None:
        """The selected run."""
        if self.selected not in self.watch.runs or not self.chosen:
            found = self.listed()
            self.selected = found[0].name if found else ""
        return self.watch.runs.get(self.selected)

    def compared(self) -> list[Watched]:
        """Return the marked runs; if none is marked, the selected one and its neighbours."""
        marked = [self.watch.runs[name] for name in self.marks if name in self.watch.runs]
        if marked:
            return marked
        names = [run.name for run in self.listed()]
        at = names.index(self.selected) if self.selected in names else 0
        return [self.watch.runs[name] for name in names[at : at + 3]]

    def logs(self) -> Logs | None:
        """Return the logs of the selected run."""
        one = self.one
        if one is None:
            return None
        if (found := self._logs.get(one.name)) is None:
            found = self._logs[one.name] = Logs(one.run.path, one.overview.monitor)
            found.read()  # so that the first picture has them
        found.monitor = one.overview.monitor
        return found

    def to_read(self) -> tuple[list[str], list[str]]:
        """Return the names of visible runs, and of those whose full history is shown."""
        selected = [self.selected] if self.selected else []
        if self.screen == "compare":
            names = [one.name for one in self.compared()]
            return names, names
        if self.screen != "runs":
            return selected, selected
        names = [run.name for run in self.listed()]
        at = max(0, names.index(self.selected) - self.rows) if self.selected in names else 0
        return [*selected, *names[at : at + 2 * self.rows]], selected

    # -- time ----------------------------------------------------------------------------------

    def tick(self) -> bool:
        """Do some of the reading that is due; return whether the page may have changed."""
        _ = self.one
        seen, opened = self.to_read()
        changed = self.watch.step(seen, opened)
        if self.screen == "logs" and (logs := self.logs()) is not None:
            changed = logs.read() or changed
        if self._message[0] and self.clock() - self._message[2] > _SECONDS_OF_A_MESSAGE:
            self._message = ("", "", 0.0)
            changed = True
        self._unload(opened)
        kept = {id(one.history) for one in self.watch.runs.values() if one.end or one.whole}
        self.plots.forget(kept)
        return changed

    def _unload(self, opened: list[str]) -> None:
        """Drop full histories that have not been shown for long."""
        self._opened = [*(n for n in self._opened if n not in opened), *opened]
        for name in self._opened[:-_MOST_OPENED]:
            if name in self.watch.runs and name not in opened:
                self.watch.runs[name].unload()
        self._opened = self._opened[-_MOST_OPENED:]

    def is_busy(self) -> bool:
        """Return whether there is more to read at once."""
        return self.watch.busy(self.to_read()[1])

    def is_live(self) -> bool:
        """Return whether any run may still write."""
        return any(one.overview.is_live for one in self.watch.runs.values())

    def say(self, text: str, style: str = "") -> None:
        """Show a message for some seconds."""
        self._message = (text, style, self.clock())

    @property
    def message(self) -> tuple[str, str]:
        """Return the message to show, and its style."""
        return self._message[:2]

    # -- keys ----------------------------------------------------------------------------------

    def press(self, key: str) -> None:
        """Handle a key: its character, or its name if it has none (``up``, ``enter`` ...)."""
        if self.typing is not None:
            self._type(key)
            return
        self.chosen = self.chosen or self.one is not None
        if self.overlay and key in ("escape", "q", "?", "d", "enter"):
            self.overlay = ""
            return
        if self.overlay and key == "a":
            self.only_different = not self.only_different
            return
        if self._confirm[0] and key != "S":
            self._confirm = ("", 0.0)
            self.say("nothing was stopped")
        if action := keys.action(self.screen, key):
            action(self)

    def go(self, screen: str) -> None:
        """Show another screen."""
        self.screen, self.overlay, self.scroll = screen, "", 0
        if screen == "logs":
            self.following, self.entry, self.opened_entry = True, None, False

    def _type(self, key: str) -> None:
        name = self.typing or ""
        text = getattr(self, name)
        if key in ("enter", "escape"):
            self.typing = None
            if key == "escape":
                setattr(self, name, "")
            elif name == "filter":
                self._check_filter()
        elif key in ("backspace", "ctrl+u"):
            setattr(self, name, text[:-1] if key == "backspace" else "")
        elif len(key) == 1 and key.isprintable():
            setattr(self, name, text + key)

    def _check_filter(self) -> None:
        try:
            query.parse(self.filter)
        except query.BadQuery as error:
            self.say(str(error), "bad")
            return
        if not self.listed():
            self.say("no run fits the filter; / and Esc clears it", "warn")

    def toggle(self, overlay: str) -> None:
        """Show the help or the settings, or hide them."""
        self.overlay = "" if self.overlay == overlay else overlay
        self.scroll = 0

    def back(self) -> None:
        """Leave the current mode or screen."""
        if self.opened_entry:
            self.opened_entry = False
        elif self.looks.large:
            self.looks.large = False
        elif self.screen != "runs" and (self.watch.only is None or len(self.watch.runs) > 1):
            self.go("runs")
        elif self.filter:
            self.filter = ""

    def move(self, by: int) -> None:
        """Move the cursor of the list, the log or an overlay."""
        if self.overlay:
            self.scroll = max(0, self.scroll + by)
        elif self.screen == "logs":
            self.move_in_log(by)
        else:
            names = [run.name for run in self.listed()]
            if names:
                at = names.index(self.selected) if self.selected in names else 0
                self.selected = names[min(len(names) - 1, max(0, at + by))]
                self.looks.unzoom()

    # -- requests ------------------------------------------------------------------------------

    def ask(self, what: str) -> None:
        """Send a request to the selected run; to stop it needs a confirmation."""
        one = self.one
        if one is None:
            return
        if self.replay is not None:
            self.say("a replay takes no requests", "warn")
            return
        name, since = self._confirm
        sure = name == one.name and self.clock() - since <= _SECONDS_TO_CONFIRM
        if what == "stop" and not sure and one.overview.is_live and control.may_ask(one.run):
            self._confirm = (one.name, self.clock())
            self.say(f"stop {one.overview.short}? S again: yes, any other key: no", "warn")
            return
        self._confirm = ("", 0.0)
        try:
            self.say(control.ask(one.run, one.overview, what), "good")
        except UserError as error:
            self.say(error.message, "bad")

    def mark(self) -> None:
        """Mark the selected run for comparing, or unmark it."""
        if self.selected in self.marks:
            self.marks.remove(self.selected)
        elif len(self.marks) >= _MOST_MARKED:
            self.say(f"{_MOST_MARKED} runs are the most that can be compared", "warn")
        elif self.selected:
            self.marks.append(self.selected)

    # -- curves --------------------------------------------------------------------------------

    def smoothing_of(self, one: Watched) -> str:
        """Describe how a run's curves are smoothed, for their titles."""
        steps = self.looks.over or automatic(len(one.history.table("metric")))
        return f"mean of {steps}" if steps > 1 else ""

    def curve(self, chart: int, one: Watched) -> CurveName:
        """Return the curve that a chart of the run screen shows."""
        known = curves(one.history, one.meta)
        return known[self.looks.shown.get(chart, chart) % len(known)]

    def common_curve(self, runs: list[Watched]) -> CurveName:
        """Return the compare screen's curve: first the deciding metric, then those of any run."""
        known = [c for one in runs for c in curves(one.history, one.meta)]
        known = list(dict.fromkeys(known)) or [CurveName("metric", "loss")]
        evals = [c for c in known if c.kind == "eval"]
        ordered = [*evals, *(c for c in known if c.kind != "eval")]
        return ordered[self.looks.compared % len(ordered)]

    def next_curve(self, by: int) -> None:
        """Show another curve in the focused chart."""
        if self.screen == "compare":
            self.looks.compared += by
        else:
            focus = self.looks.focus
            self.looks.shown[focus] = self.looks.shown.get(focus, focus) + by

    def _focused(self) -> list[tuple[Watched, CurveName]]:
        """Return the curves that keys apply to, each with its run."""
        if self.screen == "compare":
            runs = self.compared()
            return [(one, self.common_curve(runs)) for one in runs]
        one = self.one
        return [] if one is None else [(one, self.curve(self.looks.focus, one))]

    def toggle_log(self) -> None:
        """Make the y axis of the focused curve logarithmic, or linear again."""
        self.looks.log ^= {curve.name for _, curve in self._focused()}

    def extent(self) -> tuple[float, float] | None:
        """Return the full x range of the curves shown."""
        found = []
        for one, curve in self._focused():
            points = self.plots.points(one, curve, axis=self.looks.unit)
            found += [points[0].x, points[-1].x] if points else []
        return (min(found), max(found)) if found and max(found) > min(found) else None

    # -- the log -------------------------------------------------------------------------------

    def move_in_log(self, by: int) -> None:
        """Move through the log; it then no longer follows its end."""
        from vcell.monitor.screens.logs import shown_entries

        entries = shown_entries(self)
        if not entries:
            return
        at = len(entries) - 1 if self.entry is None else self.entry
        self.entry = min(len(entries) - 1, max(0, at + by))
        self.following = self.entry == len(entries) - 1 and by > 0
        if self.following:
            self.entry = None

    def next_problem(self, by: int) -> None:
        """Go to the next or last entry about a problem; errors before warnings."""
        from vcell.monitor.screens.logs import shown_entries

        entries = shown_entries(self)
        worst = "bad" if any(entry.level == "bad" for entry in entries) else "warn"
        at = (len(entries) if by < 0 else -1) if self.entry is None else self.entry
        places = [i for i, entry in enumerate(entries) if entry.level == worst]
        ahead = [i for i in places if (i - at) * by > 0]
        if not places:
            self.say("no problems here", "good")
            return
        self.entry = (ahead or places)[0 if by > 0 else -1]
        self.following = False

    def next_source(self) -> None:
        """Show the next source of the log."""
        logs = self.logs()
        if logs is not None:
            known = logs.sources
            at = known.index(self.source) if self.source in known else -1
            self.source = known[(at + 1) % len(known)]
            self.entry, self.following = None, True

    def click(self, column: int, row: int, width: int) -> None:
        """Handle a click on a tab of the header or on a run of the list."""
        from vcell.monitor.screens import tab_at
        from vcell.monitor.screens.runs import first_listed

        if row == 0:
            name = tab_at(self, column, width)
            if name:
                self.go(name)
        elif self.screen == "runs" and not self.overlay:
            found = self.listed()
            at = first_listed(self, found) + row - 4
            if row >= 4 and at < len(found) and row - 4 < self.rows:
                again = found[at].name == self.selected and self.chosen
                self.selected, self.chosen = found[at].name, True
                if again:
                    self.go("run")

    # -- the page ------------------------------------------------------------------------------

    def header(self, width: int, height: int) -> Line | None:
        """Return only the first line of the page, if there is room for it."""
        from vcell.monitor.screens import header

        return header(self, width, height)

    def page(self, width: int, height: int) -> list[Line]:
        """Return the screen as `height` lines, each of at most `width` columns."""
        from vcell.monitor.screens import draw

        return draw(self, width, height)
