"""Matrices whose rows are read as CSR: stored by cell, stored dense, in memory.

A `Matrix` splits rows into blocks of bounded size (`cuts`) and reads such blocks (`read`).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from vcell.data import arrays
from vcell.data.arrays import Array, joined_ranges
from vcell.data.block import Csr, Genes, canonical, check_columns, from_dense, select
from vcell.data.buffers import Buffers
from vcell.data.fault import damaged

#: Limits on the entries of a row: with repeats it has more than columns, far more is damage.
_REPEATS, _SHORT = 16, 1 << 20
#: Rows of a block: all numbers between two, or some ascending numbers.
Rows = range | NDArray[np.int64]


@dataclass(frozen=True)
class Layout:
    """Storage of a matrix, for messages."""

    kind: str  # "csr" | "csc" | "dense"
    compression: str
    chunk: tuple[int, ...] | None
    index_dtype: str | None
    bytes: int | None


@dataclass(frozen=True)
class Bound:
    """Maximum size of a block."""

    nnz: int
    rows: int


class Matrix(Protocol):
    """Cells by genes, read some rows at a time."""

    shape: tuple[int, int]
    dtype: np.dtype[Any]
    layout: Layout

    @property
    def nnz(self) -> int | None:
        """Number of stored values; None if unknown without reading everything."""
        ...

    @property
    def needs_pass(self) -> bool:
        """Whether the first read needs a pass over everything (stored by gene, or as text)."""
        ...

    def cuts(self, rows: Rows, genes: Genes | None, bound: Bound) -> Iterator[Rows]:
        """Split rows into blocks within the bound (or of one row)."""
        ...

    def read(self, rows: Rows, genes: Genes | None, dtype: np.dtype[Any]) -> Csr:
        """Read rows as canonical CSR."""
        ...

    def close(self) -> None:
        """Close what this matrix has opened."""
        ...


class StoredSparse:
    """A sparse matrix as stored: three arrays, with `indptr` in memory."""

    by_gene = False

    def __init__(
        self,
        data: Array,
        indices: Array,
        indptr: NDArray[Any],
        shape: tuple[int, int],
        layout: Layout,
    ) -> None:
        self.data, self.indices, self.shape, self.layout = data, indices, shape, layout
        self.where = data.where.rsplit("/", 1)[0]
        self.dtype = data.dtype
        sizes = shape[::-1] if self.by_gene else shape
        self.indptr = check_indptr(indptr, *sizes, self.where)
        self.nnz: int = int(self.indptr[-1])
        check_lengths(data, indices, self.nnz, self.where)
        self._buffers = Buffers(keep=16)  # those of eight blocks: as many are in use at once


class CsrMatrix(StoredSparse):
    """A matrix stored by cell."""

    needs_pass = False

    def cuts(self, rows: Rows, genes: Genes | None, bound: Bound) -> Iterator[Rows]:
        """Split by the rows' non-zeros."""
        del genes
        yield from cut_by_size(rows, self.indptr, bound)

    def read(self, rows: Rows, genes: Genes | None, dtype: np.dtype[Any]) -> Csr:
        """Read rows as canonical CSR."""
        csr = canonical(self.stored(rows, dtype), self.shape[1])
        return csr if genes is None else select(csr, genes)

    def stored(self, rows: Rows, dtype: np.dtype[Any]) -> Csr:
        """Read rows as stored, in order; each chunk is decoded once."""
        numbers = np.arange(rows.start, rows.stop) if isinstance(rows, range) else rows
        starts, stops = self.indptr[numbers], self.indptr[numbers + 1]
        indptr = np.zeros(len(numbers) + 1, np.int64)
        np.cumsum(stops - starts, out=indptr[1:])
        starts, stops = joined_ranges(starts, stops)
        n = int(indptr[-1])
        stored = self._buffers.take(n, self.indices.dtype)
        data = self._buffers.take(n, dtype)
        arrays.read([(self.indices, starts, stops, stored), (self.data, starts, stops, data)])
        check_columns(stored, indptr, numbers, self.shape[1], self.where)
        return Csr(indptr, narrow(stored), data)

    def close(self) -> None:
        """Do nothing."""


