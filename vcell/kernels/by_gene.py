"""Counts of cells, gene by gene: sums, jackknife and rank sums for any number of groupings.

A gene's entries are gathered and sorted once; every grouping (all cells; two halves of them, drawn
five times) is a table from cell to group, so it costs one look-up per entry. A grouping may have
several halves of ``W`` groups each: group ``h W`` is the reference of half ``h``.

The delete-one jackknife of a group's log-normalised total needs no table of cells by genes. Leaving
out cell i turns gene g's value ``v = log1p(a)``, ``a = T P / S``, into ``v + log1p(w e - r f y)``,
with ``w = a / (1 + a)`` and ``r = 1 / (1 + a)`` of gene and group, ``e = l / (S - l)`` and
``f = T / (S - l)`` of the cell. Where the count y is 0 that is ``log1p(w e)``: its sums over cells
are power series in w whose coefficients are sums of powers of e, so only entries are visited one by
one. (``P`` the gene's total in the group, ``S`` the group's, ``l`` the cell's, ``T`` the target.)

Kernels are serial and release the GIL: callers divide the genes among threads.

Legend: ``K`` genes of a range, ``N`` their entries, ``C`` cells, ``Q`` groups of all halves.
"""

# ruff: noqa: PLR0912, PLR0913, PLR0917  # kernels take arrays, not objects, and inline
from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vcell.kernels.kernel import njit

Array = NDArray[Any]

#: Terms of the series, and the largest e for which their remainder is below 1e-17.
TERMS, LARGEST = 14, 0.05
#: The bits of 2^-50: smaller levels get its key.
_BASE = np.uint64((1023 - 50) << 52)
#: Bits needed for a level between 2^-50 and 2^14, relative to 2^-50.
_WIDTH = 58
_NEAR = 1 / 32  # log1p is a polynomial below; the tenth power of this is below 1e-15


def squared_coefficients(terms: int) -> Array:
    """Return the coefficients of log1p(x)^2 in powers of x, from x^0."""
    out = np.zeros(terms + 1)
    for a in range(1, terms):
        for b in range(1, terms + 1 - a):
            out[a + b] += (-1.0) ** (a + b) / (a * b)
    return out


@njit(nogil=True, cache=True)
def fits(data: Array) -> bool:
    """Whether every value is a whole number from 0 to 65535."""
    whole = True
    for x in data:
        whole &= 0 <= x <= 65535 and x == np.floor(x)
    return whole


@njit(nogil=True, cache=True)
def gather(
    starts: Array, rows: Array, values: Array, numbers: Array, cursor: Array, cell: Array,
    value: Array,
) -> None:  # fmt: skip
    """Append one block's entries of some genes to those of earlier blocks.

    ``starts[K+1]`` are their bounds in ``rows`` and ``values``; ``numbers`` are the block's cells.
    """
    for k in range(len(cursor)):
        at = cursor[k]
        for j in range(starts[k] - starts[0], starts[k + 1] - starts[0]):
            cell[at] = numbers[rows[j]]
            value[at] = values[j]
            at += 1
        cursor[k] = at


@njit(nogil=True, cache=True)
def scatter_counts(
    indptr: Array, indices: Array, data: Array, cursor: Array, entries: Array, row_bits: int,
    most: int, large: Array,
) -> int:  # fmt: skip
    """Write a block's counts to the next positions of their genes, ``cursor[G]``, and advance it.

    An entry is count << row_bits | row: one memory location to write instead of two. Counts of
    `most` or more are written as `most`, and to `large` as position << 16 | count; returns how
    many these are.
    """
    n = 0
    for row in range(len(indptr) - 1):
        for j in range(indptr[row], indptr[row + 1]):
            gene = indices[j]
            place = cursor[gene]
            count = np.int64(data[j])
            if count >= most:
                large[n] = (np.int64(place) << 16) | count
                n += 1
                count = np.int64(most)
            entries[place] = (count << row_bits) | row
            cursor[gene] = place + 1
    return n


@njit(nogil=True, cache=True)
def gather_counts(
    starts: Array, entries: Array, row_bits: int, most: int, large: Array, numbers: Array,
    cursor: Array, cell: Array, value: Array,
) -> None:  # fmt: skip
    """Like `gather`, for entries from `scatter_counts` and their `large` counts by position."""
    move, mask, found = np.uint64(row_bits), np.uint64((1 << row_bits) - 1), 0
    for k in range(len(cursor)):
        at = cursor[k]
        for j in range(starts[k] - starts[0], starts[k + 1] - starts[0]):
            entry = np.uint64(entries[j])
            count = np.int64(entry >> move)
            if count == most:
                count = np.int64(large[found] & 0xFFFF)
                found += 1
            cell[at] = numbers[entry & mask]
            value[at] = count
            at += 1
        cursor[k] = at


@njit(nogil=True, cache=True)
def join(
    first: Array, cell: Array, value: Array, cursor: Array, new_cell: Array, new_value: Array
) -> None:
    """Append every gene's entries to the existing ones."""
    for k in range(len(cursor)):
        at = cursor[k]
        for j in range(first[k], first[k + 1]):
            new_cell[at] = cell[j]
            new_value[at] = value[j]
            at += 1
        cursor[k] = at


