"""The monitor on a terminal: textual draws the lines of a `Viewer` and passes keys to it."""

from __future__ import annotations

import asyncio
import os
import signal
import threading
import time
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any, ClassVar

from rich.segment import Segment
from rich.style import Style
from textual.app import App, SystemCommand
from textual.strip import Strip
from textual.widget import Widget

from vcell.monitor.watch import IN_REPLAY

if TYPE_CHECKING:
    from textual import events
    from textual.app import ComposeResult
    from textual.binding import BindingType
    from textual.screen import Screen

    from vcell.monitor.lines import Line
    from vcell.monitor.view import Viewer

_TICK, _BUSY_TICK = 1.0, 0.005  # seconds between readings: at rest, and while there is more
# seconds between drawings: while reading, while a run is live (its times change), and otherwise
_DRAWN_WHILE_BUSY, _DRAWN_AT_LEAST, _DRAWN_WITHOUT_NEWS = 0.25, 10.0, 60.0
# Okabe and Ito's colour-blind safe colours, without blue and black, for a dark background
_CURVES = ("#56b4e9", "#e69f00", "#009e73", "#d55e00", "#cc79a7", "#f0e442", "#dddddd")
_BANDS = ("#2b5a75", "#735000", "#004f3a", "#6a2f00", "#663c53", "#787221", "#6e6e6e")
_COLOURS = {
    "": Style(),
    "dim": Style(color="#9a9a9a"),
    "bold": Style(bold=True),
    "title": Style(bold=True, color="#f5f5f5"),
    "key": Style(bold=True, color="#56b4e9"),
    "good": Style(color="#2fbf94"),
    "warn": Style(color="#f0c040"),
    "bad": Style(bold=True, color="#ff7a45"),
    "cursor": Style(bgcolor="#2b3a45", color="#ffffff", bold=True),
    "cursor-line": Style(color="#9a9a9a"),
    **{f"c{i}": Style(color=colour) for i, colour in enumerate(_CURVES)},
    **{f"b{i}": Style(color=colour) for i, colour in enumerate(_BANDS)},
}
_PLAIN = {
    **dict.fromkeys(_COLOURS, Style()),
    "dim": Style(dim=True),
    "bold": Style(bold=True),
    "title": Style(bold=True),
    "key": Style(bold=True),
    "warn": Style(bold=True),
    "bad": Style(bold=True, reverse=True),
    "cursor": Style(reverse=True),
    **{f"b{i}": Style(dim=True) for i in range(7)},
}


def styles() -> dict[str, Style]:
    """Return the styles by meaning; without colours if NO_COLOR is set."""
    return _PLAIN if os.environ.get("NO_COLOR") else _COLOURS


class Lines(Widget, can_focus=True):
    """Shows the view's lines; redraws only those that changed."""

    DEFAULT_CSS = "Lines { width: 100%; height: 100%; }"

    def __init__(self, view: Viewer) -> None:
        super().__init__()
        self._view = view
        self._lines: list[Line] = []
        self._styles = styles()

    def draw(self) -> None:
        """Redraw the lines that changed."""
        from textual.geometry import Region

        width, height = self.size
        lines = self._view.page(width, height)
        old, self._lines = self._lines, lines
        changed = [
            Region(0, y, width, 1)
            for y in range(height)
            if y >= len(old) or y >= len(lines) or old[y] != lines[y]
        ]
        if len(changed) == height:
            self.refresh()
        elif changed:
            self.refresh(*changed)

    def draw_clock(self) -> None:
        """Redraw only the first line, with the time."""
        from textual.geometry import Region

        width, height = self.size
        line = self._view.header(width, height)
        if self._lines and line is not None and line != self._lines[0]:
            self._lines[0] = line
            self.refresh(Region(0, 0, width, 1))

    def on_resize(self) -> None:
        """Redraw for the new size."""
        self._lines = []
        self.draw()

    def render_line(self, y: int) -> Strip:
        """Return one line of the screen."""
        if y >= len(self._lines):
            return Strip.blank(self.size.width)
        base = self.rich_style
        pieces = [Segment(text, base + self._styles[style]) for text, style in self._lines[y]]
        return Strip(pieces).adjust_cell_length(self.size.width, base)


