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
    escaped = 0
    for r in range(indptr.shape[0] - 1):
        if not keep[r]:
            continue
        to = at[r]
        for j in range(indptr[r], indptr[r + 1]):
            v = val[j]
            c = column[idx[j]]
            if c < 0:
                continue
            x = np.float64(v)
            idx_out[to] = c
            if x >= ESCAPE:
                val_out[to] = ESCAPE
                escaped += 1
            else:
                val_out[to] = np.uint16(x)
            to += 1
            s = stats[c]
            s[N_CELLS] += 1
            s[SUM] += x
            s[SUM_SQUARES] += x * x
            s[MAX] = max(s[MAX], x)
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
