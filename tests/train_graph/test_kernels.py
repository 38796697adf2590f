"""Kernels of sets against their definitions, pair by pair; groups left out against fits without."""

from __future__ import annotations

from itertools import combinations, product

import numpy as np
import pytest
from vcell_train_graph.closed import _left_out
from vcell_train_graph.kernels import SetBlock, inverse_of, weighed
from vcell_train_graph.planted import planted

from vcell.graph import Relation
from vcell.graph.diffusion import features, kernels

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


def test_within_is_how_alike_the_genes_of_a_set_are(kernel):
    one = sets(6, 3)
    block = SetBlock("x", "within", kernel)
    wanted = [sum(kernel[i, j] for i, j in combinations(real(s), 2)) for s in one]
    assert block.within(one) == pytest.approx(wanted)


def test_groups_left_out_are_what_a_fit_without_them_says(kernel):
    one = sets(40, 4)
    values = np.random.default_rng(5).normal(size=40)
    groups = np.arange(40) // 6
    mix = weighed([SetBlock("g", "linear", None), SetBlock("x", "pair", kernel)], one, values, G)
    noisy = mix(one, one, G) + (mix.noise + 0.1) * np.eye(40)
    inverse, log_det = inverse_of(noisy)
    assert log_det == pytest.approx(np.linalg.slogdet(noisy)[1])
    said = values - _left_out(inverse, inverse @ values, groups)
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
    everything = np.arange(20)
    told = features(relation, everything, 20)
    assert told @ told.T == pytest.approx(kernels(relation, everything)[1], abs=1e-5)


def test_the_relation_that_carries_the_signal_gets_the_weight():
    made = planted(n_genes=80, n_queries=60, per_query=8, n_decoys=2, seed=2)
    blocks = [SetBlock(r.name, "pair", kernels(r, np.arange(80))[1]) for r in made.graphs] + [
        SetBlock("genes", "linear", None)
    ]
    values = (made.values - made.values.mean()) / made.values.std()
    mix = weighed(blocks, made.members, values, 80)
    assert max(mix.shares, key=mix.shares.__getitem__) == "relation_0 pair"
