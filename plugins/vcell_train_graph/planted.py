"""Synthetic sets of three genes whose values depend on a known graph, or on none, for tests.

Genes have hidden traits that are smooth over one relation. The value of a set is the sum of the
effects of single genes, the products of each pair's traits, and noise. In the null, traits are not
smooth over any relation. Decoys are unrelated relations.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from vcell.graph import GeneGraphs, Relation
from vcell.graph.diffusion import kernels


@dataclass(frozen=True, eq=False)
class Planted:
    """A table of sets with values, and graphs.

    Attributes
    ----------
    graphs
        The first relation determines the values; the others are decoys.
    members
        (T, 3) numbers of the genes; the first two are the query pair.
    values, noiseless
        (T,) with and without noise.
    """

    graphs: GeneGraphs
    members: NDArray[np.int64]
    values: NDArray[np.float64]
    noiseless: NDArray[np.float64]

    def rows(self) -> list[str]:
        """Return the lines of a table for `vcell train-graph`."""
        names = np.array(self.graphs.genes)[self.members]
        lines = [
            f"{a}+{b}_tm1\t{c}_dma1\t{value:.6g}"
            for (a, b, c), value in zip(names, self.values, strict=True)
        ]
        return ["Query strain ID\tArray strain ID\ttau", *lines]

    def edges(self) -> dict[str, list[str]]:
        """Return the lines of an edge list for each relation."""
        genes = self.graphs.genes
        return {
            r.name: [
                "gene_a\tgene_b",
                *(
                    f"{genes[a]}\t{genes[b]}"
                    for a, b in zip(r.indices.tolist(), r.targets.tolist(), strict=True)
                ),
            ]
            for r in self.graphs
        }


def planted(
    *, n_genes: int = 150, n_queries: int = 120, per_query: int = 12, n_decoys: int = 3,
    seed: int = 0, null: bool = False,
) -> Planted:  # fmt: skip
    """Draw a table.

    Parameters
    ----------
    n_genes, n_queries, per_query
        Genes, query pairs, and sets of each.
    n_decoys
        Number of uninformative relations.
    null
        Whether the first relation is uninformative too.
    """
    rng = np.random.default_rng(seed)
    relations = [_modular(f"relation_{i}", n_genes, rng) for i in range(1 + n_decoys)]
    genes = tuple(f"Y{i:04d}W" for i in range(n_genes))
    source = _modular("hidden", n_genes, rng) if null else relations[0]
    far = kernels(source, np.arange(n_genes))[1]
    root = np.linalg.cholesky(far + 1e-9 * np.eye(n_genes))
    traits = root @ rng.normal(size=(n_genes, 1))
    alone = rng.normal(size=n_genes)
    members = []
    for _ in range(n_queries):
        pair = rng.choice(n_genes, 2, replace=False)
        others = np.setdiff1d(np.arange(n_genes), pair)
        members += [(*pair, third) for third in rng.choice(others, per_query, replace=False)]
    sets = np.array(members)
    a, b, c = sets.T
    together = sum((traits[i] * traits[j]).sum(1) for i, j in ((a, b), (a, c), (b, c)))
    smooth = traits[:, 0][sets].sum(1)
    parts = [(0.2, alone[sets].sum(1)), (1.0, together), (0.4, smooth)]
    noiseless = sum(weight * x / x.std() for weight, x in parts)
    values = noiseless + 0.75 * noiseless.std() * rng.normal(size=len(sets))
    made = GeneGraphs(genes, tuple(relations), {})
    return Planted(made, sets, values * 0.05, noiseless * 0.05)


def _modular(name: str, n: int, rng: np.random.Generator) -> Relation:
    """Draw a graph of modules, with some edges between them."""
    module = rng.integers(0, n // 12, n)
    one, other = np.triu_indices(n, 1)
    chance = np.where(module[one] == module[other], 0.5, 0.004)
    joined = rng.random(len(one)) < chance
    return Relation.from_edges(name, one[joined], other[joined], n)[0]
