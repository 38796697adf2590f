"""The pipeline behind a loader: buffers are read ahead, batches are cut from them ahead.

A reader brings in buffers through the crew, one ahead of the batches and over the border of
epochs; a producer cuts them into slabs of batches, which the crew fills, more urgently.
"""

from __future__ import annotations

import threading
from collections import deque
from concurrent.futures import Future
from functools import partial
from queue import SimpleQueue
from typing import TYPE_CHECKING

from vcell.store.crew import Crew
from vcell.store.making import Buffer, Slab, Supply, make_slab, rows_of_slab

if TYPE_CHECKING:
    from vcell.store.batch import Batch
    from vcell.store.order import Epoch, Order, Place


class Plans:
    """The plans of epochs: each is drawn once, on whichever thread needs it first."""

    def __init__(self, order: Order, place: Place, n_cells: int) -> None:
        self._order, self._place, self._n_cells = order, place, n_cells
        self._known: dict[int, Epoch] = {}
        self._lock = threading.Lock()

    def epoch(self, number: int) -> Epoch:
        """Plan an epoch."""
        with self._lock:
            if number not in self._known:
                # The epoch before may still be under way.
                self._known = {n: e for n, e in self._known.items() if abs(n - number) == 1}
                self._known[number] = self._order.epoch(number, self._place, self._n_cells)
            return self._known[number]


class Buffers:
    """The threads of a loader, and the buffers that they bring in before they are asked for."""

    def __init__(self, supply: Supply, plans: Plans, threads: int) -> None:
        self.supply, self.plans = supply, plans
        self.crew, self._reader = Crew(threads), Crew(1)
        self._coming: dict[tuple[int, int], Future[Buffer]] = {}
        self._lock = threading.Lock()

    def want(self, epoch: int, number: int) -> Future[Buffer]:
        """Begin to read a buffer of an epoch, unless it is on its way; let go of all others."""
        key = epoch, number
        with self._lock:
            future = self._coming.get(key)
            if future is None:
                future = self._reader.submit(0, partial(self._read, epoch, number))
            self._coming = {key: future}
        return future

    def take(self, epoch: int, number: int) -> Buffer:
        """Return a buffer, and begin to read the one that comes after it."""
        future = self.want(epoch, number)
        is_last = number + 1 >= self.plans.epoch(epoch).n_buffers
        self.want(*((epoch + 1, 0) if is_last else (epoch, number + 1)))
        return future.result()

    def close(self) -> None:
        """End the threads."""
        self._reader.close()
        self.crew.close()

    def _read(self, epoch: int, number: int) -> Buffer:
        return self.supply.fetch(self.plans.epoch(epoch).rows(number), self.crew)


class Feed:
    """The batches of one epoch, from batch number `first` on; `depth` slabs are made ahead."""

    def __init__(self, buffers: Buffers, epoch: int, first: int, depth: int) -> None:
        self._buffers = buffers
        self._epoch, self._first = epoch, first
        self._made: SimpleQueue[Slab | BaseException] = SimpleQueue()
        self._room = threading.Semaphore(depth)
        self._closed = False
        self._ready: deque[Batch] = deque()
        self._producer = threading.Thread(target=self._produce, name="vcell-feed", daemon=True)
        self._producer.start()

    def next(self) -> Batch:
        """Return the next batch."""
        if not self._ready:
            self._room.release()
            slab = self._made.get()
            if isinstance(slab, BaseException):
                raise slab
            self._ready.extend(slab.wait())
        return self._ready.popleft()

    def close(self) -> None:
        """Make no more."""
        self._closed = True
        self._room.release()
        self._producer.join()

    def _produce(self) -> None:
        """Cut buffers into slabs, never more than `depth` before the one that is asked for."""
        try:
            plan = self._buffers.plans.epoch(self._epoch)
            first_buffer, skip = divmod(self._first, plan.buffer_batches)
            for number in range(first_buffer, plan.n_buffers):
                if not self._cut(number, skip * plan.batch_rows, plan.batch_rows):
                    return
                skip = 0
        except BaseException as error:  # noqa: BLE001  # handed to the consumer
            self._made.put(error)

    def _cut(self, number: int, begin: int, batch_rows: int) -> bool:
        """Make the slabs of one buffer from row `begin` on; False when nobody wants more."""
        supply = self._buffers.supply
        buffer: Buffer | None = None
        step = n = 1
        while buffer is None or begin < n:
            self._room.acquire()
            if self._closed:
                return False
            if buffer is None:  # only now: another buffer in memory is another buffer
                buffer = self._buffers.take(self._epoch, number)
                step, n = rows_of_slab(batch_rows, supply, buffer), len(buffer.rows)
            end = min(begin + step, n)
            self._made.put(make_slab(buffer, begin, end, batch_rows, supply, self._buffers.crew))
            begin = end
        return True
