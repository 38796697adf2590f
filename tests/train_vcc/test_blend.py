"""The factor of a network: its gain on validation perturbations, shrunk by its error."""

from __future__ import annotations

import numpy as np
import pytest

from vcell.models import Screen
from vcell.models.validation import Blend

P, N = 40, 60


def judge(seed=0):
    """A judge of twenty validation perturbations, the prior, and the truth."""
    rng = np.random.default_rng(seed)
    truth = rng.normal(size=(P, N)) * 0.3
    part = np.zeros(P, np.int8)
    part[:20] = 1
    screen = Screen(
        genes=np.array([f"g{i}" for i in range(N)]),
        contexts=np.array(["all"]),
        control=np.ones((1, N), np.float32),
        perturbations=np.array([f"P{i}" for i in range(P)]),
        context=np.zeros(P, np.int64),
        part=part,
        cells=np.full(P, 50),
        delta=truth.astype(np.float32),
        noise=np.full(P, 0.01, np.float32),
        feature_genes=np.array(["P0"]),
        features=np.ones((1, 1), np.float32),
        target_sum=1e4,
    )
    prior = (0.3 * truth[:20] + 0.1 * rng.normal(size=(20, N))).astype(np.float32)
    return Blend(screen, prior, None), prior, truth[:20].astype(np.float32)


def test_a_network_that_adds_nothing_is_the_prior():
    found, prior, _ = judge()
    assert found.score(prior) == pytest.approx(found.score(prior) | {"blend": 0, "gain": 0})


def test_a_correct_network_is_used_in_full():
    found, prior, truth = judge()
    told = found.score(prior + 0.5 * (truth - prior))
    assert told["blend"] > 0.9
    assert told["gain"] == pytest.approx(told["mean_gain"], rel=0.1)


def test_a_network_that_overshoots_is_used_in_part():
    found, prior, truth = judge()
    told = found.score(prior + 3 * (truth - prior))
    assert 0.2 < told["blend"] < 0.6
    assert told["gain"] > told["mean_gain"]


def test_noise_is_rarely_used_and_then_with_a_small_factor():
    blends = []
    for seed in range(40):
        found, prior, _ = judge(seed)
        noise = np.random.default_rng([seed, 1]).normal(size=prior.shape) * 0.05
        blends.append(found.score((prior + noise).astype(np.float32))["blend"])
    assert np.mean(blends) < 0.1
    assert np.count_nonzero(blends) <= 10


def test_a_harmful_network_is_not_used():
    found, prior, truth = judge()
    told = found.score(prior - 0.5 * (truth - prior))
    assert told["blend"] == 0
    assert told["gain"] < told["mean_gain"] < 0
