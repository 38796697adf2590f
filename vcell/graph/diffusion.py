"""Similarity of genes in graphs, by lazy random walks from each of them.

The walk stays with probability one half, or follows an edge; edges are scaled by the degrees of
both ends. The distributions after one or two steps are features whose products are kernels:
positive, and a discrete form of heat diffusion. N genes, G selected genes, C columns.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from vcell.errors import UserError
from vcell.kernels.graphs import spread

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from vcell.graph.relation import Relation

    Array = NDArray[np.float64]

_AT_ONCE = 32  # columns per walk
_EXTRA = 16  # components computed and dropped (Halko, Martinsson and Tropp 2011)
_ROUNDS = 6  # of the subspace iteration, with four steps of the walk each
_STEPS = 8  # of the walk that gives a gene's features: long enough that only communities remain


def kernels(relation: Relation, genes: NDArray[np.integer]) -> list[Array]:
    """Return two (G, G) kernels of some genes: near (steps 1 + 1) and far (steps 2 + 2).

    Each has mean 1 on its diagonal over the genes that have edges; a gene without edges is similar
    only to itself.
    """
    walk = _Walk(relation.both())
    reached = np.zeros((2, relation.n_genes, len(genes)), np.float32)  # after one and two steps
    for start in range(0, len(genes), _AT_ONCE):
        begun = genes[start : start + _AT_ONCE]
        here = np.zeros((relation.n_genes, len(begun)), np.float32)
        here[begun, np.arange(len(begun))] = 1.0
        for rows in reached:
            here = walk.step(here)
            rows[:, start : start + _AT_ONCE] = here
    near, far = ((rows.T @ rows).astype(np.float64) for rows in reached)
    alone = walk.degree[genes] == 0
    found = []
    for walked in (near, far):
        returning = np.diag(walked)[~alone]
        kernel = walked / (returning.mean() if len(returning) else 1.0)
        kernel[alone, alone] = 1.0
        found.append(kernel)
    return found


def embedding(relation: Relation, width: int = 64) -> tuple[NDArray[np.int64], Array]:
    """Return the genes that have edges, and (G, `width`) features of them.

    The features are the slowest components of the random walk, scaled by their decay over a long
    walk, so they show the communities of the graph. Edges count by their weights. The time grows
    with the edges, not with the cube of the genes.

    Raises
    ------
    UserError
        If weights are below 0, which a walk cannot follow.
    """
    walk = _Walk(relation.both(), weighted=True)
    found = np.flatnonzero(walk.degree > 0)
    width = min(width, len(found))
    rng = np.random.default_rng(0)
    basis = rng.normal(size=(relation.n_genes, width + _EXTRA)).astype(np.float32)
    basis *= (walk.degree > 0)[:, None]
    for _ in range(_ROUNDS):
        for _ in range(4):
            basis = walk.step(basis)
        basis = np.linalg.qr(basis)[0]
    values, vectors = np.linalg.eigh((basis.T @ walk.step(basis)).astype(np.float64))
    kept = np.argsort(-values)[:width]
    slow = basis[found].astype(np.float64) @ vectors[:, kept]
    return found, slow * np.maximum(values[kept], 0) ** _STEPS


class _Walk:
    """Steps over a relation whose edges go both ways.

    Attributes
    ----------
    degree
        (N,) number of edges of each gene, or sum of their weights.
    """

    degree: Array

    def __init__(self, both: Relation, *, weighted: bool = False) -> None:
        weights = both.weights if weighted else None
        if weights is None:
            self.degree = np.diff(both.indptr).astype(np.float64)
        else:
            if len(weights) and weights.min() < 0:
                raise UserError(
                    f"graph {both.name} has weights below 0, such as {weights.min():g}: "
                    "they do not say how strongly genes are joined",
                    hint="leave the column of weights out, or keep the edges above 0",
                )
            self.degree = np.bincount(both.targets, weights, both.n_genes).astype(np.float64)
        scale = 1 / np.sqrt(np.where(self.degree > 0, self.degree, 1.0))
        joined = scale[both.indices] * scale[both.targets]
        self.weights = (joined if weights is None else joined * weights).astype(np.float32)
        self.both = both

    def step(self, x: NDArray[np.float32]) -> NDArray[np.float32]:
        """Walk one step from (N, C): half stays, half goes along edges."""
        moved = np.empty_like(x, order="C")
        x = np.ascontiguousarray(x)
        spread(self.both.indptr, self.both.indices, self.weights, x, moved)
        return np.asarray((x + moved) / 2, np.float32)
