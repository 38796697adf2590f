"""Faults of the rows of a block as stored in a file, and a survey of their values.

`row_faults` is the quick check of every block that is read; `survey_values` is the thorough one of
``vcell inspect``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from vcell.kernels.cells import LANES, first_not_below
from vcell.kernels.kernel import njit

if TYPE_CHECKING:
    from numpy.typing import NDArray

#: Bits of `row_faults`: columns that do not ascend, stored zeros.
FALLS, ZEROS = 1, 2
#: Columns of the counts of `survey_values`.
NAN, INFINITE, NEGATIVE, FRACTION = 0, 1, 2, 3
#: Counts below this have exact sums in float64, in any order, over any row.
SMALL = 1 << 20


@njit(nogil=True, cache=True)
def row_faults(indptr: NDArray[np.int64], indices: NDArray[np.int32], data: NDArray[Any]) -> int:
    """Return bits for rows whose columns do not ascend and for zeros among the values."""
    falls = 0
    zeros = 0
    for row in range(len(indptr) - 1):
        columns = indices[indptr[row] : indptr[row + 1]]
        values = data[indptr[row] : indptr[row + 1]]
        for i in range(1, len(columns)):  # without branches, so that the loops are vectorised
            falls |= columns[i] <= columns[i - 1]
        for i in range(len(values)):
            zeros |= values[i] == 0
    return falls * FALLS | zeros * ZEROS


@njit(nogil=True, cache=True)
def _sort(columns: NDArray[np.int32]) -> None:
    """Heapsort in place: numba takes a second to compile its own sort."""
    n = len(columns)
    for end in range(n // 2 + n - 1, 0, -1):  # first build the heap, then remove its top
        if end >= n:
            root, last = end - n, n
        else:
            columns[0], columns[end] = columns[end], columns[0]
            root, last = 0, end
        value = columns[root]
        while 2 * root + 1 < last:
            child = 2 * root + 1
            if child + 1 < last and columns[child] < columns[child + 1]:
                child += 1
            if columns[child] <= value:
                break
            columns[root] = columns[child]
            root = child
        columns[root] = value


@njit(nogil=True, cache=True)
def disorder(
    indptr: NDArray[np.int64], indices: NDArray[np.int32], data: NDArray[Any]
) -> tuple[int, int, int]:
    """Return the number of unsorted rows, of repeated entries and of stored zeros."""
    unsorted = 0
    repeated = 0
    zeros = 0
    for row in range(len(indptr) - 1):
        columns = indices[indptr[row] : indptr[row + 1]]
        falls = 0
        for i in range(1, len(columns)):
            falls |= columns[i] < columns[i - 1]
        if falls:
            unsorted += 1
            columns = columns.copy()
            _sort(columns)
        for i in range(1, len(columns)):
            repeated += columns[i] == columns[i - 1]
        for j in range(indptr[row], indptr[row + 1]):
            zeros += data[j] == 0
    return unsorted, repeated, zeros


@njit(nogil=True, cache=True)
def survey_values(
    indptr: NDArray[np.int64],
    indices: NDArray[np.int32],
    data: NDArray[Any],
    mito: NDArray[np.bool_],
    cells: NDArray[np.float64],
    gene_sums: NDArray[np.float64],
    gene_cells: NDArray[np.int64],
    odd: NDArray[np.int64],
) -> None:
    """Measure every cell, and add to the genes' statistics; NaN and infinity count as zero.

    Columns ascend within each row.

    Parameters
    ----------
    cells
        Output ``[C, 3]``: sum, number of genes, percentage of the sum in mitochondrial genes.
    gene_sums, gene_cells
        ``[G]``, added to.
    odd
        ``[4]``, added to: numbers of NaN, infinite, negative and fractional values.
    """
    listed = np.flatnonzero(mito)
    for cell in range(len(indptr) - 1):
        genes = indices[indptr[cell] : indptr[cell + 1]]
        values = data[indptr[cell] : indptr[cell + 1]]
        if _small_counts(values):
            total, marked = _sum(values), _sum_at(listed, genes, values)
            for i in range(len(genes)):
                gene_cells[genes[i]] += 1
                gene_sums[genes[i]] += np.float64(values[i])
        else:
            total, marked = _survey_odd(genes, values, mito, gene_sums, gene_cells, odd)
        cells[cell, 0] = total
        cells[cell, 1] = len(values)
        cells[cell, 2] = 100 * marked / total if total > 0 else 0.0


@njit(nogil=True, cache=True)
def _small_counts(values: NDArray[Any]) -> bool:
    """Return whether all values are whole, not negative and below `SMALL`."""
    odd = 0
    for i in range(len(values)):  # without branches, so that the loop is vectorised
        value = np.float64(values[i])
        odd |= (not value >= 0) | (not value < SMALL) | (value != np.floor(value))
    return odd == 0


@njit(nogil=True, cache=True)
def _sum(values: NDArray[Any]) -> float:
    """Add up small counts."""
    lanes = np.zeros(LANES)
    rest = len(values) // LANES * LANES
    for i in range(0, rest, LANES):
        for lane in range(LANES):
            lanes[lane] += np.float64(values[i + lane])
    for i in range(rest, len(values)):
        lanes[0] += np.float64(values[i])
    total = 0.0
    for lane in range(LANES):
        total += lanes[lane]
    return total


@njit(nogil=True, cache=True)
def _sum_at(listed: NDArray[np.int64], genes: NDArray[np.int32], values: NDArray[Any]) -> float:
    """Add up the values of the listed genes; both lists of genes ascend."""
    total = 0.0
    at = 0
    for gene in listed:
        at = first_not_below(genes, at, gene)
        if at < len(genes) and genes[at] == gene:
            total += np.float64(values[at])
    return total


@njit(nogil=True, cache=True)
def _survey_odd(
    genes: NDArray[np.int32],
    values: NDArray[Any],
    mito: NDArray[np.bool_],
    gene_sums: NDArray[np.float64],
    gene_cells: NDArray[np.int64],
    odd: NDArray[np.int64],
) -> tuple[float, float]:
    """Do what `survey_values` does for a cell of any values; return its sums, all and marked."""
    total = 0.0
    marked = 0.0
    for i in range(len(genes)):
        value = np.float64(values[i])
        gene_cells[genes[i]] += 1
        odd[NEGATIVE] += value < 0
        if not np.isfinite(value):
            odd[NAN if np.isnan(value) else INFINITE] += 1
            continue
        odd[FRACTION] += value != np.floor(value)
        total += value
        gene_sums[genes[i]] += value
        if mito[genes[i]]:
            marked += value
    return total, marked
