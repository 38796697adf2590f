"""Adding up cells that were drawn, some of them more than once.

A cell has values in a tenth of its genes, yet adding these one by one takes longer than adding all
genes: 32 genes are 32 bytes, one instruction, where each single value needs a load, an addition and
a store of its own. So some genes of some cells are made dense, in a table of bytes that stays in
the cache while all samples add up their rows of it: eight rows in bytes, then in 16 bits.
What counts have beyond `CLIP` is kept apart and added one by one.

Serial, without the GIL: callers share the genes among their own threads.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import njit
from numpy.typing import NDArray

Array = NDArray[Any]

#: The largest count in the table: eight of them fit a byte, 2,048 of them 16 bits.
CLIP = 31
_ROWS = 2048
#: Genes made dense at once: with 2,048 cells a table of half a MiB.
WIDTH = 256


@njit(nogil=True, cache=True, inline="always")
def _add8(total: Array, table: Array, drawn: Array, i: int, first: int) -> None:
    """Add eight rows: in bytes, which hold eight times `CLIP`, then in 16 bits."""
    a, b = np.uint32(drawn[i] - first), np.uint32(drawn[i + 1] - first)
    c, d = np.uint32(drawn[i + 2] - first), np.uint32(drawn[i + 3] - first)
    e, f = np.uint32(drawn[i + 4] - first), np.uint32(drawn[i + 5] - first)
    g, h = np.uint32(drawn[i + 6] - first), np.uint32(drawn[i + 7] - first)
    for j in range(WIDTH):
        part = np.uint8(
            table[a, j] + table[b, j] + table[c, j] + table[d, j]
            + table[e, j] + table[f, j] + table[g, j] + table[h, j]
        )  # fmt: skip
        total[j] += np.uint16(part)


@njit(nogil=True, cache=True, inline="always")
def _add1(total: Array, table: Array, row: int) -> None:
    a = np.uint32(row)
    for j in range(WIDTH):
        total[j] += np.uint16(table[a, j])


@njit(nogil=True, cache=True)
def add_drawn(
    indptr: Array, indices: Array, values: Array, first: int, cells: Array,
    begin: int, end: int, out: Array,
) -> None:  # fmt: skip
    """Add to genes ``begin:end`` of ``out[S, G]`` what drawn cells hold in one piece.

    Parameters
    ----------
    indptr, indices, values
        The piece: cells ``first`` to ``first + len(indptr) - 2`` as CSR with ascending columns;
        values are bytes up to `CLIP`.
    cells
        ``[S, n]`` the cells of each sample, ascending; one drawn twice is there twice.
    """
    n = len(indptr) - 1
    at = np.empty(n, np.int64)
    for c in range(n):
        row = indices[indptr[c] : indptr[c + 1]]
        at[c] = indptr[c] + np.searchsorted(row, begin)
    table = np.empty((n, WIDTH), np.uint8)
    total = np.empty(WIDTH, np.uint16)
    span = _spans(cells, first, first + n)
    for gene in range(begin, end, WIDTH):
        stop = min(gene + WIDTH, end)
        table[:] = 0
        for c in range(n):
            k = at[c]
            while k < indptr[c + 1] and indices[k] < stop:
                table[c, indices[k] - gene] = values[k]
                k += 1
            at[c] = k
        for sample in range(cells.shape[0]):
            i, last = span[sample, 0], span[sample, 1]
            drawn = cells[sample]
            sums = out[sample, gene:stop]
            while i < last:
                rows = min(i + _ROWS, last)
                total[:] = 0
                while i + 8 <= rows:
                    _add8(total, table, drawn, i, first)
                    i += 8
                while i < rows:
                    _add1(total, table, drawn[i] - first)
                    i += 1
                for j in range(stop - gene):
                    sums[j] += total[j]


@njit(nogil=True, cache=True)
def _spans(cells: Array, first: int, end: int) -> Array:
    """Return where in each sample's cells those from `first` to `end` lie."""
    span = np.empty((cells.shape[0], 2), np.int64)
    for sample in range(cells.shape[0]):
        span[sample, 0] = np.searchsorted(cells[sample], first)
        span[sample, 1] = np.searchsorted(cells[sample], end)
    return span


@njit(nogil=True, cache=True)
def add_beyond(
    indptr: Array, genes: Array, beyond: Array, first: int, cells: Array, out: Array
) -> None:
    """Add what counts above `CLIP` have beyond it: CSR of the same cells, few of them."""
    span = _spans(cells, first, first + len(indptr) - 1)
    for sample in range(cells.shape[0]):
        sums = out[sample]
        for i in range(span[sample, 0], span[sample, 1]):
            cell = cells[sample, i] - first
            for k in range(indptr[cell], indptr[cell + 1]):
                sums[genes[k]] += beyond[k]
