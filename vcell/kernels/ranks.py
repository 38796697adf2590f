"""Rank sums of every gene for every group at once: one sort per gene serves all perturbations.

Each non-zero of a gene (`vcell.metrics.by_gene`) becomes a whole number: the value, mapped so that
it sorts like the float, above the group's bits. A sorted slice is then scanned once, for any number
of groups. Zeros are one block, known from counts alone.

Counts that become log1p values are not computed one by one: with one divisor per cell, a table
``[L, C]`` has the values of counts below L in each cell, and another their ranks in the table.
Value and group then take 32 bits, which sort in half the time of 64. Other values take 64: 48 bits
of the value (a float32 fits, a float64 is replaced by its rank) above 16 of the group.

Kernels are serial and release the GIL: callers divide genes among threads.

Legend: ``N`` non-zeros, ``K`` genes of a range, ``P`` groups; group 0 is the reference. Gene k's
entries are those from ``first[k]`` to ``last[k]``.
"""

# ruff: noqa: PLR0913, PLR0915, PLR0917  # kernels take arrays, not objects
from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from vcell.kernels.kernel import njit

Array = NDArray[Any]

_SIGN = np.uint32(0x80000000)
_ALL = np.uint32(0xFFFFFFFF)
#: The 48-bit key of zero; keys of negative values are below.
ZERO = np.uint64(0x800000000000)
#: Maximum number of groups in a 64-bit key, and their bits.
MOST_GROUPS, GROUP_BITS = 1 << 16, 16


@njit(nogil=True, cache=True)
def level_keys(
    starts: Array, entries: Array, row_bits: int, most: int, large: Array, numbers: Array,
    key: Array, value: Array, cursor: Array, values: Array, keys: Array, places: Array,
    counts: Array, found: int,
) -> int:  # fmt: skip
    """Append a block's counts of some genes to those of earlier blocks, as keys and values.

    ``starts[K + 1]`` are the genes' bounds in `entries`, which with `large` are those of
    `by_gene.scatter_counts`. ``key[L, R]`` and ``value[L, R]`` are the tables of the block's
    ``numbers[R]``; cells whose key has all bits are left out. An empty `values` is not written. The
    key of a count of L or more is the cell's number; its position and the count are appended to
    `places` and `counts`, which have `found` entries; the new number of entries is returned.
    """
    few, wide, none = np.uint64(key.shape[0]), len(values) > 0, np.uint32(0xFFFFFFFF)
    move, mask, full = np.uint64(row_bits), np.uint64((1 << row_bits) - 1), np.uint64(most)
    beyond = 0
    for k in range(len(cursor)):
        at = cursor[k]
        for j in range(starts[k] - starts[0], starts[k + 1] - starts[0]):
            entry = np.uint64(entries[j])
            x, row = entry >> move, entry & mask
            if x == full:
                x = np.uint64(large[beyond] & 0xFFFF)
                beyond += 1
            if x < few:
                own = key[x, row]
                if own == none:
                    continue
                keys[at] = own
                if wide:
                    values[at] = value[x, row]
            else:
                if key[0, row] == none:
                    continue
                keys[at] = numbers[row]
                places[found] = at
                counts[found] = x
                found += 1
            at += 1
        cursor[k] = at
    return found


@njit(nogil=True, cache=True)
def pack(bits: Array, cell: Array, group: Array, keys: Array) -> None:
    """Make keys from values (float32 as uint32) and the groups of their cells."""
    for j in range(len(bits)):
        b = bits[j]
        b ^= _ALL if b & _SIGN else _SIGN
        keys[j] = (np.uint64(b) << np.uint64(32)) | np.uint64(group[cell[j]])


@njit(nogil=True, cache=True)
def widen(bits: Array, own: Array, mask: int, wide: Array) -> None:
    """Make 64-bit keys from positive float32 values (as uint32) and the groups in their keys."""
    low = np.uint64(mask)
    for j in range(len(bits)):
        wide[j] = (np.uint64(bits[j]) << np.uint64(32)) | (np.uint64(own[j]) & low)


@njit(nogil=True, cache=True)
def narrow(wide: Array, shift: int, keys: Array) -> None:
    """Make keys from the sorted result of `widen`, with ranks instead of values."""
    rank, last = 0, np.uint64(0)
    for j in range(len(wide)):
        value = wide[j] >> np.uint64(32)
        rank += value != last
        last = value
        keys[j] = (rank << shift) | np.int64(wide[j] & np.uint64(0xFFFFFFFF))


