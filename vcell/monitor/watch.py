"""Read a folder of runs, or one run, in small steps: displayed runs often, others less."""

from __future__ import annotations

import os
import socket
import time
from contextlib import suppress
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from vcell.errors import UserError
from vcell.monitor import words
from vcell.monitor.overview import Overview, measured, time_left
from vcell.runs import History, Run
from vcell.runs.history import END

if TYPE_CHECKING:
    from vcell.monitor.replay import Replay

if TYPE_CHECKING:
    from collections.abc import Callable, Collection

IN_REPLAY = 0.2  # seconds between checks of a replay
OFTEN, RARELY = 1.0, 10.0  # seconds between checks of visible or running runs, and of others
_SLICE = 1 << 18  # bytes of a long history read at once
_BUDGET = 0.02  # seconds of reading before a key is answered
_RESTING = 20.0  # pause after a check, relative to its duration


class Opener(Protocol):
    """Opens histories, from disk or for a replay."""

    def __call__(self, path: Path, *, end: int | None = None) -> History:
        """Open the history of a run directory."""


class Watched:
    """One run, as far as it has been read."""

    def __init__(
        self,
        run: Run,
        open_history: Opener,
        clock: Callable[[], float],
        replayed: Replay | None = None,
    ) -> None:
        self.run, self._open, self._clock, self._replayed = run, open_history, clock, replayed
        self.name = run.name
        self.end: History | None = None  # its last events, for a first picture
        self.whole: History | None = None
        self.checked = 0.0
        self.overview = Overview(self.name, str(run.meta.get("status", "")))
        self._best: tuple[float, float | None] = (-1.0, None)
        self._signature: tuple[object, ...] = ()

    @property
    def meta(self) -> dict[str, Any]:
        """The contents of run.json."""
        return self.run.meta

    @property
    def history(self) -> History:
        """All its events once they are read; until then the last ones."""
        if self.whole is not None and (self.whole.loaded >= 1 or self.end is None):
            return self.whole
        if self._replayed is not None:  # without later events
            self.whole = self._open(self.run.path)
            return self.whole
        if self.end is None:
            self.end = self._open(self.run.path, end=END)
        return self.end

    @property
    def loading(self) -> float | None:
        """Share of its history that has been read, while reading; else None."""
        if self.whole is None or self.whole.loaded >= 1 or self._replayed is not None:
            return None
        return self.whole.loaded

    def check(self, *, events: bool) -> bool:
        """Update its status, and with `events` its metrics; return whether anything changed."""
        signature = self._sign()
        live = self.meta.get("status") == "running" or self.overview.is_live
        live = live or self._replayed is not None
        if signature == self._signature and not live and (self.end or self.whole or not events):
            return False
        new = signature != self._signature
        self._signature = signature
        if new or live:
            self.run.refresh()
        if events or self.end is not None:
            new = self.history.read() or new
        before = self.overview
        self.overview = self._overview()
        return new or before != self.overview

    def load(self) -> bool:
        """Read the next piece of its full history; return False once all is read."""
        if self._replayed is not None:
            return False
        if self.whole is None:
            self.whole = self._open(self.run.path)
        if self.whole.loaded >= 1:
            return False
        changed = self.whole.read(_SLICE)
        if self.whole.loaded >= 1:
            self.end = None  # no longer needed
            self.overview = self._overview()
        return changed

    def unload(self) -> None:
        """Drop its full history; its last events are read again when needed."""
        self.whole = None

    def _sign(self) -> tuple[object, ...]:
        """Return values that change when the run is written to."""
        found: list[object] = []
        for name in ("run.json", "events.jsonl", "control"):
            with suppress(OSError):
                stat = (self.run.path / name).stat()
                found.append((name, stat.st_mtime_ns, stat.st_size))
        return tuple(found)

    def _overview(self) -> Overview:
        meta, config = self.meta, self.meta.get("config", {})
        found: dict[str, Any] = {}
        if self.end is not None or self.whole is not None:
            found = measured(self.history, meta)
        status, reason = self._status()
        if found.get("best") is None:
            found["best"] = self._best_checkpoint()
        last, created = self.run.last_sign(), _when(meta.get("created"))
        if self._replayed is not None:
            last = self.history.latest
        live = status == "running"
        parts = self._parts()
        return Overview(
            name=self.name,
            status=status,
            command=str(meta.get("command", "")),
            model=str(meta.get("model") or config.get("model") or meta.get("command", "")),
            share=_share(found, status, parts),
            eta_s=time_left(found) if live else None,
            took_s=max(0.0, (self._clock() if live else last) - created) if created else None,
            last_sign=last,
            created=created,
            parts=parts,
            config=config,
            reason=reason,
            **found,
        )

    def _status(self) -> tuple[str, str]:
        """Return its status, and the reason if not obvious."""
        if self._replayed is not None and not self._replayed.over:
            paused = self.history.state() == "paused"
            return ("paused" if paused else "running"), ""
        status: str = self.run.status()
        owner = self.meta.get("process", {})
        writer = f"process {owner.get('pid')} on {owner.get('host')}"
        if status == "running" and (self.end or self.whole) and self.history.state() == "paused":
            return "paused", ""
        if status == "interrupted":
            reason = str(self.meta.get("summary", {}).get("reason", ""))
            return ("stopped" if reason == "stopped" else status), ""
        if status == "crashed":
            return status, f"{writer} is gone without a word: killed?"
        if status == "stalled":
            silent = words.duration(self._clock() - self.run.last_sign())
            seen = "lives" if owner.get("host") == socket.gethostname() else "is out of sight"
            return status, f"nothing for {silent}; {writer} {seen}"
        if status == "failed":
            return status, str(self.meta.get("summary", {}).get("error", ""))
        return status, ""

    def _best_checkpoint(self) -> float | None:
        """Return the metric of its best checkpoint, read again when there are new ones."""
        if self._replayed is not None:
            return None
        try:
            changed = (self.run.path / "ckpt").stat().st_mtime
        except OSError:
            return None
        if changed != self._best[0]:
            best = None
            with suppress(UserError, OSError):
                best = self.run.checkpoint("best").metric
            self._best = (changed, best)
        return self._best[1]

    def _parts(self) -> tuple[int, int | None] | None:
        if not self.meta.get("parts"):
            return None
        parts = self.run.parts()
        done = sum(part.meta.get("status") == "done" for part in parts)
        config = self.meta.get("config", {})
        most = self.meta.get("folds") or config.get("folds") or config.get("sweep")
        return done, most if isinstance(most, int) else None


