"""Every metric against a slow and obvious one, on whatever hypothesis finds."""

from __future__ import annotations

import anndata as ad
import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp
from hypothesis import example, given, settings
from hypothesis import strategies as st
from scipy import stats

from tests.evaluate import reference_2026
from tests.metrics.cells import CONTROL, blocks, measured, numbered
from vcell.metrics import calls, scaled, significance, vcc2025, vcc2026
from vcell.metrics.groups import Grouped, summarise
from vcell.metrics.vcc2025 import Calls

seeds = st.integers(0, 2**32 - 1)


def some_table(rng: np.random.Generator, p: int, g: int, levels: int) -> significance.DeTable:
    """Draw tests with ties, infinite fold changes, and p-values on both sides of 0.05."""
    lfc = rng.integers(-levels, levels + 1, (p, g)) / 2.0
    lfc[rng.random((p, g)) < 0.1] = np.inf
    lfc[rng.random((p, g)) < 0.1] = -np.inf
    p_value = np.round(rng.random((p, g)) ** 3, 2)
    nothing = np.zeros((p, g))
    return significance.DeTable(
        u=nothing, p=p_value, fdr=np.round(p_value * 1.5, 3), lfc=lfc, score=nothing,
        target_mean=nothing, reference_mean=nothing[0], sizes=np.ones(p, int),
        reference_sizes=np.ones(p, int), perturbations=np.array([f"p{i}" for i in range(p)]),
        genes=np.array([f"G{i}" for i in range(g)]),
    )  # fmt: skip


def called(table: significance.DeTable, p: int) -> list[int]:
    """Significant genes, largest change first, then smallest p, then the genes' order."""
    found = [g for g in range(len(table.genes)) if table.fdr[p, g] < 0.05]
    return sorted(found, key=lambda g: (-abs(table.lfc[p, g]), table.p[p, g], g))


tables = given(
    seed=seeds, p=st.integers(1, 5), g=st.integers(1, 30), levels=st.sampled_from([1, 4, 1000])
)


@settings(max_examples=60, deadline=None)
@tables
@pytest.mark.parametrize("k", [None, 1, 5])
def test_overlap_and_precision(seed, p, g, levels, k):
    rng = np.random.default_rng(seed)
    real, pred = (some_table(rng, p, g, levels) for _ in range(2))
    overlap = vcc2025.overlap(Calls(real), Calls(pred), k)
    precision = vcc2025.precision(Calls(real), Calls(pred), k)
    for row in range(p):
        a, b = called(real, row), called(pred, row)
        n, m = (min(k or len(x), len(x)) for x in (a, b))
        assert overlap[row] == (len(set(a[:n]) & set(b[:n])) / n if n else 0)
        assert precision[row] == (len(set(a[:m]) & set(b[:m])) / m if m else 0)


@settings(max_examples=60, deadline=None)
@tables
def test_comparisons_of_tables(seed, p, g, levels):
    rng = np.random.default_rng(seed)
    real, pred = (some_table(rng, p, g, levels) for _ in range(2))
    a, b = Calls(real), Calls(pred)
    recall, direction = calls.recall(a, b), calls.direction(real, pred, a)
    rank = calls.fold_changes(real, pred, a)
    for row in range(p):
        mine, theirs = called(real, row), called(pred, row)
        if not mine:
            assert np.isnan(recall[row])
            assert np.isnan(direction[row])
            continue
        assert recall[row] == len(set(mine) & set(theirs)) / len(mine)
        same = [np.sign(real.lfc[row, i]) == np.sign(pred.lfc[row, i]) for i in mine]
        assert direction[row] == np.mean(same)
        x, y = real.lfc[row, mine], pred.lfc[row, mine]
        if len(mine) > 1 and len(set(x)) > 1 and len(set(y)) > 1:
            expected = stats.spearmanr(stats.rankdata(x), stats.rankdata(y)).statistic
            np.testing.assert_allclose(rank[row], expected, atol=1e-12)
        else:
            assert np.isnan(rank[row])