@njit(nogil=True, cache=True)
def emit(
    first: Array, cell: Array, value: Array, factor: Array, copies: Array, copy: Array,
    new_first: Array, new_cell: Array, new_value: Array,
) -> int:  # fmt: skip
    """Copy every entry to each copy of its cell, times its gene's factor; skip zeros.

    Cell c's copies are ``copy[copies[c] : copies[c + 1]]``. Returns the number of entries.
    """
    at = 0
    for k in range(len(first) - 1):
        new_first[k] = at
        for j in range(first[k], first[k + 1]):
            x = np.float32(np.float64(value[j]) * factor[k])
            if x == 0:
                continue
            for i in range(copies[cell[j]], copies[cell[j] + 1]):
                new_cell[at] = copy[i]
                new_value[at] = x
                at += 1
    new_first[len(first) - 1] = at
    return at


@njit(nogil=True, cache=True)
def scaled_totals(first: Array, cell: Array, value: Array, factor: Array, totals: Array) -> None:
    """Add every cell's total, with each gene multiplied by its factor."""
    for k in range(len(first) - 1):
        for j in range(first[k], first[k + 1]):
            totals[cell[j]] += np.float32(np.float64(value[j]) * factor[k])


@njit(nogil=True, cache=True)
def scaled(cell: Array, value: Array, scale: Array, out: Array) -> None:
    """Divide every value by its cell's scale, by one float64 division, as in scanpy."""
    for j in range(len(cell)):
        out[j] = np.float64(value[j]) / scale[cell[j]]


@njit(nogil=True, cache=True)
def keys(bits: Array, first: Array, place_bits: int, out: Array) -> None:
    """Pack every level (as uint64) and its position in its gene into one number.

    These sort like the levels, except for levels that differ in the last bits only: see `settle`.
    """
    drop = np.uint64(max(place_bits - (64 - _WIDTH), 0))
    move = np.uint64(place_bits)
    for k in range(len(first) - 1):
        own, key = bits[first[k] : first[k + 1]], out[first[k] : first[k + 1]]
        for place in range(len(own)):
            b = own[place] - _BASE if own[place] > _BASE else np.uint64(0)
            key[place] = ((b >> drop) << move) | np.uint64(place)


@njit(nogil=True, cache=True)
def settle(
    ordered: Array, first: Array, place_bits: int, level: Array, cell: Array, cell_bits: int
) -> None:
    """Replace sorted keys by exact ones: the rank of the level in its gene, and the cell."""
    move, mask = np.uint64(place_bits), np.uint64((1 << place_bits) - 1)
    shift, one = np.uint64(cell_bits), np.uint64(1)
    for k in range(len(first) - 1):
        key, own = ordered[first[k] : first[k + 1]], level[first[k] : first[k + 1]]
        whose, rank, start, n = cell[first[k] : first[k + 1]], np.uint64(0), 0, len(own)
        while start < n:
            prefix = key[start] >> move
            rank += one
            stop = start + 1
            if stop == n or key[stop] >> move != prefix:  # mostly a single one
                key[start] = (rank << shift) | np.uint64(whose[np.int64(key[start] & mask)])
                start = stop
                continue
            last, alike = own[np.int64(key[start] & mask)], True
            while stop < n and key[stop] >> move == prefix:
                alike &= own[np.int64(key[stop] & mask)] == last
                stop += 1
            if not alike:
                run = key[start:stop].copy()
                order = np.argsort(own[(run & mask).astype(np.int64)], kind="mergesort")
                key[start:stop] = run[order]
                last = own[np.int64(key[start] & mask)]
            for j in range(start, stop):
                place = np.int64(key[j] & mask)
                if not alike and own[place] != last:
                    rank += one
                    last = own[place]
                key[j] = (rank << shift) | np.uint64(whose[place])
            start = stop


@njit(nogil=True, cache=True)
def sums(
    first: Array, cell: Array, value: Array, cpm: Array, table: Array, counts: Array,
    parts: Array, stored: Array,
) -> None:  # fmt: skip
    """Sum values, CPM and numbers of entries by group, into ``[K, Q]`` tables."""
    for k in range(len(first) - 1):
        total, part, n = counts[k], parts[k], stored[k]
        for j in range(first[k], first[k + 1]):
            g = table[cell[j]]
            if g >= 0:
                total[g] += value[j]
                part[g] += cpm[j]
                n[g] += 1


@njit(nogil=True, cache=True, inline="always")
def _log1p(x: float) -> float:
    """Return log1p with a relative error of 3e-15."""
    if abs(x) >= _NEAR:
        return math.log1p(x)
    tail = x * (1 / 7 + x * (-1 / 8 + x * (1 / 9)))
    return x * (1.0 + x * (-1 / 2 + x * (1 / 3 + x * (-1 / 4 + x * (1 / 5 + x * (-1 / 6 + tail))))))


