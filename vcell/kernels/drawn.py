"""Sums of drawn cells, some of them drawn more than once: hundreds of sums in an instruction.

What a sample sums of a gene is ``sum over cells of times[cell, sample] * counts[cell, gene]``. Both
factors are whole numbers, so these are sums of bits of one times bits of the other. The bits of
one factor stand in rows, one for each cell, hundreds of bits each; those of the other are lists of
the cells that have them. The rows of a list are added up in vertical counters
(`vcell.kernels.counters`).

Either factor can be the list, and the shorter list is the faster:

- of genes that many cells have, the bits of `GENES` genes are the rows (``table``); each sample
  adds up the cells it drew (`add_table`);
- of other genes the cells are listed; the rows are `SAMPLES` samples, and say which of them drew
  the cell (`add_listed`).

Rows of genes are longer: a longer row means fewer lists, but as many samples are summed at once as
their rows have bits, and these sums are most of the memory.

Bits above those of the table are also listed, so sums are exact for all counts.

Legend: N cells of a piece, followed by one zero row; L levels, the bits of how often a sample has a
cell. Serial, without the GIL: callers divide samples or columns among their own threads.
"""

# ruff: noqa: PLR0913, PLR0917  # kernels take arrays, not objects
from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from vcell.kernels.counters import adder, spreader
from vcell.kernels.kernel import njit

Array = NDArray[Any]

#: Words of a row of genes and of a row of samples, and their bits.
GENE_LANES, SAMPLE_LANES = 8, 4
GENES, SAMPLES = 64 * GENE_LANES, 64 * SAMPLE_LANES
#: Planes of counters: more than the bits of any sum.
_DEPTH = 64
_TOGETHER = 16  # columns whose sums are written at once: a cache line
#: A rest of a count up to this is listed as that many ones.
REPEATED = 3

#: Rows added by one call, and by one call for what is left.
_MANY, _FEW = 16, 4
_ONE, _LOW, _REPEATED = np.uint64(1), np.uint64(63), np.uint64(REPEATED)
# of `place`: the number of planes, then the bit, its lane and its plane
_DEEP, _BIT, _LANE, _PLANE = np.uint64(31), np.uint64(5), np.uint64(11), np.uint64(14)
_LANES = np.uint64(GENE_LANES - 1)


_add_genes, _add_few_genes, _spread_genes = (
    adder(_MANY, GENE_LANES), adder(_FEW, GENE_LANES), spreader(GENE_LANES)
)  # fmt: skip
_add_samples, _add_few_samples, _spread_samples = (
    adder(_MANY, SAMPLE_LANES), adder(_FEW, SAMPLE_LANES), spreader(SAMPLE_LANES)
)  # fmt: skip


@njit(nogil=True, cache=True, inline="always")
def _count(
    add: Any, add_few: Any, bits: Array, rows: Array, begin: int, end: int, tail: Array,
    planes: Array, level: int, top: int, most: int,
) -> tuple[int, int]:  # fmt: skip
    """Add listed rows, each worth ``2**level``; return the new number of planes.

    Parameters
    ----------
    add, add_few
        What adds `_MANY` and `_FEW` rows of this length.
    bits
        ``[N + 1, lanes]``, the last row zero.
    rows, begin, end
        The rows: a part of a list.
    tail
        ``[_FEW]`` working memory for the last rows.
    top, most
        Number of used planes, and the largest possible value of a counter.
    """
    if begin == end:
        return top, most
    most += (end - begin) << level
    while (1 << top) <= most or top < level + 4:
        for q in range(planes.shape[1]):
            planes[top, q] = 0
        top += 1
    k = begin
    while k + _MANY <= end:
        add(bits, rows, k, planes, level, top)
        k += _MANY
    while k + _FEW <= end:
        add_few(bits, rows, k, planes, level, top)
        k += _FEW
    if k < end:
        for i in range(_FEW):
            tail[i] = rows[k + i] if k + i < end else bits.shape[0] - 1
        add_few(bits, tail, 0, planes, level, top)
    return top, most


