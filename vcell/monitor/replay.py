"""Play back a run from its files, faster than it ran: `vcell monitor --replay RUN --speed 10`."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from vcell.runs import Event, History, Tail

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path


class Replay:
    """The clock of a replay, and histories without events after it.

    Parameters
    ----------
    path
        The run directory.
    speed
        Seconds of the run per second of the replay.
    timer
        Returns the current time in seconds.
    """

    def __init__(
        self, path: Path, speed: float, timer: Callable[[], float] = time.monotonic
    ) -> None:
        self.speed, self._timer = speed, timer
        whole = History(path)
        whole.read()
        self.began, self.ended = whole.began, whole.latest
        self._since, self._at = timer(), self.began
        self.held = False

    def clock(self) -> float:
        """Return the replayed time, in seconds since 1970."""
        if not self.held:
            self._at += (self._timer() - self._since) * self.speed
        self._since = self._timer()
        self._at = min(self._at, self.ended + 1)
        return self._at

    @property
    def over(self) -> bool:
        """Whether the replay has ended."""
        return self.clock() > self.ended

    def hold(self) -> None:
        """Pause or resume the clock."""
        self.clock()
        self.held = not self.held

    def faster(self, factor: float) -> None:
        """Change the speed from now on."""
        self.clock()
        self.speed = min(1e5, max(0.1, self.speed * factor))

    def open_history(self, path: Path, *, end: int | None = None) -> History:
        """Open a history that grows with the clock, from its beginning."""
        del end
        return History(path, open_tail=lambda file: _Past(file, self.clock))


class _Past(Tail):
    """A tail that returns no events after the clock's time."""

    def __init__(self, path: Path, clock: Callable[[], float]) -> None:
        super().__init__(path)
        self._clock = clock
        self._waiting: list[Event] = []

    def batches(self, limit: int | None = None) -> Iterator[list[Event]]:
        """Yield the events up to the clock's time."""
        del limit
        now = self._clock()
        while True:
            if not self._waiting:
                batch = next(super().batches(1), None)
                if batch is None:
                    return
                self._waiting = batch
            due = next(
                (i for i, event in enumerate(self._waiting) if event["t"] > now),
                len(self._waiting),
            )
            if due:
                yield self._waiting[:due]
                self._waiting = self._waiting[due:]
            if self._waiting:
                return
