"""Counts as bits: a table of those that many cells have, lists of all others.

`vcell.kernels.drawn` adds them up.
"""

# ruff: noqa: PLR0913, PLR0917  # kernels take arrays, not objects
from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from vcell.kernels.kernel import njit

Array = NDArray[Any]

#: Words of a row of genes, and its bits.
GENE_LANES = 8
GENES = 64 * GENE_LANES
#: A rest of a count up to this is listed as that many ones.
REPEATED = 3

_ONE, _LOW, _REPEATED = np.uint64(1), np.uint64(63), np.uint64(REPEATED)
# of `place`: the number of planes, then the bit, its lane and its plane
_DEEP, _BIT, _LANE, _PLANE = np.uint64(31), np.uint64(5), np.uint64(11), np.uint64(14)
_LANES = np.uint64(GENE_LANES - 1)


@njit(nogil=True, cache=True)
def count_bits(indices: Array, counts: Array, having: Array) -> None:
    """Add to ``having[P, G]`` the number of cells whose count of a gene has each of the bits."""
    for k in range(len(indices)):
        rest, bit = counts[k], 0
        while rest and bit < having.shape[0]:
            having[bit, indices[k]] += rest & 1
            rest >>= 1
            bit += 1


@njit(nogil=True, cache=True)
def pack(
    indptr: Array, indices: Array, counts: Array, place: Array, first: int, table: Array,
    starts: Array, ends: Array, ones: Array, more: Array,
) -> tuple[int, int]:  # fmt: skip
    """Add cells to the table; return the numbers of entries in `ones` and in `more`.

    Parameters
    ----------
    indptr, indices, counts
        CSR, int32 counts above zero, each gene once per cell.
    place
        ``[G]`` position of each gene in the table: ``plane << 14 | bit << 5 | planes``.
    first
        The row of the first of these cells.
    table
        ``[planes, N + 1, GENE_LANES]`` words, the rows of these cells zero.
    starts
        ``[G + 1]``: the number of ones of gene g is added to ``starts[g + 1]``.
    ends, ones
        End of each of these cells among the ones; their genes, twice for a rest of 2.
    more
        Larger rests, bit by bit: ``gene << 21 | level << 16 | row``.
    """
    # Unsigned numbers, since Python's negative indices would be looked for; and few branches: most
    # counts have one bit or two, and rests are written before it is known whether there are any.
    n: Any = 0
    m: Any = 0
    for c in range(len(indptr) - 1):
        row = np.uint64(first + c)
        for k in range(np.uint64(indptr[c]), np.uint64(indptr[c + 1])):
            gene = np.uint64(indices[k])
            at, count = np.uint64(place[gene]), np.uint64(counts[k])
            depth, plane = at & _DEEP, at >> _PLANE
            lane, bit = at >> _LANE & _LANES, at >> _BIT & _LOW
            low, rest = count & ((_ONE << depth) - _ONE), count >> depth
            table[plane, row, lane] |= (low & _ONE) << bit
            plane += np.uint64(depth > _ONE)
            low >>= _ONE
            table[plane, row, lane] |= (low & _ONE) << bit
            low >>= _ONE
            while low:
                plane += _ONE
                table[plane, row, lane] |= (low & _ONE) << bit
                low >>= _ONE
            if rest <= _REPEATED:
                for j in range(REPEATED):
                    ones[n + j] = gene
                n += np.int64(rest)
            else:
                while rest:
                    more[m] = np.int64(gene << np.uint64(21) | depth << np.uint64(16) | row)
                    m += np.int64(rest & _ONE)
                    rest >>= _ONE
                    depth += _ONE
        ends[c] = n
    for k in range(np.uint64(n)):
        starts[np.uint64(ones[k]) + _ONE] += 1
    return n, m


@njit(nogil=True, cache=True)
def sort_by_gene(ends: Array, genes: Array, first: int, cursor: Array, rows: Array) -> None:
    """Sort the rows of CSR entries by gene; ``cursor[G]`` is the next position of each gene."""
    k = 0
    for row in range(len(ends)):
        while k < ends[row]:
            rows[cursor[genes[k]]] = first + row
            cursor[genes[k]] += 1
            k += 1
