"""Matrices stored by gene (CSC), read by cell in bounded memory.

Rows of a CSC matrix are spread over the whole file. Up to `IN_MEMORY` non-zeros are transposed in
memory; more go once through a temporary file (`vcell.data.spill`), with a message.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import numpy as np

from vcell import console
from vcell.data import arrays
from vcell.data.arrays import Array, joined_ranges
from vcell.data.block import Csr, Genes, canonical, check_columns
from vcell.data.matrix import Bound, Layout, Rows, StoredSparse, cut_by_size, narrow
from vcell.data.spill import RowSpill

if TYPE_CHECKING:
    from numpy.typing import NDArray

#: Non-zeros transposed in memory: 128 MiB of float32 and int32.
IN_MEMORY = 1 << 24
#: Non-zeros of the columns read at a time.
RUN_NNZ = 1 << 20


class CscMatrix(StoredSparse):
    """A matrix stored by gene; transposed when rows are first read."""

    by_gene = True

    def __init__(
        self,
        data: Array,
        indices: Array,
        indptr: NDArray[Any],
        shape: tuple[int, int],
        layout: Layout,
    ) -> None:
        super().__init__(data, indices, indptr, shape, layout)
        #: The transposed rows, by choice of genes.
        self._transposed: dict[bytes, RowSpill] = {}
        self._lock = threading.Lock()

    @property
    def needs_pass(self) -> bool:
        """Whether it is large and not yet transposed."""
        return not self._transposed and self.nnz > IN_MEMORY

    def cuts(self, rows: Rows, genes: Genes | None, bound: Bound) -> Iterator[Rows]:
        """Cut by the rows' non-zeros in the chosen columns."""
        yield from cut_by_size(rows, self._by_cell(genes).indptr, bound)

    def read(self, rows: Rows, genes: Genes | None, dtype: np.dtype[Any]) -> Csr:
        """Read rows of the transposed matrix."""
        csr = self._by_cell(genes).read(rows)
        width = self.shape[1] if genes is None else len(genes.chosen)
        return canonical(Csr(csr.indptr, csr.indices, csr.data.astype(dtype, copy=False)), width)

    def close(self) -> None:
        """Delete the temporary files."""
        for transposed in self._transposed.values():
            transposed.close()

    def columns(self, chosen: NDArray[np.int64]) -> Iterator[tuple[int, Csr]]:
        """Read ascending columns a few at a time: index of the first in `chosen`, and a CSC."""
        for piece in cut_by_size(chosen, self.indptr, Bound(RUN_NNZ, 1 << 20)):
            starts, stops = self.indptr[piece], self.indptr[np.asarray(piece) + 1]
            indptr = np.concatenate([[0], np.cumsum(stops - starts)]).astype(np.int64)
            cells = self._buffers.take(int(indptr[-1]), self.indices.dtype)
            data = self._buffers.take(len(cells), self.dtype)
            ranges = joined_ranges(starts, stops)
            arrays.read([(self.indices, *ranges, cells), (self.data, *ranges, data)])
            check_columns(cells, indptr, np.asarray(piece), self.shape[0], self.where, "gene")
            at = int(np.searchsorted(chosen, piece[0]))
            yield at, Csr(indptr, narrow(cells), data)

    def _by_cell(self, genes: Genes | None) -> RowSpill:
        """Transpose the chosen columns, once for the same choice."""
        key = b"all" if genes is None else genes.chosen.tobytes()
        with self._lock:
            if key not in self._transposed:
                self._transposed[key] = self._transpose(genes)
            return self._transposed[key]

    def _transpose(self, genes: Genes | None) -> RowSpill:
        chosen = np.arange(self.shape[1]) if genes is None else np.sort(genes.chosen)
        nnz = int((self.indptr[chosen + 1] - self.indptr[chosen]).sum())
        transposed = RowSpill(self.shape[0], self.dtype, nnz, in_memory=nnz <= IN_MEMORY)
        if transposed.file is not None:
            size = console.bytes_text(nnz * transposed.record.itemsize)
            console.say(
                f"{self.where} is stored by gene (CSC): it is transposed once, through a "
                f"temporary file of {size} in {transposed.file.folder} (TMPDIR chooses where)"
            )
        with console.progress("transposing", nnz, "non-zeros") as bar:
            for first, csc in self.columns(chosen):
                gene = chosen[first : first + len(csc.indptr) - 1]
                place = gene if genes is None else genes.place[gene]
                columns = np.repeat(place.astype(np.int32), np.diff(csc.indptr))
                transposed.add(csc.indices, columns, csc.data)
                bar.advance(len(columns))
        transposed.finish()
        return transposed
