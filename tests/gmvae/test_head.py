"""The logistic regression of a head against its formula, and the memory of a fit."""

from __future__ import annotations

import tracemalloc

import numpy as np
import pytest
from scipy.optimize import minimize
from scipy.special import log_softmax

from vcell.gmvae.head import Guesses, fit


def cells(n, n_labels, dimensions=6, seed=0):
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, n_labels, n)
    means = rng.normal(size=(n_labels, dimensions))
    return rng.normal(size=(n, dimensions)) + means[labels], labels


def plain(x, labels, n_labels, guesses):
    """Fit with the loss as it is written down, in new arrays."""
    weight, target = np.ones((len(x), 1)), np.eye(n_labels)[labels]
    if guesses is not None:
        x = np.concatenate([x, guesses.x])
        weight = np.append(weight, np.full((len(guesses.x), 1), guesses.weight), axis=0)
        target = np.append(target, guesses.weight * guesses.probabilities, axis=0)
    z = (x - x.mean(0)) / x.std(0)

    def loss(flat):
        w = flat.reshape(z.shape[1] + 1, n_labels)
        log_p = log_softmax(z @ w[:-1] + w[-1], axis=1)
        slope = weight * np.exp(log_p) - target
        gradient = np.vstack([z.T @ slope + w[:-1], slope.sum(0)])
        return -(log_p * target).sum() + 0.5 * (w[:-1] ** 2).sum(), gradient.ravel()

    start = np.zeros((z.shape[1] + 1, n_labels))
    start[-1] = np.log(np.bincount(labels) / len(labels))
    options = {"maxiter": 1000, "ftol": 1e-10, "gtol": 1e-6}
    return minimize(loss, start.ravel(), jac=True, method="L-BFGS-B", options=options).x


@pytest.mark.parametrize(("n", "n_labels"), [(150, 3), (2500, 20)])  # one piece, and several
@pytest.mark.parametrize("guessed", [0, 70])
def test_a_fit_is_that_of_the_formula(n, n_labels, guessed):
    x, labels = cells(n, n_labels)
    rng = np.random.default_rng(1)
    likely = rng.dirichlet(np.ones(n_labels), guessed)
    guesses = Guesses(rng.normal(size=(guessed, 6)), likely, 0.4) if guessed else None
    head = fit(x, labels, n_labels, guesses=guesses)
    found = np.vstack([head.matrix, head.bias])
    np.testing.assert_array_equal(found.ravel(), plain(x, labels, n_labels, guesses))


def test_steps_of_a_fit_need_no_new_memory():
    """With 200 labels, new arrays in every step took as long as the arithmetic."""
    x, labels = cells(3000, 100)
    fit(x[:200], labels[:200], 100)
    tracemalloc.start()
    fit(x, labels, 100)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 4 * 8 * 3000 * 100  # targets, log probabilities and the slope
