"""vcell's own ways of feeding graphs to a model.

``dango``, ``transformer``: the graphs are encoded once per step, and a sample is its perturbed
genes. ``lazy``: samples are the same, and the device masks the shared graph. ``incidence``: a
sample lists the edges of its genes. ``khop1`` to ``khop3``: a sample is its neighbourhood, as CSR.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from vcell.graph import GeneGraphs, Neighbourhoods, Relation, Rules
from vcell_graph_profile.batches import (
    NOTHING,
    ProfileBatch,
    Sample,
    Strategy,
    offsets,
    stacked_genes,
)

if TYPE_CHECKING:
    from numpy.typing import NDArray

NAMES = ("dango", "transformer", "lazy", "incidence", "khop1", "khop2", "khop3")


def make(name: str, graphs: GeneGraphs, rules: Rules) -> Strategy:
    """Return one of vcell's strategies."""
    graph_bytes = sum(r.indices.nbytes + r.indptr.nbytes for r in graphs)
    if name in ("dango", "transformer", "lazy"):
        return _genes_only(name, graphs, graph_bytes)
    if name == "incidence":
        return _incidence(graphs, graph_bytes)
    hops = Rules(int(name[-1]), rules.direction, rules.over, rules.perturbed)
    return _neighbourhood(name, Neighbourhoods(graphs, hops))


def _genes_only(name: str, graphs: GeneGraphs, graph_bytes: int) -> Strategy:
    description = {
        "dango": "graphs encoded once a step; pairs of a set attend to each other",
        "transformer": "wild type encoded once a step; a small head reads what is perturbed",
        "lazy": "one shared graph, masked on the device from the perturbed genes",
    }[name]
    kind: Any = np.uint16 if graphs.n_genes < 65_535 else np.int32
    own = name == "lazy"
    n_nodes, n_edges = graphs.n_genes, graphs.n_edges

    def sample(genes: NDArray[np.int64]) -> Sample:
        # the largest number means no gene
        small = np.where(genes < 0, np.iinfo(kind).max, genes).astype(kind)
        return Sample(small, (), n_nodes, n_edges)

    def collate(samples: list[Sample]) -> ProfileBatch:
        genes = np.stack([s.genes for s in samples]).astype(np.int64)
        genes[genes == np.iinfo(kind).max] = -1
        return ProfileBatch(torch.from_numpy(genes), NOTHING, NOTHING, ())

    net = {"dango": "shared", "transformer": "transformer", "lazy": "alive"}[name]
    shared = 0 if name == "transformer" else graph_bytes
    return Strategy(name, description, sample, collate, net, shared, own_graph=own)


def _incidence(graphs: GeneGraphs, graph_bytes: int) -> Strategy:
    """Send the number of every edge of the perturbed genes."""
    lists = [EdgesOfGenes(relation) for relation in graphs]

    def sample(genes: NDArray[np.int64]) -> Sample:
        parts = [of.edges(genes[genes >= 0]) for of in lists]
        n_removed = sum(map(len, parts))
        return Sample(
            genes.astype(np.int32), tuple(parts), graphs.n_genes, graphs.n_edges - n_removed
        )

    def collate(samples: list[Sample]) -> ProfileBatch:
        edges = []
        for r in range(len(lists)):
            edges.append(torch.from_numpy(np.concatenate([s.parts[r] for s in samples])))
            counts = [len(s.parts[r]) for s in samples]
            edges.append(torch.repeat_interleave(torch.tensor(counts)).int())
        return ProfileBatch(stacked_genes(samples), NOTHING, NOTHING, tuple(edges))

    return Strategy(
        "incidence", "one shared graph; a sample lists the edges its genes take with them", sample,
        collate, "incident", graph_bytes + sum(of.nbytes for of in lists),
    )  # fmt: skip


class EdgesOfGenes:
    """The edges of each gene in a relation, as positions in its CSR."""

    def __init__(self, relation: Relation) -> None:
        self._indptr = relation.indptr
        self._order = np.argsort(relation.indices, kind="stable").astype(np.int32)
        counts = np.bincount(relation.indices, minlength=relation.n_genes)
        self._starts = np.concatenate([[0], np.cumsum(counts)])

    @property
    def nbytes(self) -> int:
        """Memory in addition to the CSR, in bytes."""
        return self._order.nbytes + self._starts.nbytes

    def edges(self, genes: NDArray[np.int64]) -> NDArray[np.int32]:
        """Return the edges of some genes, each once, ascending."""
        parts = [self._order[self._starts[g] : self._starts[g + 1]] for g in genes]
        parts += [np.arange(self._indptr[g], self._indptr[g + 1], dtype=np.int32) for g in genes]
        return np.unique(np.concatenate([np.empty(0, np.int32), *parts]))


def _neighbourhood(name: str, near: Neighbourhoods) -> Strategy:
    """Send the genes of a neighbourhood, and the edges among them as CSR of 16-bit numbers."""

    def sample(genes: NDArray[np.int64]) -> Sample:
        found = near.csr(near.masks(genes)[0])
        small = found.nodes.astype(np.uint16 if near.n_genes <= 1 << 16 else np.int32)
        return Sample(
            genes.astype(np.int32), (small, *found.edges), len(found.nodes), found.n_edges
        )

    return Strategy(
        name, f"neighbourhood as CSR: {near.rules.describe()}", sample,
        lambda samples: blocks(samples, len(near.names)), "blocks",
    )  # fmt: skip


def blocks(samples: list[Sample], n_relations: int) -> ProfileBatch:
    """Concatenate the CSR of samples; sources stay numbers within their sample."""
    nodes = np.concatenate([s.parts[0] for s in samples]).astype(np.int32)
    edges = []
    for r in range(1, n_relations + 1):
        starts = np.cumsum([0, *(len(s.parts[r][1]) for s in samples)])
        rows = [s.parts[r][0][:-1] + at for s, at in zip(samples, starts, strict=False)]
        edges.append(torch.from_numpy(np.concatenate([*rows, starts[-1:]]).astype(np.int64)))
        sources = np.concatenate([s.parts[r][1] for s in samples])
        edges.append(torch.from_numpy(sources))
    return ProfileBatch(
        stacked_genes(samples), torch.from_numpy(nodes), offsets(samples), tuple(edges)
    )
