"""Rank sums of every gene for every group at once: one sort per gene serves all perturbations.

A gene's non-zeros (`vcell.metrics.by_gene`) become one uint64 each: 48 bits of the value (mapped so
that they order as the floats do, negatives too) above 16 bits of group. A float32 fits whole; a
float64 gives its rank instead. A sorted slice is then scanned once, whatever the number of groups.
Zeros are one block known from counts alone. Kernels are serial, without the GIL: callers split
genes between threads.

Legend: ``N`` non-zeros, ``G`` genes of this pass, ``P`` groups; group 0 is the reference.
"""

# kernels take arrays, not objects
from __future__ import annotations

from typing import Any

import numpy as np
from numba import njit
from numpy.typing import NDArray

Array = NDArray[Any]

_SIGN = np.uint32(0x80000000)
_ALL = np.uint32(0xFFFFFFFF)
#: What zero is mapped to; keys below belong to negative values.
ZERO = np.uint64(0x800000000000)
#: Groups that a key can hold.
MOST_GROUPS = 1 << 16
_GROUP = np.uint64(0xFFFF)
_HIGH = np.uint64(16)


@njit(nogil=True, cache=True)
def pack(bits: Array, cell: Array, group: Array, keys: Array) -> None:
    """Make keys of values (float32 seen as uint32) and of their cells' groups."""
    for j in range(len(bits)):
        b = bits[j]
        b ^= _ALL if b & _SIGN else _SIGN
        keys[j] = (np.uint64(b) << np.uint64(32)) | np.uint64(group[cell[j]])


@njit(nogil=True, cache=True)
def pack_wide(value: Array, order: Array, cell: Array, group: Array, keys: Array) -> None:
    """Make one gene's keys, ascending, of float64 values, which `order` sorts.

    A key holds the value's rank among the distinct ones instead of the value, which has no room.
    """
    rank, last = ZERO, 0.0
    for j in range(len(order)):  # negative values have the ranks below ZERO
        x = value[order[j]]
        if x >= 0.0:
            break
        if x != last:
            rank -= np.uint64(1)
            last = x
    last = 0.0
    for j in range(len(order)):
        x = value[order[j]]
        if j > 0 and x != last:
            rank += np.uint64(1)
        if x > 0.0 and rank <= ZERO:
            rank = ZERO + np.uint64(1)
        last = x
        keys[j] = (rank << _HIGH) | np.uint64(group[cell[order[j]]])


@njit(nogil=True, cache=True)
def add_genes(
    first: Array, cell: Array, value: Array, group: Array, weight: Array, sums: Array,
    squares: Array, narrow: Array,
) -> None:  # fmt: skip
    """Add genes' entries up by group as `add_rows` does, into tables ``[K, P]``, same bits."""
    wide = squares.shape[0] > 0
    for k in range(len(first) - 1):
        total, fine = sums[k], narrow[k]
        for j in range(first[k], first[k + 1]):
            g, x = group[cell[j]], value[j]
            total[g] += np.float64(x)
            fine[g] += x * weight[g]
            if wide:
                squares[k, g] += np.float64(x) * np.float64(x)


@njit(nogil=True, cache=True)
def _block(count: Array, seen: int, up: Array, tie: Array) -> Any:
    """Add a block of equal values, ``count[P]`` of each group; return the reference's own term."""
    c = count[0]
    own = np.float64(c) * c * c - c
    for g in range(1, len(count)):
        k = count[g]
        if k:
            t = np.float64(c + k)
            up[g] += k * (seen + 0.5 * c)
            tie[g] += t * t * t - t - own
    return own


@njit(nogil=True, cache=True)
def against_reference(
    keys: Array, first: Array, lo: int, hi: int, sizes: Array, u: Array, ties: Array
) -> None:
    """Mann-Whitney U of every group against group 0, and its tie term, for genes lo to hi.

    ``first[G+1]`` bounds the sorted slices. ``u[P, G]`` counts the pairs in which the group's cell
    exceeds the reference's (half for equal ones); ``ties[P, G]`` is the sum of t^3 - t over the
    blocks of equal values of both samples together. Rows of group 0 are left alone.
    """
    n_groups = len(sizes)
    count = np.zeros(n_groups, np.int64)
    zeros = np.empty(n_groups, np.int64)
    touched = np.empty(n_groups, np.int64)
    up, tie = np.empty(n_groups), np.empty(n_groups)
    for gene in range(lo, hi):
        start, stop = first[gene], first[gene + 1]
        for g in range(n_groups):
            zeros[g] = sizes[g]
        for j in range(start, stop):
            zeros[keys[j] & _GROUP] -= 1
        for g in range(n_groups):
            up[g] = tie[g] = 0.0
        base = 0.0  # what every group gets: blocks in which it has no cell
        seen = 0  # reference cells below the current block
        pending = True  # the block of zeros is still to come
        j = start
        while j < stop or pending:
            if pending and (j == stop or (keys[j] >> _HIGH) >= ZERO):
                pending = False
                base += _block(zeros, seen, up, tie)
                seen += zeros[0]
                continue
            value = keys[j] >> _HIGH
            if j + 1 == stop or keys[j + 1] >> _HIGH != value:  # most values are alone
                g = int(keys[j] & _GROUP)
                j += 1
                if g:
                    up[g] += seen
                else:
                    seen += 1
                continue
            n_touched = 0
            while j < stop and keys[j] >> _HIGH == value:
                g = int(keys[j] & _GROUP)
                if count[g] == 0:
                    touched[n_touched] = g
                    n_touched += 1
                count[g] += 1
                j += 1
            c = count[0]
            own = np.float64(c) * c * c - c
            base += own
            for i in range(n_touched):
                g = touched[i]
                k = count[g]
                count[g] = 0
                if g:
                    t = np.float64(c + k)
                    up[g] += k * (seen + 0.5 * c)
                    tie[g] += t * t * t - t - own
            seen += c
        for g in range(1, n_groups):
            u[g, gene] += up[g]
            ties[g, gene] += tie[g] + base


