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
_ONE, _SIX, _LOW = np.uint64(1), np.uint64(6), np.uint64(63)

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
    n = m = 0
    for c in range(len(indptr) - 1):
        row = first + c
        for k in range(indptr[c], indptr[c + 1]):
            at = place[indices[k]]
            depth, bit, plane = at & 31, np.uint64(at >> 5 & (GENES - 1)), at >> 14
            for j in range(depth):
                if counts[k] >> j & 1:
                    table[plane + j, row, bit >> _SIX] |= _ONE << (bit & _LOW)
            rest, to = counts[k] >> depth, column[indices[k]]
            if rest <= REPEATED:
                for _ in range(rest):
                    ones[n] = to
                    n += 1
                starts[to + 1] += rest
            else:
                while rest:
                    if rest & 1:
                        more[m] = np.int64(to) << 21 | depth << 16 | row
                        m += 1
                    rest >>= 1
                    depth += 1
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
def mark(
    cells: Array, span: Array, first: int, bits: Array, often: Array, lists: Array, ends: Array
) -> None:
    """Mark the samples that have each cell, and list the cells of each sample.

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
        ``[L, N]``, initially zero: whether a row of `bits` has any bit.
    lists, ends
        ``[S, n]`` and ``[S, L]``: the rows of each sample, level by level, and the ends of the
        levels.
    """
    rest, times = np.empty(cells.shape[1], np.int64), np.empty(cells.shape[1], np.int64)
    for sample in range(cells.shape[0]):
        lane, bit = sample >> 6, _ONE << (np.uint64(sample) & _LOW)
        i, n, k = span[sample, 0], 0, 0
        while i < span[sample, 1]:  # the first level, and the rest for the others
            cell, begin = cells[sample, i], i
            while i < span[sample, 1] and cells[sample, i] == cell:
                i += 1
            if (i - begin) & 1:
                bits[0, cell - first, lane] |= bit
                often[0, cell - first] = 1
                lists[sample, k] = cell - first
                k += 1
            if i - begin > 1:
                rest[n], times[n] = cell - first, (i - begin) >> 1
                n += 1
        ends[sample, 0] = k
        for level in range(1, bits.shape[0]):
            kept = 0
            for j in range(n):
                row, left = rest[j], times[j]
                if left & 1:
                    bits[level, row, lane] |= bit
                    often[level, row] = 1
                    lists[sample, k] = row
                    k += 1
                if left > 1:
                    rest[kept], times[kept] = row, left >> 1
                    kept += 1
            n = kept
            ends[sample, level] = k


@njit(nogil=True, cache=True)
def add_table(
    table: Array, planes_of: Array, starts: Array, lists: Array, ends: Array, out: Array
) -> None:
    """Add the table's part of the drawn cells to ``out[S, G]``.

    Parameters
    ----------
    table
        ``[planes, N + 1, GENE_LANES]`` words.
    planes_of, starts
        ``[B + 1]`` the first plane of each block of genes, and its first column.
    lists, ends
        The rows of each sample, from `mark`.
    """
    planes, tail = np.empty((_DEPTH, GENE_LANES), np.uint64), np.empty(_FEW, lists.dtype)
    counted = np.empty(GENES, np.uint8)
    for block in range(len(starts) - 1):
        start, width = starts[block], starts[block + 1] - starts[block]
        for sample in range(out.shape[0]):
            top = most = 0
            for plane in range(planes_of[block], planes_of[block + 1]):
                begin = 0
                for level in range(ends.shape[1]):
                    end = ends[sample, level]
                    top, most = _count(
                        _add_genes, _add_few_genes, table[plane], lists[sample], begin, end, tail,
                        planes, plane - planes_of[block] + level, top, most,
                    )  # fmt: skip
                    begin = end
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
        ``[L]`` whether few rows of a level have any bit, so that it pays to check `often` first.
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
                    mine, first, stop = rows, a, b
                    if seldom[at]:
                        k = 0
                        for i in range(a, b):
                            some[k] = rows[i]
                            k += often[at, rows[i]]
                        mine, first, stop = some, 0, k
                    top, most = _count(
                        _add_samples, _add_few_samples, bits[at], mine, first, stop, tail,
                        planes, level + at, top, most,
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
