"""Kernels of sets against their definitions; left-out groups against refits."""

from __future__ import annotations

from itertools import combinations, product

import numpy as np
import pytest
from scipy.optimize import nnls
from vcell_train_graph.closed import _stacking_weights, factors_model
from vcell_train_graph.factors import values_of
from vcell_train_graph.kernels import KernelMixture, SetBlock, indicator, inverse_of, weighed
from vcell_train_graph.planted import Planted, planted
from vcell_train_graph.problem import GraphProblem
from vcell_train_graph.process import SetProducts, process

from vcell.graph import Relation
from vcell.graph.diffusion import kernels
from vcell.kernels.factors import draw_effects, draw_factors
from vcell.models.left_out import missed
from vcell.screen.split import TEST, TRAIN

G = 12


@pytest.fixture
def kernel() -> np.ndarray:
    root = np.random.default_rng(0).normal(size=(G, 5))
    return root @ root.T


def sets(n: int, seed: int) -> np.ndarray:
    rng = np.random.default_rng(seed)
    found = np.array([rng.choice(G, 3, replace=False) for _ in range(n)])
    found[0, 2] = found[1, 1:].max() * 0 - 1  # a set of two
    return found


def real(one: np.ndarray) -> list[int]:
    return [int(i) for i in one if i >= 0]


@pytest.mark.parametrize("identity", [False, True])
def test_linear_and_pair_kernels_are_their_sums(kernel, identity):
    k = np.eye(G) if identity else kernel
    one, other = sets(7, 1), sets(5, 2)
    linear = SetBlock("x", "linear", None if identity else k)(one, other, G)
    pair = SetBlock("x", "pair", None if identity else k)(one, other, G)
    for (a, s), (b, t) in product(enumerate(one), enumerate(other)):
        assert linear[a, b] == pytest.approx(k[np.ix_(real(s), real(t))].sum())
        wanted = sum(
            k[i, m] * k[j, n] + k[i, n] * k[j, m]
            for i, j in combinations(real(s), 2)
            for m, n in combinations(real(t), 2)
        )
        assert pair[a, b] == pytest.approx(wanted)


def test_within_is_the_similarity_of_genes_in_a_set(kernel):
    one = sets(6, 3)
    block = SetBlock("x", "within", kernel)
    wanted = [sum(kernel[i, j] for i, j in combinations(real(s), 2)) for s in one]
    assert block.within(one) == pytest.approx(wanted)


def test_left_out_groups_equal_refits_without_them(kernel):
    one = sets(40, 4)
    values = np.random.default_rng(5).normal(size=40)
    groups = np.arange(40) // 6
    mix = weighed([SetBlock("g", "linear", None), SetBlock("x", "pair", kernel)], one, values, G)
    noisy = mix(one, one, G) + (mix.noise + 0.1) * np.eye(40)
    inverse, log_det = inverse_of(noisy)
    assert log_det == pytest.approx(np.linalg.slogdet(noisy)[1])
    said = values - missed(inverse, (inverse @ values)[:, None], groups)[:, 0]
    for group in range(7):
        out = groups == group
        rest = np.linalg.solve(noisy[np.ix_(~out, ~out)], values[~out])
        assert said[out] == pytest.approx(noisy[np.ix_(out, ~out)] @ rest)


def test_diffusion_is_that_of_the_matrix_and_a_lone_gene_is_like_itself():
    rng = np.random.default_rng(6)
    one, other = np.triu_indices(20, 1)
    kept = (rng.random(len(one)) < 0.2) & (other < 19)  # gene 19 has no edge
    relation = Relation.from_edges("r", one[kept], other[kept], 20)[0]
    a = np.zeros((20, 20))
    a[one[kept], other[kept]] = a[other[kept], one[kept]] = 1
    d = np.maximum(a.sum(1), 1) ** -0.5
    walk = (np.eye(20) + d[:, None] * a * d) / 2
    genes = np.array([0, 3, 5, 19])
    for kernel, steps in zip(kernels(relation, genes), (2, 4), strict=True):
        wanted = np.linalg.matrix_power(walk, steps)[np.ix_(genes, genes)]
        wanted /= np.diag(wanted)[:3].mean()
        wanted[3] = wanted[:, 3] = [0, 0, 0, 1]
        assert kernel == pytest.approx(wanted, rel=1e-5, abs=1e-6)


def test_the_relation_that_carries_the_signal_gets_the_weight():
    made = planted(n_genes=80, n_queries=60, per_query=8, n_decoys=2, seed=2)
    blocks = [SetBlock(r.name, "pair", kernels(r, np.arange(80))[1]) for r in made.graphs] + [
        SetBlock("genes", "linear", None)
    ]
    values = (made.values - made.values.mean()) / made.values.std()
    mix = weighed(blocks, made.members, values, 80)
    assert max(mix.shares, key=mix.shares.__getitem__) == "relation_0 pair"


