"""Distances of every row of one table to every row of another, one column left out per row.

Four running sums per pair let additions overlap; their order is fixed, so equal rows have equal
distances.
"""

from __future__ import annotations

import math
from typing import Any

from numpy.typing import NDArray

from vcell.kernels.kernel import njit

Array = NDArray[Any]


@njit(nogil=True, cache=True)
def pairwise(a: Array, b: Array, skip: Array, squared: bool, out: Array) -> None:  # noqa: FBT001
    """Fill ``out[P, Q]`` with sums of |a - b|, or the root of sums of squares.

    ``skip[P]`` is the column that row p leaves out, negative for none.
    """
    n = a.shape[1]
    for p in range(a.shape[0]):
        for q in range(b.shape[0]):
            s0 = s1 = s2 = s3 = 0.0
            whole = n - n % 4
            for g in range(0, whole, 4):
                d0, d1 = a[p, g] - b[q, g], a[p, g + 1] - b[q, g + 1]
                d2, d3 = a[p, g + 2] - b[q, g + 2], a[p, g + 3] - b[q, g + 3]
                if g <= skip[p] < g + 4:
                    d0 = 0.0 if skip[p] == g else d0
                    d1 = 0.0 if skip[p] == g + 1 else d1
                    d2 = 0.0 if skip[p] == g + 2 else d2
                    d3 = 0.0 if skip[p] == g + 3 else d3
                if squared:
                    s0, s1, s2, s3 = s0 + d0 * d0, s1 + d1 * d1, s2 + d2 * d2, s3 + d3 * d3
                else:
                    s0, s1, s2, s3 = s0 + abs(d0), s1 + abs(d1), s2 + abs(d2), s3 + abs(d3)
            for g in range(whole, n):
                if g != skip[p]:
                    d = a[p, g] - b[q, g]
                    s0 += d * d if squared else abs(d)
            total = (s0 + s1) + (s2 + s3)
            out[p, q] = math.sqrt(total) if squared else total


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