class Monitor(App[None]):
    """Runs in the terminal.

    Parameters
    ----------
    view
        The state of the display.
    """

    CSS = "Screen { background: #101418; color: #d8d8d8; }"
    ENABLE_COMMAND_PALETTE = True
    COMMAND_PALETTE_BINDING = "ctrl+p"
    BINDINGS: ClassVar[list[BindingType]] = []

    def __init__(self, view: Viewer) -> None:
        super().__init__()
        self._view = view
        self._drawn = 0.0
        self.animation_level = "none"

    def compose(self) -> ComposeResult:
        """Show one page that fills the screen."""
        self._page = Lines(self._view)
        yield self._page

    def on_mount(self) -> None:
        """Read what the first picture needs, then start the timers."""
        self._page.focus()
        loop = asyncio.get_running_loop()
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGTERM, signal.SIGHUP, signal.SIGINT):
                loop.add_signal_handler(number, self._end, 128 + number)
        self._tick()

    def _end(self, code: int) -> None:
        """Exit because of a signal, with the terminal restored."""
        # if the waiting process was killed, this one is in the background now, and may change the
        # terminal only if it ignores this signal
        signal.signal(signal.SIGTTOU, signal.SIG_IGN)
        self.exit(return_code=code)

    def _tick(self) -> None:
        """Read a little, draw changes, and continue soon if there is more."""
        changed = self._view.tick()
        busy = self._view.is_busy()
        now = time.monotonic()
        rest = _DRAWN_AT_LEAST if self._view.is_live() else _DRAWN_WITHOUT_NEWS
        rest = _DRAWN_WHILE_BUSY if busy else 0.0 if changed else rest
        if self.screen is self._page.screen:
            if now - self._drawn >= rest:
                self._page.draw()
                self._drawn = now
            elif not busy:
                self._page.draw_clock()
        rest = _TICK if self._view.replay is None else IN_REPLAY
        if busy:
            self.set_timer(_BUSY_TICK, self._tick)
        else:  # the event loop's timer: a textual message costs as much as the check
            asyncio.get_running_loop().call_later(rest, self._tick_at_rest)

    def _tick_at_rest(self) -> None:
        """Tick from the event loop; an error ends the application, as in a message."""
        if not self.is_running:
            return
        try:
            self._tick()
        except Exception as error:  # noqa: BLE001 - passed on
            self._handle_exception(error)

    def on_key(self, event: events.Key) -> None:
        """Pass a key to the view."""
        if self.screen is not self._page.screen:
            return
        character = event.character
        key = character if character and character.isprintable() else event.key
        self.press(key)
        event.stop()
        event.prevent_default()

    def press(self, key: str) -> None:
        """Handle a key, and redraw at once."""
        self._view.press(key)
        if self._view.done:
            self.exit()
        else:
            self._page.draw()

    def on_click(self, event: events.Click) -> None:
        """Select what is clicked: a tab of the first line, or a run of the list."""
        if self.screen is self._page.screen:
            self._view.click(event.screen_x, event.screen_y, self.size.width)
            self._page.draw()

    def on_mouse_scroll_down(self) -> None:
        """Move down."""
        self.press("down")

    def on_mouse_scroll_up(self) -> None:
        """Move up."""
        self.press("up")

    async def action_quit(self) -> None:
        """Quit; the runs continue."""
        self.exit()

    def get_system_commands(self, screen: Screen[Any]) -> Iterable[SystemCommand]:
        """Offer the keys' commands by name."""
        del screen
        from vcell.monitor.palette import COMMANDS

        for name, what, key in COMMANDS:
            yield SystemCommand(name, f"{what} ({key})", lambda key=key: self.press(key))


def run(view: Viewer) -> int:
    """Show the monitor until the user leaves it, and return the exit code."""
    app = Monitor(view)
    app.run()
    return app.return_code or 0
