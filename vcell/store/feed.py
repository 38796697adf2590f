"""The pipeline behind a loader: buffers are fetched ahead, batches are cut from them ahead.

One thread brings in buffers through the crew; the crew also cuts batches, which is more urgent.
"""

from __future__ import annotations

from collections import deque
from concurrent.futures import Future
from dataclasses import dataclass, field
from functools import partial

import numpy as np
from numpy.typing import NDArray

from vcell.kernels import gather
from vcell.store.batch import Batch, Output
from vcell.store.cells import EMIT, Cells, Lying, Memory, StoreCells, Types
from vcell.store.crew import Crew
from vcell.store.order import Epoch

_I32, _F32 = np.dtype(np.int32), np.dtype(np.float32)


@dataclass(frozen=True)
class Supply:
    """Where cells come from and what is to become of them."""

    cells: Cells
    output: Output
    column: NDArray[np.int32] | None  # of every gene of the source: its column in batches, or -1
    labels: dict[str, NDArray[np.int32]]
    scale: NDArray[np.float32] | None  # of every cell
    n_genes: int  # in batches
    memory: Memory

    @property
    def slices_buffers(self) -> bool:
        """Batches are slices of a buffer: nothing has to be moved for them."""
        from_store = isinstance(self.cells, StoreCells)
        return from_store and not self.output.dense and self.column is None


@dataclass(frozen=True)
class Buffer:
    """A buffer's rows in memory and what goes with them."""

    rows: NDArray[np.int64]
    lying: Lying
    labels: dict[str, NDArray[np.int32]]
    scale: NDArray[np.float32] | None


@dataclass
class Feed:
    """The batches of one epoch, from batch number `first` on."""

    supply: Supply
    epoch: Epoch
    crew: Crew
    feeder: Crew
    depth: int  # batches being made ahead
    first: int
    _buffers: deque[Future[Buffer]] = field(default_factory=deque)
    _ahead: deque[Future[Batch]] = field(default_factory=deque)

    def __post_init__(self) -> None:
        self._next = self.first
        self._current: Buffer | None = None
        self._current_number = -1
        self._fetch_number = self.first // self.epoch.buffer_batches
        self._fetch()

    def next(self) -> Batch:
        """Return the next batch."""
        while len(self._ahead) < self.depth and self._next < self.epoch.n_batches:
            if not self._begin(must=not self._ahead):
                break
        return self._ahead.popleft().result()

    def _fetch(self) -> None:
        """Begin to fetch the next buffer, on the feeder's thread."""
        if self._fetch_number < self.epoch.n_buffers:
            number = self._fetch_number
            self._buffers.append(self.feeder.submit(0, partial(self._fetch_now, number)))
            self._fetch_number += 1

    def _fetch_now(self, number: int) -> Buffer:
        supply = self.supply
        rows = self.epoch.rows(number)
        types = Types(np.int32, np.float32) if supply.slices_buffers else Types()
        lying = supply.cells.fetch(rows, types, supply.memory, self.crew)
        labels = {name: codes[rows] for name, codes in supply.labels.items()}
        scale = None if supply.scale is None else supply.scale[rows]
        return Buffer(rows, lying, labels, scale)

    def _begin(self, *, must: bool) -> bool:
        """Begin to make the next batch; False if its buffer isn't there and we need not wait."""
        number, within = divmod(self._next, self.epoch.buffer_batches)
        if number != self._current_number:
            if not must and not self._buffers[0].done():
                return False
            self._current = self._buffers.popleft().result()
            self._current_number = number
            self._fetch()
        assert self._current is not None
        a = within * self.epoch.batch_rows
        b = min(a + self.epoch.batch_rows, len(self._current.rows))
        make = partial(make_batch, self._current, a, b, self.supply)
        if self.supply.slices_buffers and self._current.scale is None:
            self._ahead.append(_done(make()))  # cheaper than to hand it to a thread
        else:
            self._ahead.append(self.crew.submit(EMIT, make))
        self._next += 1
        return True


def _done(batch: Batch) -> Future[Batch]:
    future: Future[Batch] = Future()
    future.set_result(batch)
    return future


def make_batch(buffer: Buffer, a: int, b: int, supply: Supply) -> Batch:
    """Make a batch of rows `a:b` of a buffer."""
    labels = {name: codes[a:b] for name, codes in buffer.labels.items()}
    batch = Batch(rows=buffer.rows[a:b], labels=labels, n_genes=supply.n_genes)
    if supply.output.dense:
        batch.x = _dense(buffer, a, b, supply)
    else:
        batch.indptr, batch.indices, batch.data = _compressed(buffer, a, b, supply)
        if buffer.scale is not None:
            gather.log_normalise(batch.data, batch.indptr, buffer.scale[a:b])
    return batch


def _dense(buffer: Buffer, a: int, b: int, supply: Supply) -> NDArray[np.float32]:
    at, column = buffer.lying, supply.column
    x: NDArray[np.float32] = supply.memory.take("x", (b - a) * supply.n_genes, _F32)
    x = x.reshape(b - a, supply.n_genes)
    if buffer.scale is None and column is None:
        gather.densify(at.idx, at.val, at.src, at.length, a, b, x)
        return x
    if column is None:
        column = np.arange(supply.n_genes, dtype=np.int32)
    if buffer.scale is None:
        gather.densify_columns(at.idx, at.val, at.src, at.length, column, a, b, x)
    else:
        gather.densify_log(at.idx, at.val, at.src, at.length, buffer.scale, column, a, b, x)
    return x


def _compressed(
    buffer: Buffer, a: int, b: int, supply: Supply
) -> tuple[NDArray[np.int64], NDArray[np.int32], NDArray[np.float32]]:
    at, take = buffer.lying, supply.memory.take
    if supply.column is not None:
        n = gather.count_columns(at.idx, at.src, at.length, supply.column, a, b)
        idx, val = take("idx", n, _I32), take("val", n, _F32)
        indptr = np.empty(b - a + 1, np.int64)
        gather.copy_columns(
            at.idx, at.val, at.src, at.length, supply.column, a, b, idx, val, indptr
        )
        return indptr, idx, val
    indptr = np.zeros(b - a + 1, np.int64)
    np.cumsum(at.length[a:b], out=indptr[1:])
    n = int(indptr[-1])
    if at.contiguous and at.idx.dtype == _I32 and at.val.dtype == _F32:
        begin = int(at.src[a]) if b > a else 0
        return indptr, at.idx[begin : begin + n], at.val[begin : begin + n]
    idx, val = take("idx", n, _I32), take("val", n, _F32)
    gather.copy_rows(at.idx, at.val, at.src[a:b], at.length[a:b], indptr[:-1], 0, b - a, idx, val)
    return indptr, idx, val
