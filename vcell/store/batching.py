"""From buffers to batches: memory for a slab of them, and the code that fills in their values.

A slab is a group of batches in one piece of memory, so that small batches cost little and large
ones are filled by several threads, each with a part of the rows.
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass, field
from functools import cached_property, partial
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from vcell.data.buffers import Buffers
from vcell.data.decode_pool import finish
from vcell.kernels import gather
from vcell.store.batch import Batch, Output
from vcell.store.cells import EMIT, Cells, RowSpans, StoreCells, Types

if TYPE_CHECKING:
    from vcell.store.priority_pool import PriorityPool

_I32, _F32 = np.dtype(np.int32), np.dtype(np.float32)
#: Bytes of a slab of small batches: few hand-overs, and still in the last-level cache when read.
_SLAB = 8 << 20
#: Dense batches of more bytes are written past the cache, which would not hold them. New arrays
#: of this size are always pages of the system (malloc's largest threshold is 32 MiB).
_CACHED = 4 * _SLAB
#: Fewest rows per thread.
_PART = 64

#: Writes the values of a range of a slab's rows.
Fill = Callable[[int, int], None]


@dataclass(frozen=True)
class BatchFactory:
    """The source of the cells, and the format of the batches."""

    cells: Cells
    output: Output
    column: NDArray[np.int32] | None  # of every gene of the source: its column in batches, or -1
    labels: dict[str, NDArray[np.int32]]
    scale: NDArray[np.float32] | None  # of every cell
    n_genes: int  # in batches
    memory: Buffers

    @property
    def slices_buffers(self) -> bool:
        """Whether batches are slices of a buffer, so that no values are moved."""
        from_store = isinstance(self.cells, StoreCells)
        plain = not self.output.dense and not self.output.own
        return from_store and plain and self.column is None

    @cached_property
    def columns(self) -> NDArray[np.int32]:
        """The column in batches of every gene of the source."""
        return np.arange(self.n_genes, dtype=np.int32) if self.column is None else self.column

    def take(self, n: int, dtype: np.dtype[Any]) -> NDArray[Any]:
        """Return memory for batches: new if each batch owns its arrays, else reused."""
        return np.empty(n, dtype) if self.output.own else self.memory.take(n, dtype)

    def plan(self, rows: NDArray[np.int64]) -> Planned:
        """Do what can be done for a buffer before there is memory for it."""
        labels = {name: codes[rows] for name, codes in self.labels.items()}
        scale = None if self.scale is None else self.scale[rows]
        return Planned(rows, labels, scale, self.cells.plan(rows))

    def fetch(self, planned: Planned, pool: PriorityPool) -> Buffer:
        """Read a buffer's rows into memory."""
        types = Types(np.int32, np.float32) if self.slices_buffers else Types()
        spans = self.cells.fetch(planned.where, types, self.memory, pool)
        return Buffer(planned.rows, spans, planned.labels, planned.scale)


@dataclass(frozen=True)
class Planned:
    """A buffer's rows, labels and scale, and how its source will read it."""

    rows: NDArray[np.int64]
    labels: dict[str, NDArray[np.int32]]
    scale: NDArray[np.float32] | None
    where: Any


@dataclass(frozen=True)
class Buffer:
    """A buffer's rows in memory, with their labels and scale."""

    rows: NDArray[np.int64]
    spans: RowSpans
    labels: dict[str, NDArray[np.int32]]
    scale: NDArray[np.float32] | None

    def batch(self, a: int, b: int, n_genes: int) -> Batch:
        """Make the batch of rows `a:b`, without its values."""
        labels = {name: codes[a:b] for name, codes in self.labels.items()}
        return Batch(rows=self.rows[a:b], labels=labels, n_genes=n_genes)


@dataclass
class Slab:
    """Some batches, and the tasks that still fill them."""

    batches: list[Batch]
    parts: list[Future[None]] = field(default_factory=list)

    def wait(self) -> list[Batch]:
        """Wait for the tasks, and return the batches."""
        finish(self.parts)
        return self.batches


