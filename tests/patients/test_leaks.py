"""Nothing of a test patient is used in training: planted leaks are detected."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from vcell.patients import features, folds, nested
from vcell.patients.cohort import Cohort
from vcell.patients.network import BULK, BulkSettings
from vcell.patients.scores import PatientJudge

SETTINGS = BulkSettings(modalities=(*features.MODALITIES, BULK))
SEARCH = nested.Search(inner=2, axes=(5,), steps=(20,), members=1, genes=100)


def _with_examples(cohort, per_patient=4, seed=0):
    """Add near copies of each patient's sample, with a mark of the patient."""
    rng = np.random.default_rng(seed)
    of = np.repeat(np.arange(cohort.n), per_patient)
    shares = cohort.cells / cohort.cells.sum(1, keepdims=True)
    return dataclasses.replace(
        cohort, more_bulk=rng.poisson(cohort.bulk[of]).astype(np.float32), more_of=of,
        more_cells=shares[of].astype(np.float32),
    )  # fmt: skip


def _marked(n=30, genes=120, per_patient=3, seed=1):
    """Return very different patients, with random outcomes."""
    rng = np.random.default_rng(seed)
    bulk = rng.poisson(rng.gamma(2, 50, (n, genes))).astype(np.float32)
    cells = rng.integers(1, 50, (n, 4))
    outcome = rng.permutation(np.arange(n) % 2)
    none = np.zeros((0, genes), np.float32)
    cohort = Cohort(
        tuple(f"P{i:02d}" for i in range(n)), ("no", "yes"), tuple("ABCD"),
        tuple(f"g{i}" for i in range(genes)), outcome, bulk, cells, np.zeros((n, 0), np.float32),
        {}, none, np.zeros(0, np.int64), np.zeros((0, 4), np.float32),
    )  # fmt: skip
    return _with_examples(cohort, per_patient, seed)


def _crossed(cohort, fold):
    """Cross-validate a network that can memorise every patient."""
    settings = dataclasses.replace(SETTINGS, dropout=0.0, noise=0.1, contrast=0.0, lr=0.01)
    search = dataclasses.replace(SEARCH, axes=(25,), steps=(60,))
    given = np.zeros((cohort.n, 2))
    for k in range(int(fold.max()) + 1):
        train, tests = np.flatnonzero(fold != k), np.flatnonzero(fold == k)
        found = nested.outer(cohort, train, tests, "all", settings, search, baselines=False)
        given[tests] = found.probabilities[nested.MODEL]
    return PatientJudge(cohort.outcome, fold, 2).auc(given)


def _as_samples(cohort):
    """Plant the leak: every sample counts as a patient, so that folds cut through patients."""
    n = len(cohort.more_of)
    whole = np.rint(cohort.more_cells * 100).astype(np.int64)
    return dataclasses.replace(
        cohort, patients=tuple(f"S{i:03d}" for i in range(n)), bulk=cohort.more_bulk,
        outcome=cohort.outcome[cohort.more_of], cells=whole,
        communication=np.zeros((n, 0), np.float32),
        more_bulk=cohort.more_bulk[:0], more_of=cohort.more_of[:0],
        more_cells=cohort.more_cells[:0],
    )  # fmt: skip


def test_random_outcomes_are_predicted_with_a_planted_leak_and_not_without():
    cohort = _marked()
    leaky = _as_samples(cohort)
    cut = _crossed(leaky, folds.dealt(leaky.patients, leaky.outcome, 2, 0))
    assert cut.low > 0.7  # the check can fail: samples of one patient on both sides are recognised
    own = [
        _crossed(one, folds.dealt(one.patients, one.outcome, 2, 0))
        for one in (cohort, _marked(seed=2))
    ]
    assert np.mean([one.value for one in own]) == pytest.approx(0.5, abs=0.2)
    assert any(one.low <= 0.5 <= one.high for one in own)


def test_training_does_not_depend_on_the_test_patients(cohort):
    cohort = _with_examples(cohort)
    cohort = dataclasses.replace(
        cohort, states={"all": np.random.default_rng(0).normal(size=(24, 4, 3)).astype(np.float32)}
    )
    fold = folds.dealt(cohort.patients, cohort.outcome, 3, 0)
    train, tests = np.flatnonzero(fold != 0), np.flatnonzero(fold == 0)
    rng = np.random.default_rng(5)
    other = dataclasses.replace(
        cohort, outcome=np.where(fold == 0, 1 - cohort.outcome, cohort.outcome),
        cells=np.where((fold == 0)[:, None], 10**6, cohort.cells),
        communication=np.where((fold == 0)[:, None], 1e6, cohort.communication),
        states={"all": np.where((fold == 0)[:, None, None], np.nan, cohort.states["all"])},
        more_bulk=np.where((fold[cohort.more_of] == 0)[:, None], 1e6, cohort.more_bulk),
        more_cells=np.where((fold[cohort.more_of] == 0)[:, None], 1, cohort.more_cells),
    )  # fmt: skip
    # the test patients' bulk alone enters their own predictions: change it for all but one of them
    changed = rng.poisson(50, other.bulk.shape)
    apart = np.isin(np.arange(24), tests[1:])[:, None]
    other = dataclasses.replace(other, bulk=np.where(apart, changed, other.bulk))
    one = nested.outer(cohort, train, tests, "all", SETTINGS, SEARCH)
    two = nested.outer(other, train, tests, "all", SETTINGS, SEARCH)
    assert one.chosen == two.chosen
    for name in (nested.MODEL, nested.ON_BULK):
        np.testing.assert_allclose(
            one.probabilities[name][0], two.probabilities[name][0], rtol=1e-6
        )
    assert not np.allclose(one.probabilities[nested.MODEL][1:], two.probabilities[nested.MODEL][1:])


def test_folds_are_of_patients_even_and_the_same_in_any_order():
    names = [f"P{i}" for i in range(23)]
    outcome = np.arange(23) % 3 % 2
    fold = folds.dealt(names, outcome, 4, 0)
    for code in (0, 1):
        sizes = np.bincount(fold[outcome == code], minlength=4)
        assert sizes.max() - sizes.min() <= 1
    assert np.ptp(np.bincount(fold)) <= 1
    order = np.random.default_rng(0).permutation(23)
    again = folds.dealt([names[i] for i in order], outcome[order], 4, 0)
    np.testing.assert_array_equal(fold[order], again)
