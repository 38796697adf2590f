"""Fractions found again: against independent solutions, and with signatures of other cells."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import optimize

from vcell.bulk.deconvolve import FOLDS, METHODS, Signature, Signatures, em, nnls
from vcell.bulk.draw import Sampling
from vcell.bulk.pools import Pools
from vcell.bulk.scores import concordance, scored
from vcell.bulk.sums import all_samples
from vcell.data import open_cells

from .test_sums import cells

K, G = 4, 60


@pytest.fixture(scope="module")
def signature() -> Signature:
    """Four types, two of them nearly alike; some genes of one type only, some of none."""
    rng = np.random.default_rng(0)
    mean = rng.gamma(0.5, 2, (K, G))
    mean[1] = mean[0] * rng.gamma(80, 1 / 80, G)
    mean[2, :5] = 0
    mean[:, -3:] = 0
    return Signature.of(mean * 100, np.full(K, 100))


@pytest.fixture(scope="module")
def bulk(signature: Signature) -> np.ndarray:
    """Counts of 40 mixtures, some without some types, one of nothing at all."""
    rng = np.random.default_rng(1)
    share = rng.dirichlet(np.full(K, 0.5), 40)
    counts = rng.poisson(500 * share @ signature.mean)
    counts[7] = 0
    return counts


@pytest.mark.parametrize("method", METHODS)
def test_exact_mixtures_are_found_exactly_on_any_scale(method, signature):
    share = np.random.default_rng(2).dirichlet(np.ones(K), 20)
    share[0] = [0, 0, 1, 0]
    share[1] = [0.5, 0, 0, 0.5]
    for scale in (1e-3, 1, 1e6):
        found = METHODS[method](share @ signature.mean * scale, signature)
        assert np.abs(found - share).max() < 2e-5


def test_em_is_the_fixed_point_and_the_maximum_of_the_likelihood(signature, bulk):
    """Steps of EM leave it where it is, and a general optimiser finds nothing better."""
    found = em(bulk, signature)
    a = signature.mean[:, signature.genes]
    size = a.sum(1)
    profile = a / size[:, None]
    counts = bulk[:, signature.genes]

    def share_of_rna(fractions):
        weight = fractions * size
        return weight / weight.sum(-1, keepdims=True)

    def loss(share, b):
        return -(b / b.sum()) @ np.log(np.maximum(share @ profile, 1e-300))

    for b, fractions in zip(counts, found, strict=True):
        if not b.sum():
            assert (fractions == 0).all()
            continue
        share = share_of_rna(fractions)
        step = share * ((b / b.sum() / np.maximum(share @ profile, 1e-300)) @ profile.T)
        assert np.abs(step - share).max() < 1e-7
        other = optimize.minimize(
            loss, np.full(K, 1 / K), (b,), bounds=[(0, 1)] * K, method="SLSQP",
            constraints={"type": "eq", "fun": lambda w: w.sum() - 1},
            options={"ftol": 1e-12, "maxiter": 500},
        )  # fmt: skip
        assert loss(share, b) <= other.fun + 1e-9


def test_nnls_is_that_of_scipy_on_all_genes(signature, bulk):
    found = nnls(bulk, signature)
    a = signature.mean[:, signature.genes]
    weight = 1 / np.sqrt((a / a.sum(1, keepdims=True)).mean(0))
    for b, fractions in zip(bulk[:, signature.genes], found, strict=True):
        amount = optimize.nnls((a * weight).T, b * weight)[0]
        assert np.allclose(fractions, amount / max(amount.sum(), 1e-300), atol=1e-9)


def test_a_type_without_cells_has_no_fraction_and_genes_of_none_are_not_looked_at(signature, bulk):
    lacking = Signature.of(signature.mean * np.array([1, 0, 1, 1])[:, None], np.ones(K))
    assert not set(range(G - 3, G)) & set(lacking.genes.tolist())
    for method in METHODS.values():
        found = method(bulk, lacking)
        assert (found[:, 1] == 0).all()
        assert np.allclose(np.delete(found.sum(1), 7), 1)


def test_chosen_genes_are_those_by_which_types_differ():
    mean = np.full((2, 30), 5.0)
    mean[0, 4], mean[1, 9] = 50, 50
    assert Signature.of(mean, np.ones(2), 2).genes.tolist() == [4, 9]


def test_signatures_are_learnt_from_other_splits_else_other_patients():
    data = cells(largest=8)
    data.obs["split"] = np.where(np.arange(data.n_obs) < 400, "train", "test")
    counts = data.X.toarray()
    kind = data.obs["kind"].astype(str).to_numpy()
    with open_cells(data) as source:
        pools = Pools.read(source, "kind", by="patient", split_by="split")
        signatures = Signatures.learn(source, pools)
        alone = Signatures.learn(source, Pools.read(source, "kind"))
    assert signatures.apart
    assert not alone.apart
    assert len(alone.each) == 1
    for group, number in zip(pools.groups, signatures.of_group, strict=True):
        other = data.obs["split"].to_numpy() != group.split
        for k, name in enumerate(pools.types):
            mine = counts[other & (kind == name)]
            assert np.allclose(signatures.each[number].mean[k], mine.mean(0))


def test_many_patients_share_a_few_folds():
    data = cells(largest=8)
    data.obs["patient"] = [f"p{i % 12}" for i in range(data.n_obs)]
    with open_cells(data) as source:
        pools = Pools.read(source, "kind", by="patient")
        signatures = Signatures.learn(source, pools)
        mixed = all_samples(source, pools, Sampling(samples=3, cells=50))
    assert len(signatures.each) == FOLDS
    found = signatures.estimate("em", mixed.counts, mixed.drawn.group)
    one = np.flatnonzero(mixed.drawn.group == 7)
    own = signatures.each[signatures.of_group[7]]
    assert np.allclose(found[one], em(mixed.counts[one], own))


def test_concordance_is_lins_and_scores_are_of_each_type():
    rng = np.random.default_rng(0)
    x = rng.random((50, 3))
    y = 0.5 * x + 0.3 * rng.random((50, 3)) + 0.1
    y[:, 2] = x[:, 2] = 0.25
    for k in range(2):
        cov = np.cov(x[:, k], y[:, k], bias=True)
        expected = 2 * cov[0, 1] / (cov.trace() + (x[:, k].mean() - y[:, k].mean()) ** 2)
        assert np.isclose(concordance(x, y)[k], expected)
    got = scored(x, y, ["a", "b", "c"])
    assert np.isclose(got.rmse[0], np.sqrt(((x - y)[:, 0] ** 2).mean()))
    assert np.isclose(got.overall_rmse, np.sqrt(((x - y) ** 2).mean()))
    assert got.plain()["types"]["c"] == {"rmse": 0.0, "ccc": None}
    assert scored(x, x, ["a", "b", "c"]).overall_ccc == pytest.approx(1)
    with pytest.raises(ValueError):
        scored(x, y[:, :2], ["a", "b"])
