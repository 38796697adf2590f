"""Per cell: library size, genes detected, shares of mitochondrial and ribosomal counts."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from numba import njit

if TYPE_CHECKING:
    from numpy.typing import NDArray


LANES = 8  # sums made side by side: one alone would wait for each addition


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
    """Sum every cell over all genes and over marked ones, and count the genes it has.

    Explicit zeros are not detected genes.

    Parameters
    ----------
    marked
        Bits per gene ``[G]``; bit ``k`` counts the gene in column ``k`` of `marked_totals`.
    totals, n_genes, marked_totals
        Outputs: ``[C]``, ``[C]`` and ``[C, K]`` with at most eight kinds of marks.
    """
    kinds = marked_totals.shape[1]
    lanes = np.zeros(LANES)
    for cell in range(len(indptr) - 1):
        own = data[indptr[cell] : indptr[cell + 1]]
        rest = len(own) // LANES * LANES
        detected = 0
        lanes[:] = 0.0
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
        if kinds == 0:
            continue
        for kind in range(kinds):
            marked_totals[cell, kind] = 0.0
        for j in range(indptr[cell], indptr[cell + 1]):
            bits = marked[indices[j]]
            if bits:
                for kind in range(kinds):
                    if bits >> kind & 1:
                        marked_totals[cell, kind] += data[j]
