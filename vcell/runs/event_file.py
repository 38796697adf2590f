"""One file of events as columns and notes.

Events that a resumed run has superseded are dropped here and nowhere else, both from columns and
from lists of events (`surviving`).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

from vcell.runs.events import Event, Tail
from vcell.runs.table import EventTable

#: Kinds of events that become columns of numbers. All others are stored as they are.
TABLES = ("metric", "eval", "span", "gpu", "cpu")
_MOST_NOTES = 20_000


class EventFile:
    """One file of events as columns and notes, as far as it has been read.

    Parameters
    ----------
    path
        The file; it need not exist yet.
    tail
        Source of its events; `Tail.of_end` reads only its last bytes, and what is written from now
        on.

    Attributes
    ----------
    tables
        `EventTable` by kind, for the kinds in `TABLES`.
    others
        Events of all other kinds, oldest first; if there are very many, the latest.
    breaks
        Pairs of times between which the run did not train: paused, or ended and later resumed.
    resets
        How often the file was replaced, and read again.
    """

    def __init__(self, path: Path, *, tail: Tail | None = None) -> None:
        self.path = path
        self._tail = Tail(path) if tail is None else tail
        self.resets = 0
        self._forget()

    def _forget(self) -> None:
        self.tables = {kind: EventTable() for kind in TABLES}
        self.others: list[Event] = []
        self.breaks: list[tuple[float, float]] = []
        self._paused: float | None = None

    def read(self, limit: int | None = None) -> bool:
        """Read new events, or the next `limit` bytes; return whether anything changed."""
        changed = False
        for batch in self._tail.batches(limit):
            self._begin_again_if_replaced()
            self._take(batch)
            changed = True
        return self._begin_again_if_replaced() or changed

    def _begin_again_if_replaced(self) -> bool:
        if self.resets == self._tail.resets:
            return False
        self.resets = self._tail.resets
        self._forget()
        return True

    @property
    def place(self) -> int:
        """Bytes read, including an incomplete last line."""
        return self._tail.reached

    @property
    def size(self) -> int:
        """Bytes of the file, as last seen."""
        return self._tail.size

    def _take(self, batch: Sequence[Event]) -> None:
        kinds = {event["kind"] for event in batch}
        if kinds <= self.tables.keys():  # as a rule
            self._store({kind: [e for e in batch if e["kind"] == kind] for kind in kinds})
            return
        rows: dict[str, list[Event]] = {}
        for event in batch:
            kind = event["kind"]
            if kind in self.tables:
                rows.setdefault(kind, []).append(event)
                continue
            if kind == "resume" and isinstance(event.get("step"), int):
                self._store(rows)
                rows = {}
                self._go_back(event)
            elif kind == "phase":
                self._note_phase(event)
            self.others.append(event)
        self._store(rows)
        if len(self.others) > _MOST_NOTES:
            del self.others[: -_MOST_NOTES // 2]

    def _store(self, rows: dict[str, list[Event]]) -> None:
        for kind, events in rows.items():
            self.tables[kind].extend(events)

    def _go_back(self, resume: Event) -> None:
        """Drop the superseded events, and record the time without training."""
        for table in self.tables.values():
            table.drop_after(resume["step"])
        self.others = surviving([*self.others, resume])[:-1]
        trained = [self.tables[kind] for kind in ("metric", "eval", "span")]
        last = max((table.times[-1] for table in trained if table), default=None)
        self._paused = None
        if last is not None:
            self.breaks = [pair for pair in self.breaks if pair[1] <= last]
            self.breaks.append((last, max(last, float(resume["t"]))))

    def _note_phase(self, event: Event) -> None:
        if event.get("name") == "paused":
            self._paused = self._paused or float(event["t"])
        elif self._paused is not None:
            self.breaks.append((self._paused, float(event["t"])))
            self._paused = None


def surviving(events: Iterable[Event]) -> list[Event]:
    """Drop events that a resumed run has superseded: steps after the one it resumed from."""
    current: list[Event] = []
    for event in events:
        if event["kind"] == "resume" and isinstance(event.get("step"), int):
            current = [e for e in current if not _is_after(e, event["step"])]
        current.append(event)
    return current


def _is_after(event: Event, step: int) -> bool:
    at = event.get("step")
    return isinstance(at, int) and at > step and event["kind"] != "resume"
