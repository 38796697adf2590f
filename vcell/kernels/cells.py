"""Per cell: library size, genes detected, shares of mitochondrial and ribosomal counts."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from vcell.kernels.kernel import njit

if TYPE_CHECKING:
    from numpy.typing import NDArray


LANES = 8  # independent sums, as a single one would wait for each addition
FEW = 8  # rows this many times longer than the list of marked genes are searched, others scanned


@njit(nogil=True, cache=True)
def cell_totals(
    indptr: NDArray[np.int64],
    indices: NDArray[np.int32],
    data: NDArray[np.float32],
    marked: NDArray[np.uint8],
    totals: NDArray[np.float64],
    n_genes: NDArray[np.int32],
    marked_totals: NDArray[np.float64],
) -> None:
    """Sum every cell over all genes and over marked ones, and count its genes.

    Explicit zeros do not count as genes. The columns of a row must ascend.

    Parameters
    ----------
    marked
        Bits per gene ``[G]``; bit ``k`` counts the gene in column ``k`` of `marked_totals`.
    totals, n_genes, marked_totals
        Outputs: ``[C]``, ``[C]`` and ``[C, K]`` with at most eight kinds of marks.
    """
    kinds = marked_totals.shape[1]
    listed = np.empty(len(marked), np.int64)
    n_listed = _list(marked, listed)
    lanes = np.empty(LANES)
    for cell in range(len(indptr) - 1):
        own = data[indptr[cell] : indptr[cell + 1]]
        rest = len(own) // LANES * LANES
        detected = 0
        for lane in range(LANES):
            lanes[lane] = 0.0
        for i in range(0, rest, LANES):
            for lane in range(LANES):
                lanes[lane] += own[i + lane]
        for i in range(rest, len(own)):
            lanes[i - rest] += own[i]
        for i in range(len(own)):
            detected += own[i] != 0
        total = 0.0
        for lane in range(LANES):
            total += lanes[lane]
        totals[cell] = total
        n_genes[cell] = detected
        for kind in range(kinds):
            marked_totals[cell, kind] = 0.0
        genes = indices[indptr[cell] : indptr[cell + 1]]
        if n_listed * FEW < len(genes):
            at = 0
            for i in range(n_listed):
                gene = listed[i]
                at = first_not_below(genes, at, gene)
                if at < len(genes) and genes[at] == gene:
                    _mark(marked[gene], own[at], marked_totals[cell])
        else:
            for i in range(len(genes)):
                if marked[genes[i]]:
                    _mark(marked[genes[i]], own[i], marked_totals[cell])


@njit(nogil=True, cache=True)
def _list(marked: NDArray[np.uint8], listed: NDArray[np.int64]) -> int:
    """Write the numbers of the marked genes to `listed`; return how many there are."""
    n = 0
    for gene in range(len(marked)):
        if marked[gene]:
            listed[n] = gene
            n += 1
    return n


@njit(nogil=True, cache=True)
def first_not_below(genes: NDArray[np.int32], low: int, gene: int) -> int:
    """Return the first position, from `low` on, of a gene not below `gene` in ascending `genes`."""
    high = len(genes)
    while low < high:
        middle = (low + high) >> 1
        if genes[middle] < gene:
            low = middle + 1
        else:
            high = middle
    return low


@njit(nogil=True, cache=True, inline="always")
def _mark(bits: int, value: float, totals: NDArray[np.float64]) -> None:
    for kind in range(len(totals)):
        if bits >> kind & 1:
            totals[kind] += value
