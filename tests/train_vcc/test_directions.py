"""Directions of effects: against dense decompositions, on noise alone, and on planted effects."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from vcell_train_vcc.closed.directions import (
    Denoising,
    Directions,
    _components,
    _own,
    shares,
)
from vcell_train_vcc.closed.gp import GaussianProcess

from vcell.models import Screen
from vcell.screen.cell_noise import Whitening

P, N, CELLS = 30, 200, 100


def made(seed: int, strength: float) -> Screen:
    """Make a screen whose effects are two programmes that features tell; noise is correlated."""
    rng = np.random.default_rng(seed)
    sd, load = np.exp(0.5 * rng.normal(size=N)), rng.uniform(-0.8, 0.8, N)
    hidden = rng.normal(size=(P, 2))
    noise = rng.normal(size=(P, 1)) * load + np.sqrt(1 - load**2) * rng.normal(size=(P, N))
    effect = strength * hidden @ rng.normal(size=(2, N)) * sd / np.sqrt(CELLS)
    genes = np.array([f"g{i}" for i in range(N)])
    return Screen(
        genes=genes,
        contexts=np.array(["all"]),
        control=np.ones((1, N), np.float32),
        perturbations=genes[:P],
        context=np.zeros(P, np.int64),
        part=np.where(np.arange(P) % 5, 0, 2).astype(np.int8),
        cells=np.full(P, CELLS),
        delta=(effect + sd * noise / np.sqrt(CELLS)).astype(np.float32),
        noise=np.full(P, np.square(sd).mean() / CELLS, np.float32),
        feature_genes=genes[:P],
        features=hidden.astype(np.float32),
        target_sum=1e4,
        row_noise=np.full(P, np.square(sd).mean() / CELLS, np.float32),
        cell_variance=np.square(sd).astype(np.float32),
        cell_loadings=load[:, None].astype(np.float32),
    )


def of(screen: Screen) -> Directions:
    """Return the directions of a screen's training rows."""
    rows = screen.rows(0)
    return Directions(screen, rows, screen.delta[rows].astype(float), np.ones(len(rows), bool))


@pytest.mark.parametrize("shape", [(20, 300), (300, 20), (1, 50), (80, 80)])
def test_noise_alone_has_no_directions(shape):
    rng = np.random.default_rng(0)
    found = [
        shares(np.linalg.svd(rng.normal(size=shape), compute_uv=False), *shape).any()
        for _ in range(100)
    ]
    assert np.mean(found) <= 0.1


def test_the_share_is_the_one_of_least_error():
    rng = np.random.default_rng(0)
    n_rows, n_genes = 60, 600
    a, b = (rng.normal(size=n) for n in (n_rows, n_genes))
    for size in (30.0, 60.0, 200.0):
        truth = size * np.outer(a / np.linalg.norm(a), b / np.linalg.norm(b))
        seen = truth + rng.normal(size=truth.shape)
        u, s, vt = np.linalg.svd(seen, full_matrices=False)
        best = u[:, 0] @ truth @ vt[0] / s[0]  # by least squares, with the truth known
        assert shares(s, n_rows, n_genes)[0] == pytest.approx(best, abs=0.06)


def test_components_are_those_of_the_dense_matrix():
    screen = made(0, 2.0)
    rows = screen.rows(0)
    delta = screen.delta[rows].astype(float)
    mean, weight = delta.mean(axis=0), np.linspace(0.5, 2, len(rows))
    white = Whitening.of(screen.cell_variance.astype(float), screen.cell_loadings.astype(float))
    values, vectors = _components(white, delta, mean, _own(screen, rows, delta, mean), weight)
    about = delta - mean
    about[np.arange(len(rows)), rows] = 0  # the own genes
    dense = white.into(about) * weight[:, None]
    assert np.allclose(values, np.linalg.svd(dense, compute_uv=False)[: len(values)])
    assert np.allclose(np.linalg.norm(dense @ vectors, axis=0), values)


def test_noise_has_no_directions_and_effects_have_those_of_their_programmes():
    effects = np.random.default_rng(0).normal(size=(3, N))
    found = of(made(1, 0.0))
    assert not len(found.shares)
    assert not found.of(effects).any()
    found = of(made(1, 3.0))
    assert 2 <= len(found.shares) <= 4
    assert np.linalg.matrix_rank(found.of(np.vstack([effects, effects]))) <= 3


def test_noisy_effects_come_nearer_to_the_true_ones():
    for seed in range(3):
        screen, noise = made(seed, 1.0), made(seed, 0.0).delta  # the same draws
        held = screen.rows(2)
        effects = screen.delta[held].astype(float)
        truth = effects - noise[held]
        kept = of(screen).of(effects)
        assert np.square(kept - truth).sum() < 0.5 * np.square(effects - truth).sum()


def test_left_out_predictions_are_filtered_without_their_fold():
    screen = made(2, 1.0)
    rows = screen.rows(0)
    delta, fold = screen.delta[rows].astype(float), np.arange(len(rows)) % 5 - 1  # -1: in none
    given = np.random.default_rng(0).normal(size=delta.shape)
    left_out = given.copy()
    found = Denoising(screen, rows, delta, left_out, fold)
    assert np.square(2 * left_out - given).sum() == pytest.approx(np.square(given).sum())
    for one in range(4):
        at, others = fold == one, np.flatnonzero(fold != one)
        part = Directions(screen, rows[others], delta[others], np.ones(len(others), bool))
        expected = (given[at] + found.factor * part.of(given[at])) / 2
        assert np.allclose(left_out[at], expected)
    rest = fold == -1
    assert np.allclose(left_out[rest], found.keep(given[rest]))
    assert np.allclose(found.keep(given), (given + found.factor * of(screen).of(given)) / 2)


def test_gp_predicts_held_out_effects_from_what_cells_tell():
    screen = made(0, 1.0)
    held = screen.rows(2)
    names = screen.perturbations[held].tolist()
    fitted = GaussianProcess(screen)
    plain = GaussianProcess(replace(screen, cell_variance=np.zeros(0, np.float32)))
    assert fitted.settings == plain.settings
    assert fitted.belief == fitted.beyond == plain.belief == plain.beyond == 1
    expected = fitted.denoising.keep(plain.predict(names).astype(float) - fitted.mean) + fitted.mean
    away = np.ones_like(expected, bool)
    away[np.arange(len(names)), held] = False
    assert np.allclose(fitted.predict(names)[away], expected[away], atol=2e-2)
    assert not np.allclose(fitted.predict(names), plain.predict(names), atol=1e-3)


def test_a_screen_that_does_not_tell_of_noise_is_predicted_as_before():
    screen = replace(made(0, 1.0), cell_variance=np.zeros(0, np.float32))
    effects = np.random.default_rng(0).normal(size=(24, N))
    left_out = effects.copy()
    found = Denoising(screen, screen.rows(0), effects, left_out, np.arange(24) % 5)
    assert np.array_equal(left_out, effects)
    assert np.array_equal(found.keep(effects), effects)
