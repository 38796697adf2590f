"""Open the runs, and show them in the terminal or print them once."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from vcell import console
from vcell.errors import UserError
from vcell.monitor import query
from vcell.monitor.once import once
from vcell.monitor.replay import Replay
from vcell.monitor.view import Viewer
from vcell.monitor.watch import Watch
from vcell.runs import Run

if TYPE_CHECKING:
    from vcell_monitor import MonitorOptions


def monitor(path: str | None, config: MonitorOptions) -> None:
    """Run the command."""
    try:
        fits = query.parse(config.filter)
    except query.BadQuery as error:
        raise UserError(f"--filter: {error}", hint="--filter 'status:running lr>=1e-3'") from None
    if config.replay is not None:
        if path is not None or config.once:
            raise UserError("--replay shows one run over time: leave out PATH and --once")
        _terminal()
        _replay(Run.open(config.replay, config.runs).path, config)
        return
    watch = Watch(_found(path, config.runs))
    watch.check()
    if config.once or console.settings.json:
        console.result(*once(watch, fits))
        return
    _terminal()
    view = Viewer(watch, plain=config.ascii or not speaks_utf8(os.environ))
    view.filter = config.filter
    _show(view)


def _found(path: str | None, runs: Path) -> Path:
    """Return the folder or the run to show."""
    if path is None:
        return runs
    given = Path(path)
    if given.exists() or given.name != path:
        return given
    return Run.open(path, runs).path if runs.is_dir() else given


def _replay(path: Path, config: MonitorOptions) -> None:
    replay = Replay(path, config.speed)
    if not replay.ended:
        raise UserError(f"{path}: nothing happened in this run that could be replayed")
    watch = Watch(path, clock=replay.clock, open_history=replay.open_history, replayed=replay)
    plain = config.ascii or not speaks_utf8(os.environ)
    _show(Viewer(watch, clock=replay.clock, plain=plain, replay=replay))


def _terminal() -> None:
    if not (sys.stdin.isatty() and sys.stdout.isatty()):
        raise UserError(
            "vcell monitor needs a terminal, and there is none here",
            hint="vcell monitor --once [--json] prints how the runs stand",
        )


def _show(view: Viewer) -> None:
    from vcell.monitor.guard import guarded

    code = guarded(lambda: _application(view))
    if code:
        raise SystemExit(code)


def _application(view: Viewer) -> int:
    from vcell.monitor.app import run

    for stale in ("COLUMNS", "LINES"):  # textual prefers them to the terminal's own size
        os.environ.pop(stale, None)
    return run(view)


def speaks_utf8(environment: Mapping[str, str]) -> bool:
    """Return whether the user's locale uses UTF-8.

    Python sets LC_CTYPE to C.UTF-8 if the locale is C; then LANG=C is the user's setting.
    """
    chosen = next((v for n in ("LC_ALL", "LC_CTYPE", "LANG") if (v := environment.get(n))), "C")
    coerced = chosen == "C.UTF-8" and environment.get("LANG") in ("C", "POSIX")
    return "utf" in chosen.lower() and not coerced
