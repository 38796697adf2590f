"""Sums of drawn cells, some of them drawn more than once.

A cell has values in a tenth of its genes, yet adding these one by one takes longer than adding most
genes of a table: 64 genes are 32 bytes, one instruction, where each single value needs a load, an
addition and a store of its own. So genes are kept in one of three ways, whichever is cheapest:

- in half a byte, counts up to `HALF`: five cells are added before a half byte overflows;
- in a byte, counts up to `WHOLE`: eight cells are added;
- alone: genes of few cells, and of the others what counts have beyond those limits.

A block of the table has `ROW` bytes of each cell; those of a few thousand cells stay in the cache
while all samples add up their rows of it. A lane is eight bytes, added as one number; totals are 16
bits, those of even and of odd bytes apart, since no instruction then has to move a byte to another
lane. Columns of the sums are in that order; `restore` puts genes back into theirs.

Serial, without the GIL: callers share the samples among their own threads.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import njit
from numpy.typing import NDArray

Array = NDArray[Any]

#: Bytes of a cell in a block: with 2,048 cells they are half a MiB.
ROW = 256
_LANES = ROW // 8
#: The largest count in half a byte: five of them fit it. In a byte: eight fit, 2,048 fit 16 bits.
HALF, WHOLE = 3, 31
#: What `pack` finds in the lowest bits of a gene's place.
LOW, HIGH, BYTE = 0, 1, 2
_ROWS = 2048
#: How often a sample may have a cell for `add_alone`.
MOST_TIMES = 255
_TOGETHER = 16  # columns whose sums are written at once: a line of the cache
_BEFORE_HALF, _BEFORE_BYTE = 5, 85  # cells whose sums fit half a byte, a byte
_LOW_HALVES = np.uint64(0x0F0F0F0F0F0F0F0F)
_EVEN_BYTES = np.uint64(0x00FF00FF00FF00FF)
_FOUR, _EIGHT = np.uint64(4), np.uint64(8)


def position(slot: Array, *, halves: bool) -> Array:
    """Return where in a block's row the genes at some columns of the block lie: byte and kind.

    The totals of a block are the low halves of even bytes, of odd bytes, then the high halves
    alike; of whole bytes, the even ones and the odd ones.
    """
    part, rest = np.divmod(slot, ROW // 2)
    byte = rest // 4 * 8 + rest % 4 * 2 + part % 2
    place: Array = byte << 2 | (np.where(part >= 2, HIGH, LOW) if halves else BYTE)
    return place


@njit(nogil=True, cache=True)
def pack(
    indptr: Array, indices: Array, counts: Array, place: Array, table: Array, ends: Array,
    genes: Array, left: Array,
) -> int:  # fmt: skip
    """Put cells into the rows of a table; return how much stays alone.

    Parameters
    ----------
    indptr, indices, counts
        CSR, int32 counts above zero, each gene once a cell.
    place
        ``[G]`` where each gene lies: ``block << 10 | byte << 2 | kind``, or -1: alone.
    table
        ``[B, cells, ROW]`` bytes, zero.
    ends, genes, left
        Where each of these cells ends among what stays alone; the genes; what is left of the count.
    """
    n = 0
    for c in range(len(indptr) - 1):
        for k in range(indptr[c], indptr[c + 1]):
            rest = counts[k]
            at = place[indices[k]]
            if at >= 0:
                kind = at & 3
                inside = min(rest, WHOLE if kind == BYTE else HALF)
                table[at >> 10, c, (at >> 2) & (ROW - 1)] |= np.uint8(
                    inside << (4 if kind == HIGH else 0)
                )
                rest -= inside
            if rest > 0:
                genes[n] = indices[k]
                left[n] = rest
                n += 1
        ends[c] = n
    return n


@njit(nogil=True, cache=True)
def sort_by_column(ends: Array, columns: Array, cursor: Array, rows: Array) -> None:
    """Put the rows of CSR entries by column: ``cursor[G]`` is where each column begins."""
    k = 0
    for row in range(len(ends)):
        while k < ends[row]:
            rows[cursor[columns[k]]] = row
            cursor[columns[k]] += 1
            k += 1


@njit(nogil=True, cache=True, inline="always")
def _add5(rows: Array, drawn: Array, i: int, first: int, low: Array, high: Array) -> None:
    """Add five cells in half bytes, then in bytes."""
    a, b = np.uint32(drawn[i] - first), np.uint32(drawn[i + 1] - first)
    c, d = np.uint32(drawn[i + 2] - first), np.uint32(drawn[i + 3] - first)
    e = np.uint32(drawn[i + 4] - first)
    for q in range(_LANES):
        part = rows[a, q] + rows[b, q] + rows[c, q] + rows[d, q] + rows[e, q]
        low[q] += part & _LOW_HALVES
        high[q] += (part >> _FOUR) & _LOW_HALVES


@njit(nogil=True, cache=True, inline="always")
def _add8(rows: Array, drawn: Array, i: int, first: int, total: Array) -> None:
    """Add eight cells in bytes, then in 16 bits."""
    a, b = np.uint32(drawn[i] - first), np.uint32(drawn[i + 1] - first)
    c, d = np.uint32(drawn[i + 2] - first), np.uint32(drawn[i + 3] - first)
    e, f = np.uint32(drawn[i + 4] - first), np.uint32(drawn[i + 5] - first)
    g, h = np.uint32(drawn[i + 6] - first), np.uint32(drawn[i + 7] - first)
    for q in range(_LANES):
        part = (
            rows[a, q] + rows[b, q] + rows[c, q] + rows[d, q]
            + rows[e, q] + rows[f, q] + rows[g, q] + rows[h, q]
        )  # fmt: skip
        total[q] += part & _EVEN_BYTES
        total[_LANES + q] += (part >> _EIGHT) & _EVEN_BYTES


@njit(nogil=True, cache=True)
def _add_halves(
    rows: Array, drawn: Array, i: int, last: int, first: int, low: Array, high: Array, total: Array
) -> None:
    while i < last:
        stop = min(i + _BEFORE_BYTE, last)
        for q in range(_LANES):
            low[q] = 0
            high[q] = 0
        while i + _BEFORE_HALF <= stop:
            _add5(rows, drawn, i, first, low, high)
            i += _BEFORE_HALF
        while i < stop:
            row = np.uint32(drawn[i] - first)
            for q in range(_LANES):
                low[q] += rows[row, q] & _LOW_HALVES
                high[q] += (rows[row, q] >> _FOUR) & _LOW_HALVES
            i += 1
        for q in range(_LANES):
            total[q] += low[q] & _EVEN_BYTES
            total[_LANES + q] += (low[q] >> _EIGHT) & _EVEN_BYTES
            total[2 * _LANES + q] += high[q] & _EVEN_BYTES
            total[3 * _LANES + q] += (high[q] >> _EIGHT) & _EVEN_BYTES


@njit(nogil=True, cache=True)
def _add_bytes(rows: Array, drawn: Array, i: int, last: int, first: int, total: Array) -> None:
    while i + 8 <= last:
        _add8(rows, drawn, i, first, total)
        i += 8
    while i < last:
        row = np.uint32(drawn[i] - first)
        for q in range(_LANES):
            total[q] += rows[row, q] & _EVEN_BYTES
            total[_LANES + q] += (rows[row, q] >> _EIGHT) & _EVEN_BYTES
        i += 1


@njit(nogil=True, cache=True)
def add_drawn(
    table: Array, halves: int, starts: Array, first: int, cells: Array, bounds: Array, out: Array
) -> None:
    """Add to ``out[S, G]`` what drawn cells hold in the table of one piece.

    Parameters
    ----------
    table
        ``[B, rows, ROW / 8]`` lanes, of cells `first` and on; the first `halves` blocks hold half
        bytes.
    starts
        ``[B + 1]`` the column of the sums at which each block begins.
    cells
        ``[S, n]`` the cells of each sample, ascending; one drawn twice is there twice.
    bounds
        ``[S, parts + 1]`` where in `cells` each part of the piece begins; a part's rows of a block
        stay in the cache.
    """
    low, high = np.empty(_LANES, np.uint64), np.empty(_LANES, np.uint64)
    total = np.empty(4 * _LANES, np.uint64)
    of_gene = total.view(np.uint16)
    for block in range(table.shape[0]):
        rows = table[block]
        start, width = starts[block], starts[block + 1] - starts[block]
        for part in range(bounds.shape[1] - 1):
            for sample in range(out.shape[0]):
                i, last = bounds[sample, part], bounds[sample, part + 1]
                while i < last:
                    stop = min(i + _ROWS, last)
                    for q in range(4 * _LANES):
                        total[q] = 0
                    if block < halves:
                        _add_halves(rows, cells[sample], i, stop, first, low, high, total)
                    else:
                        _add_bytes(rows, cells[sample], i, stop, first, total)
                    sums = out[sample, start : start + width]
                    for j in range(width):
                        sums[j] += of_gene[j]
                    i = stop


@njit(nogil=True, cache=True)
def count_draws(cells: Array, span: Array, first: int, times: Array) -> int:
    """Count in ``times[rows, S]``, zero before, how often each sample has each cell of a piece.

    Returns the largest number; more than `MOST_TIMES` if the bytes do not hold it.
    """
    most = 0
    for sample in range(cells.shape[0]):
        for i in range(span[sample, 0], span[sample, 1]):
            row = cells[sample, i] - first
            if times[row, sample] == MOST_TIMES:
                return MOST_TIMES + 1
            times[row, sample] += 1
            most = max(most, times[row, sample])
    return most


@njit(nogil=True, cache=True)
def add_alone(
    starts: Array, ones: Array, more_starts: Array, more: Array, values: Array, times: Array,
    most: int, out: Array,
) -> None:  # fmt: skip
    """Add what is not in the table, gene by gene to all samples at once.

    A gene's cells are few, but a cell is in many samples: bytes of `times` are added, eight samples
    in an instruction, and go to the sums before they overflow.

    Parameters
    ----------
    starts, ones
        By column of the sums, rows of the piece that have one count there (several times for
        several).
    more_starts, more, values
        The same for larger counts.
    times, most
        ``[rows, S / 8]`` lanes of how often each sample has each cell; the largest such number.
    """
    lanes, n = times.shape[1], out.shape[0]
    in_bytes = np.empty(lanes, np.uint64)
    bytes_ = in_bytes.view(np.uint8)
    sums = np.empty((_TOGETHER, n), out.dtype)
    before = MOST_TIMES // max(most, 1)
    for left in range(0, out.shape[1], _TOGETHER):
        right = min(left + _TOGETHER, out.shape[1])
        if starts[left] == starts[right] and more_starts[left] == more_starts[right]:
            continue
        for j in range(right - left):
            total = sums[j]
            for s in range(n):
                total[s] = 0
            k, last = starts[left + j], starts[left + j + 1]
            while k < last:
                stop = min(k + before, last)
                for q in range(lanes):
                    in_bytes[q] = 0
                while k < stop:
                    row = np.uint32(ones[k])
                    for q in range(lanes):
                        in_bytes[q] += times[row, q]
                    k += 1
                for s in range(n):
                    total[s] += bytes_[s]
            for k in range(more_starts[left + j], more_starts[left + j + 1]):
                row = np.uint32(more[k])
                for q in range(lanes):
                    in_bytes[q] = times[row, q]
                for s in range(n):
                    total[s] += values[k] * bytes_[s]
        for s in range(n):
            for j in range(right - left):
                out[s, left + j] += sums[j, s]


@njit(nogil=True, cache=True)
def samples_of(cells: Array, span: Array, first: int, ends: Array, samples: Array) -> None:
    """List the samples that have each cell, one that has it twice twice.

    ``ends[rows + 1]`` begins as zeros; the samples of row r are then ``ends[r]:ends[r + 1]`` of
    ``samples``.
    """
    for sample in range(cells.shape[0]):
        for i in range(span[sample, 0], span[sample, 1]):
            ends[cells[sample, i] - first + 1] += 1
    for row in range(1, len(ends)):
        ends[row] += ends[row - 1]
    at = ends.copy()
    for sample in range(cells.shape[0]):
        for i in range(span[sample, 0], span[sample, 1]):
            row = cells[sample, i] - first
            samples[at[row]] = sample
            at[row] += 1


@njit(nogil=True, cache=True)
def add_alone_seldom(
    starts: Array, rows: Array, values: Array, ends: Array, samples: Array, out: Array
) -> None:
    """Add one by one, where a cell is in few samples; `ends` and `samples` are of `samples_of`.

    Without `values` all are one.
    """
    one = len(values) == 0
    for column in range(out.shape[1]):
        for k in range(starts[column], starts[column + 1]):
            row = np.uint32(rows[k])
            value = np.int32(1) if one else values[k]
            for i in range(ends[row], ends[row + 1]):
                out[samples[i], column] += value


@njit(nogil=True, cache=True)
def restore(sums: Array, order: Array) -> None:
    """Put columns where their genes belong: column j is gene ``order[j]``."""
    row = np.empty(sums.shape[1], sums.dtype)
    for sample in range(sums.shape[0]):
        for j in range(len(order)):
            row[j] = sums[sample, j]
        for j in range(len(order)):
            sums[sample, order[j]] = row[j]