@njit(nogil=True, cache=True)
def rank_gene(value: Array, order: Array, own: Array, shift: int, zero: int, keys: Array) -> None:
    """Make one gene's keys, ascending, from values sorted by `order` and their cells' groups.

    A key has the value's rank among the distinct ones instead of the value: from `zero` + 1 on, or
    below `zero` if it is negative. ``own[N]`` are groups, in the order of the values.
    """
    rank, last = np.int64(zero), 0.0
    for j in range(len(order)):
        x = value[order[j]]
        if x >= 0.0:
            break
        if x != last:
            rank -= 1
            last = x
    last = 0.0
    for j in range(len(order)):
        x = value[order[j]]
        if j > 0 and x != last:
            rank += 1
        if x > 0.0 and rank <= zero:
            rank = np.int64(zero) + 1
        last = x
        keys[j] = (rank << shift) | np.int64(own[order[j]])


@njit(nogil=True, cache=True)
def add_genes(
    first: Array, last: Array, values: Array, keys: Array, mask: int, weight: Array, sums: Array,
    squares: Array, narrow: Array, stored: Array,
) -> None:  # fmt: skip
    """Sum genes' entries by group into tables ``[K, P]``, bit for bit as `groups.add_rows`.

    ``stored[K, P]`` counts them. The group is in the lowest bits of the key.
    """
    wide, low = squares.shape[0] > 0, np.uint64(mask)
    for k in range(len(first)):
        total, fine, n = sums[k], narrow[k], stored[k]
        for j in range(first[k], last[k]):
            g, x = np.int64(np.uint64(keys[j]) & low), values[j]
            total[g] += np.float64(x)
            fine[g] += x * weight[g]
            n[g] += 1
            if wide:
                squares[k, g] += np.float64(x) * np.float64(x)


@njit(nogil=True, cache=True)
def add_keyed_genes(
    first: Array, last: Array, keys: Array, shift: int, base: int, weight: Array, sums: Array,
    squares: Array, narrow: Array, stored: Array,
) -> None:  # fmt: skip
    """As `add_genes`, of float32 values that are the bits of a key less `base`."""
    wide, low, move = squares.shape[0] > 0, np.uint32((1 << shift) - 1), np.uint32(shift)
    for k in range(len(first)):
        total, fine, n = sums[k], narrow[k], stored[k]
        for j in range(first[k], last[k]):
            g = np.int64(keys[j] & low)
            x = np.uint32((keys[j] >> move) + np.uint32(base)).view(np.float32)
            total[g] += np.float64(x)
            fine[g] += x * weight[g]
            n[g] += 1
            if wide:
                squares[k, g] += np.float64(x) * np.float64(x)


@njit(nogil=True, cache=True)
def below_profile(
    first: Array, last: Array, values: Array, keys: Array, mask: int, profile: Array, below: Array,
    equal: Array,
) -> None:  # fmt: skip
    """Count group 0's entries below ``profile[K]``, and those equal to it."""
    low = np.uint64(mask)
    for k in range(len(first)):
        at, less, same = profile[k], 0, 0
        for j in range(first[k], last[k]):
            own = np.uint64(keys[j]) & low == 0
            less += own and values[j] < at
            same += own and values[j] == at
        below[k] = less
        equal[k] = same


@njit(nogil=True, cache=True)
def against_reference(
    keys: Array, first: Array, last: Array, shift: int, zero: int, stored: Array, sizes: Array,
    u: Array, ties: Array,
) -> None:  # fmt: skip
    """Compute U of every group against group 0, and its tie term, for each gene.

    Keys ascend within a gene, with the group's bits below `shift`; the high bits of negative values
    are less than `zero`. ``u[K, P]`` counts the pairs in which the group's cell exceeds the
    reference's (half for equal ones); ``ties[K, P]`` is the sum of t^3 - t over the blocks of equal
    values of both samples together, for group 0 of the reference alone.
    """
    n_groups = len(sizes)
    count = np.zeros(n_groups, np.int64)
    touched = np.empty(n_groups, np.int64)
    move, mask, border = np.uint64(shift), np.uint64((1 << shift) - 1), np.uint64(zero)
    for gene in range(len(first)):
        up, tie = u[gene], ties[gene]
        base = 0.0  # common part of all groups: blocks in which they have no cell
        seen = 0  # reference cells below the current block
        pending = True  # the block of zeros has not come yet
        j, stop = first[gene], last[gene]
        while j < stop or pending:
            if pending and (j == stop or np.uint64(keys[j]) >> move >= border):
                pending = False
                c = sizes[0] - stored[gene, 0]
                own = np.float64(c) * c * c - c
                base += own
                for g in range(1, n_groups):
                    k = sizes[g] - stored[gene, g]
                    if k:
                        t = np.float64(c + k)
                        up[g] += k * (seen + 0.5 * c)
                        tie[g] += t * t * t - t - own
                seen += c
                continue
            value = np.uint64(keys[j]) >> move
            if j + 1 == stop or np.uint64(keys[j + 1]) >> move != value:  # most values are unique
                g = int(np.uint64(keys[j]) & mask)
                j += 1
                up[g] += seen  # ignored for group 0: a test would cost more
                seen += g == 0
                continue
            n_touched = 0
            while j < stop and np.uint64(keys[j]) >> move == value:
                g = int(np.uint64(keys[j]) & mask)
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
        up[0] = tie[0] = 0.0
        for g in range(n_groups):
            tie[g] += base