def rows_of_slab(batch_rows: int, factory: BatchFactory, buffer: Buffer) -> int:
    """Return how many rows are made at once: whole batches, at least one."""
    if factory.slices_buffers:
        return len(buffer.rows)  # nothing to make
    width = 4 * factory.n_genes if factory.output.dense else 8 * int(buffer.spans.length.mean() + 1)
    return max(_SLAB // max(width, 1) // batch_rows, 1) * batch_rows


def make_slab(
    buffer: Buffer, a: int, b: int, batch_rows: int, factory: BatchFactory, pool: PriorityPool
) -> Slab:
    """Start to make the batches of rows `a:b` of a buffer, on the pool."""
    cuts = [(i, min(i + batch_rows, b)) for i in range(a, b, batch_rows)]
    batches = [buffer.batch(i, j, factory.n_genes) for i, j in cuts]
    begin = _dense if factory.output.dense else _compressed
    # Each batch in its own memory, or all in one array.
    pieces = [(a, b, batches)]
    if factory.output.own:
        pieces = [(*cut, [batch]) for cut, batch in zip(cuts, batches, strict=True)]
    calls: list[Callable[[], None]] = []
    for i, j, part in pieces:
        fill = begin(buffer, i, j, factory, part)
        if fill is None:
            continue
        n_parts = max(min(pool.size, (j - i) // _PART), 1) if len(pieces) < pool.size else 1
        ends = [(j - i) * k // n_parts for k in range(n_parts + 1)]
        calls += [partial(fill, first, last) for first, last in pairwise(ends)]
    each = -(-len(calls) // pool.size)
    shares = [partial(_run, calls[i : i + each]) for i in range(0, len(calls), each or 1)]
    return Slab(batches, pool.submit_all(EMIT, shares))


def _run(calls: list[Callable[[], None]]) -> None:
    for call in calls:
        call()


def _dense(buffer: Buffer, a: int, b: int, factory: BatchFactory, batches: list[Batch]) -> Fill:
    at, scale = buffer.spans, buffer.scale
    n = (b - a) * factory.n_genes
    how = gather.STREAMED if n * _F32.itemsize > _CACHED else gather.CACHED
    x: NDArray[np.float32]
    if how == gather.STREAMED and factory.output.own:
        how, x = gather.ZERO, np.zeros(n, _F32)  # pages that the system clears
    else:
        x = factory.take(n, _F32)
    x = x.reshape(b - a, factory.n_genes)
    begin = 0
    for batch in batches:
        batch.x = x[begin : begin + len(batch)]
        begin += len(batch)
    every = factory.column is None
    column = factory.columns
    rows = (at.idx, at.val, at.src, at.length)
    narrow = scale is None and at.val.dtype in (np.uint8, np.uint16)
    kept = at.val.dtype if narrow else _F32  # of rows before they are streamed

    def fill(first: int, last: int) -> None:
        out = x[first:last]
        own = np.zeros((2, factory.n_genes if how == gather.STREAMED else 0), kept)
        if scale is not None:
            gather.densify_log(*rows, scale, column, a + first, a + last, how, own, out)
        elif every:
            gather.densify(*rows, a + first, a + last, how, own, out)
        else:
            gather.densify_columns(*rows, column, a + first, a + last, how, own, out)

    return fill


def _compressed(
    buffer: Buffer, a: int, b: int, factory: BatchFactory, batches: list[Batch]
) -> Fill | None:
    at, column = buffer.spans, factory.column
    src, length = at.src[a:b], at.length[a:b]
    sliced = (
        not factory.output.own
        and at.contiguous
        and at.idx.dtype == _I32
        and at.val.dtype == _F32
        and column is None
    )
    if column is not None:
        length = np.empty(b - a, np.int64)
        gather.count_columns(at.idx, src, at.length[a:b], column, length)
    indptr = np.zeros(b - a + 1, np.int64)
    np.cumsum(length, out=indptr[1:])
    if sliced:
        indptr += src[0] if b > a else 0
        idx, val = at.idx, at.val
    else:
        idx = factory.take(int(indptr[-1]), _I32)
        val = factory.take(int(indptr[-1]), _F32)
    begin = 0
    for batch in batches:
        ends = indptr[begin : begin + len(batch) + 1]
        batch.indptr = ends - ends[0]
        batch.indices, batch.data = idx[ends[0] : ends[-1]], val[ends[0] : ends[-1]]
        begin += len(batch)
    scale = buffer.scale
    if sliced and scale is None:
        return None

    def fill(first: int, last: int) -> None:
        if column is not None:
            gather.copy_columns(
                at.idx, at.val, src, at.length[a:b], column, indptr, first, last, idx, val
            )
        elif not sliced:
            gather.copy_rows(at.idx, at.val, src, length, indptr, first, last, idx, val)
        if scale is not None:
            gather.log_normalise(val, indptr[first : last + 1], scale[a + first : a + last])

    return fill
