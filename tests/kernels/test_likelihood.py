"""The fused likelihoods equal float64 references, and are finite, wherever they may be asked."""

from __future__ import annotations

import mpmath
import numpy as np
import pytest
from scipy import sparse

from tests.kernels import count_reference
from vcell.kernels import counting, likelihood, zero_inflated


def _cells(seed, *, cells=24, genes=1300, spread=1.5, theta=None, deep=False):
    """Draw logits, dispersions over the whole range, and counts up to 60,000."""
    rng = np.random.default_rng(seed)
    logits = rng.normal(0, spread, (cells, genes)).astype(np.float32)
    t = np.exp(rng.uniform(np.log(1e-6), np.log(1e6), genes)) if theta is None else theta
    t = np.broadcast_to(np.float32(t), genes).copy()
    x = rng.poisson(rng.gamma(0.3, 0.5, (cells, genes)))
    x[rng.random(x.shape) < 0.005] = 33  # the first beyond the tables
    x[rng.integers(0, cells, 30), rng.integers(0, genes, 30)] = rng.integers(100, 60_000, 30)
    if deep:
        x += rng.poisson(20, x.shape)
    x[0, :] = 0
    x[0, 3] = 1
    return logits, sparse.csr_matrix(x.astype(np.float32)), t


def _nb(logits, x, theta, *, weight=None, in_place=False):
    library = np.asarray(x.sum(1), np.float64).ravel()
    w = np.ones(len(library)) if weight is None else weight
    size = counting.table_size(x.data, len(theta))
    loss, by_theta = np.empty(len(library)), np.zeros_like(theta)
    values = logits.copy()
    grad = values if in_place else np.empty_like(values)
    likelihood.nb_rows(
        values, x.indptr, x.indices, x.data, library, w, theta, 1 / theta,
        *counting.tables(theta, size), loss, grad, by_theta,
    )  # fmt: skip
    return loss, grad, by_theta


def _zinb(logits, pi, x, theta):
    library = np.asarray(x.sum(1), np.float64).ravel()
    size = counting.table_size(x.data, len(theta))
    loss, by_theta = np.empty(len(library)), np.zeros_like(theta)
    grad, grad_pi = logits.copy(), pi.copy()
    zero_inflated.zinb_rows(
        grad, grad_pi, x.indptr, x.indices, x.data, library, np.ones(len(library)), theta,
        1 / theta, *counting.tables(theta, size), loss, grad, grad_pi, by_theta,
    )  # fmt: skip
    return loss, grad, grad_pi, by_theta


def _double(*arrays):
    return [a.astype(np.float64) for a in arrays]


def _close(found, exact, scale=None, rtol=1e-5):
    """Equal to 1e-5 of each value, or of what it was summed from where that cancels."""
    assert np.isfinite(found).all()
    size = np.abs(exact) if scale is None else np.maximum(np.abs(exact), scale)
    worst = (np.abs(found - exact) / np.maximum(size, 1e-30)).max()
    assert worst < rtol, worst


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("deep", [False, True])
def test_negative_binomial_equals_float64(seed, deep):
    logits, x, theta = _cells(seed, deep=deep)
    library = np.asarray(x.sum(1), np.float64).ravel()
    exact = count_reference.negative_binomial(
        *_double(logits), x.toarray().astype(float), library, theta.astype(float)
    )
    loss, grad, by_theta = _nb(logits, x, theta)
    _close(loss, exact[0])
    _close(grad, exact[1], count_reference.sizes(logits, x.toarray(), library, theta))
    # the dispersions' gradients are sums over cells of both signs
    _close(by_theta, exact[2], _sizes(logits, x, theta))


def _sizes(logits, x, theta):
    """Sum the sizes of what each gene's gradient by theta is the sum of."""
    library = np.asarray(x.sum(1), np.float64).ravel()
    parts = [
        np.abs(
            count_reference.negative_binomial(
                logits[i : i + 1].astype(float), x[i].toarray().astype(float), library[i : i + 1],
                theta.astype(float),
            )[2]
        )
        for i in range(len(library))
    ]  # fmt: skip
    return np.sum(parts, 0)