def _share(
    found: dict[str, Any], status: str, parts: tuple[int, int | None] | None
) -> float | None:
    if parts is not None and parts[1]:
        return min(1.0, parts[0] / parts[1])
    step, most = found.get("step"), found.get("max_steps")
    if step is not None and most:
        return min(1.0, float(step) / float(most))
    return 1.0 if status == "done" else None


def _when(text: object) -> float:
    try:
        return datetime.fromisoformat(str(text)).timestamp()
    except ValueError:
        return 0.0


class Watch:
    """The runs of a folder, newest last, or one run and the runs inside it.

    Parameters
    ----------
    path
        The folder, or the run directory.
    clock
        Returns seconds since 1970.
    open_history
        Opens histories.
    timer
        Returns the current time in seconds, to measure the time of reading.
    replayed
        The replay of the one run that is watched, which determines its status.
    """

    def __init__(
        self,
        path: Path,
        *,
        clock: Callable[[], float] = time.time,
        open_history: Opener = History,
        timer: Callable[[], float] = time.monotonic,
        replayed: Replay | None = None,
    ) -> None:
        self.path, self.clock = path, clock
        self.runs: dict[str, Watched] = {}
        self.problems: dict[str, str] = {}
        self.only = Run.open(path).path if (path / "run.json").is_file() else None
        self._open, self._timer, self._replayed = open_history, timer, replayed
        self._changed = -1  # time of the folder's last change, in nanoseconds
        self._next_scan = self._next_look = 0.0
        self._took = 0.0  # time of the current round of checks of runs that were checked before
        self.scan()

    # -- finding runs --------------------------------------------------------------------------

    def scan(self) -> bool:
        """Find runs that were made or removed; return whether there were any."""
        before = set(self.runs), dict(self.problems)
        folders = self._folders()
        found = {folder.name: folder for folder in folders}
        for name in self.runs.keys() - found.keys():
            del self.runs[name]
        self.problems = {n: p for n, p in self.problems.items() if n in found}
        for name in sorted(found.keys() - self.runs.keys()):
            try:
                run = Run.open(found[name])
            except UserError as error:
                if found[name].is_dir():
                    self.problems[name] = error.message
                continue
            self.problems.pop(name, None)
            self.runs[name] = Watched(run, self._open, self.clock, self._replayed)
        return before != (set(self.runs), self.problems)

    def _folders(self) -> list[Path]:
        if self.only is not None:
            if not (self.only / "run.json").is_file():
                return []
            run = self.runs[self.only.name].run if self.only.name in self.runs else None
            parts = (run or Run.open(self.only)).parts()
            return [self.only, *(part.path for part in parts)]
        with suppress(OSError), os.scandir(self.path) as entries:
            return [
                Path(entry.path)
                for entry in entries
                if not entry.name.startswith(".")
                and entry.is_dir(follow_symlinks=False)
                and (Path(entry.path) / "run.json").is_file()
            ]
        return []

    def check(self) -> None:
        """Raise a UserError if there is nothing to watch."""
        if self.runs:
            return
        if self.problems:
            raise UserError(next(iter(self.problems.values())))
        if not self.path.is_dir():
            raise UserError(f"{self.path}: there is no such folder", hint="vcell runs list")
        raise UserError(
            f"{self.path} holds no runs",
            hint="name a folder of runs or one run; vcell demo makes one",
        )

    # -- reading them --------------------------------------------------------------------------

    def step(self, seen: Collection[str] = (), opened: Collection[str] = ()) -> bool:
        """Do a short piece of the reading that is due; return whether anything changed.

        Parameters
        ----------
        seen
            Names of visible runs, which are read first.
        opened
            Names of runs whose full history is needed.
        """
        begun, now = self._timer(), self.clock()
        changed = False
        if begun >= self._next_look:
            changed = self._scan_if_due(begun)
            changed = self._check_due(seen, begun) or changed
            if not self._due(seen, now):
                rest = OFTEN if self._replayed is None else IN_REPLAY
                self._next_look = begun + max(rest, _RESTING * self._took)
                self._took = 0.0
        for name in opened:
            while name in self.runs and self._timer() - begun < _BUDGET:
                try:
                    more = self.runs[name].load()
                except UserError:
                    break
                if not more:
                    break
                changed = True
        return changed

    def busy(self, opened: Collection[str]) -> bool:
        """Return whether there is more to read at once."""
        if self._replayed is not None:
            return False
        histories = [self.runs[name].whole for name in opened if name in self.runs]
        return any(h is None or h.loaded < 1 for h in histories) or any(
            not one.checked for one in self.runs.values()
        )

    def _scan_if_due(self, now: float) -> bool:
        try:
            changed = self.path.stat().st_mtime_ns
        except OSError:
            changed = -2
        if changed == self._changed and now < self._next_scan:
            return False
        self._changed, self._next_scan = changed, now + RARELY
        return self.scan()

    def _due(self, seen: Collection[str], now: float) -> list[Watched]:
        """Return the runs to check: visible ones first, then those never checked."""
        due = [
            one
            for one in self.runs.values()
            if now - one.checked
            >= (OFTEN if one.name in seen or one.overview.is_live else RARELY) * 0.99
            or now < one.checked  # the clock was set back
        ]
        return sorted(due, key=lambda one: (one.name not in seen, one.checked))

    def _check_due(self, seen: Collection[str], begun: float) -> bool:
        changed = False
        for one in self._due(seen, self.clock()):
            start, first, one.checked = self._timer(), not one.checked, self.clock()
            events = one.name in seen or one.meta.get("status") == "running" or one.end is not None
            try:
                changed = one.check(events=events) or changed
            except UserError as error:  # removed or damaged meanwhile
                changed = True
                del self.runs[one.name]
                if one.run.path.is_dir():
                    self.problems[one.name] = error.message
            except OSError:
                continue  # removed while reading: the next scan drops it
            finally:
                self._took += 0.0 if first else self._timer() - start
            if self._timer() - begun > _BUDGET:
                break
        return changed