@njit(nogil=True, cache=True)
def against_rest(
    keys: Array, first: Array, lo: int, hi: int, sizes: Array, u: Array, ties: Array
) -> None:
    """Mann-Whitney U of every group against all other cells, and the tie term they share."""
    n_groups = len(sizes)
    count = np.zeros(n_groups, np.int64)
    zeros = np.empty(n_groups, np.int64)
    touched = np.empty(n_groups, np.int64)
    for gene in range(lo, hi):
        start, stop = first[gene], first[gene + 1]
        for g in range(n_groups):
            zeros[g] = sizes[g]
        for j in range(start, stop):
            zeros[keys[j] & _GROUP] -= 1
        base = 0.0
        seen = 0  # cells of any group below the current block
        pending = True
        j = start
        while j < stop or pending:
            if pending and (j == stop or (keys[j] >> _HIGH) >= ZERO):
                pending = False
                size = 0
                for g in range(n_groups):
                    size += zeros[g]
                for g in range(n_groups):
                    u[g, gene] += zeros[g] * (seen + 0.5 * (size + 1))
            else:
                value = keys[j] >> _HIGH
                n_touched = 0
                begin = j
                while j < stop and keys[j] >> _HIGH == value:
                    g = int(keys[j] & _GROUP)
                    if count[g] == 0:
                        touched[n_touched] = g
                        n_touched += 1
                    count[g] += 1
                    j += 1
                size = int(j - begin)
                for i in range(n_touched):
                    g = touched[i]
                    u[g, gene] += count[g] * (seen + 0.5 * (size + 1))
                    count[g] = 0
            t = np.float64(size)
            base += t * t * t - t
            seen += size
        for g in range(n_groups):
            u[g, gene] -= 0.5 * sizes[g] * (sizes[g] + 1.0)  # rank sum to U
            ties[g, gene] = base


@njit(nogil=True, cache=True)
def add_rows(
    indptr: Array, indices: Array, data: Array, group: Array, weight: Array, sums: Array,
    squares: Array, narrow: Array,
) -> None:  # fmt: skip
    """Add a block's cells to their groups' rows of three tables.

    ``sums[P, G]`` and ``squares[P, G]`` in float64 (an empty `squares` is left alone), and
    ``narrow[P, G]`` in its own precision, cell by cell in the file's order, each value times
    ``weight[P]``: what scipy's ``X.mean(axis=0)`` does to values of that precision, to the bit.
    """
    wide = squares.shape[0] > 0
    for row in range(len(indptr) - 1):
        g = group[row]
        if g < 0:
            continue
        w = weight[g]
        total, fine = sums[g], narrow[g]
        for j in range(indptr[row], indptr[row + 1]):
            gene, x = indices[j], data[j]
            total[gene] += np.float64(x)
            fine[gene] += x * w
            if wide:
                squares[g, gene] += np.float64(x) * np.float64(x)


@njit(nogil=True, cache=True)
def look_up(indptr: Array, data: Array, table: Array, out: Array) -> int:
    """Replace whole values below the width of ``table[rows, K]`` by their row's entry.

    Returns how many values are left as they were, for the caller to compute.
    """
    width, left = table.shape[1], 0
    for row in range(len(indptr) - 1):
        for j in range(indptr[row], indptr[row + 1]):
            x = data[j]
            k = np.int64(x) if 0 <= x < width else -1
            if k >= 0 and np.float32(k) == x:
                out[j] = table[row, k]
            else:
                out[j] = -1.0
                left += 1
    return left


@njit(nogil=True, cache=True)
def survey(indptr: Array, data: Array, totals: Array) -> tuple[float, float, float, int]:
    """Sum each row into ``totals``; return least, largest, farthest from whole, not finite."""
    low, high, fraction, odd = 0.0, 0.0, 0.0, 0
    for row in range(len(indptr) - 1):
        total = 0.0
        for j in range(indptr[row], indptr[row + 1]):
            total += np.float64(data[j])
        totals[row] = total
    for x in data:
        odd += not np.isfinite(x)
        low = np.float64(x) if x < low else low
        high = np.float64(x) if x > high else high
        off = abs(x - np.rint(x))
        fraction = np.float64(off) if off > fraction else fraction
    return low, high, fraction, odd


@njit(nogil=True, cache=True)
def expm1(values: Array, out: Array) -> None:
    """exp(x) - 1 one by one in the values' own precision: numpy's vectorised one rounds otherwise.

    pdex takes it this way, and equal fold changes are only equal if they are rounded alike.
    """
    for i in range(len(values)):
        out[i] = np.expm1(values[i])


@njit(nogil=True, cache=True)
def log2_ratio(target: Array, reference: Array, eps: float, out: Array) -> None:
    """log2((target + eps) / (reference + eps)) in float64; 0 where both are zero."""
    for i in range(target.shape[0]):
        for j in range(target.shape[1]):
            a, b = np.float64(target[i, j]) + eps, np.float64(reference[i, j]) + eps
            if a == 0.0 and b == 0.0:
                out[i, j] = 0.0
            elif b == 0.0:
                out[i, j] = np.inf
            else:
                out[i, j] = np.log2(a / b)