@njit(nogil=True, cache=True)
def jackknife(
    first: Array, cell: Array, value: Array, table: Array, e: Array, f: Array, counts: Array,
    wholes: Array, sizes: Array, powers: Array, members: Array, bounds: Array, squared: Array,
    target: float, spread: Array,
) -> None:  # fmt: skip
    """Add the genes' variation over leaving one cell out, ``s2 - s1^2 / n``, to ``spread[Q]``.

    ``e[C]`` and ``f[C]`` are the cells'; ``powers[Q, TERMS+1]`` are sums of powers of e, with NaN
    in the first column for a group whose members' ``e`` (``members[bounds[g] : bounds[g + 1]]``)
    are processed one by one.
    """
    n_groups = len(sizes)
    w, r, s1, s2 = np.empty((4, n_groups))
    for k in range(len(first) - 1):
        for g in range(n_groups):
            s1[g] = s2[g] = 0.0
            if counts[k, g] <= 0 or wholes[g] <= 0:
                w[g] = r[g] = 0.0
                continue
            a = target * counts[k, g] / wholes[g]
            r[g] = 1.0 / (1.0 + a)
            w[g] = a * r[g]
            if np.isnan(powers[g, 0]):
                for i in range(bounds[g], bounds[g + 1]):
                    d = math.log1p(w[g] * members[i])
                    s1[g] += d
                    s2[g] += d * d
                continue
            p, sign, one, two = 1.0, 1.0, 0.0, 0.0
            for t in range(1, TERMS + 1):
                p *= w[g]
                one += sign / t * p * powers[g, t]
                two += squared[t] * p * powers[g, t]
                sign = -sign
            s1[g], s2[g] = one, two
        for j in range(first[k], first[k + 1]):
            c = cell[j]
            g = table[c]
            if g < 0:
                continue
            x = w[g] * e[c]
            absent, d = _log1p(x), _log1p(x - r[g] * f[c] * value[j])
            s1[g] += d - absent
            s2[g] += d * d - absent * absent
        for g in range(n_groups):
            if sizes[g]:
                spread[g] += s2[g] - s1[g] * s1[g] / sizes[g]


@njit(nogil=True, cache=True)
def _zeros(
    stored: Array, sizes: Array, width: int, up: Array, tie: Array, seen: Array, base: Array
) -> None:
    """Initialise a gene with its block of zeros."""
    for h in range(len(seen)):
        c = sizes[h * width] - stored[h * width]
        own = np.float64(c) * c * c - c
        seen[h], base[h] = c, own
        for g in range(h * width + 1, (h + 1) * width):
            zeros = sizes[g] - stored[g]
            t = np.float64(c + zeros)
            up[g] = zeros * (0.5 * c)
            tie[g] = t * t * t - t - own


@njit(nogil=True, cache=True)
def against_reference(
    ordered: Array, first: Array, id_bits: int, table: Array, stored: Array, sizes: Array,
    width: int, u: Array, ties: Array,
) -> None:  # fmt: skip
    """Compute Mann-Whitney U of every group against its half's reference, and its tie term.

    ``ordered`` are each gene's sorted keys, ``stored[K, Q]`` numbers of entries of each group.
    ``u`` and ``ties``, both ``[K, Q]``, are defined as in `vcell.kernels.ranks.against_reference`.
    """
    n_groups = len(sizes)
    n_halves = n_groups // width
    half = np.empty(n_groups, np.int64)
    for g in range(n_groups):
        half[g] = g // width
    count, touched = np.zeros((2, n_groups), np.int64)
    seen, base = np.zeros(n_halves, np.int64), np.zeros(n_halves)
    move, mask = np.uint64(id_bits), np.uint64((1 << id_bits) - 1)
    for k in range(len(first) - 1):
        up, tie = u[k], ties[k]
        _zeros(stored[k], sizes, width, up, tie, seen, base)
        j, stop = first[k], first[k + 1]
        while j < stop:
            value = ordered[j] >> move
            if j + 1 == stop or ordered[j + 1] >> move != value:  # most values are unique
                g = table[ordered[j] & mask]
                j += 1
                if g >= 0:
                    h = half[g]
                    if g == h * width:
                        seen[h] += 1
                    else:
                        up[g] += seen[h]
                continue
            n = 0
            while j < stop and ordered[j] >> move == value:
                g = table[ordered[j] & mask]
                j += 1
                if g >= 0:
                    if count[g] == 0:
                        touched[n] = g
                        n += 1
                    count[g] += 1
            for i in range(n):
                g = touched[i]
                h = half[g]
                if g != h * width:
                    c, m = count[h * width], count[g]
                    t = np.float64(c + m)
                    up[g] += m * (seen[h] + 0.5 * c)
                    tie[g] += t * t * t - t - (np.float64(c) * c * c - c)
            for h in range(n_halves):
                c = count[h * width]
                base[h] += np.float64(c) * c * c - c
                seen[h] += c
            for i in range(n):
                count[touched[i]] = 0
        for g in range(n_groups):
            tie[g] += base[half[g]]
