"""Entries of a matrix gathered in any order and given back row by row, in bounded memory.

Rows are dealt into buckets of neighbouring rows. What arrives is written bucket by bucket to one
temporary file (or kept, if little); a bucket is small enough to be sorted in memory later.
"""

from __future__ import annotations

import itertools
import os
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from vcell.data.block import Csr
from vcell.errors import UserError

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from vcell.data.matrix import Rows

#: Entries that a bucket is meant to hold; it holds more where rows are unevenly full.
BUCKET = 1 << 21


class RowSpill:
    """Entries on their way from any order to rows.

    Parameters
    ----------
    n_rows
        Number of rows.
    dtype
        Type of the values.
    expected
        About how many entries will come; it sets the number of buckets.
    in_memory
        Keep the entries in memory instead of a temporary file.
    """

    def __init__(
        self, n_rows: int, dtype: np.dtype[Any], expected: int, *, in_memory: bool
    ) -> None:
        self.record = np.dtype([("row", np.int32), ("column", np.int32), ("value", dtype)])
        self.n_rows = n_rows
        self.indptr = np.zeros(n_rows + 1, np.int64)
        n_buckets = min(max(-(-expected // BUCKET), 1), 4096, max(n_rows, 1))
        self._height = max(-(-n_rows // n_buckets), 1)
        self._segments: dict[int, list[tuple[int, int]]] = {}
        self._kept: list[NDArray[Any]] = []
        self._filled = 0
        self._bucket: tuple[int, Csr] | None = None
        self.path: Path | None = None
        if not in_memory:
            handle, name = tempfile.mkstemp(prefix="vcell-", suffix=".rows")
            self.path, self._file = Path(name), handle
            self.path.unlink()  # it lives until it is closed, whatever happens

    def add(
        self, rows: NDArray[np.int32], columns: NDArray[np.int32], values: NDArray[Any]
    ) -> None:
        """Take entries; rows must lie in the matrix."""
        self.indptr[1:] += np.bincount(rows, minlength=self.n_rows)
        entries = np.empty(len(rows), self.record)
        entries["row"], entries["column"], entries["value"] = rows, columns, values
        bucket = (rows // self._height).astype(np.int16)  # 16 bits are sorted by counting
        order = np.argsort(bucket, kind="stable")
        entries, bucket = entries[order], bucket[order]
        edges = [0, *(np.flatnonzero(np.diff(bucket)) + 1).tolist(), len(bucket)]
        for a, b in itertools.pairwise(edges):
            if b > a:
                self._segments.setdefault(int(bucket[a]), []).append((self._filled + a, b - a))
        if self.path is None:
            self._kept.append(entries)
        else:
            self._write(entries)
        self._filled += len(entries)

    def _write(self, entries: NDArray[Any]) -> None:
        left = entries.view(np.uint8).data
        offset = self._filled * self.record.itemsize
        while left:
            try:
                n = os.pwrite(self._file, left, offset)
            except OSError as error:
                assert self.path is not None
                raise UserError(
                    f"the temporary file in {self.path.parent} cannot be written: {error.strerror}",
                    hint="set TMPDIR to a folder with more room",
                ) from error
            left, offset = left[n:], offset + n

    def finish(self) -> None:
        """Say that all entries have come."""
        np.cumsum(self.indptr, out=self.indptr)
        if self.path is None:
            self._kept = [np.concatenate(self._kept or [np.empty(0, self.record)])]

    def read(self, rows: Rows) -> Csr:
        """Give rows, their entries in the order in which they came."""
        if not len(rows):
            return Csr(np.zeros(1, np.int64), np.zeros(0, np.int32), self._entries(-1)["value"])
        numbers = np.asarray(rows, np.int64)
        bucket = numbers // self._height
        edges = [0, *(np.flatnonzero(np.diff(bucket)) + 1).tolist(), len(numbers)]
        parts = [self._take(int(bucket[a]), numbers[a:b]) for a, b in itertools.pairwise(edges)]
        if len(parts) == 1:
            return parts[0]
        indptr = np.concatenate([[0], *(np.diff(part.indptr) for part in parts)])
        return Csr(
            np.cumsum(indptr).astype(np.int64),
            np.concatenate([part.indices for part in parts]),
            np.concatenate([part.data for part in parts]),
        )

    def _take(self, number: int, rows: NDArray[np.int64]) -> Csr:
        """Take rows out of a bucket."""
        held = self._sorted(number)
        local = rows - number * self._height
        lengths = held.indptr[local + 1] - held.indptr[local]
        indptr = np.concatenate([[0], np.cumsum(lengths)])
        at = np.repeat(held.indptr[local] - indptr[:-1], lengths) + np.arange(indptr[-1])
        return Csr(indptr, held.indices[at], held.data[at])

    def _sorted(self, number: int) -> Csr:
        """Sort a bucket by row; the last one is kept."""
        held = self._bucket  # another reader may replace it meanwhile
        if held is None or held[0] != number:
            held = self._bucket = None  # its memory goes before the next bucket's comes
            entries = self._entries(number)
            order = np.argsort(entries["row"], kind="stable")
            first = number * self._height
            counts = np.bincount(entries["row"] - first, minlength=self._height)
            indptr = np.concatenate([[0], np.cumsum(counts)]).astype(np.int64)
            csr = Csr(indptr, entries["column"][order], entries["value"][order])
            held = self._bucket = number, csr
        return held[1]

    def _entries(self, number: int) -> NDArray[Any]:
        segments = self._segments.get(number, [])
        out = np.empty(sum(n for _, n in segments), self.record)
        at = 0
        for start, n in segments:
            if self.path is None:
                out[at : at + n] = self._kept[0][start : start + n]
            else:
                size = self.record.itemsize
                stored = os.pread(self._file, n * size, start * size)
                out[at : at + n] = np.frombuffer(stored, self.record)
            at += n
        return out

    def close(self) -> None:
        """Delete the temporary file."""
        self._kept, self._bucket = [], None
        if self.path is not None and self._file >= 0:
            os.close(self._file)
            self._file = -1
