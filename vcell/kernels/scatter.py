"""Sorting cells into buckets: the two passes of a shuffle that does not fit in memory.

`measure` checks a block of CSR rows (totals, genes, whether they are counts), `scatter` writes the
kept rows by bucket in small types and updates the statistics of genes, `reorder` sorts the rows of
one bucket into their final order. Serial, without the GIL.
"""

# ruff: noqa: PLR0913, PLR0917  # kernels take arrays, not objects
from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from vcell.kernels.kernel import njit

Array = NDArray[Any]

#: Columns of the statistics of genes.
N_CELLS, SUM, SUM_SQUARES, MAX = 0, 1, 2, 3
#: Bits of the faults that `measure` finds in a row.
FRACTION, NEGATIVE, NOT_FINITE, INEXACT = 1, 2, 4, 8
#: The u16 in place of a count that does not fit, which is listed separately.
ESCAPE = 65_535


_LARGEST = 4_294_967_295.0  # of 32 bits


# reassoc lets LLVM vectorise sums; those of whole numbers are exact in any order
@njit(nogil=True, cache=True, fastmath={"reassoc"})
def _counts(val: Array) -> tuple[int, int, float]:
    """Count values that are 32-bit whole numbers, and those exact in float32; sum all."""
    whole, exact, total = 0, 0, 0.0
    for j in range(val.shape[0]):
        x = np.float64(val[j])
        whole += (x >= 0.0) & (x <= _LARGEST) & (np.floor(x) == x)
        exact += np.float64(np.float32(x)) == x
        total += x
    return whole, exact, total


@njit(nogil=True, cache=True)
def measure(
    indptr: Array,
    idx: Array,
    val: Array,
    mito: Array,
    column: Array,
    total: Array,
    mito_total: Array,
    genes: Array,
    length: Array,
    flags: Array,
) -> None:
    """Compute per row: sum, mitochondrial sum, genes above zero, kept length, and faults.

    Blocks hold no zeros. `column[g] < 0` marks genes that the store leaves out.
    """
    any_mito, all_kept = mito.any(), (column >= 0).all()
    for r in range(indptr.shape[0] - 1):
        a, b = indptr[r], indptr[r + 1]
        whole, exact, t = _counts(val[a:b])
        odd = INEXACT if exact < b - a else 0
        if whole < b - a:
            t = 0.0
            for j in range(a, b):
                x = np.float64(val[j])
                if not np.isfinite(x):
                    odd |= NOT_FINITE
                elif x < 0:
                    odd |= NEGATIVE
                elif x != np.floor(x) or x > _LARGEST:
                    odd |= FRACTION
                t += x
        m = 0.0
        if any_mito:
            for j in range(a, b):
                if mito[idx[j]]:
                    m += np.float64(val[j])
        kept = b - a
        if not all_kept:
            kept = 0
            for j in range(a, b):
                kept += column[idx[j]] >= 0
        total[r] = t
        mito_total[r] = m
        genes[r] = b - a
        length[r] = kept
        flags[r] = odd


@njit(nogil=True, cache=True)
def place(
    bucket: Array, keep: Array, length: Array, n_buckets: int, segment: Array, at: Array
) -> None:
    """Compute the position of each kept row of a block, by bucket and in order within."""
    for b in range(n_buckets + 1):
        segment[b] = 0
    for r in range(bucket.shape[0]):
        if keep[r]:
            segment[bucket[r] + 1] += length[r]
    for b in range(n_buckets):
        segment[b + 1] += segment[b]
    cursor = segment[:n_buckets].copy()
    for r in range(bucket.shape[0]):
        if keep[r]:
            at[r] = cursor[bucket[r]]
            cursor[bucket[r]] += length[r]


# Statistics of a gene in one number, from counts below _SMALL in up to _ROWS rows: how many, their
# sum and their sum of squares, in 15, 21 and 28 bits. A quarter of the memory is touched a count.
_SMALL, _ROWS = 128, 1 << 14
_SUM_AT, _SQUARES_AT = 15, 36


@njit(nogil=True, cache=True)
def _add(idx: Array, val: Array, packed: Array, top: Array, stats: Array) -> None:
    """Add the counts of a row to the statistics of genes."""
    for j in range(idx.shape[0]):
        c, k = np.uint32(idx[j]), np.int64(val[j])
        if k < _SMALL:
            packed[c] += np.int64(1) | k << _SUM_AT | (k * k) << _SQUARES_AT
            if k > top[c]:  # noqa: PLR1730 - storing each time takes longer
                top[c] = k
        else:
            x = np.float64(k)
            stats[c, N_CELLS] += 1
            stats[c, SUM] += x
            stats[c, SUM_SQUARES] += x * x
            stats[c, MAX] = max(stats[c, MAX], x)


@njit(nogil=True, cache=True)
def _unpack(packed: Array, top: Array, stats: Array) -> None:
    """Move the packed statistics into the others; sums below 2^53 are exact in any order."""
    for c in range(stats.shape[0]):
        p, s = packed[c], stats[c]
        s[N_CELLS] += p & ((1 << _SUM_AT) - 1)
        s[SUM] += (p >> _SUM_AT) & ((1 << (_SQUARES_AT - _SUM_AT)) - 1)
        s[SUM_SQUARES] += (p >> _SQUARES_AT) & ((1 << (64 - _SQUARES_AT)) - 1)
        s[MAX] = max(s[MAX], np.float64(top[c]))
        packed[c] = 0


