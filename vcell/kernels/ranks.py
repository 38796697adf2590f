"""Rank sums of every gene for every group at once: one sort per gene serves all perturbations.

A gene's non-zeros (`vcell.metrics.by_gene`) become one whole number each: the value, mapped so that
it orders as the floats do, above the group's bits. A sorted slice is then scanned once, whatever
the number of groups. Zeros are one block known from counts alone.

Counts that become log1p values are not computed one by one: with one divisor a cell, a table
``[C, L]`` has what the counts below L become in each cell, and another the rank of that among all
of the table. Value and group then take 32 bits, which sort in half the time of 64. Other values
take 64: 48 bits of the value (a float32 fits whole, a float64 gives its rank instead) above 16 of
group.

Kernels are serial, without the GIL: callers split genes between threads.

Legend: ``N`` non-zeros, ``K`` genes at hand, ``P`` groups; group 0 is the reference. Gene k's
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
#: What zero is mapped to in 48 bits; keys below belong to negative values.
ZERO = np.uint64(0x800000000000)
#: Groups that a key of 64 bits can hold, and their bits.
MOST_GROUPS, GROUP_BITS = 1 << 16, 16


@njit(nogil=True, cache=True)
def level_keys(
    starts: Array, entries: Array, numbers: Array, group: Array, value: Array, rank: Array,
    base: int, shift: int, cursor: Array, values: Array, keys: Array, places: Array,
    counts: Array, found: int,
) -> int:  # fmt: skip
    """Put a block's counts of some genes behind those of earlier blocks, as keys and values.

    ``starts[K + 1]`` bounds the genes in `entries`, a row of ``numbers[C]`` above 16 bits of count
    each; cells without a group are left out. ``value[C, L]`` and ``rank[C, L]`` are the tables; a
    key has the rank less `base`. An empty `values` is left alone. The key of a count of L or more
    is its cell's number; its place and the count are put into `places` and `counts` behind the
    `found` that are there; returns how many there are then.
    """
    few, wide = rank.shape[1], len(values) > 0
    low, move = np.uint32(base), np.uint32(shift)
    for k in range(len(cursor)):
        at = cursor[k]
        for j in range(starts[k] - starts[0], starts[k + 1] - starts[0]):
            c = numbers[entries[j] >> np.uint32(16)]
            x = entries[j] & np.uint32(0xFFFF)
            g = group[c]
            if g < 0:
                continue
            if x < few:
                keys[at] = ((rank[c, x] - low) << move) | np.uint32(g)
                if wide:
                    values[at] = value[c, x]
            else:
                keys[at] = c
                places[found] = at
                counts[found] = x
                found += 1
            at += 1
        cursor[k] = at
    return found


@njit(nogil=True, cache=True)
def pack(bits: Array, cell: Array, group: Array, keys: Array) -> None:
    """Make keys of values (float32 seen as uint32) and of their cells' groups."""
    for j in range(len(bits)):
        b = bits[j]
        b ^= _ALL if b & _SIGN else _SIGN
        keys[j] = (np.uint64(b) << np.uint64(32)) | np.uint64(group[cell[j]])


@njit(nogil=True, cache=True)
def widen(bits: Array, own: Array, mask: int, wide: Array) -> None:
    """Make 64 bits of positive float32 values (seen as uint32) and of the groups in their keys."""
    low = np.uint64(mask)
    for j in range(len(bits)):
        wide[j] = (np.uint64(bits[j]) << np.uint64(32)) | (np.uint64(own[j]) & low)


@njit(nogil=True, cache=True)
def narrow(wide: Array, shift: int, keys: Array) -> None:
    """Make keys of what `widen` has made and was sorted: ranks of the values instead of them."""
    rank, last = 0, np.uint64(0)
    for j in range(len(wide)):
        value = wide[j] >> np.uint64(32)
        rank += value != last
        last = value
        keys[j] = (rank << shift) | np.int64(wide[j] & np.uint64(0xFFFFFFFF))


@njit(nogil=True, cache=True)
def rank_gene(value: Array, order: Array, own: Array, shift: int, zero: int, keys: Array) -> None:
    """Make one gene's keys, ascending, of values that `order` sorts and of their cells' groups.

    A key holds the value's rank among the distinct ones instead of the value: from `zero` + 1 on,
    below `zero` if it is negative. ``own[N]`` has groups, in the order of the values.
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
    """Add genes' entries up by group as `add_rows` does, into tables ``[K, P]``, same bits.

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
    """Count group 0's entries that are less than ``profile[K]``, and those that equal it."""
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
    """Mann-Whitney U of every group against group 0, and its tie term, for each gene.

    Keys ascend within a gene, a group's bits below `shift`; those of negative values are less than
    `zero` above it. ``u[K, P]`` counts the pairs in which the group's cell exceeds the reference's
    (half for equal ones); ``ties[K, P]`` is the sum of t^3 - t over the blocks of equal values of
    both samples together, for group 0 of the reference alone.
    """
    n_groups = len(sizes)
    count = np.zeros(n_groups, np.int64)
    touched = np.empty(n_groups, np.int64)
    move, mask, border = np.uint64(shift), np.uint64((1 << shift) - 1), np.uint64(zero)
    for gene in range(len(first)):
        up, tie = u[gene], ties[gene]
        base = 0.0  # what every group gets: blocks in which it has no cell
        seen = 0  # reference cells below the current block
        pending = True  # the block of zeros is still to come
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
            if j + 1 == stop or np.uint64(keys[j + 1]) >> move != value:  # most values are alone
                g = int(np.uint64(keys[j]) & mask)
                j += 1
                up[g] += seen  # what group 0 gets is dropped: asking would cost more
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
    """Mann-Whitney U of every group against all other cells, and the tie term they share."""
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
