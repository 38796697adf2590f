"""The application on textual's own false terminal, at both sizes, against text snapshots.

`VCELL_SNAPSHOTS=write pytest tests/monitor/test_app.py` writes them anew: look at the difference.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Coroutine
from pathlib import Path

import pytest

from tests.monitor.conftest import BIG, SMALL, Clock
from vcell.monitor.app import Lines, Monitor, styles
from vcell.monitor.view import Viewer
from vcell.monitor.watch import Watch

SNAPSHOTS = Path(__file__).parent / "snapshots"
pytestmark = pytest.mark.tui

Session = Callable[..., Coroutine[None, None, None]]


@pytest.fixture
def drive(clock: Clock, folder: Path) -> Callable[..., Monitor]:
    """Run the application on the folder, do something with it, and return it."""

    def driven(session: Session, size: tuple[int, int] = BIG, **more: object) -> Monitor:
        view = Viewer(Watch(folder, clock=clock), clock=clock, **more)
        view.selected = next(name for name in view.watch.runs if name.endswith("80f1"))
        view.chosen = True
        app = Monitor(view)

        async def whole() -> None:
            async with app.run_test(size=size) as pilot:
                await settled(app)
                await session(app, pilot)

        asyncio.run(whole())
        return app

    return driven


async def settled(app: Monitor) -> None:
    """Wait until all is read and drawn."""
    for _ in range(400):
        await asyncio.sleep(0.01)
        one = app._view.one
        read = one is None or (one.whole is not None and one.whole.loaded >= 1)
        if read and all(one.checked for one in app._view.watch.runs.values()):
            break
    app.query_one(Lines).draw()
    await asyncio.sleep(0.05)


def text(app: Monitor) -> str:
    page = app.query_one(Lines)
    return "\n".join(page.render_line(y).text.rstrip() for y in range(page.size.height)) + "\n"


async def compare(name: str, app: Monitor, folder: Path) -> None:
    """Compare with what was found good; a busy machine may need some time to read all logs."""
    path = SNAPSHOTS / f"{name}.txt"
    if os.environ.get("VCELL_SNAPSHOTS") == "write":
        await settled(app)
        SNAPSHOTS.mkdir(exist_ok=True)
        path.write_text(anonymous(text(app), folder))
    expected = path.read_text().splitlines()
    for _ in range(200):
        await settled(app)
        found = anonymous(text(app), folder).splitlines()
        if found == expected:
            return
    assert found == expected


def anonymous(found: str, folder: Path) -> str:
    found = found.replace(str(folder)[:27], "FOLDER")
    host = os.uname().nodename
    found = found.replace(f"on {host}, process {os.getpid()}", "on HOST, process PID")
    return found.replace(f"on {host}", "on HOST").replace(f" {host}, from", " HOST, from")


@pytest.mark.parametrize("size", [BIG, SMALL], ids=["120x40", "80x24"])
def test_every_screen_looks_as_it_was_found_good(drive, folder, size):
    async def walk(app: Monitor, pilot) -> None:
        screens = {"1": "runs", "2": "run", "4": "gpus", "5": "logs", "question_mark": "help"}
        for key, name in screens.items():
            await pilot.press(key)
            await compare(f"{name}-{size[0]}x{size[1]}", app, folder)
        await pilot.press("escape", "1", "space", "down", "space", "3")
        await compare(f"compare-{size[0]}x{size[1]}", app, folder)

    drive(walk, size)


def test_ascii_looks_as_it_was_found_good(drive, folder):
    async def look(app: Monitor, pilot) -> None:
        await pilot.press("2")
        await compare("run-ascii-80x24", app, folder)

    drive(look, SMALL, plain=True)


def test_keys_typed_into_the_filter_choose_runs(drive):
    async def choose(app: Monitor, pilot) -> None:
        await pilot.press("slash", *"lr", "greater_than_sign", "equals_sign", *"2e-3", "enter")
        await settled(app)
        assert "c2aa" in text(app)
        assert "09ee" not in text(app)

    drive(choose)


def test_the_palette_finds_commands_by_name(drive):
    async def find(app: Monitor, pilot) -> None:
        await pilot.press("ctrl+p")
        await pilot.pause()
        await pilot.press(*"comp")
        for _ in range(100):
            await asyncio.sleep(0.02)
            if "Compare" in str(app.screen.query("CommandList")) or app.screen.query("CommandList"):
                break
        await asyncio.sleep(0.5)
        await pilot.press("enter")
        await asyncio.sleep(0.3)
        await pilot.pause()
        assert app._view.screen == "compare"

    drive(find)


def test_the_mouse_chooses_tabs_and_runs(drive):
    async def click(app: Monitor, pilot) -> None:
        column = text(app).splitlines()[0].index("5 logs")
        await pilot.click(Lines, offset=(column, 0))
        assert app._view.screen == "logs"
        await pilot.press("1")
        await settled(app)
        row = next(i for i, line in enumerate(text(app).splitlines()) if "c2aa" in line)
        await pilot.click(Lines, offset=(20, row))
        assert app._view.selected.endswith("c2aa")
        await pilot.click(Lines, offset=(20, row))
        assert app._view.screen == "run"

    drive(click)


def test_the_page_follows_the_size_of_the_terminal(drive):
    async def resize(app: Monitor, pilot) -> None:
        for size in ((80, 24), (200, 60), (30, 8), (120, 40)):
            await pilot.resize_terminal(*size)
            await pilot.pause()
            lines = text(app).splitlines()
            assert len(lines) == size[1]
        assert "[1 runs]" in lines[0]

    drive(resize)


@pytest.mark.parametrize("key", ["q", "ctrl+c", "ctrl+q"])
def test_it_is_left_by(drive, key):
    async def leave(app: Monitor, pilot) -> None:
        await pilot.press(key)
        await pilot.pause()

    assert drive(leave)._exit


def test_without_colour_styles_say_it_by_weight(monkeypatch):
    monkeypatch.setenv("NO_COLOR", "1")
    assert all(style.color is None and style.bgcolor is None for style in styles().values())
    assert styles()["bad"].reverse
    monkeypatch.delenv("NO_COLOR")
    colours = {styles()[f"c{i}"].color.name for i in range(6)}
    assert colours == {"#56b4e9", "#e69f00", "#009e73", "#d55e00", "#cc79a7", "#f0e442"}