class DenseMatrix:
    """A matrix stored dense."""

    needs_pass = False

    def __init__(self, table: Array, layout: Layout) -> None:
        self.table, self.layout, self.where = table, layout, table.where
        self.shape: tuple[int, int] = (table.shape[0], table.shape[1])
        self.dtype = table.dtype
        self.nnz = None
        self._buffers = Buffers(keep=16)  # those of eight blocks: as many are in use at once

    def cuts(self, rows: Rows, genes: Genes | None, bound: Bound) -> Iterator[Rows]:
        """Split so that a dense block has at most the bound's number of elements."""
        del genes
        step = max(1, min(bound.nnz // max(self.shape[1], 1), bound.rows))
        for first in range(0, len(rows), step):
            yield rows[first : first + step]

    def read(self, rows: Rows, genes: Genes | None, dtype: np.dtype[Any]) -> Csr:
        """Read rows, and return their non-zeros."""
        numbers = np.arange(rows.start, rows.stop) if isinstance(rows, range) else rows
        starts, stops = joined_ranges(numbers, numbers + 1)
        dense = self._buffers.take(len(numbers) * self.shape[1], self.dtype)
        dense = dense.reshape(len(numbers), self.shape[1])
        arrays.read([(self.table, starts, stops, dense)])
        return from_dense(dense if genes is None else dense[:, genes.chosen], dtype)

    def close(self) -> None:
        """Do nothing."""


def narrow(indices: NDArray[Any]) -> NDArray[np.int32]:
    """Return checked column numbers as int32."""
    same = indices.dtype in (np.dtype(np.int32), np.dtype(np.uint32))
    return indices.view(np.int32) if same else indices.astype(np.int32)


def cut_by_size(rows: Rows, indptr: NDArray[np.int64], bound: Bound) -> Iterator[Rows]:
    """Split rows into pieces within the bound's non-zeros and rows, or of one row."""
    if isinstance(rows, range):
        first = rows.start
        while first < rows.stop:
            limit = int(np.searchsorted(indptr, indptr[first] + bound.nnz, side="right")) - 1
            last = min(max(limit, first + 1), first + bound.rows, rows.stop)
            yield range(first, last)
            first = last
        return
    ends = np.cumsum(indptr[rows + 1] - indptr[rows])
    at, done = 0, 0
    while at < len(rows):
        limit = int(np.searchsorted(ends, done + bound.nnz, side="right"))
        to = min(max(limit, at + 1), at + bound.rows, len(rows))
        yield rows[at:to]
        at, done = to, int(ends[to - 1])


def check_indptr(indptr: NDArray[Any], n: int, width: int, where: str) -> NDArray[np.int64]:
    """Raise for an indptr that cannot be of `n` rows (or columns) of `width` elements."""
    if len(indptr) != n + 1:
        raise damaged(f"{where}/indptr", f"has {len(indptr):,} entries where {n + 1:,} are needed")
    if indptr.dtype.kind not in "iu":
        raise damaged(f"{where}/indptr", f"is of type {indptr.dtype}, not whole numbers")
    indptr = indptr.astype(np.int64, copy=False)
    if indptr[0] != 0 or (np.diff(indptr) < 0).any():
        raise damaged(f"{where}/indptr", "does not ascend from 0")
    longest = int(np.diff(indptr).max(initial=0))
    if longest > max(_REPEATS * width, _SHORT):  # reading it would fill the memory
        raise damaged(f"{where}/indptr", f"gives {longest:,} entries to one of {width:,} places")
    return indptr


def check_lengths(data: Array, indices: Array, nnz: int, where: str) -> None:
    """Raise for arrays whose length differs from that in indptr."""
    if indices.dtype.kind not in "iu":
        raise damaged(f"{where}/indices", f"is of type {indices.dtype}, not whole numbers")
    if data.dtype.kind not in "biuf":
        raise damaged(f"{where}/data", f"is of type {data.dtype}, not numbers")
    for name, array in (("data", data), ("indices", indices)):
        if array.shape != (nnz,):
            size = " x ".join(f"{n:,}" for n in array.shape)
            raise damaged(f"{where}/{name}", f"has {size} values where indptr promises {nnz:,}")
