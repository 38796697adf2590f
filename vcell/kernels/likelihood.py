"""Negative binomial and Poisson log-likelihoods of counts, and their gradients, in one pass.

A cell with library size L has means ``mu = L softmax(logits)``. Its negative log-likelihood has a
dense part, a function of mu and theta alone, and a part at the non-zero counts:

    t log1p(mu/t)                                         for every gene
    x (log1p(mu/t) - log mu) - S(x, t) + log x!           where x > 0

(S, A0, A1: `vcell.kernels.counting`.) Gradients, with r = t / (t + mu):

    by log mu:  (mu - x) r
    by t:       [log1p(mu/t) - mu/(t + mu)] + (A1 - mu A0) r / t

The first is propagated through the softmax: ``grad = G - softmax * sum(G)``. A row is processed
while in the cache, in blocks of 512 genes whose float32 sums go into float64 totals. Plain float32
sums are off by 1e-5 on 24,000 genes, these by 3e-7.

Legend: B cells, G genes; `grad` may be `logits` itself. Rows are CSR with sorted columns.
"""

# ruff: noqa: PLR0913, PLR0917  # kernels take arrays, not objects
from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vcell.kernels.counting import LEAST_LOOKED_UP, LOG_FACTORIAL, log_factorial, rising
from vcell.kernels.elementary import (
    FLAGS,
    ONE,
    exp,
    larger,
    log1p,
    log1p_less_share,
    plus,
)
from vcell.kernels.kernel import njit

Array = NDArray[Any]

BLOCK = 512
_LEAST = np.float32(-3.0e38)
_SAFE = np.float32(20.0)  # of a largest logit: sums do not overflow, and small values stay normal


@njit(nogil=True, cache=True)
def max_length(begin: Array) -> int:
    """Return the largest number of counts of a row."""
    most = 0
    for b in range(begin.shape[0] - 1):
        most = max(most, begin[b + 1] - begin[b])
    return most


@njit(nogil=True, cache=True, error_model="numpy", fastmath=FLAGS)
def exp_rows(logits: Array, out: Array) -> tuple[float, float]:
    """Fill `out` with exp(logits - shift) of one row; return the shift and the sum.

    The shift is the maximum, or 0 where that is safe: a difference would be rounded.
    """
    highest: Any = _LEAST
    for g in range(logits.shape[0]):
        highest = larger(logits[g], highest)
    if abs(highest) < _SAFE:
        highest = np.float32(0.0)
    total = 0.0
    for begin in range(0, logits.shape[0], BLOCK):
        a, b = logits[begin : begin + BLOCK], out[begin : begin + BLOCK]
        part = np.float32(0.0)
        for g in range(a.shape[0]):
            e = exp(a[g] - highest)
            b[g] = e
            part = plus(part, e)
        total += float(part)
    return highest, total


@njit(nogil=True, cache=True, error_model="numpy", fastmath=FLAGS)
def subtract_share(grad: Array, share: Array, factor: np.float32, weight: np.float32) -> None:
    """``grad = weight * (grad - factor * share)``: the gradient of a softmax."""
    for g in range(grad.shape[0]):
        grad[g] = weight * (grad[g] - factor * share[g])


@njit(nogil=True, cache=True, error_model="numpy", fastmath=FLAGS)
def _nb_dense(
    mean: Array,
    scale: np.float32,
    theta: Array,
    inverse_theta: Array,
    weight: np.float32,
    grad: Array,
    by_theta: Array,
) -> tuple[np.float32, np.float32]:
    """Process a block as if all counts were zero; return the sums of the loss and of `grad`."""
    loss = total = np.float32(0.0)
    for g in range(mean.shape[0]):
        mu = mean[g] * scale
        u = mu * inverse_theta[g]
        r = ONE / (ONE + u)
        log_1p = log1p(u, r)
        value = mu * r
        grad[g] = value
        by_theta[g] += weight * log1p_less_share(u, r, log_1p)
        loss = plus(loss, theta[g] * log_1p)
        total = plus(total, value)
    return loss, total


@njit(nogil=True, cache=True, error_model="numpy", fastmath=FLAGS)
def at_genes(
    row: Array, shift: float, indices: Array, inverse_theta: Array, log_mu: Array,
    inverse_t: Array, mu: Array, r: Array, log_1p: Array,
) -> None:  # fmt: skip
    """Gather the inputs at a row's counts, then compute in vectorised loops."""
    for k in range(indices.shape[0]):
        g = indices[k]
        log_mu[k] = row[g] + shift
        inverse_t[k] = inverse_theta[g]
    for k in range(indices.shape[0]):
        m = exp(log_mu[k])
        u = m * inverse_t[k]
        inverse = ONE / (ONE + u)
        mu[k] = m
        r[k] = inverse
        log_1p[k] = log1p(u, inverse)


