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

Bits above those of the table are also listed, so sums are exact for all counts. Sums stay counters
or bytes until `complete` turns them into rows of numbers.

Legend: N cells of a piece, followed by one zero row; L levels, the bits of how often a sample has a
cell. Serial, without the GIL: callers divide samples or genes among their own threads.
"""

# ruff: noqa: PLR0913, PLR0917  # kernels take arrays, not objects
from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from vcell.kernels.counters import RUN, TURNED, adder, spreader, turn
from vcell.kernels.kernel import njit
from vcell.kernels.packing import GENE_LANES, GENES

Array = NDArray[Any]

#: Words of a row of samples, and their bits.
SAMPLE_LANES = 8
SAMPLES = 64 * SAMPLE_LANES
#: Planes of counters: more than the bits of any sum.
_DEPTH = 64
_SQUARES = TURNED * RUN  # bytes that are turned at once


_add_genes, _spread_genes = adder(GENE_LANES), spreader(GENE_LANES)
_add_samples, _spread_samples = adder(SAMPLE_LANES), spreader(SAMPLE_LANES)


@njit(nogil=True, cache=True)
def _lines(n: int, lanes: int) -> Array:
    """Return working memory that is aligned to cache lines: what crosses them is not forwarded."""
    raw = np.empty((n + 2) * lanes, np.uint64)
    skipped = -raw.ctypes.data % 64 // 8
    return raw[skipped : skipped + n * lanes].reshape(n, lanes)


@njit(nogil=True, cache=True, inline="always")
def _make_room(planes: Array, first: int, top: int, most: int, level: int) -> int:
    """Clear planes until counters hold values up to `most`, and the adder can add to a level."""
    while (1 << top) <= most or top < level + 4:
        for q in range(planes.shape[1]):
            planes[first + top, q] = 0
        top += 1
    return top


@njit(nogil=True, cache=True)
def find(cells: Array, bounds: Array, cuts: Array) -> int:
    """Find each sample's cells in the ranges of a piece.

    Parameters
    ----------
    cells
        ``[S, n]`` the cells of each sample, ascending; one drawn twice is there twice.
    bounds
        ``[R + 1]`` the first cell of each range, and the end of the last.
    cuts
        ``[S, R + 1]`` position of the first cell of each range.

    Returns
    -------
    int
        The largest number of times that a sample has one of the cells.
    """
    most = 0
    for sample in range(cells.shape[0]):
        i, before, times = 0, -1, 0
        for at in range(len(bounds)):
            while i < cells.shape[1] and cells[sample, i] < bounds[at]:
                if at:
                    times = times + 1 if cells[sample, i] == before else 1
                    before = cells[sample, i]
                    most = max(most, times)
                i += 1
            cuts[sample, at] = i
    return most


@njit(nogil=True, cache=True)
def mark(cells: Array, cuts: Array, first: int, bits: Array, often: Array) -> None:
    """Mark the samples that have each cell.

    Parameters
    ----------
    cells, cuts
        As in `find`; at most `SAMPLES` samples.
    first
        The cell of row 0.
    bits
        ``[L, N + 1, SAMPLE_LANES]`` zero before: bit s of a row says that the number of
        times that sample s has the cell has this bit.
    often
        ``[L, N]``, initially zero: whether a row has any bit at this level or above.
    """
    for sample in range(cells.shape[0]):
        lane, bit = sample >> 6, np.uint64(1) << np.uint64(sample & 63)
        i, end = cuts[sample, 0], cuts[sample, -1]
        while i < end:
            cell, times = cells[sample, i], 0
            while i < end and cells[sample, i] == cell:
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
    table: Array, planes_of: Array, rows: Array, cuts: Array, begin: int, end: int, tops: Array,
    at: Array, counters: Array,
) -> None:  # fmt: skip
    """Add up the drawn cells of the table's blocks `begin` to `end`, a range of cells at a time.

    Parameters
    ----------
    table
        ``[planes, N + 1, GENE_LANES]`` words.
    planes_of
        ``[B + 1]`` the first plane of each block of genes.
    rows, cuts
        ``[S, n]`` the row of each drawn cell; the ranges from `find`.
    tops
        ``[planes]`` planes of counters for the sums of a block's planes up to this one; the adder
        needs four from a plane on.
    at, counters
        The sums: ``[tops, GENE_LANES]`` words for each sample of a block, whose first row is
        ``at[B]``.
    """
    n, words, listed = table.shape[1], table.reshape(-1, GENE_LANES), rows.reshape(-1)
    for block in range(begin, end):
        first, last = planes_of[block], planes_of[block + 1] - 1
        depth = tops[last]
        for row in range(at[block], at[block] + depth * rows.shape[0]):
            for q in range(GENE_LANES):
                counters[row, q] = 0
        for plane in range(first, last + 1):
            for part in range(cuts.shape[1] - 1):
                for sample in range(rows.shape[0]):
                    start = sample * rows.shape[1]
                    a, b = start + cuts[sample, part], start + cuts[sample, part + 1]
                    if a < b:
                        _add_genes(
                            words, plane * n, plane * n + n - 1, listed, a, b, counters,
                            at[block] + sample * depth, plane - first, tops[plane],
                        )  # fmt: skip


@njit(nogil=True, cache=True)
def add_listed(
    starts: Array, ones: Array, level_of: Array, more_starts: Array, more_levels: Array,
    more: Array, bits: Array, often: Array, seldom: Array, begin: int, end: int, low: Array,
    high_genes: Array, high: Array,
) -> int:  # fmt: skip
    """Add up the listed parts of genes `begin` to `end`, gene by gene for all samples at once.

    Parameters
    ----------
    starts, ones
        By gene, the rows with a rest beyond the table (twice for 2).
    level_of
        ``[G]`` the bit of the counts that the `ones` of each gene represent.
    more_starts, more_levels, more
        By gene, single bits: levels and rows, in the same order.
    bits, often
        The samples' bits, from `mark`.
    seldom
        ``[L]`` whether few rows have any bit at a level or above, so that it pays to leave out the
        others first.
    low
        ``[G / TURNED, SAMPLES / RUN, TURNED, RUN]`` the lowest bytes of the sums.
    high_genes, high
        The genes with sums that need more than a byte, and ``[genes, SAMPLES]`` their sums without
        these bytes. Returns the number of these genes; if there is not enough room for them, the
        last ones are missing.
    """
    planes, words = _lines(_DEPTH, SAMPLE_LANES), bits.reshape(-1, SAMPLE_LANES)
    counted, large, longest = np.empty(SAMPLES, np.uint8), 0, 0
    for gene in range(begin, end):
        longest = max(longest, starts[gene + 1] - starts[gene])
        longest = max(longest, more_starts[gene + 1] - more_starts[gene])
    some = np.empty(longest, ones.dtype)
    for gene in range(begin, end):
        top, most = _add_list(
            words, ones, starts[gene], starts[gene + 1], often, seldom, some, planes,
            level_of[gene], 0, 0,
        )  # fmt: skip
        last = more_starts[gene]
        while last < more_starts[gene + 1]:
            first, level = last, more_levels[last]
            while last < more_starts[gene + 1] and more_levels[last] == level:
                last += 1
            top, most = _add_list(
                words, more, first, last, often, seldom, some, planes, level, top, most
            )
        while top > 8 and _is_zero(planes, top - 1):
            top -= 1
        first = gene // TURNED * _SQUARES * low.shape[1] + gene % TURNED * RUN
        _spread_samples(planes, 0, 0, min(top, 8), low, first, _SQUARES)
        if top > 8:
            if large < len(high):
                high_genes[large] = gene
                high[large] = 0
                for group in range(8, top, 8):
                    _spread_samples(planes, 0, group, min(top - group, 8), counted, 0, RUN)
                    for s in range(SAMPLES):
                        high[large, s] += np.int64(counted[s]) << group
            large += 1
    return large


@njit(nogil=True, cache=True)
def _add_list(
    words: Array, rows: Array, begin: int, end: int, often: Array, seldom: Array, some: Array,
    planes: Array, level: int, top: int, most: int,
) -> tuple[int, int]:  # fmt: skip
    """Add a part of a list; return the new number of planes and largest possible sum."""
    n, k, chosen = often.shape[1] + 1, 0, False
    for at in range(len(often)):
        if seldom[at]:
            m = 0
            if chosen:
                for i in range(k):
                    row = some[i]
                    some[m] = row
                    m += often[at, row]
            else:
                for i in range(begin, end):
                    some[m] = rows[i]
                    m += often[at, rows[i]]
            k, chosen = m, True
        listed = k if chosen else end - begin
        if not listed:
            break
        most += listed << level + at
        top = _make_room(planes, 0, top, most, level + at)
        if chosen:
            _add_samples(words, at * n, at * n + n - 1, some, 0, k, planes, 0, level + at, top)
        else:
            _add_samples(
                words, at * n, at * n + n - 1, rows, begin, end, planes, 0, level + at, top
            )
    return top, most


@njit(nogil=True, cache=True)
def _is_zero(planes: Array, plane: int) -> bool:
    bits = np.uint64(0)
    for q in range(planes.shape[1]):
        bits |= planes[plane, q]
    return not bits


@njit(nogil=True, cache=True)
def complete(
    low: Array, high_genes: Array, high: Array, counters: Array, at: Array, depths: Array,
    starts: Array, order: Array, old: int, first: int, begin: int, end: int, out: Array,
) -> None:  # fmt: skip
    """Put the sums of the table and of the lists together, for rows `begin` to `end` of ``out``.

    Parameters
    ----------
    low, high_genes, high
        From `add_listed`.
    counters, at, depths
        From `add_table`; the number of planes of each block.
    starts, order
        ``[B + 1]`` where the genes of each block of the table begin in `order`.
    old
        -1 if the sums are added to `out`, 0 if they replace what it holds.
    first
        The sample in the first row of `out`; this and `begin` are multiples of `RUN`.
    """
    turned = np.empty((RUN, TURNED * len(low)), np.uint8)
    counted, total = np.empty(GENES, np.uint8), np.empty(GENES, out.dtype)
    tabled = np.zeros(out.shape[1], out.dtype)
    for top in range(begin, end, RUN):
        turn(low, (first + top) // RUN * _SQUARES, turned, turned.shape[1], _SQUARES * low.shape[1])
        for row in range(top, min(top + RUN, end)):
            for block in range(len(depths)):
                depth = depths[block]
                plane = at[block] + (first + row) * depth
                for level in range(0, depth, 8):
                    _spread_genes(counters, plane, level, min(depth - level, 8), counted, 0, RUN)
                    scale = 1 << level  # LLVM narrows a product, but not a shift
                    if level:
                        for j in range(GENES):
                            total[j] += counted[j] * scale
                    else:
                        for j in range(GENES):
                            total[j] = counted[j]
                start = np.uint64(starts[block])
                for j in range(np.uint64(starts[block + 1]) - start):
                    tabled[order[start + j]] = total[j]
            sums, listed = out[row], turned[row - top]
            for gene in range(len(sums)):
                sums[gene] = (sums[gene] & old) + tabled[gene] + listed[gene]
            for k in range(len(high)):
                sums[high_genes[k]] += high[k, first + row]
