"""Where a loader's cells come from: a store, a matrix in memory, or a plain file.

Each reads the rows of a buffer into memory as `RowSpans`: arrays of column ids and values, and the
position of each row in them. Batches are cut from that.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
from numpy.typing import NDArray

from vcell.data.decode_pool import finish
from vcell.kernels import gather
from vcell.store.priority_pool import PriorityPool
from vcell.store.store import Store

if TYPE_CHECKING:
    from vcell.data.buffers import Buffers

#: Chunks per task: enough to hide the cost of submitting it.
_CHUNKS_A_TASK = 8


@dataclass(frozen=True)
class RowSpans:
    """Rows in memory: row `i` is `idx[src[i] : src[i] + length[i]]`, and `val` likewise."""

    idx: NDArray[Any]
    val: NDArray[Any]
    src: NDArray[np.int64]
    length: NDArray[np.int64]
    #: Rows are consecutive and in order: a batch is a slice.
    contiguous: bool


@dataclass(frozen=True)
class Types:
    """Types of a buffer's arrays; None: those of the source."""

    idx: type | None = None
    val: type | None = None


class Cells(Protocol):
    """The interface that a loader needs from its source."""

    n_cells: int
    n_genes: int

    def plan(self, rows: NDArray[np.int64]) -> Any:
        """Work out how to read rows; done for the next buffer while this one is read."""
        ...

    def fetch(self, plan: Any, types: Types, memory: Buffers, pool: PriorityPool) -> RowSpans:
        """Read the rows of a plan into memory."""
        ...

    def close(self) -> None:
        """Close the files."""
        ...


class MatrixCells:
    """Rows of a CSR matrix in memory."""

    def __init__(
        self, idx: NDArray[Any], val: NDArray[Any], indptr: NDArray[np.int64], n_genes: int
    ) -> None:
        self.idx, self.val, self.indptr = idx, val, indptr
        self.n_cells, self.n_genes = len(indptr) - 1, n_genes

    def plan(self, rows: NDArray[np.int64]) -> RowSpans:
        """Return the rows in place; nothing is copied."""
        src = self.indptr[rows]
        return RowSpans(self.idx, self.val, src, self.indptr[rows + 1] - src, contiguous=False)

    def fetch(self, plan: RowSpans, types: Types, memory: Buffers, pool: PriorityPool) -> RowSpans:
        """Return the plan, which is all there is to do."""
        del types, memory, pool
        return plan

    def close(self) -> None:
        """Nothing to close."""


@dataclass(frozen=True)
class _Plan:
    """Rows of a store, as `vcell.kernels.gather` describes them."""

    src: NDArray[np.int64]
    length: NDArray[np.int64]
    dst: NDArray[np.int64]
    order: NDArray[np.int64]
    chunks: tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]
    here: NDArray[np.int64] | None  # of each row its number among those held in memory, or -1


