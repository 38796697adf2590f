"""How alike genes are by graphs: where a lazy walk from each of them leads.

The walk stays or goes on, half and half, over the graph, its edges scaled by the degrees of both
ends. Rows of where it is after one or two steps are features whose products are kernels: positive,
and a discrete form of heat diffusion. Numpy alone. N genes, G of them wanted.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from vcell.graph.relation import Relation

    Array = NDArray[np.float64]

_AT_ONCE = 32  # columns of a walk


def kernels(relation: Relation, genes: NDArray[np.integer]) -> list[Array]:
    """Return two (G, G) kernels of some genes: near (steps 1 + 1) and far (steps 2 + 2).

    Each has mean 1 on its diagonal over the genes that have edges; a gene without any is alike
    itself alone.
    """
    both = relation.both()
    walks = np.zeros((2, relation.n_genes, len(genes)), np.float32)  # from each gene: one step, two
    for start in range(0, len(genes), _AT_ONCE):
        begun = genes[start : start + _AT_ONCE]
        here = np.zeros((relation.n_genes, len(begun)), np.float32)
        here[begun, np.arange(len(begun))] = 1.0
        for walk in walks:
            here = _step(both, here)
            walk[:, start : start + _AT_ONCE] = here
    near, far = ((walk.T @ walk).astype(np.float64) for walk in walks)
    alone = np.diff(both.indptr)[genes] == 0
    found = []
    for walked in (near, far):
        told = np.diag(walked)[~alone]
        kernel = walked / (told.mean() if len(told) else 1.0)
        kernel[alone, alone] = 1.0
        found.append(kernel)
    return found


def features(relation: Relation, genes: NDArray[np.integer], width: int) -> Array:
    """Return (G, at most `width`) features whose products approach the far kernel."""
    values, vectors = np.linalg.eigh(kernels(relation, genes)[1])
    kept = np.argsort(-values)[: min(width, int((values > 1e-9).sum()))]
    return np.asarray(vectors[:, kept] * np.sqrt(values[kept]))


def _step(both: Relation, x: NDArray[np.float32]) -> NDArray[np.float32]:
    """Walk one step: half stays, half goes along edges."""
    degree = np.maximum(np.diff(both.indptr), 1).astype(np.float32)
    scale = 1 / np.sqrt(degree)
    moved = np.zeros_like(x)
    flat = (x * scale[:, None])[both.indices]
    filled = np.flatnonzero(np.diff(both.indptr))
    if len(filled):
        moved[filled] = np.add.reduceat(flat, both.indptr[filled], axis=0)
    return np.asarray((x + moved * scale[:, None]) / 2)
