"""The delete-one jackknife of a group's log-normalised total, without forming cells x genes.

Leaving out cell i turns gene g's value ``v = log1p(a)``, ``a = T P / S``, into ``v + d`` with
``d = log1p(u)``, ``u = (a' - a) / (1 + a)``, ``a' = T (P - y) / (S - l)``. Where the cell has no
count, ``u = w e`` with ``w = a / (1 + a)`` of the gene and ``e = l / (S - l)`` of the cell: the
sums over cells of d and d^2 are power series in w whose coefficients are sums of powers of e. Only
non-zeros are visited one by one.

Legend: ``P`` the gene's total, ``S`` the group's, ``l`` the cell's, ``y`` the count, ``T`` target.
"""

# ruff: noqa: PLR0913, PLR0917  # kernels take arrays, not objects
from __future__ import annotations

import math
from typing import Any

import numpy as np
from numba import njit
from numpy.typing import NDArray

Array = NDArray[Any]

#: Terms of the series, and the largest e for which their remainder is below 1e-17.
TERMS, LARGEST = 14, 0.05


@njit(nogil=True, cache=True)
def squared_coefficients(terms: int) -> Array:
    """Coefficients of log1p(x)^2 in powers of x, from x^0."""
    out = np.zeros(terms + 1)
    for a in range(1, terms):
        for b in range(1, terms + 1 - a):
            out[a + b] += (-1.0) ** (a + b) / (a * b)
    return out


@njit(nogil=True, cache=True)
def zeros(gene_totals: Array, totals: Array, target: float, s1: Array, s2: Array) -> None:
    """Sum d and d^2 over a group's cells as if no cell had a count, into ``s1[G]``, ``s2[G]``."""
    whole = totals.sum()
    n, genes = len(totals), len(gene_totals)
    largest = 0.0
    for i in range(n):
        rest = whole - totals[i]
        largest = max(largest, totals[i] / rest if rest > 0 else np.inf)
    if largest > LARGEST:
        for g in range(genes):
            a = target * gene_totals[g] / whole
            for i in range(n):
                d = without(a, gene_totals[g], 0.0, whole - totals[i], target)
                s1[g] += d
                s2[g] += d * d
        return
    powers = np.zeros(TERMS + 1)
    for i in range(n):
        e = totals[i] / (whole - totals[i])
        p = 1.0
        for k in range(1, TERMS + 1):
            p *= e
            powers[k] += p
    squared = squared_coefficients(TERMS)
    for g in range(genes):
        a = target * gene_totals[g] / whole
        w = a / (1.0 + a)
        p, first, second = 1.0, 0.0, 0.0
        for k in range(1, TERMS + 1):
            p *= w
            first += (-1.0) ** (k + 1) / k * p * powers[k]
            second += squared[k] * p * powers[k]
        s1[g] += first
        s2[g] += second


@njit(nogil=True, cache=True)
def without(a: float, gene_total: float, count: float, rest: float, target: float) -> float:
    """Return d for one cell and gene; `rest` is the group's total without the cell."""
    left = target * (gene_total - count) / rest if rest > 0 else 0.0
    return math.log1p((left - a) / (1.0 + a))


@njit(nogil=True, cache=True)
def counts(
    indptr: Array, indices: Array, data: Array, group: Array, totals: Array, gene_totals: Array,
    wholes: Array, target: float, s1: Array, s2: Array,
) -> None:  # fmt: skip
    """Replace, at a block's non-zeros, what `zeros` assumed by what is there.

    ``totals`` is one per row of the block; ``gene_totals[P, G]`` and ``wholes[P]`` are the groups'.
    """
    for row in range(len(indptr) - 1):
        p = group[row]
        if p < 0 or wholes[p] <= 0:
            continue
        rest = wholes[p] - totals[row]
        e = totals[row] / rest if rest > 0 else 0.0
        for j in range(indptr[row], indptr[row + 1]):
            g = indices[j]
            a = target * gene_totals[p, g] / wholes[p]
            if rest > 0:
                absent = math.log1p(a / (1.0 + a) * e)
            else:
                absent = without(a, gene_totals[p, g], 0.0, rest, target)
            d = without(a, gene_totals[p, g], np.float64(data[j]), rest, target)
            s1[p, g] += d - absent
            s2[p, g] += d * d - absent * absent
