"""Entries of a matrix collected in any order and returned row by row, in bounded memory.

Rows are assigned to buckets of neighbouring rows. Entries are written bucket by bucket to one
temporary file (or kept in memory, if there are few). Each bucket is small enough to be sorted in
memory later.
"""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING, Any

import numpy as np

from vcell.data.arrays import joined_ranges
from vcell.data.block import Csr, sparse_dtype
from vcell.data.buffers import Buffers
from vcell.data.overflow_file import OverflowFile
from vcell.kernels.transpose import deal, sort_by_row

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from vcell.data.matrix import Rows

#: Intended number of entries of a bucket; there may be more if rows are uneven.
BUCKET = 1 << 21


class RowSpill:
    """Collects entries in any order, and returns them by row.

    Parameters
    ----------
    n_rows
        Number of rows.
    dtype
        Type of the values.
    expected
        Expected number of entries; it sets the number of buckets.
    in_memory
        Keep the entries in memory instead of a temporary file.
    """

    def __init__(
        self, n_rows: int, dtype: np.dtype[Any], expected: int, *, in_memory: bool
    ) -> None:
        kind = sparse_dtype(dtype)
        self.record = np.dtype([("row", np.int32), ("column", np.int32), ("value", kind)])
        self.n_rows = n_rows
        self.indptr = np.zeros(n_rows + 1, np.int64)
        n_buckets = min(max(-(-expected // BUCKET), 1), 4096, max(n_rows, 1))
        self._height = max(-(-n_rows // n_buckets), 1)
        self._n_buckets = -(-n_rows // self._height)
        #: Number of entries per bucket of each addition; they are stored consecutively.
        self._dealt: list[NDArray[np.int32]] = []
        self._kept: list[NDArray[Any]] = []
        self._buffers = Buffers()
        self._bucket: tuple[int, Csr] | None = None
        self.file = None if in_memory else OverflowFile()

    def add(
        self, rows: NDArray[np.int32], columns: NDArray[np.int32], values: NDArray[Any]
    ) -> None:
        """Add entries; rows must be in the matrix."""
        self.indptr[1:] += np.bincount(rows, minlength=self.n_rows)
        entries = self._buffers.take(len(rows), self.record)
        counts = np.zeros(self._n_buckets, np.int64)
        values = values.astype(self.record["value"], copy=False)
        deal(rows, columns, values, self._height, counts, entries)
        self._dealt.append(counts.astype(np.int32))
        if self.file is None:
            self._kept.append(entries.copy())
        else:
            self.file.append(entries)

    def finish(self) -> None:
        """Finish adding entries."""
        np.cumsum(self.indptr, out=self.indptr)
        if self.file is None:
            self._kept = [np.concatenate(self._kept or [np.empty(0, self.record)])]

    def read(self, rows: Rows) -> Csr:
        """Return rows, with entries in the order of addition."""
        numbers = np.asarray(rows, np.int64)
        indptr = np.zeros(len(numbers) + 1, np.int64)
        np.cumsum(self.indptr[numbers + 1] - self.indptr[numbers], out=indptr[1:])
        columns = self._buffers.take(int(indptr[-1]), np.int32)
        values = self._buffers.take(int(indptr[-1]), self.record["value"])
        bucket = numbers // self._height
        edges = [0, *(np.flatnonzero(np.diff(bucket)) + 1).tolist(), len(numbers)]
        for a, b in itertools.pairwise(edges if len(numbers) else []):
            held = self._sorted(int(bucket[a]))
            local = numbers[a:b] - bucket[a] * self._height
            starts, stops = joined_ranges(held.indptr[local], held.indptr[local + 1])
            at = int(indptr[a])
            for start, stop in zip(starts.tolist(), stops.tolist(), strict=True):
                columns[at : at + stop - start] = held.indices[start:stop]
                values[at : at + stop - start] = held.data[start:stop]
                at += stop - start
        return Csr(indptr, columns, values)

    def _sorted(self, number: int) -> Csr:
        """Sort a bucket by row; the last one is cached."""
        held = self._bucket  # another thread may replace it meanwhile
        if held is None or held[0] != number:
            held = self._bucket = None  # free it before the next bucket is read
            entries = self._entries(number)
            n = len(entries)
            csr = Csr(
                np.empty(self._height + 1, np.int64),
                self._buffers.take(n, np.int32),
                self._buffers.take(n, self.record["value"]),
            )
            sort_by_row(entries, number * self._height, csr.indptr, csr.indices, csr.data)
            held = self._bucket = number, csr
        return held[1]

    def _entries(self, number: int) -> NDArray[Any]:
        """Collect the entries of a bucket in the order of addition."""
        n = sum(int(counts[number]) for counts in self._dealt)
        out = self._buffers.take(n, self.record)
        at = begin = 0  # position in `out`; start of an addition
        for counts in self._dealt:
            start, n = begin + int(counts[:number].sum()), int(counts[number])
            if self.file is None:
                out[at : at + n] = self._kept[0][start : start + n]
            elif n:
                self.file.fill(out[at : at + n], start * self.record.itemsize)
            at, begin = at + n, begin + int(counts.sum())
        return out

    def close(self) -> None:
        """Delete the temporary file."""
        self._kept, self._bucket = [], None
        if self.file is not None:
            self.file.close()