@pytest.mark.parametrize("theta", [1e-6, 1e-3, 0.02, 1.0, 1e4, 1e6])
@pytest.mark.parametrize("count", [1, 2, 7, 31, 32, 33, 1000, 60_000])
def test_one_count_equals_forty_digits(theta, count):
    """Two genes, so that means are what the test says they are."""
    mpmath.mp.dps = 40
    x = sparse.csr_matrix(np.array([[count, 1]], np.float32))
    logits = np.array([[0.3, -0.2]], np.float32)
    t = np.array([theta, 1.0], np.float32)
    loss, _, by_theta = _nb(logits, x, t)
    total = mpmath.mpf(count + 1)
    e = [mpmath.exp(mpmath.mpf(float(v))) for v in logits[0]]

    def exact(theta_here, i, k):
        mu, t_i = total * e[i] / sum(e), mpmath.mpf(theta_here)
        return (
            t_i * mpmath.log(1 + mu / t_i) + k * (mpmath.log(t_i + mu) - mpmath.log(mu))
            - mpmath.loggamma(k + t_i) + mpmath.loggamma(t_i) + mpmath.loggamma(k + 1)
        )  # fmt: skip

    first, second = float(t[0]), float(t[1])
    both = exact(first, 0, count) + exact(second, 1, 1)
    assert abs(loss[0] / float(both) - 1) < 1e-5
    slope = mpmath.diff(lambda v: exact(v, 0, count), first, h=mpmath.mpf(first) * 1e-9)
    mu = float(total * e[0] / sum(e))
    # at large theta it is a difference of mu and x of the order of mu^2 / theta^2
    size = max(abs(float(slope)), 1e-3 * (mu / (first + mu)) ** 2 / max(1.0, first / mu))
    assert abs(by_theta[0] - float(slope)) < 1e-5 * size + 1e-30


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("pi", ["normal", "wide", -30.0, 30.0])
def test_zero_inflated_equals_float64(seed, pi):
    logits, x, theta = _cells(seed)
    rng = np.random.default_rng(seed)
    p = {"normal": rng.normal(0, 3, logits.shape), "wide": rng.uniform(-30, 30, logits.shape)}
    p = np.broadcast_to(p.get(pi, pi), logits.shape).astype(np.float32)
    library = np.asarray(x.sum(1), np.float64).ravel()
    exact = count_reference.zero_inflated(
        *_double(logits, p), x.toarray().astype(float), library, theta.astype(float)
    )
    loss, grad, grad_pi, by_theta = _zinb(logits, p, x, theta)
    _close(loss, exact[0])
    _close(grad, exact[1], count_reference.sizes(logits, x.toarray(), library, theta))
    _close(grad_pi, exact[2], 1e-12)
    _close(by_theta, exact[3], _sizes(logits, x, theta))


def test_poisson_equals_float64():
    logits, x, _ = _cells(0)
    library = np.asarray(x.sum(1), np.float64).ravel()
    exact = count_reference.poisson(*_double(logits), x.toarray().astype(float), library)
    loss, grad = np.empty(len(library)), logits.copy()
    likelihood.poisson_rows(
        grad, x.indptr, x.indices, x.data, library, np.ones(len(library)), loss, grad
    )
    _close(loss, exact[0])
    _close(grad, exact[1], count_reference.sizes(logits, x.toarray(), library, np.inf))


def test_squares_equal_float64():
    logits, x, _ = _cells(1)
    loss, grad = np.empty(x.shape[0]), logits.copy()
    likelihood.square_rows(grad, x.indptr, x.indices, x.data, np.ones(x.shape[0]), loss, grad)
    difference = logits.astype(float) - x.toarray()
    _close(loss, 0.5 * (difference**2).sum(1))
    _close(grad, difference, np.abs(x.toarray()) + 1)


def test_gradients_may_take_the_place_of_the_logits():
    cells = _cells(2)
    for one, other in zip(_nb(*cells), _nb(*cells, in_place=True), strict=True):
        np.testing.assert_array_equal(one, other)


def test_weights_scale_gradients_and_not_losses():
    logits, x, theta = _cells(4)
    w = np.random.default_rng(0).uniform(0, 2, len(logits))
    plain, weighted = _nb(logits, x, theta), _nb(logits, x, theta, weight=w)
    np.testing.assert_array_equal(plain[0], weighted[0])
    scale = np.abs(plain[1]).max()
    np.testing.assert_allclose(weighted[1], plain[1] * w[:, None], rtol=1e-4, atol=1e-6 * scale)


def test_an_empty_cell_costs_nothing_and_one_gene_suffices():
    theta = np.ones(5, np.float32)
    empty = sparse.csr_matrix((2, 5), dtype=np.float32)
    loss, grad, by_theta = _nb(np.zeros((2, 5), np.float32), empty, theta)
    assert (loss == 0).all()
    assert (grad == 0).all()
    assert (by_theta == 0).all()
    one = sparse.csr_matrix(np.array([[4.0]], np.float32))
    loss, grad, _ = _nb(np.zeros((1, 1), np.float32), one, theta[:1])
    assert np.isfinite(loss).all()
    assert abs(grad[0, 0]) < 1e-6  # the only mean there can be


def test_extreme_logits_stay_finite():
    _, x, theta = _cells(5)
    for scale in (50, 500):
        logits = np.random.default_rng(0).normal(0, scale, x.shape).astype(np.float32)
        assert all(np.isfinite(found).all() for found in _nb(logits, x, theta))
        assert all(np.isfinite(found).all() for found in _zinb(logits, logits.copy(), x, theta))


def test_what_is_not_a_number_shows():
    logits, x, theta = _cells(6)
    logits[3, 7] = np.nan
    loss, grad, _ = _nb(logits, x, theta)
    assert np.isnan(loss[3])
    assert np.isnan(grad[3]).any()
    assert np.isfinite(np.delete(loss, 3)).all()


@pytest.mark.parametrize("theta", [0.02, 0.5, 7.9, 8.1, 300.0, 1e6])
@pytest.mark.parametrize("count", [9, 33, 1000, 60_000])
def test_sums_over_counts_equal_forty_digits(theta, count):
    mpmath.mp.dps = 40
    t, x = mpmath.mpf(theta), mpmath.mpf(count)
    s = mpmath.loggamma(x + t) - mpmath.loggamma(t) - x * mpmath.log(t)
    a0 = mpmath.digamma(x + t) - mpmath.digamma(t)
    found = counting.rising(count, theta)
    for value, exact in zip(found, (s, a0, x - t * a0), strict=True):
        assert abs(value / float(exact) - 1) < 1e-8
