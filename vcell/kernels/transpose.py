"""CSR to CSC: a counting sort by gene that keeps the cells of every gene in order."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from vcell.kernels.kernel import njit

if TYPE_CHECKING:
    from numpy.typing import NDArray


@njit(nogil=True, cache=True)
def count_columns(indices: NDArray[np.int32], counts: NDArray[np.int64]) -> None:
    """Add the number of entries of every gene to ``counts[G]``."""
    for j in range(len(indices)):
        counts[indices[j]] += 1


@njit(nogil=True, cache=True)
def scatter_columns(
    indptr: NDArray[np.int64],
    indices: NDArray[np.int32],
    data: NDArray[np.float32],
    first_cell: int,
    cursor: NDArray[np.int64],
    cells: NDArray[np.int32],
    values: NDArray[np.float32],
) -> None:
    """Write a block's entries to the next positions of their genes, ``cursor[G]``, and advance it.

    Called for successive blocks of cells, with the cursor initially at every gene's start (the
    exclusive cumulative sum of `count_columns`), it fills the CSC arrays `cells` and `values`.
    """
    for cell in range(len(indptr) - 1):
        for j in range(indptr[cell], indptr[cell + 1]):
            gene = indices[j]
            place = cursor[gene]
            cells[place] = first_cell + cell
            values[place] = data[j]
            cursor[gene] = place + 1


@njit(nogil=True, cache=True)
def deal(
    rows: NDArray[np.int32],
    columns: NDArray[np.int32],
    values: NDArray[Any],
    height: int,
    counts: NDArray[np.int64],
    entries: NDArray[Any],
) -> None:
    """Sort entries into `entries` (row, column, value) by bucket; the order within is kept.

    ``counts[K]`` becomes the number of entries in every bucket; a bucket has `height` rows.
    """
    counts[:] = 0
    for i in range(len(rows)):
        counts[rows[i] // height] += 1
    cursor = np.cumsum(counts) - counts
    for i in range(len(rows)):
        bucket = rows[i] // height
        place = cursor[bucket]
        entries[place].row = rows[i]
        entries[place].column = columns[i]
        entries[place].value = values[i]
        cursor[bucket] = place + 1


@njit(nogil=True, cache=True)
def sort_by_row(
    entries: NDArray[Any],
    first: int,
    indptr: NDArray[np.int64],
    columns: NDArray[np.int32],
    values: NDArray[Any],
) -> None:
    """Write entries as CSR of the rows from `first` on; the order within each row is kept."""
    indptr[:] = 0
    for i in range(len(entries)):
        indptr[entries[i].row - first + 1] += 1
    for row in range(1, len(indptr)):
        indptr[row] += indptr[row - 1]
    cursor = indptr[:-1].copy()
    for i in range(len(entries)):
        row = entries[i].row - first
        columns[cursor[row]] = entries[i].column
        values[cursor[row]] = entries[i].value
        cursor[row] += 1
