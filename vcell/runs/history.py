"""The events of a run as columns: the only reader of events.

    history = Run.open("latest").history()      # all of it
    history.series("loss")                      # steps, times, values
    history.series("pds", "eval")
    history.best("pds"), history.spans(), history.notes("warn")

    history.read()                              # new events; True if anything changed

The live display, the sinks' follower, ``vcell runs``, the monitor and the reports read runs through
this. It follows a run while it is written, remembers its position in each file, and can read a long
one in pieces (`read` with a limit). Standard library only.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

from vcell.runs.event_file import EventFile
from vcell.runs.events import Event, Tail
from vcell.runs.table import EventTable, Series, energy

END = 1 << 16  # bytes to read for a quick first picture
_RANK = re.compile(r"^rank-(\d+)\.jsonl$")
_SPAN = b'"kind":"span"'  # as `EventLog` writes it
_WHOLE = ("seconds", "examples")  # fields of a span that are not parts of its time


class Best(NamedTuple):
    """The best validation so far."""

    step: int
    value: float
    time: float


class History:
    """The events of a run directory, as far as they have been read.

    Parameters
    ----------
    path
        The run directory.
    ranks
        Also read every process's own events: spans of a step, GPUs, warnings.
    end
        Read only this many bytes at the end of each file, and what is written from now on. `END` is
        enough for a first picture; it takes milliseconds for any size.
    recent_spans
        Of the spans of steps, read only those near the end of each file: enough for `spans`, and
        without half of the events of a long run.
    open_tail
        Function that opens a file of events, instead of the default.

    Attributes
    ----------
    main
        The run's events, an `EventFile`.
    ranks
        Those of each process, by its number.
    """

    def __init__(
        self,
        path: Path,
        *,
        ranks: bool = True,
        end: int | None = None,
        recent_spans: bool = False,
        open_tail: Callable[[Path], Tail] | None = None,
    ) -> None:
        self.path, self._recent_spans = path, recent_spans
        opened = Tail if end is None else partial(Tail.of_end, size=end)
        self._open_tail: Callable[[Path], Tail] = open_tail or opened
        self.main = EventFile(path / "events.jsonl", tail=self._open_tail(path / "events.jsonl"))
        self.ranks: dict[int, EventFile] = {}
        self._follows_ranks = ranks

    # -- reading -------------------------------------------------------------------------------

    def read(self, limit: int | None = None) -> bool:
        """Read new events; return whether anything changed.

        Parameters
        ----------
        limit
            Stop after this many bytes, for callers that have other things to do in between; see
            `loaded`.
        """
        self._find_ranks()
        changed = False
        for file in self._files():
            before = file.place
            changed = file.read(limit) or changed
            if limit is not None and (limit := limit - (file.place - before)) <= 0:
                break
        return changed

    def _find_ranks(self) -> None:
        if not self._follows_ranks:
            return
        try:
            names = [entry.name for entry in self.path.iterdir()]
        except OSError:
            return  # being removed
        found = {int(match[1]) for name in names if (match := _RANK.match(name))}
        for rank in sorted(found - self.ranks.keys()):
            file = self.path / f"rank-{rank}.jsonl"
            tail = self._open_tail(file)
            if self._recent_spans:
                tail.left_out = _SPAN
            self.ranks[rank] = EventFile(file, tail=tail)

    def _files(self) -> list[EventFile]:
        return [self.main, *(self.ranks[rank] for rank in sorted(self.ranks))]

    @property
    def loaded(self) -> float:
        """The share of the files that has been read, 0 to 1."""
        size = sum(_size(file.path) for file in self._files())
        return min(1.0, sum(file.place for file in self._files()) / size) if size else 1.0

    @property
    def resets(self) -> int:
        """How often a file was replaced and read again; callers that store rows must start over."""
        return sum(file.resets for file in self._files())

    # -- what was measured ---------------------------------------------------------------------

    def table(self, kind: str) -> EventTable:
        """Return all columns of a kind in the run's own events: ``metric`` or ``eval``."""
        return self.main.tables[kind]

    def names(self, kind: str = "metric") -> list[str]:
        """Return the names of the measurements, in order of first appearance."""
        return list(self.table(kind).columns)

    def series(self, name: str, kind: str = "metric") -> Series:
        """Return one column: steps, times, values."""
        return self.table(kind).series(name)

    def last(self, kind: str = "metric") -> dict[str, Any]:
        """Return the last value of everything measured, texts as texts."""
        return self.table(kind).last()

    @property
    def step(self) -> int | None:
        """The last step with a measurement, or None before the first."""
        tables = (self.table("metric"), self.table("eval"))
        steps = [table.steps[-1] for table in tables if table and table.steps[-1] >= 0]
        if not steps:
            steps = [e["step"] for e in self.main.others[-1:] if isinstance(e.get("step"), int)]
        return max(steps, default=None)

    def best(self, monitor: str) -> Best | None:
        """Return the best validation: the last one that the run itself marked as its best."""
        table, at = self.table("eval"), self._best_row()
        if at is None or monitor not in table.columns:
            return None
        return Best(table.steps[at], table.columns[monitor][at], table.times[at])

    def at_best(self) -> dict[str, Any]:
        """Return everything measured by the best validation; {} before there is one."""
        at = self._best_row()
        return {} if at is None else self.table("eval").row(at)

    def _best_row(self) -> int | None:
        marked = self.table("eval").columns.get("best", ())
        return next((i for i in range(len(marked) - 1, -1, -1) if marked[i] == 1.0), None)

    # -- time ----------------------------------------------------------------------------------

    def spans(self, last: int = 200, rank: int | None = None) -> dict[str, float]:
        """Return the mean seconds of the parts of a step, and their `total`, over the last steps.

        Parameters
        ----------
        last
            Number of steps.
        rank
            Rank of one process; by default the mean over all.
        """
        files = [self.ranks[r] for r in self.ranks if rank in (None, r)]
        tables = [table for file in files if (table := file.tables["span"])]
        sums: dict[str, float] = {}
        steps = 0
        for table in tables:
            rows = min(last, len(table))
            steps += rows
            for name, column in table.columns.items():
                known = [value for value in column[-rows:] if math.isfinite(value)]
                sums[name] = sums.get(name, 0.0) + sum(known)
        if not steps:
            return {}
        parts = {name: total / steps for name, total in sums.items() if name not in _WHOLE}
        whole = sums.get("seconds", 0.0) / steps
        other = whole - sum(parts.values())
        return parts | {"other": max(0.0, other), "total": whole}

    def seconds(self, times: Sequence[float]) -> list[float]:
        """Return how long the run had trained at each time, without pauses and interruptions.

        `times` must ascend, as those of a series do.
        """
        begun = self.began
        lost, next_break, found = 0.0, 0, []
        breaks = self.main.breaks
        for time in times:
            while next_break < len(breaks) and breaks[next_break][1] <= time:
                lost += breaks[next_break][1] - breaks[next_break][0]
                next_break += 1
            found.append(max(0.0, time - begun - lost))
        return found

    @property
    def began(self) -> float:
        """Time of the first event read, in seconds since 1970; 0 if there is none."""
        firsts = [table.times[0] for table in self.main.tables.values() if table]
        firsts += [float(event["t"]) for event in self.main.others[:1]]
        return min(firsts, default=0.0)

    @property
    def latest(self) -> float:
        """Time of the last event, in seconds since 1970; 0 if there is none."""
        files = self._files()
        lasts = [table.times[-1] for file in files for table in file.tables.values() if table]
        lasts += [float(event["t"]) for file in files for event in file.others[-1:]]
        return max(lasts, default=0.0)

    def rate(self, last: int = 200) -> float | None:
        """Return seconds per step over the last steps, including waits between them."""
        table = self.table("metric")
        rows = min(last, len(table))
        if rows < 2:
            return None
        first = len(table) - rows
        steps = table.steps[-1] - table.steps[first]
        spent = self.seconds([table.times[first], table.times[-1]])
        return (spent[1] - spent[0]) / steps if steps > 0 else None

    # -- what else happened --------------------------------------------------------------------

    def notes(self, *kinds: str) -> list[Event]:
        """Return events that are not measurements, of the given kinds or of all.

        Events of other processes have their ``rank``.
        """
        found: list[Event] = [e for e in self.main.others if not kinds or e["kind"] in kinds]
        for rank, file in self.ranks.items():
            found += [
                e | {"rank": rank}
                for e in file.others
                if e["kind"] != "resume" and (not kinds or e["kind"] in kinds)
            ]
        return sorted(found, key=lambda event: float(event["t"]))

    def state(self) -> str:
        """Return the last phase announced (``paused``, ``training`` ...), or ""."""
        return next((str(event.get("name")) for event in reversed(self.notes("phase"))), "")

    def devices(self) -> dict[int, EventTable]:
        """Return each process's samples of its GPU (`gpu` events), by rank."""
        return {rank: t for rank in sorted(self.ranks) if (t := self.ranks[rank].tables["gpu"])}

    def energy(self) -> float | None:
        """Return the joules that the GPUs drew for this run; None where no counter was read."""
        found = [joules for t in self.devices().values() if (joules := energy(t)) is not None]
        return sum(found) if found else None

    def processes(self) -> dict[int, EventTable]:
        """Return each process's `cpu` samples of itself, by rank."""
        return {rank: t for rank in sorted(self.ranks) if (t := self.ranks[rank].tables["cpu"])}


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError:
        return 0
