"""The rank kernels against scipy: random, tied, empty, negative, in any number of passes."""

from __future__ import annotations

from functools import partial

import numpy as np
import pytest
import scipy.sparse as sp
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from tests.de.test_gene_major import blocks
from vcell.metrics import significance
from vcell.metrics.groups import summarise


def pieces(x: np.ndarray, step: int = 7):
    """Return a function that reads a dense matrix as CSR blocks."""
    return partial(blocks, x, step)


def check(x: np.ndarray, group: np.ndarray, n_groups: int, **options) -> None:
    found = summarise(pieces(x), group, n_groups, x.shape[1], squares=True, **options)
    rest = options.get("against") == "rest"
    for g in range(0 if rest else 1, n_groups):
        a, b = x[group == g], x[(group >= 0) & (group != g)] if rest else x[group == 0]
        if not len(a) or not len(b):
            continue
        wide = a.astype(np.float64), b.astype(np.float64)
        r = stats.mannwhitneyu(*wide, axis=0, method="asymptotic")
        assert (found.u[g] == r.statistic).all()
        p, _ = significance.wilcoxon(found.u[g], found.ties[g], np.array(len(a)), np.array(len(b)))
        expected = np.where(np.isnan(r.pvalue), 1.0, r.pvalue)
        np.testing.assert_allclose(p, expected, rtol=1e-12)
        np.testing.assert_allclose(found.sums[g], wide[0].sum(axis=0), rtol=1e-12, atol=1e-12)
        np.testing.assert_allclose(found.squares[g], (wide[0] ** 2).sum(axis=0), rtol=1e-12)


@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 2**32 - 1),
    cells=st.integers(2, 40),
    groups=st.integers(2, 5),
    levels=st.integers(1, 6),
    density=st.floats(0, 1),
    negative=st.booleans(),
    against=st.sampled_from(["reference", "rest"]),
    memory=st.sampled_from([8, 200, 1 << 20]),
)
def test_any_data(seed, cells, groups, levels, density, negative, against, memory):
    rng = np.random.default_rng(seed)
    x = rng.integers(-levels if negative else 0, levels + 1, (cells, 6)).astype(np.float32)
    x *= np.float32(rng.choice([1.0, 0.1, 1e-30, 1e30]))
    x[rng.random(x.shape) > density] = 0
    check(
        x, rng.integers(-1, groups, cells).astype(np.int32), groups, against=against, memory=memory
    )


@settings(max_examples=40, deadline=None)
@given(
    seed=st.integers(0, 2**32 - 1), cells=st.integers(2, 40), negative=st.booleans(),
    against=st.sampled_from(["reference", "rest"]), scale=st.sampled_from([1.0, 1e-300, 1e300]),
)  # fmt: skip
def test_neighbouring_float64_values_are_not_tied(seed, cells, negative, against, scale):
    """Neighbouring float64 numbers are neither tied nor swapped."""
    rng = np.random.default_rng(seed)
    steps = rng.integers(0, 5, (cells, 4))
    base = rng.choice([1.0, 1 / 3, -1 / 3, -1.0] if negative else [1.0, 1 / 3], (cells, 4)) * scale
    x = base
    for step in range(1, 5):
        x = np.where(steps >= step, np.nextafter(x, np.inf), x)
    x[rng.random(x.shape) < 0.3] = 0
    group = rng.integers(-1, 3, cells).astype(np.int32)
    found = summarise(pieces(x), group, 3, 4, against=against)
    for g in range(0 if against == "rest" else 1, 3):
        a, b = x[group == g], x[(group >= 0) & (group != g) if against == "rest" else group == 0]
        if len(a) and len(b):
            assert (found.u[g] == stats.mannwhitneyu(a, b, axis=0, method="asymptotic")[0]).all()
            t = [np.unique(np.r_[a[:, k], b[:, k]], return_counts=True)[1] for k in range(4)]
            assert (found.ties[g] == [(n.astype(float) ** 3 - n).sum() for n in t]).all()


@pytest.mark.parametrize("against", ["reference", "rest"])
def test_many_ties_in_large_groups(against):
    """The tie term of 3,000 equal values exceeds 2^32; it must not lose a unit."""
    rng = np.random.default_rng(0)
    x = rng.integers(0, 3, (6000, 3)).astype(np.float32)
    check(x, (np.arange(6000) % 2).astype(np.int32), 2, against=against, threads=2)


def test_means_are_scipys_to_the_bit():
    rng = np.random.default_rng(1)
    x = sp.random(400, 30, 0.4, dtype=np.float32, random_state=rng, format="csr")
    group = rng.integers(0, 3, 400).astype(np.int32)
    found = summarise(pieces(x.toarray()), group, 3, 30, against=None)
    for g in range(3):
        assert (found.own_means[g] == np.asarray(x[group == g].mean(axis=0)).ravel()).all()


def test_fdr_equals_scipys():
    p = np.random.default_rng(2).random((5, 50)).round(1)
    expected = np.stack([stats.false_discovery_control(row) for row in p])
    np.testing.assert_allclose(significance.benjamini_hochberg(p), expected, rtol=1e-14)
