"""Events of one kind as columns of numbers, eight bytes per value. Standard library only."""

from __future__ import annotations

import math
from array import array
from collections import deque
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from itertools import chain, pairwise
from operator import itemgetter
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from vcell.runs.events import Event

NO_STEP = -1
_SILENCE = 60.0  # seconds between samples after which the energy in between is not counted
_MOST_COLUMNS = 512  # a malformed file must not fill the memory
_MOST_WORDS = 256
_NAN = float("nan")


class Series(NamedTuple):
    """One measured quantity; the three arrays have the same length, and must not be changed.

    A value that an event lacks, or that was not finite, is NaN. The step is -1 if an event has
    none.
    """

    steps: array[int]
    times: array[float]  # seconds since 1970
    values: array[float]

    @property
    def last(self) -> float | None:
        """The last finite value."""
        return next((value for value in reversed(self.values) if math.isfinite(value)), None)


@dataclass
class EventTable:
    """All events of one kind that were not superseded, oldest first.

    Attributes
    ----------
    steps, times
        Of each row.
    columns
        Numbers by name; NaN where a row has none. Booleans are 1 and 0. A text, or a list of texts
        joined with commas, is its index in `words`.
    words
        The texts of a column, by its name.
    edits
        How often rows were removed; callers that follow the table by its length must start over.
    """

    steps: array[int] = field(default_factory=lambda: array("q"))
    times: array[float] = field(default_factory=lambda: array("d"))
    columns: dict[str, array[float]] = field(default_factory=dict)
    words: dict[str, list[str]] = field(default_factory=dict)
    edits: int = 0

    def __len__(self) -> int:
        return len(self.steps)

    def series(self, name: str) -> Series:
        """Return one column with its steps and times; an unknown name gives an empty series."""
        if name not in self.columns:
            return Series(array("q"), array("d"), array("d"))
        return Series(self.steps, self.times, self.columns[name])

    def row(self, index: int = -1) -> dict[str, Any]:
        """Return one event's values by name, texts as texts; {} if there is no such row."""
        if not -len(self) <= index < len(self):
            return {}
        found = {name: column[index] for name, column in self.columns.items()}
        return {
            name: self.words[name][int(value)] if name in self.words else value
            for name, value in found.items()
            if not math.isnan(value)
        }

    def last(self) -> dict[str, Any]:
        """Return the last value of each column, texts as texts."""
        found: dict[str, Any] = {}
        for name, column in self.columns.items():
            value = next((v for v in reversed(column) if not math.isnan(v)), None)
            if value is not None:
                found[name] = self.words[name][int(value)] if name in self.words else value
        return found

    def extend(self, events: Sequence[Event]) -> None:
        """Append events, column by column: many times faster than event by event."""
        before = len(self)
        self.steps.extend(_steps(events))
        self.times.extend(_numbers("t", events))
        for name in _names(events):
            if name in ("t", "kind", "step"):
                continue
            if name not in self.columns:
                if len(self.columns) >= _MOST_COLUMNS:
                    continue
                self.columns[name] = array("d", [_NAN]) * before
                if _is_text(next((e[name] for e in events if e.get(name) is not None), None)):
                    self.words[name] = []
            self.columns[name].extend(self._values(name, events))
        for column in self.columns.values():
            if len(column) < len(self):
                column.extend(array("d", [_NAN]) * (len(self) - len(column)))

    def _values(self, name: str, events: Sequence[Event]) -> array[float]:
        if name not in self.words:
            try:
                return array("d", list(map(itemgetter(name), events)))
            except (KeyError, TypeError, OverflowError):
                pass  # a gap, a text, or a number too large: one by one
        return array("d", [self._value(name, event.get(name)) for event in events])

    def _value(self, name: str, value: Any) -> float:
        """Return a value as a number; the first one decides if a column has numbers or texts."""
        if name not in self.words:
            return _number(value)
        if not _is_text(value):
            return _NAN
        text = value if isinstance(value, str) else ",".join(value)
        known = self.words[name]
        if text not in known:
            if len(known) >= _MOST_WORDS:
                return _NAN
            known.append(text)
        return float(known.index(text))

    def drop_after(self, step: int) -> None:
        """Remove the rows of later steps; those without a step stay."""
        gone = [i for i, at in enumerate(self.steps) if at > step]
        if not gone:
            return
        self.edits += 1
        if gone[-1] - gone[0] + 1 == len(gone):  # usually the last ones, consecutive
            for column in self._all():
                del column[gone[0] : gone[-1] + 1]
            return
        lost = set(gone)
        kept = [i for i in range(len(self)) if i not in lost]
        for column in self._all():
            column[:] = array(column.typecode, [column[i] for i in kept])

    def _all(self) -> list[array[Any]]:
        return [self.steps, self.times, *self.columns.values()]


def _names(events: Sequence[Event]) -> Iterable[str]:
    """Return the names of all fields of the events, in order of first appearance."""
    first = events[0]
    if sum(map(len, events)) == len(first) * len(events):  # usually all have the same fields
        try:
            for name in first:
                deque(map(itemgetter(name), events), maxlen=0)
        except KeyError:
            pass
        else:
            return first
    return dict.fromkeys(chain.from_iterable(events))


def _steps(events: Sequence[Event]) -> array[int]:
    try:
        return array("q", [event["step"] for event in events])
    except (KeyError, TypeError, OverflowError):
        return array("q", [_step(event.get("step")) for event in events])


def _step(value: Any) -> int:
    return value if isinstance(value, int) and abs(value) < 1 << 62 else NO_STEP


def _numbers(name: str, events: Sequence[Event]) -> array[float]:
    try:
        return array("d", [event[name] for event in events])
    except OverflowError:
        return array("d", [_number(event[name]) for event in events])


def _is_text(value: Any) -> bool:
    is_list = isinstance(value, list) and all(isinstance(item, str) for item in value)
    return is_list or isinstance(value, str)


def _number(value: Any) -> float:
    try:
        return float(value) if isinstance(value, int | float) else _NAN
    except OverflowError:
        return _NAN


def energy(table: EventTable) -> float | None:
    """Return the joules that a GPU drew while sampled, by its counter; None without a counter.

    Energy during interruptions is not counted: others may have used the GPU.
    """
    counter = table.columns.get("energy_j", ())
    known = [(t, v) for t, v in zip(table.times, counter, strict=False) if math.isfinite(v)]
    if len(known) < 2:
        return None
    return sum(
        max(0.0, after - before)  # the counter restarts with the driver
        for (then, before), (now, after) in pairwise(known)
        if now - then <= _SILENCE
    )
