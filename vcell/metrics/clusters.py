"""Whether predicted perturbations fall into the same clusters as the real ones.

cell-eval's ``clustering_agreement``: Leiden clusters of the perturbations' mean profiles, compared
by adjusted mutual information, the best over the predicted side's resolutions. The graph is
scanpy's (15 nearest, UMAP's weights). Leiden is igraph's, the one optional package here.

Legend: ``P`` perturbations, ``G`` genes, ``K`` neighbours, a perturbation itself among them.
"""

from __future__ import annotations

import random
from importlib import import_module
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from vcell.special import gammaln

if TYPE_CHECKING:
    from collections.abc import Sequence

Array = NDArray[np.float64]
NEIGHBOURS = 15
REAL = 1.0  # resolution of the real side
PREDICTED = (0.2, 0.4, 0.6, 0.8, 1.0, 1.5, 2.0)
_STEPS, _CLOSE, _LEAST = 64, 1e-5, 1e-3  # UMAP's search for a scale: steps, tolerance, lower bound


def agreement(real: Array, pred: Array) -> float | None:
    """``clustering_agreement`` of mean profiles, ``[P, G]``; None where igraph is not installed."""
    if find_spec("igraph") is None:
        return None
    if len(real) < 3:
        return float("nan")
    truth, graph = leiden(neighbour_graph(real), REAL), neighbour_graph(pred)
    return max(0.0, *(mutual_information(truth, leiden(graph, r)) for r in PREDICTED))


def neighbour_graph(x: Array) -> Array:
    """Return UMAP's weights ``[P, P]`` between neighbouring profiles."""
    k = min(NEIGHBOURS, len(x) - 1)
    squared = (x * x).sum(axis=1)
    d = np.sqrt(np.maximum(squared[:, None] + squared - 2 * (x @ x.T), 0))
    np.fill_diagonal(d, 0)
    nearest = np.argsort(d + np.where(np.eye(len(x), dtype=bool), -1.0, 0.0), axis=1)[:, :k]
    near = np.take_along_axis(d, nearest, axis=1).astype(np.float32)
    weight = np.zeros((len(x), len(x)))
    for i, row in enumerate(near):
        weight[i, nearest[i]] = _strengths(row, float(near.mean()))
        weight[i, i] = 0
    return weight + weight.T - weight * weight.T


def _strengths(d: NDArray[np.float32], mean: float) -> Array:
    """Weigh one profile's neighbours by exp(-(d - nearest) / scale); weights add up to log2 K."""
    some = d[d > 0]
    nearest = float(some[0]) if len(some) else 0.0
    beyond = np.maximum(d.astype(np.float64) - nearest, 0)
    scale = _scale(beyond, float(np.log2(len(d))))
    scale = max(scale, _LEAST * (float(d.mean()) if nearest > 0 else mean))
    return np.exp(-beyond / scale) if scale > 0 else np.ones(len(d))


def _scale(beyond: Array, target: float) -> float:
    low, high, middle = 0.0, np.inf, 1.0
    for _ in range(_STEPS):
        total = float(np.exp(-beyond[1:] / middle).sum())
        if abs(total - target) < _CLOSE:
            break
        if total > target:
            high = middle
            middle = (low + high) / 2
        else:
            low = middle
            middle = middle * 2 if high == np.inf else (low + high) / 2
    return middle


class _RandomNumbers:
    """Random numbers for igraph, as scanpy supplies them, from one seed."""

    def __init__(self) -> None:
        self.state = np.random.RandomState(0)

    def getrandbits(self, k: int) -> int:
        return int(self.state.tomaxint()) & ((1 << k) - 1)

    def randint(self, a: int, b: int) -> int:
        return int(self.state.randint(a, b + 1))

    def random(self) -> float:
        return float(self.state.random_sample())

    def gauss(self, mean: float, spread: float) -> float:
        return float(self.state.normal(mean, spread))


def leiden(graph: Array, resolution: float) -> NDArray[np.int64]:
    """Return the cluster of every node: igraph's Leiden, two iterations, scanpy's seed."""
    igraph = import_module("igraph")
    source, target = np.nonzero(graph)
    edges: Sequence[Any] = list(zip(source.tolist(), target.tolist(), strict=True))
    made = igraph.Graph(n=len(graph), edges=edges)
    try:
        igraph.set_random_number_generator(_RandomNumbers())
        found = made.community_leiden(
            objective_function="modularity", weights=graph[source, target].tolist(),
            resolution=resolution, n_iterations=2,
        )  # fmt: skip
    finally:
        igraph.set_random_number_generator(random)
    return np.array(found.membership, np.int64)


def mutual_information(a: NDArray[np.int64], b: NDArray[np.int64]) -> float:
    """Mutual information of two clusterings, adjusted for chance; 1 is equal, 0 chance."""
    table = np.zeros((a.max() + 1, b.max() + 1))
    np.add.at(table, (a, b), 1)
    rows, columns, n = table.sum(axis=1), table.sum(axis=0), len(a)
    if (rows > 0).sum() == (columns > 0).sum() and (rows > 0).sum() in (1, n):
        return 1.0  # one cluster, or all singletons, on both sides
    i, j = np.nonzero(table)
    shared = table[i, j]
    information = float((shared / n * np.log(n * shared / (rows[i] * columns[j]))).sum())
    expected = _expected(rows, columns, n)
    whole = (_entropy(rows, n) + _entropy(columns, n)) / 2 - expected
    least = np.finfo(np.float64).eps  # as scikit-learn keeps the denominator from zero
    whole = min(whole, -least) if whole < 0 else max(whole, least)
    return (information - expected) / whole


def _entropy(sizes: Array, n: int) -> float:
    p = sizes[sizes > 0] / n
    return float(-(p * np.log(p)).sum())


def _expected(rows: Array, columns: Array, n: int) -> float:
    """Return the mean mutual information of random clusterings of these sizes."""
    total = 0.0
    for a in rows[rows > 0]:
        for b in columns[columns > 0]:
            m = np.arange(max(1, a + b - n), min(a, b) + 1)
            log_p = (
                gammaln(a + 1) + gammaln(b + 1) + gammaln(n - a + 1) + gammaln(n - b + 1)
                - gammaln(n + 1) - gammaln(m + 1) - gammaln(a - m + 1) - gammaln(b - m + 1)
                - gammaln(n - a - b + m + 1)
            )  # fmt: skip
            total += float((m / n * np.log(n * m / (a * b)) * np.exp(log_p)).sum())
    return total
