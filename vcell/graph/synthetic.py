"""Synthetic gene graphs of the size and shape of nine yeast relations, for timing and tests.

The numbers of genes, of covered genes and of edges are those recorded for *S. cerevisiae* (physical
and regulatory interactions, TFLink, six channels of STRING 12); the free parameters in `Shape` are
fitted to `RECORDED`. The graphs contain no biology.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from vcell.errors import UserError
from vcell.graph.gene_graphs import GeneGraphs
from vcell.graph.relation import Relation

if TYPE_CHECKING:
    from numpy.typing import NDArray

#: relation: (genes with an edge, edges, whether edges have a direction)
YEAST = {
    "coexpression": (6474, 1_002_806, False),
    "experimental": (6016, 828_701, False),
    "tflink": (5074, 207_250, True),
    "neighborhood": (2191, 153_320, False),
    "physical": (5721, 144_211, False),
    "database": (4027, 79_224, False),
    "regulatory": (6582, 44_310, True),
    "fusion": (3081, 18_394, False),
    "cooccurence": (2601, 17_692, False),
}
N_GENES = 6607
#: genes within 1, 2 and 3 hops of three genes, in one direction, each relation separately
RECORDED = (697, 3759, 4508)


@dataclass(frozen=True)
class Shape:
    """The free parameters of the generator, fitted to `RECORDED`; see `benchmarks/graph.py`.

    Attributes
    ----------
    skew
        Standard deviation of the log weight of a gene.
    shared
        Share of this weight that is common to all relations.
    reused
        Share of a relation's pairs that are also pairs of co-expression.
    regulators
        Number of genes that are sources of directed edges.
    first
        How much earlier in the order genes with many edges are: an undirected pair is stored once,
        from the earlier gene to the later.
    """

    skew: float = 0.95
    shared: float = 0.5
    reused: float = 0.57
    regulators: int = 300
    first: float = 2.3


def yeast_like(seed: int = 0, *, scale: float = 1.0, shape: Shape | None = None) -> GeneGraphs:
    """Make nine relations over 6,607 genes with 2,495,908 edges, each stored one way.

    Parameters
    ----------
    scale
        Factor on the number of genes; edges grow by its square, at constant density.
    """
    shape = shape or Shape()
    rng = np.random.default_rng(seed)
    n = round(N_GENES * scale)
    if n < 50:
        raise UserError(f"a scale of {scale} leaves {n} genes", hint="at least 50 are needed")
    common = rng.normal(size=n)
    # genes with low numbers are stored as sources
    common = common[np.argsort(-shape.first * common + rng.normal(size=n), kind="stable")]
    pool = np.empty(0, np.int64)
    relations = []
    for name, (covered, edges, directed) in YEAST.items():
        own = rng.normal(size=n)
        weight = np.exp(shape.skew * (shape.shared**0.5 * common + (1 - shape.shared) ** 0.5 * own))
        keys = _pairs(
            rng, weight, min(n, round(covered * scale)),
            max(round(edges * scale**2), 1),
            None if directed else pool, shape, directed=directed,
        )  # fmt: skip
        if not len(pool):
            pool = keys
        source, target = np.divmod(keys, n)
        made, _, _ = Relation.from_edges(name, source, target, n, directed=directed)
        relations.append(made)
    genes = tuple(f"G{i:05d}" for i in range(n))
    note = f"synthetic: {n:,} genes, {len(relations)} relations shaped as a yeast's, seed {seed}"
    return GeneGraphs(genes, tuple(relations), {}, (note,))


def _pairs(
    rng: np.random.Generator,
    weight: NDArray[np.float64],
    covered: int,
    edges: int,
    pool: NDArray[np.int64] | None,
    shape: Shape,
    *,
    directed: bool,
) -> NDArray[np.int64]:
    """Draw distinct pairs, as source * N + target, so that `covered` genes have an edge."""
    n = len(weight)
    # genes with an edge: a weighted sample, by weight over an exponential random number
    genes = np.argsort(rng.exponential(size=n) / np.sqrt(weight))[:covered]
    chance = np.cumsum(weight[genes])
    chance /= chance[-1]
    heads, head_chance = genes, chance
    if directed:
        heads = genes[np.argsort(-weight[genes])[: min(shape.regulators, covered // 2)]]
        head_chance = np.cumsum(weight[heads]) / weight[heads].sum()

    def drawn(count: int) -> NDArray[np.int64]:
        one = heads[np.searchsorted(head_chance, rng.random(count)).clip(max=len(heads) - 1)]
        other = genes[np.searchsorted(chance, rng.random(count)).clip(max=covered - 1)]
        return _keys(one, other, n, directed=directed)

    # every covered gene once, so that the number of covered genes is exact
    other = genes[rng.permutation(covered)] if not directed else rng.choice(heads, covered)
    keys = np.unique(_keys(other, genes, n, directed=directed))
    if pool is not None and len(pool):
        inside = np.zeros(n, bool)
        inside[genes] = True
        both = pool[inside[pool // n] & inside[pool % n]]
        wanted = min(round(shape.reused * edges), len(both))
        # pairs of heavy genes from the pool first
        clock = rng.exponential(size=len(both)) / np.sqrt(weight[both // n] * weight[both % n])
        keys = np.union1d(keys, both[np.argpartition(clock, wanted - 1)[:wanted]])
    while len(keys) < edges:
        keys = np.union1d(keys, drawn(int(1.3 * (edges - len(keys))) + 64))
    surplus = len(keys) - edges
    if surplus:
        keys = np.delete(keys, rng.choice(len(keys), surplus, replace=False))
    return keys


def _keys(
    one: NDArray[np.int64], other: NDArray[np.int64], n: int, *, directed: bool
) -> NDArray[np.int64]:
    """Return numbers of pairs of different genes; undirected pairs with the earlier gene first."""
    kept = one != other
    one, other = one[kept], other[kept]
    if not directed:
        one, other = np.minimum(one, other), np.maximum(one, other)
    return one * n + other