@njit(nogil=True, cache=True)
def against_rest(
    keys: Array, first: Array, last: Array, shift: int, zero: int, stored: Array, sizes: Array,
    u: Array, ties: Array,
) -> None:  # fmt: skip
    """Compute U of every group against all other cells, and their common tie term."""
    n_groups = len(sizes)
    count = np.zeros(n_groups, np.int64)
    touched = np.empty(n_groups, np.int64)
    move, mask, border = np.uint64(shift), np.uint64((1 << shift) - 1), np.uint64(zero)
    for gene in range(len(first)):
        up = u[gene]
        base = 0.0
        seen = 0  # cells of any group below the current block
        pending = True
        j, stop = first[gene], last[gene]
        while j < stop or pending:
            size = 0
            if pending and (j == stop or np.uint64(keys[j]) >> move >= border):
                pending = False
                for g in range(n_groups):
                    size += sizes[g] - stored[gene, g]
                for g in range(n_groups):
                    up[g] += (sizes[g] - stored[gene, g]) * (seen + 0.5 * (size + 1))
            else:
                value = np.uint64(keys[j]) >> move
                n_touched = 0
                while j < stop and np.uint64(keys[j]) >> move == value:
                    g = int(np.uint64(keys[j]) & mask)
                    if count[g] == 0:
                        touched[n_touched] = g
                        n_touched += 1
                    count[g] += 1
                    size += 1
                    j += 1
                for i in range(n_touched):
                    g = touched[i]
                    up[g] += count[g] * (seen + 0.5 * (size + 1))
                    count[g] = 0
            t = np.float64(size)
            base += t * t * t - t
            seen += size
        for g in range(n_groups):
            up[g] -= 0.5 * sizes[g] * (sizes[g] + 1.0)  # rank sum to U
            ties[gene, g] = base


@njit(nogil=True, cache=True)
def look_up(indptr: Array, data: Array, table: Array, out: Array) -> int:
    """Replace whole values below the width of ``table[rows, K]`` by their row's entry.

    Returns the number of other values, which are unchanged, for the caller to compute.
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
    """Sum each row into ``totals``; return least, largest, farthest from whole, not finite.

    A row of whole numbers below 2^16 is recognised in vectors; its sum is exact in any order.
    """
    low, high, fraction, odd = 0.0, 0.0, 0.0, 0
    for row in range(len(indptr) - 1):
        values = data[indptr[row] : indptr[row + 1]]
        strange, whole, most = 0, np.int64(0), np.int32(0)
        for i in range(len(values)):  # no branch inside
            x = values[i]
            k = np.int32(x if 0 <= x <= 65535 else 0)
            strange |= k != x
            whole += k
            most = max(most, k)
        totals[row] = whole
        high = max(high, np.float64(most))
        if not strange:
            continue
        total = 0.0
        for i in range(len(values)):
            x = values[i]
            total += np.float64(x)
            odd += not np.isfinite(x)
            low = np.float64(x) if x < low else low
            high = np.float64(x) if x > high else high
            off = abs(x - np.rint(x))
            fraction = np.float64(off) if off > fraction else fraction
        totals[row] = total
    return low, high, fraction, odd


@njit(nogil=True, cache=True)
def expm1(values: Array, out: Array) -> None:
    """Compute exp(x) - 1 one by one in the values' precision: numpy's vector code rounds otherwise.

    pdex computes it this way, and equal fold changes stay equal only with the same rounding.
    """
    for i in range(len(values)):
        out[i] = np.expm1(values[i])


@njit(nogil=True, cache=True)
def log2_ratio(target: Array, reference: Array, eps: float, out: Array) -> None:
    """Compute log2((target + eps) / (reference + eps)) in float64; 0 where both are zero."""
    for i in range(target.shape[0]):
        for j in range(target.shape[1]):
            a, b = np.float64(target[i, j]) + eps, np.float64(reference[i, j]) + eps
            if a == 0.0 and b == 0.0:
                out[i, j] = 0.0
            elif b == 0.0:
                out[i, j] = np.inf
            else:
                out[i, j] = np.log2(a / b)
