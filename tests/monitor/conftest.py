"""A folder of runs at noon, and the view of it."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.monitor import scene
from vcell.monitor.lines import text, width
from vcell.monitor.view import Viewer
from vcell.monitor.watch import Watch

BIG, SMALL = (120, 40), (80, 24)


class Clock:
    """A clock that stands still until it is moved."""

    def __init__(self, now: float) -> None:
        self.now = now

    def __call__(self) -> float:
        return self.now


@pytest.fixture(autouse=True)
def utc(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Times of day are those of UTC."""
    monkeypatch.setenv("TZ", "UTC")
    time.tzset()
    yield
    monkeypatch.undo()
    time.tzset()


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    """Noon, for the monitor and for run directories."""
    found = Clock(scene.NOON + 1)
    monkeypatch.setattr("vcell.runs.stored.time.time", found)
    return found


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder of runs in every state there is."""
    root = tmp_path / "runs"
    root.mkdir()
    return scene.folder(root)


@pytest.fixture
def open_view(clock: Clock) -> Callable[..., Viewer]:
    """Open a view of a folder or a run, all read."""

    def opened(path: Path, **more: object) -> Viewer:
        view = Viewer(Watch(path, clock=clock, timer=clock), clock=clock, **more)
        settle(view)
        return view

    return opened


@pytest.fixture
def view(open_view: Callable[..., Viewer], folder: Path) -> Viewer:
    """The view of the folder."""
    return open_view(folder)


def settle(view: Viewer) -> None:
    """Read all that is due, as the timer does, until there is no more."""
    for _ in range(500):
        view.watch.clock.now += 1.5
        view.tick()
        view.watch.clock.now -= 1.5
        if not view.is_busy():
            return
    raise AssertionError("reading comes to no end")


def press(view: Viewer, *keys: str) -> None:
    for key in keys:
        view.press(key)
        settle(view)


def shown(view: Viewer, size: tuple[int, int] = BIG) -> str:
    """The page as text; each line is as wide as the screen."""
    lines = view.page(*size)
    assert [width(line) for line in lines] == [size[0]] * size[1]
    return "\n".join(text(line).rstrip() for line in lines)
