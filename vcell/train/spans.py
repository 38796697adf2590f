"""Timing of the parts of a step: by the clock on a CPU, by CUDA events on a GPU."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from vcell.gpu.accelerator import Accelerator, Mark


class Spans:
    """Seconds spent in each named part since the last `take`."""

    def __init__(self, device: Accelerator) -> None:
        self._device = device
        self._seconds: dict[str, float] = {}
        self._marks: list[tuple[str, Mark, Mark]] = []

    @contextmanager
    def waiting(self, name: str) -> Iterator[None]:
        """Time work of the processor."""
        start = time.perf_counter()
        yield
        self._add(name, time.perf_counter() - start)

    @contextmanager
    def __call__(self, name: str) -> Iterator[None]:
        """Time work of the device."""
        start = self._device.mark(timed=True)
        yield
        self._marks.append((name, start, self._device.mark(timed=True)))

    def _add(self, name: str, seconds: float) -> None:
        self._seconds[name] = self._seconds.get(name, 0.0) + seconds

    def take(self) -> dict[str, float]:
        """Return seconds by name, and reset them.

        This does not wait for a GPU: work that it has not finished, usually the optimiser's, is
        counted the next time.
        """
        left = []
        for name, start, stop in self._marks:
            if stop.done():
                self._add(name, stop.seconds_after(start))
            else:
                left.append((name, start, stop))
        self._marks = left
        taken = {name: round(seconds, 6) for name, seconds in self._seconds.items()}
        self._seconds = {}
        return taken
