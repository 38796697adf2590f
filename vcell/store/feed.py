"""The pipeline of a loader: buffers are prefetched, and batches cut from them.

A reader loads buffers through the pool, one ahead of the batches, also across epochs. They are cut
into slabs of batches, which the pool fills with higher priority.
"""

from __future__ import annotations

import threading
from collections import deque
from concurrent.futures import Future
from functools import partial
from typing import TYPE_CHECKING

from vcell.store.batching import BatchFactory, Buffer, Planned, Slab, make_slab, rows_of_slab
from vcell.store.cells import FETCH
from vcell.store.priority_pool import PriorityPool

if TYPE_CHECKING:
    from vcell.store.batch import Batch
    from vcell.store.order import Epoch, Order, Partition


#: Number of an epoch, and of a buffer in it.
_Key = tuple[int, int]


class Plans:
    """The plans of epochs: each is drawn once, by the first thread that needs it."""

    def __init__(self, order: Order, place: Partition, n_cells: int) -> None:
        self._order, self._place, self._n_cells = order, place, n_cells
        self._known: dict[int, Epoch] = {}
        self._lock = threading.Lock()

    def epoch(self, number: int) -> Epoch:
        """Plan an epoch."""
        with self._lock:
            if number not in self._known:
                # The previous epoch may still be in use.
                self._known = {n: e for n, e in self._known.items() if abs(n - number) == 1}
                self._known[number] = self._order.epoch(number, self._place, self._n_cells)
            return self._known[number]


class BufferPool:
    """The threads of a loader, and its prefetched buffers."""

    def __init__(self, factory: BatchFactory, plans: Plans, threads: int) -> None:
        self.factory, self.plans = factory, plans
        self.pool, self._reader = PriorityPool(threads), PriorityPool(1)
        self._coming: dict[_Key, Future[Buffer]] = {}
        self._planned: dict[_Key, Future[Planned]] = {}  # by the reader
        self._lock = threading.Lock()

    def want(self, epoch: int, number: int) -> Future[Buffer]:
        """Start to read a buffer of an epoch, unless it is being read; drop all others."""
        key = epoch, number
        with self._lock:
            future = self._coming.get(key)
            if future is None:
                future = self._reader.submit(0, partial(self._read, epoch, number))
            self._coming = {key: future}
        return future

    def take(self, epoch: int, number: int) -> Buffer:
        """Return a buffer, and start to read the next one."""
        future = self.want(epoch, number)
        self.want(*self._after((epoch, number)))
        return future.result()

    def close(self) -> None:
        """End the threads."""
        self._reader.close()
        self.pool.close()

    def _after(self, key: _Key) -> _Key:
        epoch, number = key
        is_last = number + 1 >= self.plans.epoch(epoch).n_buffers
        return (epoch + 1, 0) if is_last else (epoch, number + 1)

    def _read(self, epoch: int, number: int) -> Buffer:
        """Read a buffer; the pool plans the next one meanwhile, and need not wait for that then."""
        key = epoch, number
        planned = self._planned.get(key) or self._plan(key)
        after = self._after(key)
        too_early = after[0] > epoch and not number  # the epoch after the next one
        self._planned = {} if too_early else {after: self._plan(after)}
        return self.factory.fetch(planned.result(), self.pool)

    def _plan(self, key: _Key) -> Future[Planned]:
        return self.pool.submit(
            FETCH, lambda: self.factory.plan(self.plans.epoch(key[0]).rows(key[1]))
        )


class Feed:
    """The batches of one epoch, from batch number `first` on; `ahead` slabs are made in advance.

    There is no thread for this: the consumer that takes a batch, and the reader that has read a
    buffer, start new slabs if there is room; the pool fills them.
    """

    def __init__(self, buffers: BufferPool, epoch: int, first: int, ahead: int) -> None:
        self._buffers, self._epoch, self._ahead = buffers, epoch, ahead
        self._plan = buffers.plans.epoch(epoch)
        self._number, skip = divmod(first, self._plan.buffer_batches)
        self._begin = skip * self._plan.batch_rows
        self._buffer: Buffer | None = None
        self._slabs: deque[Slab] = deque()
        self._ready: deque[Batch] = deque()
        self._awaited = -1
        self._lock = threading.Lock()
        self._closed = False

    def next(self) -> Batch:
        """Return the next batch."""
        ready = self._ready
        if not ready:
            with self._lock:
                self._top_up(self._ahead + 1)
            while not self._slabs:
                self._buffers.want(self._epoch, self._number).result()
                with self._lock:
                    self._top_up(self._ahead + 1)
            ready.extend(self._slabs.popleft().wait())
        return ready.popleft()

    def close(self) -> None:
        """Stop making batches."""
        with self._lock:
            self._closed = True
            self._slabs.clear()
            self._buffer = None

    def _top_up(self, n: int) -> None:
        """Start slabs until `n` are in progress, as far as buffers have been read."""
        plan, factory = self._plan, self._buffers.factory
        while len(self._slabs) < n and not self._closed:
            if self._buffer is None:
                if self._number >= plan.n_buffers or not self._arrived():
                    return
                self._buffer = self._buffers.take(self._epoch, self._number)
            buffer = self._buffer
            end = min(
                self._begin + rows_of_slab(plan.batch_rows, factory, buffer), len(buffer.rows)
            )
            pool = self._buffers.pool
            self._slabs.append(make_slab(buffer, self._begin, end, plan.batch_rows, factory, pool))
            self._begin = end
            if end == len(buffer.rows):  # free its memory before the next buffer is taken
                self._buffer, self._number, self._begin = None, self._number + 1, 0

    def _arrived(self) -> bool:
        """Whether the next buffer has been read; if not, slabs are started once it has."""
        future = self._buffers.want(self._epoch, self._number)
        if not future.done():
            if self._ahead and self._awaited != self._number:
                self._awaited = self._number
                future.add_done_callback(self._come)
            return False
        # An error is raised after the batches that are in progress were returned.
        return not self._slabs or future.exception() is None

    def _come(self, future: Future[Buffer]) -> None:
        """Start slabs from a new buffer, on the reader's thread, unless a consumer does so."""
        if future.cancelled() or future.exception() or not self._lock.acquire(blocking=False):
            return
        try:
            self._top_up(self._ahead)
        finally:
            self._lock.release()
