"""A block of cells in memory, as CSR.

Every block from `CellSource.chunks` is canonical: in each row the columns ascend, none occurs
twice, and no zero is stored. Files that are not are repaired here, block by block.

Legend: ``C`` cells of the block, ``N`` its non-zeros, ``G`` genes.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vcell.data.fault import damaged

#: Non-zeros from which a compiled check is worth loading numba (half a second).
COMPILED_FROM = 1 << 18


@dataclass(frozen=True)
class Block:
    """Some cells and all their non-zeros.

    Attributes
    ----------
    start
        Number of the block's first cell in the source (``rows[0]``).
    rows
        ``[C]`` numbers of the cells in the source.
    indptr, indices, data
        CSR: int64 ``[C + 1]``, int32 ``[N]``, float32 (or as stored) ``[N]``.
    n_genes
        Number of columns.
    """

    start: int
    rows: NDArray[np.int64]
    indptr: NDArray[np.int64]
    indices: NDArray[np.int32]
    data: NDArray[Any]
    n_genes: int

    def __len__(self) -> int:
        return len(self.rows)

    @property
    def nnz(self) -> int:
        """Number of non-zeros."""
        return len(self.data)

    def toarray(self) -> NDArray[Any]:
        """Return the block as a dense ``[C, G]`` array."""
        dense = np.zeros((len(self.rows), self.n_genes), self.data.dtype)
        row = np.repeat(np.arange(len(self.rows)), np.diff(self.indptr))
        dense[row, self.indices] = self.data
        return dense

    def tocsr(self) -> Any:
        """Return the block as a scipy CSR matrix that shares its memory."""
        from scipy.sparse import csr_matrix

        shape = (len(self.rows), self.n_genes)
        return csr_matrix((self.data, self.indices, self.indptr), shape=shape, copy=False)


@dataclass(frozen=True)
class Csr:
    """The three arrays of some rows, before they become a block."""

    indptr: NDArray[np.int64]
    indices: NDArray[np.int32]
    data: NDArray[Any]


@dataclass(frozen=True)
class Genes:
    """A choice of columns: which are read, and their new order."""

    chosen: NDArray[np.int64]
    #: ``[G]``: new number of each old column, -1 if it is left out.
    place: NDArray[np.int32]
    ascending: bool

    @classmethod
    def choose(cls, genes: NDArray[np.integer[Any]], n_genes: int) -> Genes:
        """Check a choice; `genes` are column numbers in the new order."""
        chosen = np.asarray(genes, np.int64)
        if chosen.ndim != 1 or len(np.unique(chosen)) != len(chosen):
            raise ValueError("genes must be different column numbers")
        if len(chosen) and (chosen.min() < 0 or chosen.max() >= n_genes):
            raise ValueError(f"genes must lie between 0 and {n_genes - 1}")
        place = np.full(n_genes, -1, np.int32)
        place[chosen] = np.arange(len(chosen), dtype=np.int32)
        return cls(chosen, place, bool((np.diff(chosen) > 0).all()))


def select(csr: Csr, genes: Genes) -> Csr:
    """Keep only the chosen columns, renumbered."""
    moved = genes.place[csr.indices]
    keep = moved >= 0
    before = np.concatenate([[0], np.cumsum(keep)])
    chosen = Csr(before[csr.indptr], moved[keep], csr.data[keep])
    return chosen if genes.ascending else _merge(chosen, len(genes.chosen))


def check_columns(
    indices: NDArray[Any],
    indptr: NDArray[np.int64],
    rows: NDArray[np.int64],
    n_columns: int,
    at: str,
    what: str = "cell",
) -> None:
    """Raise for columns outside the matrix; `indices` as stored, before conversion to int32."""
    if not len(indices):
        return
    unsigned = indices.view(f"u{indices.dtype.itemsize}")  # a negative number becomes a huge one
    if int(unsigned.max()) >= n_columns:
        bad = int(np.argmax(unsigned >= n_columns))
        row = rows[int(np.searchsorted(indptr, bad, side="right")) - 1]
        raise damaged(
            f"{at}/indices",
            f"{what} {row:,} has an entry {indices[bad]}, outside 0 to {n_columns - 1:,}",
        )


def canonical(csr: Csr, n_genes: int) -> Csr:
    """Return rows sorted, without repeated columns (summed) and without stored zeros."""
    falls, zeros = _faults(csr)
    if falls:
        csr = _merge(csr, n_genes)
        zeros = zeros or bool((csr.data == 0).any())  # sums of repeated entries may be 0
    if zeros:
        keep = csr.data != 0
        before = np.concatenate([[0], np.cumsum(keep)])
        csr = Csr(before[csr.indptr], csr.indices[keep], csr.data[keep])
    return csr


def sparse_dtype(dtype: np.dtype[Any]) -> np.dtype[Any]:
    """Return the type of sparse values read as `dtype`: scipy and numba have no sparse float16."""
    return np.dtype(np.float32) if dtype == np.float16 else dtype


def _faults(csr: Csr) -> tuple[bool, bool]:
    """Return whether columns are unsorted anywhere, and whether zeros are stored."""
    n = len(csr.indices)
    if n > COMPILED_FROM and csr.data.dtype != np.float16:  # numba has no half precision
        from vcell.kernels.rows import FALLS, ZEROS, row_faults

        found = row_faults(csr.indptr, csr.indices, csr.data)
        return bool(found & FALLS), bool(found & ZEROS)
    falls = csr.indices[1:] <= csr.indices[:-1]
    starts = csr.indptr[1:-1]
    falls[starts[(starts > 0) & (starts < n)] - 1] = False  # a new row may start lower
    return bool(falls.any()), bool((csr.data == 0).any())


def _merge(csr: Csr, n_genes: int) -> Csr:
    """Sort each row by column, and sum repeated columns."""
    n_rows = len(csr.indptr) - 1
    row = np.repeat(np.arange(n_rows), np.diff(csr.indptr))
    key = row * max(n_genes, 1) + csr.indices
    order = np.argsort(key, kind="stable")
    key = key[order]
    first = np.flatnonzero(np.diff(key, prepend=-1))
    data = csr.data[order]
    if len(first) < len(key):
        data = np.add.reduceat(data, first).astype(data.dtype, copy=False)
        order, row = order[first], row[order[first]]
    indptr = np.concatenate([[0], np.cumsum(np.bincount(row, minlength=n_rows))])
    return Csr(indptr.astype(np.int64), csr.indices[order], data)


def from_dense(dense: NDArray[Any], dtype: np.dtype[Any]) -> Csr:
    """Return the non-zeros of a table, row by row; NaN is not zero."""
    row, column = np.nonzero(dense)
    indptr = np.searchsorted(row, np.arange(len(dense) + 1)).astype(np.int64)
    return Csr(indptr, column.astype(np.int32), dense[row, column].astype(dtype, copy=False))


def from_scipy(cells: Any) -> Csr:
    """Return a scipy sparse matrix or a dense array as CSR arrays."""
    if not hasattr(cells, "tocsr"):
        dense = np.asarray(cells)
        return from_dense(dense, dense.dtype)
    csr = cells.tocsr()
    if not csr.has_canonical_format:
        csr = csr.copy()
        csr.sum_duplicates()
    return Csr(csr.indptr.astype(np.int64), csr.indices.astype(np.int32, copy=False), csr.data)