@settings(max_examples=60, deadline=None)
@tables
def test_areas(seed, p, g, levels):
    """ROC as the share of pairs in order, PR as precision summed over the thresholds."""
    rng = np.random.default_rng(seed)
    real, pred = (some_table(rng, p, g, levels) for _ in range(2))
    precision, roc = calls.areas(Calls(real), pred)
    for row in range(p):
        truth = real.fdr[row].astype(np.float32) < np.float32(0.05)
        if truth.all() or not truth.any():
            assert np.isnan(precision[row])
            assert np.isnan(roc[row])
            continue
        clipped = np.clip(pred.fdr[row].astype(np.float32), np.float32(1e-10), 1)
        strength = -np.log10(clipped)
        hits, others = strength[truth][:, None], strength[~truth]
        pairs = (hits > others) + 0.5 * (hits == others)
        np.testing.assert_allclose(roc[row], pairs.mean(), rtol=1e-12)
        area, before = 0.0, 0.0
        for cut in sorted(set(strength.tolist()), reverse=True):
            taken = strength >= cut
            found = (taken & truth).sum() / truth.sum()
            area += (found - before) * (taken & truth).sum() / taken.sum()
            before = found
        np.testing.assert_allclose(precision[row], area, rtol=1e-12)


@settings(max_examples=40, deadline=None)
@given(seed=seeds, p=st.integers(1, 6), g=st.integers(1, 30))
def test_means_and_effects(seed, p, g):
    rng = np.random.default_rng(seed)
    real, pred = rng.normal(size=(2, p, g))
    for row in range(p):
        gap = [float(pred[row, i] - real[row, i]) for i in range(g)]
        np.testing.assert_allclose(
            vcc2025.absolute_error(real, pred)[row], sum(map(abs, gap)) / g, rtol=1e-12
        )
        np.testing.assert_allclose(
            vcc2025.squared_error(real, pred)[row], sum(x * x for x in gap) / g, rtol=1e-12
        )
        if g > 1:
            expected = stats.pearsonr(real[row], pred[row]).statistic
            np.testing.assert_allclose(vcc2025.pearson(real, pred)[row], expected, atol=1e-12)


@settings(max_examples=60, deadline=None)
@given(seed=seeds, rows=st.integers(0, 4), g=st.integers(1, 40), digits=st.integers(1, 9))
def test_fdr(seed, rows, g, digits):
    p = np.round(np.random.default_rng(seed).random((rows, g)) ** 2, digits)
    found = significance.benjamini_hochberg(p)
    for row in range(rows):
        np.testing.assert_allclose(found[row], stats.false_discovery_control(p[row]), rtol=1e-12)
    if rows:
        whole = stats.false_discovery_control(p.ravel()).reshape(p.shape)
        np.testing.assert_allclose(significance.benjamini_hochberg(p, "global"), whole, rtol=1e-12)


@settings(max_examples=60, deadline=None)
@given(seed=seeds, n=st.integers(1, 30), sparse=st.booleans(), target=st.sampled_from([0, 500]))
def test_counts_become_log1p_as_written_down(seed, n, sparse, target):
    """log1p(count x target / total): in float32, so to its rounding."""
    rng = np.random.default_rng(seed)
    x = rng.poisson(rng.gamma(0.4, 40, 12), (n, 12)).astype(np.float32)
    x[rng.random(n) < 0.2] = 0
    seen = scaled.survey(blocks(sp.csr_matrix(x))(), n)
    totals = x.sum(axis=1, dtype=np.float64)
    assert (seen.totals == totals).all()
    goal = np.float32(target) or scaled.median_target(totals, sparse=sparse)
    if not target:
        counted = totals if sparse else totals[totals > 0]
        middle = np.median(counted) if len(counted) else 0
        assert goal == (middle if middle > 0 else 1)
    divisor = scaled.divisors(totals, goal)
    found = np.zeros_like(x)
    for block in blocks(sp.csr_matrix(x))():
        found[block.rows] = scaled.logged(block, divisor[block.rows]).tocsr().toarray()
    share = x / np.maximum(totals, 1)[:, None]
    np.testing.assert_allclose(found, np.log1p(share * float(goal)), rtol=1e-5, atol=1e-7)


