"""The likelihoods of counts in float64, written from their definitions, for tests."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.special import digamma, gammaln

Array = NDArray[np.float64]


def _means(logits: Array, library: Array) -> tuple[Array, Array]:
    highest = logits.max(1, keepdims=True)
    total = highest + np.log(np.exp(logits - highest).sum(1, keepdims=True))
    log_mu = np.log(library)[:, None] + logits - total
    return log_mu, np.exp(log_mu)


def _digamma_difference(x: Array, t: Array) -> Array:
    """digamma(x + t) - digamma(t), term by term where there are few: the difference cancels."""
    few = np.zeros_like(x)
    for i in range(200):
        few += np.where(i < x, 1 / (t + i), 0)
    return np.where(x < 200, few, digamma(x + t) - digamma(t))


def _log_gamma_difference(x: Array, t: Array) -> Array:
    few = np.zeros_like(x)
    for i in range(200):
        few += np.where(i < x, np.log(t + i), 0)
    return np.where(x < 200, few, gammaln(x + t) - gammaln(t))


def through_softmax(slope: Array, mu: Array, library: Array) -> Array:
    return slope - mu / library[:, None] * slope.sum(1, keepdims=True)


def sizes(logits: Array, x: Array, library: Array, theta: Array | float) -> Array:
    """Return the size of what each gradient by a logit is a difference of."""
    _, mu = _means(logits.astype(float), library)
    slope = (mu + x) / (1 + mu / theta)
    return slope + mu / library[:, None] * slope.sum(1, keepdims=True)


def negative_binomial(
    logits: Array, x: Array, library: Array, theta: Array
) -> tuple[Array, Array, Array]:
    """Return the loss of each cell, the gradient by logits, and the one by theta."""
    log_mu, mu = _means(logits, library)
    t = np.broadcast_to(theta, x.shape)
    loss = t * np.log1p(mu / t) + x * (np.log(t + mu) - log_mu)
    loss += gammaln(x + 1) - _log_gamma_difference(x, t)
    slope = (mu - x) * t / (t + mu)
    by_theta = np.log1p(mu / t) + (x - mu) / (t + mu) - _digamma_difference(x, t)
    return loss.sum(1), through_softmax(slope, mu, library), by_theta.sum(0)


def zero_inflated(
    logits: Array, pi: Array, x: Array, library: Array, theta: Array
) -> tuple[Array, Array, Array, Array]:
    """Return the loss of each cell and the gradients by logits, pi and theta."""
    log_mu, mu = _means(logits, library)
    t = np.broadcast_to(theta, x.shape)
    zero = -t * np.log1p(mu / t)
    dropped, kept = 1 / (1 + np.exp(-pi)), 1 / (1 + np.exp(pi))
    chance = dropped + kept * np.exp(zero)  # of a zero
    near = np.log1p(kept * np.expm1(zero))
    at_zero = -np.where(chance > 0.5, near, np.log(chance))
    counted = kept * np.exp(zero) / chance
    nb = -zero + x * (np.log(t + mu) - log_mu) + gammaln(x + 1) - _log_gamma_difference(x, t)
    loss = np.where(x > 0, np.logaddexp(0, pi) + nb, at_zero)
    slope = np.where(x > 0, (mu - x) * t / (t + mu), counted * mu * t / (t + mu))
    by_pi = np.where(x > 0, dropped, kept * dropped * np.expm1(zero) / chance)
    rest = np.log1p(mu / t) - mu / (t + mu)
    by_theta = np.where(x > 0, rest + x / (t + mu) - _digamma_difference(x, t), counted * rest)
    return loss.sum(1), through_softmax(slope, mu, library), by_pi, by_theta.sum(0)


def poisson(logits: Array, x: Array, library: Array) -> tuple[Array, Array]:
    """Return the loss of each cell and the gradient by logits."""
    log_mu, mu = _means(logits, library)
    loss = mu - x * log_mu + gammaln(x + 1)
    return loss.sum(1), through_softmax(mu - x, mu, library)
