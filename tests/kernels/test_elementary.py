"""The polynomials are as accurate as float32 allows, everywhere they are used.

They are compiled by vcell's numba: had numba itself compiled before vcell set it up, no kernel of
this process would be saved, which other tests expect.
"""

from __future__ import annotations

import numpy as np

from vcell.kernels import elementary
from vcell.kernels.with_numba import njit


@njit
def _exp(x, out):
    for i in range(x.shape[0]):
        out[i] = elementary.exp(x[i])


@njit
def _expm1(x, out):
    for i in range(x.shape[0]):
        e, s = elementary.expm1_and_scale(x[i])
        out[i] = s * e + (s - np.float32(1))


@njit
def _log1p(x, out):
    one = np.float32(1)
    for i in range(x.shape[0]):
        out[i] = elementary.log1p(x[i], one / (one + x[i]))


@njit
def _rest(x, out):
    one = np.float32(1)
    for i in range(x.shape[0]):
        inverse = one / (one + x[i])
        out[i] = elementary.log1p_less_share(x[i], inverse, elementary.log1p(x[i], inverse))


def _error(kernel, x, exact):
    out = np.empty_like(x)
    kernel(x, out)
    return np.abs(out / exact(x.astype(np.float64)) - 1).max()


def test_exp_is_accurate_from_the_smallest_normal_number_up():
    assert _error(_exp, np.linspace(-87, 60, 400_001, dtype=np.float32), np.exp) < 4e-7


def test_exp_of_anything_below_stays_small_and_normal():
    x = np.array([-87.5, -1000, -3e38], np.float32)
    out = np.empty_like(x)
    _exp(x, out)
    assert (out > 1e-38).all()
    assert (out < 2e-38).all()


def test_expm1_keeps_its_digits_near_zero():
    x = -np.logspace(-30, 1.9, 100_001, dtype=np.float32)
    assert _error(_expm1, x, np.expm1) < 4e-7


def test_log1p_keeps_its_digits_near_zero_and_far_from_it():
    x = np.logspace(-30, 30, 400_001, dtype=np.float32)
    assert _error(_log1p, x, np.log1p) < 3e-7


def test_the_difference_that_cancels_does_not():
    def exact(u):
        v = u / (1 + u)
        series = sum(v**k / k for k in range(2, 40))
        return np.where(v < 0.3, series, np.log1p(u) - v)

    x = np.logspace(-15, 12, 400_001, dtype=np.float32)
    assert _error(_rest, x, exact) < 5e-6
