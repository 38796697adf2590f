"""Quick scores are the whole ones where they see the same cells, and close where not."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.sparse as sp
from scipy import stats

from tests.metrics.cells import blocks
from vcell.kernels import merged
from vcell.metrics import quick, significance, vcc2025
from vcell.metrics.groups import Grouped, summarise

P, G, CONTROLS, EACH = 6, 120, 150, 40
NAMES, GENES = [f"G{i}" for i in range(P)], [f"G{i}" for i in range(G)]
GROUP = np.repeat(np.arange(P + 1), [CONTROLS] + [EACH] * P).astype(np.int32)


def side(seed: int) -> sp.csr_matrix:
    """Cells of one screen: shared rates and effects, other cells with every seed."""
    truth, rng = np.random.default_rng(0), np.random.default_rng(seed)
    rate = truth.gamma(0.6, 1.5, G)
    effect = truth.normal(0, 0.8, (P + 1, G)) * (truth.random((P + 1, G)) < 0.2)
    effect[0] = 0
    counts = rng.poisson(rate * np.exp(effect[GROUP]))
    counts[:, 5] = 0
    return sp.csr_matrix(np.log1p(counts / counts.sum(axis=1, keepdims=True) * 300), dtype="f4")


def grouped(x: sp.csr_matrix) -> Grouped:
    return summarise(blocks(x), GROUP, P + 1, G)


def calls(found: Grouped) -> vcc2025.Calls:
    return vcc2025.Calls(significance.differential(found, np.array(["c", *NAMES]), np.array(GENES)))


@pytest.fixture(scope="module")
def real() -> sp.csr_matrix:
    return side(1)


@pytest.fixture(scope="module")
def pred() -> sp.csr_matrix:
    return side(2)


@pytest.fixture(scope="module")
def truth(real) -> quick.Truth:
    """The truth, with every control cell in the sample."""
    return quick.Truth.of(grouped(real), NAMES, GENES, real[GROUP == 0])


def whole(real: sp.csr_matrix, cells: np.ndarray) -> np.ndarray:
    """DES of predicted cells beside the real controls, the long way."""
    beside = sp.vstack([real[GROUP == 0], sp.csr_matrix(cells)]).tocsr()
    return vcc2025.overlap(calls(grouped(real)), calls(grouped(beside)))


@pytest.mark.parametrize("dense", [True, False])
def test_predicted_cells_are_tested_as_evaluate_tests_them(real, pred, truth, dense):
    cells = pred[GROUP > 0]
    means = grouped(pred).means[1:]
    given = cells.toarray() if dense else cells
    found = truth.per_perturbation(means, given, GROUP[GROUP > 0] - 1)
    assert (found[quick.DES] == whole(real, cells)).all()
    assert found[quick.DES].mean() > 0.3
    effects = truth.means - truth.control, means - truth.control
    d = vcc2025.distances(*effects, np.arange(P))
    assert (found[quick.PDS] == vcc2025.discrimination(d)).all()
    assert (found[quick.MAE] == np.abs(means - truth.means).mean(axis=1)).all()
    r = [stats.pearsonr(a, b).statistic for a, b in zip(*effects, strict=True)]
    np.testing.assert_allclose(found[quick.DELTA], r, rtol=1e-12)


def test_the_baseline_is_that_of_cells_that_are_all_alike(real, truth):
    profile = np.concatenate([truth.control[None], truth.means]).mean(axis=0)
    cells = np.repeat(profile[None].astype(np.float32), P * EACH, axis=0)
    assert truth.baseline[quick.DES] == whole(real, cells).mean()
    np.testing.assert_allclose(
        truth.baseline[quick.MAE], np.abs(profile - truth.means).mean(), rtol=1e-12
    )


def test_moved_controls_call_nearly_what_cells_call(real, pred, truth):
    means = grouped(pred).means[1:]
    exact = whole(real, pred[GROUP > 0].toarray()).mean()
    assert abs(truth.score(means)[quick.DES] - exact) < 0.1
    some = real[np.flatnonzero(GROUP == 0)[::2]]
    sampled = quick.Truth.of(grouped(real), NAMES, GENES, some)
    assert abs(sampled.score(means)[quick.DES] - exact) < 0.12


def test_no_effect_calls_nothing(truth):
    controls = np.repeat(truth.control[None], P, axis=0)
    found = truth.score(controls)
    assert found[quick.DES] == 0
    assert found[quick.DELTA] == 0


@pytest.mark.parametrize("ratio", [0.0, 0.4, 1.0, 1.7, 50.0])
def test_moved_controls_are_ranked_as_what_they_stand_for(ratio):
    """The moved cells made one by one: every cell many times, so that shares become whole cells."""
    rng = np.random.default_rng(3)
    x = np.round(rng.gamma(1, 1, 12), 1).astype(np.float32) * (rng.random(12) < 0.6)
    first, value, count = np.empty(2, np.int64), np.empty(12, np.float32), np.empty(12)
    n = merged.runs(np.sort(x)[None], first, value, count)
    u, ties = np.empty((2, 1, 1))
    times = 10_000
    merged.moved(
        first, value[:n], count[:n], np.array([[ratio]]), np.array([12.0 * times]), 12.0, u, ties
    )
    zeros = (x == 0).mean()
    share = zeros**ratio  # of moved cells without any
    scale = ratio * (1 - zeros) / (1 - share) if share < 1 else 0.0
    others = np.float32(scale) * x[x > 0]
    left = np.zeros(round(12 * times * share), np.float32)
    moved = np.concatenate([left, np.repeat(others, round((12 * times - len(left)) / len(others)))])
    expected = stats.mannwhitneyu(moved.astype(float), x.astype(float)).statistic
    np.testing.assert_allclose(u[0, 0], expected, rtol=1e-3)
    t = np.unique(np.concatenate([moved, x]), return_counts=True)[1].astype(float)
    np.testing.assert_allclose(ties[0, 0], (t**3 - t).sum(), rtol=1e-3)


def test_score_is_the_leaderboards_formula(truth, pred):
    found, base = truth.score(grouped(pred).means[1:]), truth.baseline
    scaled = [
        max((found[quick.DES] - base[quick.DES]) / (1 - base[quick.DES]), 0),
        max(1 - found[quick.MAE] / base[quick.MAE], 0),
        max((found[quick.PDS] - base[quick.PDS]) / (1 - base[quick.PDS]), 0),
    ]
    np.testing.assert_allclose(found["score"], np.mean(scaled), rtol=1e-12)
    assert truth.score(truth.means)["score"] > 0.9
    flat = np.repeat(truth.means.mean(axis=0)[None], P, axis=0)
    assert 0 <= truth.score(flat)["score"] < 0.3


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_a_prediction_that_is_not_finite_has_no_scores(truth, pred, bad):
    means = grouped(pred).means[1:]
    whole = truth.per_perturbation(means)
    means[2, 7] = bad
    rows = truth.per_perturbation(means)
    for name, column in rows.items():
        assert np.isnan(column[2])
        assert (np.delete(column, 2) == np.delete(whole[name], 2)).all()
    found = truth.score(means)
    np.testing.assert_array_equal(truth.overlap(means), rows[quick.DES])
    assert np.isnan([found[name] for name in rows]).all()
    assert found["score"] == 0


def test_predicted_cells_with_nan_have_no_scores(truth, pred):
    cells = pred[GROUP > 0].toarray()
    cells[3, 4] = np.nan
    rows = truth.per_perturbation(grouped(pred).means[1:], cells, GROUP[GROUP > 0] - 1)
    assert np.isnan(rows[quick.DES]).tolist() == [True, False, False, False, False, False]


def test_means_of_another_shape_are_refused(truth):
    with pytest.raises(ValueError, match=r"\(5, 120\)"):
        truth.score(truth.means[1:])
