"""Where the time of a step goes: on a CPU by the clock, on a GPU by its own events."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager

import torch


class Spans:
    """Seconds spent in each named part since they were last taken."""

    def __init__(self, device: torch.device) -> None:
        self._gpu = device.type == "cuda"
        self._seconds: dict[str, float] = {}
        self._events: list[tuple[str, torch.cuda.Event, torch.cuda.Event]] = []

    @contextmanager
    def waiting(self, name: str) -> Iterator[None]:
        """Time something the processor does itself."""
        start = time.perf_counter()
        yield
        self._add(name, time.perf_counter() - start)

    @contextmanager
    def __call__(self, name: str) -> Iterator[None]:
        """Time something the device does."""
        if not self._gpu:
            with self.waiting(name):
                yield
            return
        start, stop = _event(), _event()
        start.record()
        yield
        stop.record()
        self._events.append((name, start, stop))

    def _add(self, name: str, seconds: float) -> None:
        self._seconds[name] = self._seconds.get(name, 0.0) + seconds

    def take(self) -> dict[str, float]:
        """Return seconds by name and begin anew.

        A GPU is not waited for: what it has not done yet, as a rule the optimiser's part, is
        counted the next time.
        """
        done = [event for event in self._events if event[2].query()]  # type: ignore[no-untyped-call]
        self._events = [event for event in self._events if event not in done]
        for name, start, stop in done:
            self._add(name, start.elapsed_time(stop) / 1000)
        taken = {name: round(seconds, 6) for name, seconds in self._seconds.items()}
        self._seconds = {}
        return taken


def _event() -> torch.cuda.Event:
    return torch.cuda.Event(enable_timing=True)  # type: ignore[no-untyped-call]
