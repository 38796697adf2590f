"""The zero-inflated negative binomial: `vcell.kernels.likelihood` with a probability of dropout.

A count is zero by dropout with probability sigmoid(pi). With ``a = -t log1p(mu/t)``, the log
probability of a zero under the negative binomial:

    zero:      -log(sigmoid(pi) + sigmoid(-pi) exp(a))
    otherwise: softplus(pi) + the negative binomial's loss

Every gene is first treated as a zero, then corrected at the counts. The logarithm is taken of ``1 -
v`` with ``v = -sigmoid(-pi) expm1(a)`` where v is small, otherwise of the sum, which has no
cancellation; q = sigmoid(-pi) exp(a) / (sum) is the probability that a zero was counted.
"""

# ruff: noqa: PLR0913, PLR0917  # kernels take arrays, not objects
from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vcell.kernels.elementary import (
    FLAGS,
    HALF,
    ONE,
    exp,
    expm1_and_scale,
    log,
    log1p,
    log1p_less_share,
    plus,
)
from vcell.kernels.kernel import njit
from vcell.kernels.likelihood import (
    BLOCK,
    at_counts,
    at_genes,
    exp_rows,
    max_length,
    subtract_share,
)

Array = NDArray[Any]
_ZERO = np.float32(0.0)


@njit(inline="always", fastmath=FLAGS)
def _zero(a: np.float32, pi: np.float32) -> tuple[np.float32, np.float32, np.float32]:
    """Return the loss of a zero, q, and the gradient by pi."""
    z = exp(-abs(pi))
    near = ONE / (ONE + z)
    far = z * near
    dropped = near if pi > _ZERO else far
    kept = far if pi > _ZERO else near
    e, s = expm1_and_scale(a)
    em1 = s * e + (s - ONE)
    counted = kept * (s * e + s)
    v = -kept * em1
    small = v < HALF
    total = ONE - v if small else dropped + counted
    rest = -v - (total - ONE) if small else _ZERO
    inverse = ONE / total
    return -(log(total) + rest * inverse), counted * inverse, kept * dropped * em1 * inverse


@njit(nogil=True, cache=True, error_model="numpy", fastmath=FLAGS)
def _zeros(
    mean: Array, scale: np.float32, theta: Array, inverse_theta: Array, pi: Array, work: Array
) -> np.float32:
    """Process a block as zeros: return its loss, and write gradients to `work` (4 x BLOCK)."""
    loss = _ZERO
    for g in range(mean.shape[0]):
        mu = mean[g] * scale
        u = mu * inverse_theta[g]
        r = ONE / (ONE + u)
        log_1p = log1p(u, r)
        value, q, by_pi = _zero(-theta[g] * log_1p, pi[g])
        loss = plus(loss, value)
        work[g] = q * mu * r
        work[BLOCK + g] = q * log1p_less_share(u, r, log_1p)
        work[2 * BLOCK + g] = by_pi
    return loss


@njit(nogil=True, cache=True, error_model="numpy", fastmath=FLAGS)
def _hand_out(
    work: Array, weight: np.float32, grad: Array, by_theta: Array, by_pi: Array
) -> np.float32:
    """Write a block's gradients to the outputs; return the sum of those by log mu."""
    total = _ZERO
    for g in range(grad.shape[0]):
        value = work[g]
        grad[g] = value
        total = plus(total, value)
        by_theta[g] += weight * work[BLOCK + g]
        by_pi[g] = weight * work[2 * BLOCK + g]
    return total


@njit(nogil=True, cache=True, error_model="numpy", fastmath=FLAGS)
def _corrections(
    theta: Array, inverse_theta: Array, mu: Array, r: Array, log_1p: Array, pi: Array, loss: Array,
    by_log_mu: Array, by_theta: Array, by_pi: Array,
) -> None:  # fmt: skip
    """Compute corrections at genes processed as zeros, without the counts' own part."""
    for k in range(mu.shape[0]):
        dense = theta[k] * log_1p[k]
        value, q, _ = _zero(-dense, pi[k])
        z = exp(-abs(pi[k]))
        near = ONE / (ONE + z)
        positive = pi[k] if pi[k] > _ZERO else _ZERO
        loss[k] = positive + log1p(z, near) + dense - value
        by_log_mu[k] = (ONE - q) * mu[k] * r[k]
        u = mu[k] * inverse_theta[k]
        by_theta[k] = (ONE - q) * log1p_less_share(u, r[k], log_1p[k])
        by_pi[k] = near if pi[k] > _ZERO else z * near


@njit(nogil=True, cache=True, error_model="numpy")
def zinb_rows(
    logits: Array, pi: Array, begin: Array, indices: Array, counts: Array, library: Array,
    weight: Array, theta: Array, inverse_theta: Array, s: Array, a0: Array, a1: Array,
    loss: Array, grad: Array, grad_pi: Array, by_theta: Array,
) -> None:  # fmt: skip
    """Compute the negative log-likelihood of rows, and the gradients of its weighted sum.

    Like `vcell.kernels.likelihood.nb_rows`, with `pi`, the logits of dropout (B, G), whose gradient
    is written to `grad_pi`, which may be `pi`.
    """
    n_genes = logits.shape[1]
    mean, work = np.empty(n_genes, np.float32), np.empty(3 * BLOCK, np.float32)
    room = np.empty((11, max_length(begin)), np.float32)
    for b in range(logits.shape[0]):
        out, out_pi = grad[b], grad_pi[b]
        first, last = begin[b], begin[b + 1]
        n = last - first
        genes = indices[first:last]
        highest, total = exp_rows(logits[b], mean)
        if not library[b] > 0:  # an empty cell gets no gradient
            loss[b] = 0.0
            out[:] = np.nan if math.isnan(total) else 0.0
            out_pi[:] = 0.0
            continue
        shift = math.log(library[b]) - highest - math.log(total)
        scale, w = np.float32(library[b] / total), np.float32(weight[b])
        gathered = room[0, :n], room[1, :n], room[2, :n], room[3, :n], room[4, :n]
        at_genes(logits[b], shift, genes, inverse_theta, *gathered)
        t_here, pi_here = room[5, :n], room[6, :n]
        for k in range(n):
            t_here[k] = theta[genes[k]]
            pi_here[k] = pi[b, genes[k]]
        more, by_mu, by_t, by_p = room[7, :n], room[8, :n], room[9, :n], room[10, :n]
        _corrections(
            t_here, gathered[1], gathered[2], gathered[3], gathered[4], pi_here,
            more, by_mu, by_t, by_p,
        )  # fmt: skip
        value: Any = 0.0
        slope: Any = 0.0
        for at in range(0, n_genes, BLOCK):
            end = at + BLOCK
            value += _zeros(
                mean[at:end], scale, theta[at:end], inverse_theta[at:end], pi[b, at:end], work
            )
            slope += _hand_out(work, w, out[at:end], by_theta[at:end], out_pi[at:end])
        for k in range(n):
            if counts[first + k] > 0:
                g = genes[k]
                value += more[k]
                out[g] += by_mu[k]
                slope += by_mu[k]
                by_theta[g] += w * by_t[k]
                out_pi[g] = w * by_p[k]
        own = at_counts(genes, counts[first:last], theta, (s, a0, a1), gathered, w, out, by_theta)
        loss[b] = value + own[0]
        subtract_share(out, mean, np.float32((slope + own[1]) / total), w)
