"""How much targets change their own expression: learnt from scarce and abundant ones alike."""

from __future__ import annotations

import numpy as np
import pytest

from vcell import models
from vcell.models import Screen

GENES = 60
CONTROL = np.geomspace(0.01, 4, GENES)
KINDS = {
    "share": (0.2 - 1) * CONTROL,
    "fold": np.log1p(8 * np.expm1(CONTROL)) - CONTROL,
    "fold of a knock-down": np.log1p(0.15 * np.expm1(CONTROL)) - CONTROL,
    "level": np.log1p(3 + np.expm1(CONTROL)) - CONTROL,
}


def screen(change: np.ndarray, targets: np.ndarray) -> Screen:
    """Return a screen whose perturbations change their own gene and, a little, all others."""
    rng = np.random.default_rng(0)
    names = np.array([f"g{i}" for i in targets])
    delta = 0.05 * rng.normal(size=(len(targets), GENES))
    delta[np.arange(len(targets)), targets] += change[targets]
    return Screen(
        genes=np.array([f"g{i}" for i in range(GENES)]),
        contexts=np.array(["all"]),
        control=CONTROL[None].astype(np.float32),
        perturbations=names,
        context=np.zeros(len(names), np.int64),
        part=np.zeros(len(names), np.int8),
        cells=np.full(len(names), 50),
        delta=delta.astype(np.float32),
        noise=np.full(len(names), 0.01, np.float32),
        feature_genes=names,
        features=rng.normal(size=(len(names), 3)).astype(np.float32),
        target_sum=1e4,
    )


def predicted(given: Screen, targets: np.ndarray) -> np.ndarray:
    """Return what no-change predicts for the targets' own genes: all that it predicts."""
    model = models.get("no-change").load(None, given)
    effect = model.predict([f"g{i}" for i in targets])
    return effect[np.arange(len(targets)), targets]


@pytest.mark.parametrize("kind", KINDS)
def test_targets_not_seen_change_as_the_training_targets_did(kind):
    change, learnt, held = KINDS[kind], np.arange(0, GENES, 2), np.arange(1, GENES, 2)
    told = predicted(screen(change, learnt), held)
    # the parameter is a median of noisy ones: .2 of at most 3.4
    assert np.abs(told - change[held]).max() < 0.2


def test_an_activation_learnt_from_scarce_targets_is_not_blown_up_in_abundant_ones():
    scarce, abundant = np.arange(3), np.array([GENES - 1])
    told = predicted(screen(KINDS["fold"], scarce), abundant)
    assert 0 < told[0] < np.log(100) + 0.1  # at most a hundredfold; as a share it would be 20


def test_few_knock_downs_are_learnt_as_a_share_of_expression():
    few = np.array([20, 30, 40])
    given = screen(KINDS["share"], few)
    left = 1 + given.delta[np.arange(3), few] / given.control[0, few]
    assert predicted(given, np.array([50])) == pytest.approx(
        (np.median(left) - 1) * CONTROL[50], rel=1e-5
    )
