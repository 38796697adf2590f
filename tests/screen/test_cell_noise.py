"""What cells tell of the noise of effects, against dense covariances."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.sparse as sp

from vcell.screen.cell_noise import Whitening, cell_noise

N = 40


class Cells:
    """Values of cells, in blocks."""

    def __init__(self, values: np.ndarray) -> None:
        self.values, self.n_genes = values, values.shape[1]

    def blocks(self, rows=None):
        rows = np.arange(len(self.values)) if rows is None else rows
        for at in np.array_split(rows, 3):
            yield at, sp.csr_array(self.values[at])


@pytest.fixture(scope="module")
def made():
    """Cells of ten groups, with one factor that genes share, and a group that does not count."""
    rng = np.random.default_rng(0)
    group = rng.integers(-1, 10, 4000)
    sd, load = np.exp(0.7 * rng.normal(size=N)), rng.uniform(-0.9, 0.9, N)
    sd[3], load[3] = 0, 0
    alike = rng.normal(size=(len(group), 1)) * load
    values = sd * (alike + np.sqrt(1 - load**2) * rng.normal(size=alike.shape))
    return values + 5 * rng.normal(size=(11, N))[group], group, sd, load


def test_variances_are_those_within_groups_and_a_shared_factor_is_found(made):
    values, group, sd, load = made
    variance, loadings = cell_noise(Cells(values), group, seed=0)
    at = group >= 0
    means = np.array([values[group == one].mean(axis=0) for one in range(10)])
    off = values[at] - means[group[at]]
    assert np.allclose(variance, np.square(off).sum(axis=0) / (at.sum() - 10))
    assert loadings.shape == (N, 1)
    assert np.abs(loadings[:, 0] @ load) / np.linalg.norm(load) ** 2 == pytest.approx(1, abs=0.05)
    assert np.allclose(variance, sd**2, rtol=0.2)


def test_independent_genes_have_no_loadings(made):
    values = np.random.default_rng(1).normal(size=(2000, N))
    loadings = cell_noise(Cells(values), np.arange(2000) % 7, seed=0)[1]
    assert np.square(loadings).sum(axis=0).max(initial=0) < 0.4


def test_whitened_noise_is_the_same_in_all_directions(made):
    _, _, sd, load = made
    sd = np.maximum(sd, 0.1)
    white = Whitening.of(sd**2, load[:, None])
    covariance = np.outer(sd, sd) * (np.outer(load, load) + np.diag(1 - load**2))
    half = white.into(np.eye(N))
    assert np.allclose(half.T @ covariance @ half, np.eye(N), atol=1e-9)
    effects, vectors = np.random.default_rng(0).normal(size=(2, 5, N))
    assert np.allclose(white.back(white.into(effects)), effects)
    assert np.allclose(effects @ white.columns(vectors.T), white.into(effects) @ vectors.T)


def test_genes_without_variance_and_cells_without_factors_are_whitened():
    white = Whitening.of(np.array([0.0, 1.0, 4.0]), np.zeros((3, 0)))
    assert np.allclose(white.into(np.ones((1, 3)))[0], [0, 1, 0.5])
    assert np.allclose(white.back(white.into(np.ones((1, 3)))), [0, 1, 1])
    nothing = Whitening.of(np.zeros(3), np.zeros((3, 0)))
    assert not nothing.back(nothing.into(np.ones((1, 3)))).any()