@njit(nogil=True, cache=True, error_model="numpy")
def at_counts(
    indices: Array, counts: Array, theta: Array, tables: tuple[Array, Array, Array],
    gathered: tuple[Array, Array, Array, Array, Array], weight: np.float32,
    out: Array, by_theta: Array,
) -> tuple[float, float]:  # fmt: skip
    """Add the counts' part to a row's loss and gradients; return the sums of both.

    Counts in the tables are processed in float32, the others in float64.
    """
    s, a0, a1 = tables
    log_mus, inverse_t, mus, rs, log_1ps = gathered
    loss: Any = 0.0
    slope: Any = 0.0
    for k in range(indices.shape[0]):
        g, x = indices[k], int(counts[k])
        if x < 1:
            continue
        log_mu = log_mus[k]
        if x == 1:
            r = rs[k]
            loss += log_1ps[k] - log_mu
            by_theta[g] -= weight * (r * inverse_t[k]) * (mus[k] * inverse_t[k])
        elif x < s.shape[0] and theta[g] >= LEAST_LOOKED_UP:
            r = rs[k]
            loss += x * (log_1ps[k] - log_mu) - s[x, g] + LOG_FACTORIAL[x]
            by_theta[g] += weight * (r * inverse_t[k]) * (a1[x, g] - mus[k] * a0[x, g])
        else:
            t, log_mu64 = np.float64(theta[g]), np.float64(log_mu)
            mu = math.exp(log_mu64)
            sums = rising(x, t)
            r = np.float32(t / (t + mu))
            loss += x * (math.log1p(mu / t) - log_mu64) - sums[0] + log_factorial(x)
            by_theta[g] += np.float32(weight * (sums[2] - mu * sums[1]) / (t + mu))
        out[g] -= np.float32(x) * r
        slope -= np.float32(x) * r
    return loss, slope


@njit(nogil=True, cache=True, error_model="numpy", fastmath=FLAGS)
def nb_rows(
    logits: Array,
    begin: Array,
    indices: Array,
    counts: Array,
    library: Array,
    weight: Array,
    theta: Array,
    inverse_theta: Array,
    s: Array,
    a0: Array,
    a1: Array,
    loss: Array,
    grad: Array,
    by_theta: Array,
) -> None:
    """Compute the negative log-likelihood of rows, and the gradients of its weighted sum.

    Parameters
    ----------
    logits, grad
        (B, G) float32; `grad` is filled, and may be `logits`.
    begin, indices, counts
        CSR with B + 1 row bounds.
    library, weight
        (B,) sums of counts, and the weight of each cell in the gradients.
    theta, inverse_theta, by_theta
        (G,) float32; the gradient is added to `by_theta`.
    s, a0, a1
        `vcell.kernels.counting.tables` of theta.
    loss
        (B,) float64, filled.
    """
    n_genes = logits.shape[1]
    mean = np.empty(n_genes, np.float32)
    most = max_length(begin)
    room = np.empty((5, most), np.float32)
    for b in range(logits.shape[0]):
        row, out = logits[b], grad[b]
        first, last = begin[b], begin[b + 1]
        n = last - first
        highest, total = exp_rows(row, mean)
        if not library[b] > 0:  # an empty cell has probability one
            loss[b] = 0.0
            out[:] = np.nan if math.isnan(total) else 0.0
            continue
        shift = math.log(library[b]) - highest - math.log(total)
        scale, w = np.float32(library[b] / total), np.float32(weight[b])
        gathered = room[0, :n], room[1, :n], room[2, :n], room[3, :n], room[4, :n]
        at_genes(row, shift, indices[first:last], inverse_theta, *gathered)
        value: Any = 0.0
        slope: Any = 0.0
        for at in range(0, n_genes, BLOCK):
            end = at + BLOCK
            found = _nb_dense(
                mean[at:end], scale, theta[at:end], inverse_theta[at:end], w,
                out[at:end], by_theta[at:end],
            )  # fmt: skip
            value += found[0]
            slope += found[1]
        more = at_counts(
            indices[first:last], counts[first:last], theta, (s, a0, a1), gathered, w, out, by_theta
        )
        loss[b] = value + more[0]
        subtract_share(out, mean, np.float32((slope + more[1]) / total), w)


@njit(nogil=True, cache=True, error_model="numpy", fastmath=FLAGS)
def poisson_rows(
    logits: Array,
    begin: Array,
    indices: Array,
    counts: Array,
    library: Array,
    weight: Array,
    loss: Array,
    grad: Array,
) -> None:
    """Compute the Poisson loss of rows and its gradient: `nb_rows` without theta.

    The means always add up to the library size, so the dense part is constant.
    """
    mean = np.empty(logits.shape[1], np.float32)
    for b in range(logits.shape[0]):
        row, out = logits[b], grad[b]
        highest, total = exp_rows(row, mean)
        shift = math.log(max(library[b], 1e-30)) - highest - math.log(total)
        value, seen = float(library[b]), 0.0
        for k in range(begin[b], begin[b + 1]):
            x = int(counts[k])
            value += log_factorial(x) - x * (row[indices[k]] + shift)
            seen += x
        loss[b] = value
        out[:] = 0.0
        subtract_share(out, mean, np.float32(-seen / total), np.float32(weight[b]))
        for k in range(begin[b], begin[b + 1]):
            out[indices[k]] -= np.float32(weight[b] * counts[k])


@njit(nogil=True, cache=True, error_model="numpy", fastmath=FLAGS)
def _square_dense(values: Array, weight: np.float32, grad: Array) -> np.float32:
    total = np.float32(0.0)
    for g in range(values.shape[0]):
        value = values[g]
        total = plus(total, value * value)
        grad[g] = weight * value
    return total


@njit(nogil=True, cache=True, error_model="numpy", fastmath=FLAGS)
def square_rows(
    values: Array,
    begin: Array,
    indices: Array,
    target: Array,
    weight: Array,
    loss: Array,
    grad: Array,
) -> None:
    """Compute half the squared error to sparse targets, summed over genes, and its gradient."""
    for b in range(values.shape[0]):
        row, out = values[b], grad[b]
        total: Any = 0.0
        for k in range(begin[b], begin[b + 1]):
            y = np.float64(target[k])
            total += 0.5 * y * y - y * row[indices[k]]
        for at in range(0, row.shape[0], BLOCK):
            end = at + BLOCK
            total += 0.5 * _square_dense(row[at:end], np.float32(weight[b]), out[at:end])
        loss[b] = total
        for k in range(begin[b], begin[b + 1]):
            out[indices[k]] -= np.float32(weight[b] * target[k])
