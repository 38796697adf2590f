"""Features of all genes of a graph against the whole spectrum of its walk, computed densely."""

from __future__ import annotations

import numpy as np
import pytest

from vcell.errors import UserError
from vcell.graph import Relation
from vcell.graph.diffusion import embedding

N = 60


def relation(seed: int, *, weights: bool = False, directed: bool = False) -> Relation:
    """Three communities and a few edges between them; the last five genes have none."""
    rng = np.random.default_rng(seed)
    group = rng.integers(0, 3, N)
    likely = np.where(group[:, None] == group, 0.3, 0.01)
    likely[-5:] = likely[:, -5:] = 0
    source, target = np.nonzero(np.triu(rng.random((N, N)) < likely, 1))
    values = rng.random(len(source)).astype(np.float32) + 0.1 if weights else None
    made, _, _ = Relation.from_edges("made", source, target, N, values, directed=directed)
    return made


def dense(made: Relation) -> np.ndarray:
    """The kernel after sixteen steps, eight from each side."""
    joined = np.zeros((N, N))
    weight = np.ones(made.n_edges) if made.weights is None else made.weights
    joined[made.targets, made.indices] = weight
    joined = np.maximum(joined, joined.T)
    degree = np.maximum(joined.sum(1), 1e-12)
    walk = (np.eye(N) + joined / np.sqrt(np.outer(degree, degree))) / 2
    return np.linalg.matrix_power(walk, 16)


@pytest.mark.parametrize("weights", [False, True])
@pytest.mark.parametrize("directed", [False, True])
def test_products_of_features_are_the_kernel_of_a_long_walk(weights, directed):
    made = relation(0, weights=weights, directed=directed)
    genes, features = embedding(made, N)
    assert genes.tolist() == [i for i in range(N) if made.covered()[i]]
    wanted = dense(made)[np.ix_(genes, genes)]
    assert np.abs(features @ features.T - wanted).max() < 1e-5


def test_few_components_are_the_nearest_of_that_many():
    made = relation(1)
    genes, features = embedding(made, 6)
    wanted = dense(made)[np.ix_(genes, genes)]
    values, vectors = np.linalg.eigh(wanted)
    best = (vectors[:, -6:] * values[-6:]) @ vectors[:, -6:].T
    assert np.linalg.norm(features @ features.T - best) < 1e-3 * np.linalg.norm(wanted)


def test_a_graph_of_one_edge_has_features_and_weights_below_nothing_have_none():
    one, _, _ = Relation.from_edges("one", np.array([3]), np.array([4]), N)
    genes, features = embedding(one)
    assert genes.tolist() == [3, 4]
    assert np.allclose(features[0], features[1], atol=1e-6)  # a walk forgets where it began
    weak, _, _ = Relation.from_edges(
        "weak", np.array([3, 5]), np.array([4, 6]), N, np.array([1, -2], np.float32)
    )
    with pytest.raises(UserError, match="weights below 0, such as -2"):
        embedding(weak)
