"""Uninformative features: how often the verdict says that gp wins, by its real folds."""

from __future__ import annotations

import numpy as np
import pytest

from vcell import models
from vcell.metrics import verdict
from vcell.models import Screen
from vcell.models.scoring import each

P, N, FOLDS = 25, 200, 5
ASKED = ("mean", "perturbed-mean", "perturbed-mean-own", "no-change", "ridge", "knn", "gp")


def screen(seed: int, telling: float) -> Screen:
    """A screen of knock-downs with common and own effects, and features of given information."""
    rng = np.random.default_rng(seed)
    hidden = rng.normal(size=(P, 5))
    delta = 0.15 * rng.normal(size=N) + 0.1 * hidden @ rng.normal(size=(5, N))
    delta += 0.05 * rng.normal(size=(P, N))
    delta[np.arange(P), np.arange(P)] = -0.8 + 0.1 * rng.normal(size=P)  # the knock-downs
    features = telling * hidden + rng.normal(size=hidden.shape) * (1 - telling)
    genes = np.array([f"g{i}" for i in range(N)])
    return Screen(
        genes=genes,
        contexts=np.array(["all"]),
        control=np.ones((1, N), np.float32),
        perturbations=genes[:P],
        context=np.zeros(P, np.int64),
        part=np.zeros(P, np.int8),
        cells=np.full(P, 50),
        delta=delta.astype(np.float32),
        noise=np.full(P, 0.002, np.float32),
        feature_genes=genes[:P],
        features=features.astype(np.float32),
        target_sum=1e4,
        blocks=np.array(["features"]),
        widths=np.array([5]),
    )


def judged(seed: int, telling: float) -> verdict.Verdict:
    """Hold out every fold once, and score gp over all of them."""
    whole = screen(seed, telling)
    order = np.random.default_rng([seed, 1]).permutation(P)
    scores: dict[str, dict[str, list]] = {name: {"pds": [], "mae": []} for name in ASKED}
    names: list[str] = []
    for k in range(FOLDS):
        part = np.zeros(P, np.int8)
        part[order[k::FOLDS]] = 2
        fold = Screen(**{f: getattr(whole, f) for f in whole.__dataclass_fields__} | {"part": part})
        rows = fold.rows(2)
        held = fold.perturbations[rows].tolist()
        for name in ASKED:
            guess = models.get(name).load(None, fold).predict(held)
            found = each(guess, fold.delta[rows], fold.targets(held))
            for score, values in scores[name].items():
                values.append(found[score])
        names += held
    joined = {
        name: {score: np.concatenate(values) for score, values in one.items()}
        for name, one in scores.items()
    }
    return verdict.judged("gp", verdict.gains(joined), [(name,) for name in names])


@pytest.mark.slow
def test_of_forty_screens_with_useless_features_two_at_most_are_won():
    claims = [judged(seed, 0.0).claim for seed in range(40)]
    assert claims.count("beats") <= 2
    assert claims.count("few") == 0


def test_informative_features_are_detected_and_useless_ones_are_not():
    assert judged(0, 1.0).claim == "beats"
    assert judged(0, 0.0).claim != "beats"
