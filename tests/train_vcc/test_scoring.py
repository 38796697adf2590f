"""Scores of effects: without own genes, and by chance, against slow, simple versions."""

from __future__ import annotations

import numpy as np
import pytest

from vcell.models.scoring import by_chance, by_chance_without_own, each, without_own

P, N = 9, 30


@pytest.fixture
def effects():
    rng = np.random.default_rng(0)
    real = rng.normal(size=(P, N)) + rng.normal(size=N)
    own = np.full((P, 2), -1)
    own[:6, 0] = np.arange(6)
    own[5, 1] = 20
    return real, real + rng.normal(size=(P, N)), own


def test_own_genes_are_left_out(effects):
    real, guess, own = effects
    found = without_own(guess, real, own)
    for i in range(P):
        rest = np.delete(np.arange(N), own[i][own[i] >= 0])
        assert found["mae"][i] == pytest.approx(np.abs(guess[i, rest] - real[i, rest]).mean())
        assert found["delta_correlation"][i] == pytest.approx(
            np.corrcoef(guess[i, rest], real[i, rest])[0, 1]
        )
    panel = np.delete(np.arange(N), [0, 1, 2, 3, 4, 5, 20])
    apart = np.abs(guess[:, None, panel] - real[None, :, panel]).sum(axis=2)
    expected = [1 - (apart[i] < apart[i, i]).sum() / P for i in range(P)]
    assert found["pds"] == pytest.approx(expected)


def test_changes_of_own_genes_alone_score_nothing_without_them(effects):
    real, _, own = effects
    guess = np.zeros_like(real)
    for i, genes in enumerate(own):
        guess[i, genes[genes >= 0]] = real[i, genes[genes >= 0]]
    found = without_own(guess, real, own)
    assert found["delta_correlation"].tolist() == [0] * P
    assert found["pds"].mean() == pytest.approx(0.5 + 1 / (2 * P))
    assert each(guess, real, own[:, 0])["delta_correlation"][:6].mean() > 0.05


def chance_of(guess, real, own):
    """Return error and correlation of each effect with the others', without genes, slowly."""
    found = []
    for i in range(P):
        rest = np.delete(np.arange(N), own[i][own[i] >= 0])
        others = np.delete(np.arange(P), i)
        found.append(
            [
                np.mean([np.abs(guess[q, rest] - real[i, rest]).mean() for q in others]),
                np.mean([np.corrcoef(guess[q, rest], real[i, rest])[0, 1] for q in others]),
            ]
        )
    return np.transpose(found)


def test_chance_is_the_score_of_the_others_effects(effects):
    real, guess, own = effects
    found = by_chance(guess, real, own[:, 0])
    mae, correlation = chance_of(guess, real, np.full((P, 1), -1))  # of all genes, as of any model
    assert found["mae"] == pytest.approx(mae)
    assert found["delta_correlation"] == pytest.approx(correlation)
    assert found["pds"].mean() == pytest.approx(0.5 + 1 / (2 * P))
    constant = each(np.zeros_like(real), real, np.full(P, -1))["pds"].mean()
    assert constant == pytest.approx(0.5 + 1 / (2 * P))


def test_chance_without_own_genes_leaves_out_those_of_the_scored_effect(effects):
    real, guess, own = effects
    found = by_chance_without_own(guess, real, own)
    mae, correlation = chance_of(guess, real, own)
    assert found["mae"] == pytest.approx(mae)
    assert found["delta_correlation"] == pytest.approx(correlation)
    assert found["pds"].mean() == pytest.approx(0.5 + 1 / (2 * P))


def test_there_is_no_chance_level_of_a_single_effect(effects):
    real, guess, own = (one[:1] for one in effects)
    for found in (by_chance(guess, real, own[:, 0]), by_chance_without_own(guess, real, own)):
        assert np.isnan(found["mae"]).all()
        assert np.isnan(found["delta_correlation"]).all()