@njit(nogil=True, cache=True, inline="always")
def _add_counters(spread: Any, planes: Array, top: int, counted: Array, sums: Array) -> None:
    """Add the counters of `top` planes to ``sums``; `counted` is room for a byte each."""
    for group in range(0, top, 8):
        spread(planes, group, min(top - group, 8), counted)
        scale = 1 << group  # LLVM narrows a product, but not a shift
        for j in range(len(sums)):
            sums[j] += counted[j] * scale


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
    indptr: Array, indices: Array, counts: Array, place: Array, column: Array, first: int,
    table: Array, starts: Array, ends: Array, ones: Array, more: Array,
) -> tuple[int, int]:  # fmt: skip
    """Add cells to the table; return the numbers of entries in `ones` and in `more`.

    Parameters
    ----------
    indptr, indices, counts
        CSR, int32 counts above zero, each gene once per cell.
    place
        ``[G]`` position of each gene in the table: ``plane << 14 | bit << 5 | planes``.
    column
        ``[G]`` the column of each gene.
    first
        The row of the first of these cells.
    table
        ``[planes, N + 1, GENE_LANES]`` words, the rows of these cells zero.
    starts
        ``[G + 1]``: the number of ones of column g is added to ``starts[g + 1]``.
    ends, ones
        End of each of these cells among the ones; their columns, twice for a rest of 2.
    more
        Larger rests, bit by bit: ``column << 21 | level << 16 | row``.
    """
    # Unsigned numbers, since Python's negative indices would be looked for; and few branches: most
    # counts have one bit, and rests are written before it is known whether there are any.
    n: Any = 0
    m: Any = 0
    for c in range(len(indptr) - 1):
        row = np.uint64(first + c)
        for k in range(np.uint64(indptr[c]), np.uint64(indptr[c + 1])):
            gene = np.uint64(indices[k])
            at, count, to = np.uint64(place[gene]), np.uint64(counts[k]), np.uint64(column[gene])
            depth, plane = at & _DEEP, at >> _PLANE
            lane, bit = at >> _LANE & _LANES, at >> _BIT & _LOW
            low, rest = count & ((_ONE << depth) - _ONE), count >> depth
            table[plane, row, lane] |= (low & _ONE) << bit
            low >>= _ONE
            while low:
                plane += _ONE
                table[plane, row, lane] |= (low & _ONE) << bit
                low >>= _ONE
            if rest <= _REPEATED:
                for j in range(REPEATED):
                    ones[n + j] = to
                n += np.int64(rest)
                starts[to + _ONE] += np.int64(rest)
            else:
                while rest:
                    more[m] = np.int64(to << np.uint64(21) | depth << np.uint64(16) | row)
                    m += np.int64(rest & _ONE)
                    rest >>= _ONE
                    depth += _ONE
        ends[c] = n
    return n, m


@njit(nogil=True, cache=True)
def sort_by_column(ends: Array, columns: Array, first: int, cursor: Array, rows: Array) -> None:
    """Sort the rows of CSR entries by column; ``cursor[G]`` is the next position of each column."""
    k = 0
    for row in range(len(ends)):
        while k < ends[row]:
            rows[cursor[columns[k]]] = first + row
            cursor[columns[k]] += 1
            k += 1


@njit(nogil=True, cache=True)
def most_often(cells: Array, span: Array) -> int:
    """Return the largest number of times that a sample has a cell; `cells`, `span` as in `mark`."""
    most = 0
    for sample in range(cells.shape[0]):
        before, times = -1, 0
        for i in range(span[sample, 0], span[sample, 1]):
            times = times + 1 if cells[sample, i] == before else 1
            before = cells[sample, i]
            most = max(most, times)
    return most


@njit(nogil=True, cache=True)
def mark(cells: Array, span: Array, first: int, bits: Array, often: Array) -> None:
    """Mark the samples that have each cell.

    Parameters
    ----------
    cells
        ``[S, n]`` the cells of each sample, ascending; one drawn twice is there twice. S is at most
        `SAMPLES`.
    span
        ``[S, 2]`` the range of them in this piece, whose row 0 is cell number `first`.
    bits
        ``[L, N + 1, SAMPLE_LANES]`` zero before: bit s of a row says that the number of
        times that sample s has the cell has this bit.
    often
        ``[L, N]``, initially zero: whether a row has any bit at this level or above.
    """
    for sample in range(cells.shape[0]):
        lane, bit = sample >> 6, _ONE << (np.uint64(sample) & _LOW)
        i = span[sample, 0]
        while i < span[sample, 1]:
            cell, times = cells[sample, i], 0
            while i < span[sample, 1] and cells[sample, i] == cell:
                times += 1
                i += 1
            level = 0
            while times:
                if times & 1:
                    bits[level, cell - first, lane] |= bit
                often[level, cell - first] = 1
                times >>= 1
                level += 1


