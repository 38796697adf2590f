"""The keys of each screen, and what they do to the view."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from vcell.monitor import query
from vcell.monitor.curves import SMOOTHING
from vcell.monitor.gpus import WINDOWS

if TYPE_CHECKING:
    from vcell.monitor.view import Viewer

    Action = Callable[[Viewer], None]
    Keys = dict[str, Action]

#: The screens, in the order of the keys 1 to 5.
SCREENS = ("runs", "run", "compare", "gpus", "logs")


def action(screen: str, key: str) -> Action | None:
    """Return what a key does on a screen, or None."""
    return _EVERYWHERE.get(key) or _OF_SCREEN[screen].get(key)


def _view(view: Viewer) -> Any:
    return view


def _looks(view: Viewer) -> Any:
    return view.looks


def _set(**values: object) -> Action:
    def change(view: Viewer) -> None:
        for name, value in values.items():
            setattr(view, name, value)

    return change


def _toggle(name: str, of: Callable[[Viewer], Any] = _view) -> Action:
    return lambda view: setattr(of(view), name, not getattr(of(view), name))


def _cycle(name: str, n: int, of: Callable[[Viewer], Any] = _view) -> Action:
    return lambda view: setattr(of(view), name, (getattr(of(view), name) + 1) % n)


def _go(screen: str) -> Action:
    return lambda view: view.go(screen)


def _zoom(factor: float) -> Action:
    return lambda view: view.looks.zoom(factor, view.extent())


def _move_cursor(by: float) -> Action:
    return lambda view: view.looks.move_cursor(by, view.extent())


def _pause(view: Viewer) -> None:
    if view.replay is not None:
        view.replay.hold()
        view.say("the replay holds" if view.replay.held else "the replay goes on")
    else:
        view.ask("pause")


def _speed(factor: float) -> Action:
    def change(view: Viewer) -> None:
        if view.replay is not None:
            view.replay.faster(factor)
            view.say(f"the replay runs {view.replay.speed:g} times as fast as the run did")

    return change


_EVERYWHERE: Keys = {
    "q": _set(done=True),
    "ctrl+c": _set(done=True),
    "?": lambda view: view.toggle("help"),
    "d": lambda view: view.toggle("settings"),
    "escape": lambda view: view.back(),
    **{str(i): _go(name) for i, name in enumerate(SCREENS, 1)},
    "up": lambda view: view.move(-1),
    "down": lambda view: view.move(1),
    "k": lambda view: view.move(-1),
    "j": lambda view: view.move(1),
    "pageup": lambda view: view.move(-view.rows),
    "pagedown": lambda view: view.move(view.rows),
    "home": lambda view: view.move(-(10**9)),
    "end": lambda view: view.move(10**9),
    "c": lambda view: view.ask("checkpoint"),
    "p": _pause,
    "S": lambda view: view.ask("stop"),
    " ": lambda view: view.mark(),
    ">": _speed(2.0),
    "<": _speed(0.5),
}
_CURVES: Keys = {
    "s": _cycle("smoothing", len(SMOOTHING), of=_looks),
    "x": lambda view: view.looks.next_axis(),
    "y": lambda view: view.toggle_log(),
    "+": _zoom(0.5),
    "=": _zoom(0.5),
    "-": _zoom(2.0),
    "0": lambda view: view.looks.unzoom(),
    "left": _move_cursor(-0.02),
    "right": _move_cursor(0.02),
    "m": lambda view: view.next_curve(1),
    "M": lambda view: view.next_curve(-1),
}
_OF_SCREEN: dict[str, Keys] = {
    "runs": {
        "enter": _go("run"),
        "/": _set(typing="filter"),
        "o": _cycle("sort", len(query.SORTS)),
        "u": lambda view: view.marks.clear(),
        "l": _go("logs"),
        **{key: _CURVES[key] for key in "sxy"},
    },
    "run": {
        **_CURVES,
        "tab": _cycle("focus", 4, of=_looks),
        "z": _toggle("large", of=_looks),
        "enter": _toggle("large", of=_looks),
        "l": _go("logs"),
    },
    "compare": {**_CURVES, "u": lambda view: view.marks.clear()},
    "gpus": {
        "x": _cycle("window", len(WINDOWS)),
        "u": _toggle("busy_chart"),
        "g": lambda view: setattr(view, "gpu", view.gpu + 1),
    },
    "logs": {
        "r": lambda view: view.next_source(),
        "/": _set(typing="search"),
        "e": lambda view: view.next_problem(1),
        "E": lambda view: view.next_problem(-1),
        "g": lambda view: view.move_in_log(-(10**9)),
        "G": _set(following=True, entry=None),
        "f": _toggle("following"),
        "enter": _toggle("opened_entry"),
    },
}