@njit(nogil=True, cache=True)
def _narrow(idx: Array, val: Array, idx_out: Array, val_out: Array) -> int:
    """Copy a row in smaller types; return the number of escaped counts."""
    escaped = 0
    for j in range(idx.shape[0]):
        idx_out[j] = idx[j]
    for j in range(val.shape[0]):
        val_out[j] = np.uint16(min(val[j], ESCAPE))
        escaped += val[j] >= ESCAPE
    return escaped


@njit(nogil=True, cache=True)
def _choose(idx: Array, val: Array, column: Array, idx_out: Array, val_out: Array) -> int:
    """Copy the entries of a row whose column is kept, renumbered; return their number."""
    n = 0
    for j in range(idx.shape[0]):
        c = column[idx[j]]
        if c >= 0:
            idx_out[n] = c
            val_out[n] = val[j]
            n += 1
    return n


@njit(nogil=True, cache=True)
def scatter_counts(
    indptr: Array,
    idx: Array,
    val: Array,
    keep: Array,
    at: Array,
    column: Array,
    idx_out: Array,
    val_out: Array,
    stats: Array,
) -> int:
    """Write kept rows as (column, u16 count); counts from ESCAPE on become ESCAPE.

    Returns the number of escaped counts.
    """
    packed, top = np.zeros(stats.shape[0], np.int64), np.empty(stats.shape[0], np.uint8)
    for c in range(stats.shape[0]):
        top[c] = min(stats[c, MAX], _SMALL)  # few counts are larger than all before
    all_columns = (column == np.arange(column.shape[0])).all()
    longest = 0
    for r in range(0 if all_columns else indptr.shape[0] - 1):
        longest = max(longest, indptr[r + 1] - indptr[r])
    ids, values = np.empty(longest, np.int32), np.empty(longest, val.dtype)
    escaped = rows = 0
    for r in range(indptr.shape[0] - 1):
        if not keep[r]:
            continue
        a, b, to = indptr[r], indptr[r + 1], at[r]
        if all_columns:
            end = to + b - a
            _add(idx[a:b], val[a:b], packed, top, stats)
            escaped += _narrow(idx[a:b], val[a:b], idx_out[to:end], val_out[to:end])
        else:
            n = _choose(idx[a:b], val[a:b], column, ids, values)
            escaped += _narrow(ids[:n], values[:n], idx_out[to : to + n], val_out[to : to + n])
            _add(ids[:n], values[:n], packed, top, stats)
        rows += 1
        if rows % _ROWS == 0:
            _unpack(packed, top, stats)
    _unpack(packed, top, stats)
    return escaped


@njit(nogil=True, cache=True)
def escaped_counts(
    indptr: Array,
    idx: Array,
    val: Array,
    keep: Array,
    at: Array,
    column: Array,
    position: Array,
    value: Array,
) -> None:
    """List position and value of the counts that `scatter_counts` escaped."""
    n = 0
    for r in range(indptr.shape[0] - 1):
        if not keep[r]:
            continue
        to = at[r]
        for j in range(indptr[r], indptr[r + 1]):
            v = val[j]
            if column[idx[j]] < 0:
                continue
            if np.float64(v) >= ESCAPE:
                position[n] = to
                value[n] = np.uint32(v)
                n += 1
            to += 1


@njit(nogil=True, cache=True)
def scatter_values(
    indptr: Array,
    idx: Array,
    val: Array,
    keep: Array,
    at: Array,
    column: Array,
    idx_out: Array,
    val_out: Array,
    stats: Array,
) -> None:
    """Like `scatter_counts`, for values that are not counts."""
    for r in range(indptr.shape[0] - 1):
        if not keep[r]:
            continue
        to = at[r]
        for j in range(indptr[r], indptr[r + 1]):
            v = val[j]
            c = column[idx[j]]
            if c < 0:
                continue
            idx_out[to] = c
            val_out[to] = v
            to += 1
            x = np.float64(v)
            s = stats[c]
            s[N_CELLS] += 1
            s[SUM] += x
            s[SUM_SQUARES] += x * x
            s[MAX] = max(s[MAX], x)


@njit(nogil=True, cache=True)
def reorder(
    idx: Array,
    val: Array,
    src: Array,
    length: Array,
    column: Array,
    idx_out: Array,
    val_out: Array,
    new_length: Array,
) -> int:
    """Write rows consecutively, with the columns `column[c] >= 0`, renumbered.

    `src`, `length` are in the final order. Rows whose columns do not ascend (a gene subset in
    another order) are sorted. Returns the number of elements written.
    """
    to = 0
    for k in range(src.shape[0]):
        begin = to
        previous = -1
        ascending = True
        for j in range(src[k], src[k] + length[k]):
            c = column[idx[j]]
            if c >= 0:
                idx_out[to] = c
                val_out[to] = val[j]
                ascending = ascending and c > previous
                previous = c
                to += 1
        if not ascending:
            by_column = np.argsort(idx_out[begin:to])
            idx_out[begin:to] = idx_out[begin:to][by_column]
            val_out[begin:to] = val_out[begin:to][by_column]
        new_length[k] = to - begin
    return to