@njit(nogil=True, cache=True)
def add_table(
    table: Array, planes_of: Array, starts: Array, rows: Array, span: Array, begin: int, end: int,
    out: Array,
) -> None:  # fmt: skip
    """Add blocks `begin` to `end` of the table to ``out[S, G]``, for the drawn cells.

    Parameters
    ----------
    table
        ``[planes, N + 1, GENE_LANES]`` words.
    planes_of, starts
        ``[B + 1]`` the first plane of each block of genes, and its first column.
    rows, span
        ``[S, n]`` the row of each drawn cell, and ``[S, 2]`` the range of those in the table.
    """
    planes, tail = np.empty((_DEPTH, GENE_LANES), np.uint64), np.empty(_FEW, rows.dtype)
    counted = np.empty(GENES, np.uint8)
    for block in range(begin, end):
        start, width = starts[block], starts[block + 1] - starts[block]
        for sample in range(out.shape[0]):
            top = most = 0
            for plane in range(planes_of[block], planes_of[block + 1]):
                top, most = _count(
                    _add_genes, _add_few_genes, table[plane], rows[sample], span[sample, 0],
                    span[sample, 1], tail, planes, plane - planes_of[block], top, most,
                )  # fmt: skip
            _add_counters(_spread_genes, planes, top, counted, out[sample, start : start + width])


@njit(nogil=True, cache=True)
def add_listed(
    starts: Array, ones: Array, level_of: Array, more_starts: Array, more_levels: Array,
    more: Array, bits: Array, often: Array, seldom: Array, begin: int, end: int, out: Array,
) -> None:  # fmt: skip
    """Add the listed part to ``out[S, begin:end]``, gene by gene for all samples at once.

    Parameters
    ----------
    starts, ones
        By column, the rows with a rest beyond the table (twice for 2).
    level_of
        ``[G]`` the bit of the counts that the `ones` of each column represent.
    more_starts, more_levels, more
        By column, single bits: levels and rows, in the same order.
    bits, often
        The samples' bits, from `mark`.
    seldom
        ``[L]`` whether few rows have any bit at a level or above, so that it pays to leave out the
        others first.
    """
    planes, tail = np.empty((_DEPTH, SAMPLE_LANES), np.uint64), np.empty(_FEW, ones.dtype)
    counted, some = np.empty(SAMPLES, np.uint8), np.empty(0, ones.dtype)
    n = out.shape[0]
    sums = np.empty((_TOGETHER, n), out.dtype)
    for left in range(begin, end, _TOGETHER):
        right = min(left + _TOGETHER, end)
        if starts[left] == starts[right] and more_starts[left] == more_starts[right]:
            continue
        for column in range(left, right):
            top = most = 0
            a, b, level = starts[column], starts[column + 1], level_of[column]
            rows, last = ones, more_starts[column]
            while True:
                if b - a > len(some):
                    some = np.empty(2 * (b - a), ones.dtype)
                for at in range(bits.shape[0]):
                    if seldom[at]:
                        k = 0
                        for i in range(a, b):
                            some[k] = rows[i]
                            k += often[at, rows[i]]
                        rows, a, b = some, 0, k
                    top, most = _count(
                        _add_samples, _add_few_samples, bits[at], rows, a, b, tail, planes,
                        level + at, top, most,
                    )  # fmt: skip
                if last == more_starts[column + 1]:
                    break
                a, rows, level = last, more, more_levels[last]
                while last < more_starts[column + 1] and more_levels[last] == level:
                    last += 1
                b = last
            total = sums[column - left]
            for s in range(n):
                total[s] = 0
            _add_counters(_spread_samples, planes, top, counted, total)
        for s in range(n):
            for j in range(right - left):
                out[s, left + j] += sums[j, s]


@njit(nogil=True, cache=True)
def restore(sums: Array, order: Array) -> None:
    """Permute columns back to genes: column j is gene ``order[j]``."""
    row = np.empty(sums.shape[1], sums.dtype)
    for sample in range(sums.shape[0]):
        for j in range(len(order)):
            row[j] = sums[sample, j]
        for j in range(len(order)):
            sums[sample, order[j]] = row[j]