class StoreCells:
    """Rows of a store on disk, decoded chunk by chunk into the order of the batches.

    Parameters
    ----------
    held
        Rows (ascending) kept decoded in memory because they are drawn repeatedly, such as the
        controls of matched sets.
    """

    def __init__(self, store: Store, held: NDArray[np.int64] | None = None) -> None:
        self.store = store
        self.n_cells, self.n_genes = store.n_cells, store.n_genes
        self._most = 0  # elements of a buffer
        self._held_at = np.empty(0, np.int64)
        if held is not None and len(held):
            matrix = store.read(held)
            idx = matrix.indices.astype(store.idx_dtype)
            self._held = MatrixCells(idx, matrix.data, matrix.indptr.astype(np.int64), self.n_genes)
            self._held_at = np.full(store.n_cells, -1, np.int64)
            self._held_at[held] = np.arange(len(held))

    def plan(self, rows: NDArray[np.int64]) -> _Plan:
        """Find the chunks that hold rows."""
        src = self.store.indptr[rows]
        length = self.store.indptr[rows + 1] - src
        dst = np.concatenate([[0], np.cumsum(length)]).astype(np.int64)
        here = self._held_at[rows] if len(self._held_at) else None
        from_disk = np.arange(len(rows)) if here is None else np.flatnonzero(here < 0)
        order = from_disk[np.argsort(src[from_disk], kind="stable")]
        chunks = gather.chunks_of_rows(src, length, order, self.store.chunk)
        return _Plan(src, length, dst, order, chunks, here)

    def fetch(self, plan: _Plan, types: Types, memory: Buffers, pool: PriorityPool) -> RowSpans:
        """Decode each chunk once, directly into the order of the batches' rows."""
        store, length, dst = self.store, plan.length, plan.dst
        n = int(dst[-1])
        # The last buffer of an epoch is short, but its memory has to do for others later.
        self._most = max(self._most, n)
        idx = memory.take(self._most, np.dtype(types.idx or store.idx_dtype))[:n]
        val = memory.take(self._most, np.dtype(types.val or store.val_dtype))[:n]
        work: list[Callable[[], None]] = []
        if (here := plan.here) is not None:
            work.append(lambda: self._copy_held(here, length, dst, idx, val))
        chunks, first, last = plan.chunks
        rows = plan.src, length, dst, plan.order

        def decode(a: int, b: int) -> None:
            store.copy_rows(chunks[a:b], rows, first[a:b], last[a:b], (idx, val))

        n = len(chunks)
        work += [
            partial(decode, a, min(a + _CHUNKS_A_TASK, n)) for a in range(0, n, _CHUNKS_A_TASK)
        ]
        finish(pool.submit_all(FETCH, work))
        return RowSpans(idx, val, dst[:-1], length, contiguous=True)

    def close(self) -> None:
        """Close the store."""
        self.store.close()

    def _copy_held(
        self,
        here: NDArray[np.int64],
        length: NDArray[np.int64],
        dst: NDArray[np.int64],
        idx: NDArray[Any],
        val: NDArray[Any],
    ) -> None:
        held = np.flatnonzero(here >= 0)
        src = self._held.indptr[here[held]]
        gather.copy_rows(
            self._held.idx, self._held.val, src, length[held], dst[held], 0, len(held), idx, val
        )


#: Priorities: work for the next batches comes before the next buffer.
EMIT, FETCH = 0, 1


def load_all(store: Store, threads: int) -> MatrixCells:
    """Decode the whole matrix of a store into memory, in the types of the store."""
    idx = np.empty(store.nnz, store.idx_dtype)
    val = np.empty(store.nnz, store.val_dtype)
    pool = PriorityPool(threads)

    def part(first: int, last: int) -> None:
        chunk_idx, chunk_val = np.empty(store.chunk, idx.dtype), np.empty(store.chunk, val.dtype)
        for number in range(first, last):
            a, b = number * store.chunk, min((number + 1) * store.chunk, store.nnz)
            if b - a == store.chunk:
                store.read_chunk(number, idx[a:b], val[a:b])
            else:
                store.read_chunk(number, chunk_idx, chunk_val)
                idx[a:b], val[a:b] = chunk_idx[: b - a], chunk_val[: b - a]

    try:
        n = -(-store.nnz // store.chunk)
        starts = range(0, n, 4 * _CHUNKS_A_TASK)
        stops = [min(a + 4 * _CHUNKS_A_TASK, n) for a in starts]
        calls = [partial(part, a, b) for a, b in zip(starts, stops, strict=True)]
        finish(pool.submit_all(FETCH, calls))
    finally:
        pool.close()
    return MatrixCells(idx, val, store.indptr, store.n_genes)


Codes = tuple[NDArray[np.int32], NDArray[Any]]


@dataclass
class Opened:
    """A source of cells, its columns, and its store if it has one."""

    cells: Cells
    codes: Callable[[str], Codes]
    columns_of: Callable[[Sequence[str] | NDArray[Any]], NDArray[np.int64]]
    scale: Callable[[], NDArray[np.float32]]
    store: Store | None = None

    @property
    def n_cells(self) -> int:
        """Number of cells."""
        return self.cells.n_cells

    @property
    def n_genes(self) -> int:
        """Number of genes."""
        return self.cells.n_genes