def screen(rng: np.random.Generator, sizes: list[int], genes: int, depth: float) -> ad.AnnData:
    """Draw counts; gene 3 is silent, every cell has a count, sizes begin with the controls'."""
    names = [CONTROL] * sizes[0] + [f"G{i}" for i, n in enumerate(sizes[1:]) for _ in range(n)]
    rate = rng.gamma(1.0, depth, (len(sizes), genes))
    rate[1:] = rate[0] * np.exp(0.8 * rng.normal(size=(len(sizes) - 1, genes)))
    which = np.repeat(np.arange(len(sizes)), sizes)
    x = rng.poisson(rate[which]).astype(np.float32)
    x[:, 3] = 0
    x[:, 4] += 1
    obs = pd.DataFrame({"target_gene": names}, index=[f"c{i}" for i in range(len(names))])
    var = pd.DataFrame(index=[f"G{i}" for i in range(genes)])
    return ad.AnnData(sp.csr_matrix(x), obs=obs, var=var)


@settings(max_examples=30, deadline=None)
@given(
    seed=seeds, sizes=st.lists(st.integers(1, 25), min_size=1, max_size=4),
    controls=st.integers(2, 40), depth=st.sampled_from([0.5, 5.0, 200.0]),
)  # fmt: skip
@example(seed=518898, sizes=[6, 6, 5], controls=6, depth=0.5)  # a called gene of fold change 0
def test_the_members_of_2026(seed, sizes, controls, depth):
    rng = np.random.default_rng(seed)
    real = screen(rng, [controls, *sizes], 20, depth)
    pred = screen(rng, [2, *rng.integers(1, 25, len(sizes)).tolist()], 20, depth)
    expected = reference_2026.members(real, pred)
    names, group = numbered(real.obs["target_gene"].to_numpy(str))
    _, guessed = numbered(pred.obs["target_gene"].to_numpy(str))
    beside = sp.vstack([real.X[group == 0], pred.X[guessed > 0]]).tocsr()
    sides = [
        measured(x, g, len(names) + 1)
        for x, g in (
            (real.X.tocsr(), group),
            (beside, np.concatenate([np.zeros(controls, np.int32), guessed[guessed > 0]])),
        )
    ]
    target = np.arange(len(names))
    found = vcc2026.members(*sides, target, real.var_names.to_numpy(str))[1]
    for name, value in expected.items():
        if name == vcc2026.MSE and np.isnan(found[name]):
            continue  # no real effect beyond noise: no value, where the plain ratio has one
        np.testing.assert_allclose(found[name], value, rtol=1e-8, atol=1e-10, err_msg=name)


@settings(max_examples=40, deadline=None)
@given(seed=seeds, cells=st.integers(4, 40), levels=st.integers(1, 5))
def test_welch(seed, cells, levels):
    rng = np.random.default_rng(seed)
    x = rng.integers(0, levels + 1, (cells, 6)).astype(np.float32)
    group = rng.permutation(np.arange(cells) % 2).astype(np.int32)
    found: Grouped = summarise(blocks(sp.csr_matrix(x)), group, 2, 6, against=None, squares=True)
    t, p = significance.welch(found, 1)
    a, b = x[group == 1].astype(float), x[group == 0].astype(float)
    for gene in range(6):
        if a[:, gene].std() == 0 and b[:, gene].std() == 0:
            assert p[0, gene] == 1
            continue
        v, w = a[:, gene].var(ddof=1) / len(a), b[:, gene].var(ddof=1) / len(b)
        expected = (a[:, gene].mean() - b[:, gene].mean()) / np.sqrt(v + w)
        freedom = (v + w) ** 2 / (v**2 / (len(a) - 1) + w**2 / (len(b) - 1))
        np.testing.assert_allclose(t[0, gene], expected, rtol=1e-9, atol=1e-12)
        np.testing.assert_allclose(p[0, gene], 2 * stats.t.sf(abs(expected), freedom), rtol=1e-9)
