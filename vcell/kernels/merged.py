"""Rank sums of cells against a small sorted reference, without sorting the reference again.

A gene's reference is stored as runs: its distinct values, ascending, with numbers of cells. A
prediction that scales the reference's values keeps their order, so its rank sum is one merge of two
ascending lists; predicted cells are few, and are sorted and merged likewise.

Legend: ``P`` perturbations, ``G`` genes, ``R`` runs of all genes, ``C`` reference cells.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from vcell.kernels.kernel import njit

Array = NDArray[Any]
_TILE = 16  # genes of predicted cells transposed at once: one cache line of float32


@njit(nogil=True, cache=True)
def runs(ordered: Array, first: Array, value: Array, count: Array) -> int:
    """Fill runs of ``ordered[G, C]``, ascending in every row; ``first[G + 1]`` bounds genes.

    Returns R. ``value`` and ``count`` need room for ``G * C``.
    """
    at = 0
    for gene in range(ordered.shape[0]):
        first[gene] = at
        for c in range(ordered.shape[1]):
            x = ordered[gene, c]
            if at > first[gene] and value[at - 1] == x:
                count[at - 1] += 1
            else:
                value[at] = x
                count[at] = 1
                at += 1
    first[ordered.shape[0]] = at
    return at


@njit(nogil=True, cache=True)
def _merge(
    own: Array, own_count: Array, n_own: int, value: Array, count: Array, own_weight: float,
    weight: float,
) -> tuple[float, float]:  # fmt: skip
    """Return U and the tie term of two ascending lists of runs; `own` may repeat values."""
    u, ties, below = 0.0, 0.0, 0.0
    i, j, n = 0, 0, len(value)
    while i < n_own or j < n:
        x = own[i] if i < n_own else value[j]
        if j < n and value[j] < x:
            x = value[j]
        if np.isnan(x):  # NaN is last, and not equal to itself
            return np.nan, np.nan
        mine, theirs = 0.0, 0.0
        while i < n_own and own[i] == x:
            mine += own_count[i]
            i += 1
        if j < n and value[j] == x:
            theirs = count[j]
            j += 1
        mine *= own_weight
        theirs *= weight
        u += mine * (below + 0.5 * theirs)
        below += theirs
        t = mine + theirs
        if t > 1.0:
            ties += t * t * t - t
    return u, ties


@njit(nogil=True, cache=True)
def moved(
    first: Array, value: Array, count: Array, ratio: Array, sizes: Array, n_reference: float,
    u: Array, ties: Array,
) -> None:  # fmt: skip
    """Compute U, ``[P, G]``, of reference cells shifted to ``ratio[P, G]`` times their mean.

    Counts shift like this: the share s of cells with 0 becomes ``s ** ratio`` (Poisson), and the
    other values are scaled to match the mean. No value is negative. Both sides count as
    ``sizes[P]`` and `n_reference` cells of these distributions.
    """
    own, weight = np.empty(len(value), value.dtype), np.empty(len(value))
    for gene in range(len(first) - 1):
        a, b = first[gene], first[gene + 1]
        cells = count[a]
        for i in range(a + 1, b):
            cells += count[i]
        zeros = count[a] if value[a] == 0 else 0.0
        for p in range(len(sizes)):
            r = ratio[p, gene]
            left = zeros
            if r != 1.0 and zeros < cells:
                left = cells * (zeros / cells) ** r
            more = (cells - left) / (cells - zeros) if zeros < cells else 1.0
            k = r / more if more > 0.0 else 0.0
            for i in range(a, b):
                own[i - a] = np.float32(k * value[i])
                weight[i - a] = count[i] * more
            if zeros > 0.0:
                weight[0] = left
            u[p, gene], ties[p, gene] = _merge(
                own, weight, b - a, value[a:b], count[a:b], sizes[p] / cells, n_reference / cells,
            )  # fmt: skip


@njit(nogil=True, cache=True)
def cells_against(
    cells: Array, first: Array, value: Array, count: Array, weight: float, u: Array, ties: Array
) -> None:
    """Compute U, ``[G]``, of one perturbation's cells, ``[cells, G]``; reference times `weight`."""
    n, n_genes = cells.shape
    turned = np.empty((_TILE, n), value.dtype)
    ones = np.ones(n)
    for lo in range(0, n_genes, _TILE):
        width = min(_TILE, n_genes - lo)
        for c in range(n):
            for k in range(width):
                turned[k, c] = cells[c, lo + k]
        for k in range(width):
            gene = lo + k
            a, b = first[gene], first[gene + 1]
            turned[k].sort()
            u[gene], ties[gene] = _merge(turned[k], ones, n, value[a:b], count[a:b], 1.0, weight)
