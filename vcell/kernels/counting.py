"""Sums over the integers below a count, which replace lgamma and digamma.

With dispersion t (theta), a count x >= 1 and i running over 0 ... x - 1:

    S(x)  = sum log(1 + i/t)  = lgamma(x + t) - lgamma(t) - x log t
    A0(x) = sum 1/(t + i)     = digamma(x + t) - digamma(t)
    A1(x) = sum i/(t + i)     = x - t A0(x)

Small counts, nearly all there are, are looked up in tables made for each step's dispersions;
`rising` computes the others in float64. Sums avoid cancellation: in float32, lgamma(x + t) -
lgamma(t) is off by 0.8 at t = 1e6.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vcell.kernels.elementary import FLAGS, ONE, log1p
from vcell.kernels.kernel import njit

Array = NDArray[Any]

#: Largest count in a table: beyond it float32 sums are not accurate enough.
MOST_LOOKED_UP = 32
#: Below this dispersion a likelihood is a small difference of large sums: use only float64.
LEAST_LOOKED_UP = 0.01
#: Time of one count in float64 relative to one table entry (measured).
_WORTH = 40
_SHIFT = 8  # arguments of the asymptotic series are at least this


@njit(nogil=True, cache=True, error_model="numpy")
def rising(x: int, t: float) -> tuple[float, float, float]:
    """S, A0 and A1 of a count above `_SHIFT` in float64, to about 1e-11."""
    s = a0 = a1 = 0.0
    z, n = t, float(x)
    if t < _SHIFT:  # the first terms one by one, so that the series' argument is large
        product = 1.0
        terms = min(_SHIFT, x)
        for i in range(terms):
            product *= 1.0 + i / t
            a0 += 1.0 / (t + i)
            a1 += i / (t + i)
        z, n = t + terms, float(x - terms)
        s = math.log(product) + n * math.log1p(terms / t)
    y = z + n
    p, q = 1.0 / (z * z), 1.0 / (y * y)
    ratio = math.log1p(n / z)
    series_z = (1 / 12 - p * (1 / 360 - p * (1 / 1260 - p / 1680))) / z
    series_y = (1 / 12 - q * (1 / 360 - q * (1 / 1260 - q / 1680))) / y
    s += (y - 0.5) * ratio - n + (series_y - series_z)
    slope_z = p * (1 / 12 - p * (1 / 120 - p * (1 / 252 - p / 240)))
    slope_y = q * (1 / 12 - q * (1 / 120 - q * (1 / 252 - q / 240)))
    difference = ratio + 0.5 * n / (z * y) + (slope_z - slope_y)
    return s, a0 + difference, a1 + (n - t * difference)


@njit(nogil=True, cache=True, error_model="numpy", fastmath=FLAGS)
def fill_tables(theta: Array, s: Array, a0: Array, a1: Array) -> None:
    """Fill (C + 1, G) tables of the sums for counts 0 ... C; the first row stays zero."""
    for c in range(1, s.shape[0]):
        i = np.float32(c - 1)
        before = s[c - 1], a0[c - 1], a1[c - 1]
        _add_term(theta, i, before[0], s[c])
        _add_share(theta, i, before[1], before[2], a0[c], a1[c])


@njit(nogil=True, cache=True, error_model="numpy", fastmath=FLAGS)
def _add_term(theta: Array, i: np.float32, before: Array, after: Array) -> None:
    for g in range(theta.shape[0]):
        t = theta[g]
        inverse = ONE / (t + i)
        after[g] = before[g] + log1p(i / t, t * inverse)


@njit(nogil=True, cache=True, error_model="numpy", fastmath=FLAGS)
def _add_share(
    theta: Array, i: np.float32, zero: Array, one: Array, new_zero: Array, new_one: Array
) -> None:
    for g in range(theta.shape[0]):
        inverse = ONE / (theta[g] + i)
        new_zero[g] = zero[g] + inverse
        new_one[g] = one[g] + i * inverse


@njit(nogil=True, cache=True)
def table_size(counts: Array, n_genes: int) -> int:
    """Return the largest count worth a row of the tables, given the counts of a step."""
    histogram = np.zeros(MOST_LOOKED_UP + 2, np.int64)
    for k in range(counts.shape[0]):
        histogram[min(int(counts[k]), MOST_LOOKED_UP + 1)] += 1
    size = 1
    above = 0
    for c in range(2, MOST_LOOKED_UP + 2):
        above += histogram[c]
    best = above * _WORTH
    for c in range(2, MOST_LOOKED_UP + 1):
        above -= histogram[c]
        cost = above * _WORTH + (c - 1) * n_genes
        if cost < best:
            size, best = c, cost
    return size


def tables(theta: Array, size: int) -> tuple[Array, Array, Array]:
    """Return S, A0 and A1 for counts 0 ... `size`."""
    s, a0, a1 = (np.zeros((size + 1, len(theta)), np.float32) for _ in range(3))
    fill_tables(theta, s, a0, a1)
    return s, a0, a1


#: lgamma(x + 1) of common counts.
LOG_FACTORIAL = np.array([math.lgamma(x + 1.0) for x in range(1024)])


@njit(nogil=True, cache=True, inline="always")
def log_factorial(x: int) -> float:
    """Return log(x!)."""
    return LOG_FACTORIAL[x] if x < 1024 else math.lgamma(x + 1.0)
