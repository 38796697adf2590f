"""A thread pool that runs the most urgent task first.

`concurrent.futures` runs tasks in the order of submission; a loader needs the next batch before the
chunks of the next buffer.
"""

from __future__ import annotations

import heapq
import itertools
import threading
from collections.abc import Callable, Iterable
from concurrent.futures import Future
from typing import Any, TypeVar

from vcell.cores import cores

T = TypeVar("T")


def default_threads() -> int:
    """Threads that this process may run at once, at most eight."""
    return cores(8)


class PriorityPool:
    """Threads that run submitted calls by priority, lowest number first."""

    def __init__(self, threads: int) -> None:
        self.size = threads
        self._heap: list[tuple[int, int, Future[Any], Callable[[], Any]]] = []
        self._count = itertools.count()
        self._ready = threading.Condition()
        self._closed = False
        self._threads = [
            threading.Thread(target=self._work, name=f"vcell-pool-{i}", daemon=True)
            for i in range(threads)
        ]
        for thread in self._threads:
            thread.start()

    def submit(self, priority: int, call: Callable[[], T]) -> Future[T]:
        """Queue a call."""
        future: Future[T] = Future()
        with self._ready:
            if self._closed:
                raise RuntimeError("the pool is closed")
            heapq.heappush(self._heap, (priority, next(self._count), future, call))
            self._ready.notify()
        return future

    def submit_all(self, priority: int, calls: Iterable[Callable[[], Any]]) -> list[Future[Any]]:
        """Queue several calls of one priority."""
        return [self.submit(priority, call) for call in calls]

    def close(self) -> None:
        """Drop calls that have not started, and wait for the others."""
        with self._ready:
            self._closed = True
            for _, _, future, _ in self._heap:
                future.cancel()
            self._heap.clear()
            self._ready.notify_all()
        for thread in self._threads:
            if thread is not threading.current_thread():  # may be called on a pool thread
                thread.join()

    def _work(self) -> None:
        while True:
            with self._ready:
                while not self._heap and not self._closed:
                    self._ready.wait()
                if not self._heap:
                    return
                _, _, future, call = heapq.heappop(self._heap)
            if not future.set_running_or_notify_cancel():
                continue
            try:
                future.set_result(call())
            except BaseException as error:  # noqa: BLE001  # raised by `result`
                future.set_exception(error)
            del future, call