def test_set_products_equal_those_of_the_full_matrix(kernel):
    members = sets(30, 7)
    blocks = [
        SetBlock(name, kind, k)
        for name, k in (("genes", None), ("graph", kernel))
        for kind in ("linear", "pair", "within")
        if k is not None or kind != "within"
    ]
    mix = KernelMixture(tuple(blocks), np.linspace(0.2, 1, len(blocks)), 0.5, {})
    x = np.random.default_rng(8).normal(size=30)
    assert SetProducts(mix, members, G)(x) == pytest.approx(mix(members, members, G) @ x, rel=1e-5)


def test_many_sets_are_solved_without_their_matrix_to_the_same_values(monkeypatch):
    problem = as_problem(planted(n_genes=60, n_queries=40, per_query=6, n_decoys=0, seed=3))
    exact, _ = process(problem, problem.group)
    monkeypatch.setattr("vcell_train_graph.process.MOST", 10)
    monkeypatch.setattr("vcell_train_graph.process._CLOSE", 1e-4)
    found, _ = process(problem, problem.group)
    test = problem.part == TEST
    assert found[test] == pytest.approx(exact[test], abs=0.005 * exact.std())
    known = ~test  # groups are left out in five parts, not one by one
    assert np.corrcoef(found[known], exact[known])[0, 1] > 0.85


def as_problem(made: Planted) -> GraphProblem:
    group = np.unique(made.members[:, :2], axis=0, return_inverse=True)[1].ravel()
    part = np.where(group % 4 == 0, TEST, TRAIN).astype(np.int8)
    n = len(made.graphs.genes)
    return GraphProblem(
        made.graphs.genes, made.members, made.values, group, np.arange(len(group)), part,
        made.graphs,
        np.zeros((n, 0)), n,
    )  # fmt: skip


def test_effects_and_factors_are_drawn_from_their_densities():
    """One set of two genes: draws have the mean and variance given by integration."""
    rng, draws = np.random.default_rng(0), []
    members, value, precision = (
        np.array([[0, 1]]),
        np.array([0.9]),
        np.array([[2.0, 0.6], [0.6, 1.5]]),
    )
    indptr, inside = np.array([0, 1, 2]), np.array([0, 0])
    effects, factors, signs = np.zeros(2), np.full((1, 2), 0.3), np.array([-1.0])
    has = indicator(members, 2)
    left = value - values_of(has, effects, factors, signs)
    for _ in range(20_000):
        draw_effects(indptr, inside, left, effects, 3.0 * precision, 4.0, rng.normal(size=2))
        draw_factors(
            members, indptr, inside, left, factors, precision, np.array([0.8]), signs, 4.0,
            rng.normal(size=(1, 2)),
        )  # fmt: skip
        draws.append(value[0] - left[0])
    assert left == pytest.approx(value - values_of(has, effects, factors, signs))
    covariance = np.linalg.inv(precision)
    own = rng.multivariate_normal(np.zeros(2), covariance / 3.0, 400_000).sum(1)
    traits = rng.multivariate_normal(np.zeros(2), covariance / 0.8, 400_000)
    said = own - traits.prod(1)
    weight = np.exp(-2.0 * np.square(value - said))  # importance sampling from the prior
    mean = np.average(said, weights=weight)
    spread = np.average(np.square(said - mean), weights=weight) ** 0.5
    assert np.mean(draws) == pytest.approx(mean, abs=0.03)
    assert np.std(draws) == pytest.approx(spread, rel=0.05)


def test_few_factors_are_found_and_their_graph_gets_the_weight():
    made = planted(n_genes=60, n_queries=70, per_query=8, n_decoys=1, seed=2)
    problem = as_problem(made)
    alone, together = process(problem, problem.group)[0], factors_model.fit(problem, problem.group)
    test = problem.part == TEST
    r = [np.corrcoef(x[test], made.noiseless[test])[0, 1] for x in (alone, together.values)]
    assert r[1] > r[0] + 0.1
    of = {name: x for name, x in together.shares.items() if name.startswith("factors: relation")}
    assert max(of, key=of.__getitem__).startswith("factors: relation_0")


def test_noise_gets_almost_no_weight_and_truth_almost_all():
    rng = np.random.default_rng(0)
    truth, noise = rng.normal(size=(2, 400))
    right, wrong = _stacking_weights(np.stack([truth, noise]), truth + 0.5 * rng.normal(size=400))
    assert 0.8 < right < 1
    assert wrong < 0.1
    shrunk = [
        _stacking_weights(rng.normal(size=(2, 30)), rng.normal(size=30)).sum() for _ in range(200)
    ]
    plain = [nnls(rng.normal(size=(30, 2)), rng.normal(size=30))[0].sum() for _ in range(200)]
    assert np.mean(shrunk) < 0.4 * np.mean(plain)
    assert (_stacking_weights(np.zeros((2, 30)), rng.normal(size=30)) == 0).all()
