"""Distances of every row of one table to every row of another, one column left out per row.

Every pair has four running sums in a fixed order, so equal rows have equal distances, however the
tables are cut into tiles.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vcell.kernels.kernel import njit

Array = NDArray[Any]
_TILE = 64  # rows of either table, and columns: a multiple of four


@njit(nogil=True, cache=True)
def pairwise(a: Array, b: Array, skip: Array, squared: bool, out: Array) -> None:  # noqa: FBT001
    """Fill ``out[P, Q]`` with sums of |a - b|, or the root of sums of squares.

    ``skip[P]`` is the column that row p leaves out, negative for none. Rows of `b` are turned round
    tile by tile: a vector holds one column of several of them, and a tile stays in the cache.
    """
    whole = a.shape[1] - a.shape[1] % 4
    columns, sums = np.empty((_TILE, _TILE), b.dtype), np.empty((4, _TILE, _TILE))
    for p0 in range(0, a.shape[0], _TILE):
        rows = min(_TILE, a.shape[0] - p0)
        for q0 in range(0, b.shape[0], _TILE):
            width = min(_TILE, b.shape[0] - q0)
            sums[:] = 0.0
            for g0 in range(0, a.shape[1], _TILE):
                n = min(_TILE, a.shape[1] - g0)
                for q in range(width):
                    for g in range(n):
                        columns[g, q] = b[q0 + q, g0 + g]
                for p in range(rows):
                    for g in range(n):
                        if g0 + g != skip[p0 + p]:
                            own = sums[g % 4 if g0 + g < whole else 0, p]
                            _add(a[p0 + p, g0 + g], columns[g], width, squared, own)
            for p in range(rows):
                for q in range(width):
                    total = (sums[0, p, q] + sums[1, p, q]) + (sums[2, p, q] + sums[3, p, q])
                    out[p0 + p, q0 + q] = math.sqrt(total) if squared else total


@njit(nogil=True, cache=True, inline="always")
def _add(x: Any, column: Array, n: int, squared: bool, sums: Array) -> None:  # noqa: FBT001
    """Add the differences of one value from a column of `n` rows to their sums."""
    if squared:
        for q in range(n):
            d = x - column[q]
            sums[q] += d * d
    else:
        for q in range(n):
            sums[q] += abs(x - column[q])


# reassoc lets LLVM add in vectors; equal rows still have equal sums
@njit(nogil=True, cache=True, fastmath={"reassoc"})
def cosines(a: Array, b: Array, skip: Array, out: Array) -> None:
    """Fill ``out[P, Q]`` with 1 - cosine, 1 where either row is zero; `skip` as above."""
    for p in range(a.shape[0]):
        for q in range(b.shape[0]):
            dot, own, other = 0.0, 0.0, 0.0
            for g in range(a.shape[1]):
                x = 0.0 if g == skip[p] else a[p, g]
                y = 0.0 if g == skip[p] else b[q, g]
                dot += x * y
                own += x * x
                other += y * y
            norm = math.sqrt(own) * math.sqrt(other)
            out[p, q] = 1.0 - dot / norm if norm > 0.0 else 1.0
