"""Energy distance and clustering agreement: scipy's numbers, cell-eval's (parity_full.py)."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.sparse as sp
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial.distance import cdist

from tests.metrics.cells import GOLDEN, blocks, numbered
from vcell.metrics import clusters, energy


def stored(case: str) -> tuple[dict, dict]:
    """Return what the peer said, and the cells."""
    with np.load(GOLDEN / f"full-{case}.npz", allow_pickle=False) as file:
        said = dict(file)
    if case == "families":
        return said, said
    with np.load(GOLDEN / f"vcc2025-{case}.npz", allow_pickle=False) as file:
        return said, dict(file)


def measured(cells: dict, side: str, **options) -> np.ndarray:
    names, group = numbered(cells[f"{side}_labels"])
    x = sp.csr_matrix(cells[f"{side}_x"])
    return energy.distances(
        lambda rows: blocks(x, rows)(), group, len(names) + 1, x.shape[1], **options
    )


@pytest.mark.parametrize("case", ["plain", "dense", "unbalanced", "families"])
def test_pearson_edistance_is_cell_evals(case):
    said, cells = stored(case)
    found = energy.agreement(measured(cells, "real"), measured(cells, "pred"))
    np.testing.assert_allclose(found, said["pearson_edistance"], rtol=1e-5)  # theirs is float32


@settings(max_examples=25, deadline=None)
@given(
    seed=st.integers(0, 2**32 - 1), n=st.integers(2, 25), groups=st.integers(2, 4),
    memory=st.sampled_from([1, 200, 1 << 20]),
)  # fmt: skip
def test_energy_distances_are_those_of_all_pairs(seed, n, groups, memory):
    rng = np.random.default_rng(seed)
    x = np.round(rng.gamma(1, 1, (n, 5)) * (rng.random((n, 5)) < 0.6), 2).astype(np.float32)
    group = rng.integers(-1, groups, n).astype(np.int32)
    whole = sp.csr_matrix(x)
    found = energy.distances(
        lambda rows: blocks(whole, rows, step=3)(), group, groups, 5, memory=memory
    )
    wide, b = x.astype(np.float64), x[group == 0].astype(np.float64)
    for g in range(1, groups):
        a = wide[group == g]
        if not len(a) or not len(b):
            assert np.isnan(found[g - 1])
            continue
        expected = 2 * cdist(a, b).mean() - cdist(a, a).mean() - cdist(b, b).mean()
        np.testing.assert_allclose(found[g - 1], expected, atol=1e-7)


def centroids(cells: dict, side: str) -> np.ndarray:
    names, group = numbered(cells[f"{side}_labels"])
    x = cells[f"{side}_x"].astype(np.float64)
    return np.stack([x[group == g + 1].mean(axis=0) for g in range(len(names))])


@pytest.mark.parametrize("side", ["real", "pred"])
def test_the_graph_is_scanpys(side):
    said, cells = stored("families")
    graph = clusters.neighbour_graph(centroids(cells, side))
    np.testing.assert_allclose(graph, said[f"{side}_graph"], atol=1e-4)


def test_mutual_information_gives_the_peers_agreement():
    """From the peer's own clusters, so that it needs no igraph."""
    said, _ = stored("families")
    found = [
        clusters.mutual_information(said["real_at_1.0"], said[f"pred_at_{r}"])
        for r in clusters.PREDICTED
    ]
    np.testing.assert_allclose(max(found), said["clustering_agreement"], rtol=1e-9)
    assert 0.1 < max(found) < 0.9


def test_mutual_information_of_equal_of_trivial_and_of_unrelated_clusters():
    a = np.array([0, 0, 1, 1, 2, 2, 2])
    np.testing.assert_allclose(clusters.mutual_information(a, (a + 1) % 3), 1)
    together, apart = np.zeros(7, int), np.arange(7)
    assert clusters.mutual_information(together, together) == 1
    assert clusters.mutual_information(apart, apart) == 1
    assert abs(clusters.mutual_information(together, a)) < 1e-9
    rng = np.random.default_rng(0)
    chance = [
        clusters.mutual_information(rng.integers(0, 4, 300), rng.integers(0, 4, 300))
        for _ in range(20)
    ]
    assert abs(np.mean(chance)) < 0.01


def test_clusters_are_igraphs_where_it_is_there():
    said, cells = stored("families")
    real, pred = centroids(cells, "real"), centroids(cells, "pred")
    try:
        import igraph  # noqa: F401
    except ImportError:
        assert clusters.agreement(real, pred) is None
        return
    for side, x in (("real", real), ("pred", pred)):
        graph = clusters.neighbour_graph(x)
        for r in clusters.PREDICTED:
            same = clusters.mutual_information(clusters.leiden(graph, r), said[f"{side}_at_{r}"])
            assert same == pytest.approx(1)
    assert clusters.agreement(real, pred) == pytest.approx(float(said["clustering_agreement"]))
