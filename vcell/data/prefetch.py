"""Prepare the next item of an iterator in a thread while the current one is processed."""

from __future__ import annotations

import queue
import threading
from collections.abc import Iterator
from typing import TypeVar

T = TypeVar("T")


class _End:
    """The last item of the queue, with the iterator's error, if any."""

    def __init__(self, error: BaseException | None = None) -> None:
        self.error = error


def prefetched(items: Iterator[T]) -> Iterator[T]:
    """Yield the items; at most two are made in advance."""
    ready: queue.Queue[T | _End] = queue.Queue(maxsize=1)
    stop = threading.Event()

    def offer(item: T | _End) -> bool:
        while not stop.is_set():
            try:
                ready.put(item, timeout=0.1)
            except queue.Full:
                continue
            return True
        return False

    def work() -> None:
        try:
            for item in items:
                if not offer(item):
                    return
            offer(_End())
        except BaseException as error:  # noqa: BLE001 - raised again where the items are used
            offer(_End(error))

    thread = threading.Thread(target=work, name="vcell-prefetch", daemon=True)
    thread.start()
    try:
        while True:
            item = ready.get()
            if isinstance(item, _End):
                if item.error is not None:
                    raise item.error
                return
            yield item
            del item  # releases its buffers
    finally:
        stop.set()
        thread.join()
