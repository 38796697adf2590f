"""The references: the same work as in torch-geometric, and in plain scipy.

If torch-geometric is installed, its functions run. Otherwise `k_hop_subgraph` below does the same
operations (masks over all edges, a relabelling of all genes), and rows say so. It is written from
the documentation and behaviour; `tests/graph` compares both if torch-geometric is installed.
"""

from __future__ import annotations

from importlib import import_module
from importlib.metadata import version
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from vcell.graph import GeneGraphs, Rules
from vcell_graph_profile.batches import (
    NOTHING,
    ProfileBatch,
    Sample,
    Strategy,
    offsets,
    stacked_genes,
)
from vcell_graph_profile.strategies import EdgesOfGenes, blocks

if TYPE_CHECKING:
    from numpy.typing import NDArray

NAMES = (
    "lazy-ref", "khop1-ref", "khop2-ref", "khop3-ref", "khop1-scipy", "khop2-scipy", "khop3-scipy",
)  # fmt: skip


def make(name: str, graphs: GeneGraphs, rules: Rules) -> Strategy:
    """Return a reference."""
    if name == "lazy-ref":
        return _lazy(graphs)
    hops = Rules(int(name[4]), rules.direction, rules.over, rules.perturbed)
    return (_khop_scipy if name.endswith("scipy") else _khop)(name, graphs, hops)


def installed() -> bool:
    """Return whether torch-geometric is installed."""
    return find_spec("torch_geometric") is not None


def source() -> str:
    """Return whose code the references run."""
    if installed():
        return f"torch-geometric {version('torch-geometric')}"
    return "our port of torch-geometric's algorithm, which is not installed"


def _lazy(graphs: GeneGraphs) -> Strategy:
    """Send every sample's whole graph, with a byte for each edge that says whether it remains."""
    all_edges = [torch.from_numpy(r.edge_index()) for r in graphs]
    touching = [EdgesOfGenes(r) for r in graphs]
    n = graphs.n_genes
    make_data = import_module("torch_geometric.data") if installed() else None

    def sample(genes: NDArray[np.int64]) -> Sample:
        parts = []
        for edges, of in zip(all_edges, touching, strict=True):
            keep = torch.ones(edges.shape[1], dtype=torch.bool)
            keep[torch.from_numpy(of.edges(genes[genes >= 0])).long()] = False
            parts.append((edges, keep))
        left = sum(int(keep.sum()) for _, keep in parts)
        return Sample(genes.astype(np.int64), tuple(parts), n, left)

    def collate(samples: list[Sample]) -> ProfileBatch:
        if make_data is None:
            joined = [
                torch.cat([s.parts[r][0] + i * n for i, s in enumerate(samples)], 1)
                for r in range(len(all_edges))
            ]
            keeps = [torch.cat([s.parts[r][1] for s in samples]) for r in range(len(all_edges))]
        else:
            items = []
            for s in samples:
                item = make_data.HeteroData()
                item["gene"].num_nodes = n
                for r, (edges, keep) in enumerate(s.parts):
                    item["gene", str(r), "gene"].edge_index = edges
                    item["gene", str(r), "gene"].keep = keep
                items.append(item)
            whole_batch = make_data.Batch.from_data_list(items)
            stores = [whole_batch["gene", str(r), "gene"] for r in range(len(all_edges))]
            joined, keeps = [s.edge_index for s in stores], [s.keep for s in stores]
        edges = tuple(t for pair in zip(joined, keeps, strict=True) for t in pair)
        return ProfileBatch(stacked_genes(samples), NOTHING, offsets(samples), edges)

    return Strategy(
        "lazy-ref", f"every sample's whole graph and a mask of its edges: {source()}", sample,
        collate, "masked", 0, reference="lazy",
    )  # fmt: skip


def _khop(name: str, graphs: GeneGraphs, rules: Rules) -> Strategy:
    """Find the neighbourhood relation by relation, then test both ends of every edge."""
    relations = [r if rules.direction == "in" else r.both() for r in graphs]
    all_edges = [torch.from_numpy(r.edge_index()) for r in relations]
    n = graphs.n_genes
    walk: Any = k_hop_subgraph
    make_data = None
    if installed():
        utils = import_module("torch_geometric.utils")
        make_data = import_module("torch_geometric.data")
        walk = lambda seeds, hops, edges, n: utils.k_hop_subgraph(  # noqa: E731
            seeds, hops, edges, num_nodes=n
        )[0]
    walked = all_edges if rules.over == "relation" else [torch.cat(all_edges, 1)]

    def sample(genes: NDArray[np.int64]) -> Sample:
        seeds = torch.from_numpy(genes[genes >= 0])
        subset = torch.unique(torch.cat([walk(seeds, rules.hops, e, n) for e in walked]))
        if rules.perturbed == "deleted":
            subset = subset[~torch.isin(subset, seeds)]
        number = torch.full((n,), -1)
        number[subset] = torch.arange(len(subset))
        parts = []
        for edges in all_edges:
            inside = torch.isin(edges[0], subset) & torch.isin(edges[1], subset)
            parts.append(number[edges[:, inside]])
        n_edges = sum(part.shape[1] for part in parts)
        return Sample(genes.astype(np.int64), (subset, *parts), len(subset), n_edges)

    def collate(samples: list[Sample]) -> ProfileBatch:
        if make_data is None:
            starts = np.cumsum([0, *(s.n_nodes for s in samples)])
            joined = tuple(
                torch.cat([s.parts[r] + int(at) for s, at in zip(samples, starts, strict=False)], 1)
                for r in range(1, len(all_edges) + 1)
            )
            nodes = torch.cat([s.parts[0] for s in samples])
        else:
            items = []
            for s in samples:
                item = make_data.HeteroData()
                item["gene"].x = s.parts[0]
                item["gene"].num_nodes = s.n_nodes
                for r, edges in enumerate(s.parts[1:]):
                    item["gene", str(r), "gene"].edge_index = edges
                items.append(item)
            found = make_data.Batch.from_data_list(items)
            joined = tuple(found["gene", str(r), "gene"].edge_index for r in range(len(all_edges)))
            nodes = found["gene"].x
        return ProfileBatch(stacked_genes(samples), nodes, offsets(samples), joined)

    return Strategy(
        name, f"neighbourhood as int64 pairs, {rules.describe()}: {source()}", sample, collate,
        "pairs", reference=name.removesuffix("-ref"),
    )  # fmt: skip


def k_hop_subgraph(seeds: Tensor, hops: int, edges: Tensor, n: int) -> Tensor:
    """Return the genes within some hops, like torch-geometric's function of this name."""
    there = torch.empty(n, dtype=torch.bool)
    subsets = [seeds]
    for _ in range(hops):
        there.fill_(value=False)
        there[subsets[-1]] = True
        subsets.append(edges[0][there.index_select(0, edges[1])])
    found: Tensor = torch.unique(torch.cat(subsets))
    return found


def _khop_scipy(name: str, graphs: GeneGraphs, rules: Rules) -> Strategy:
    """Walk by matrix-vector products, and cut by slicing rows, then columns."""
    from scipy import sparse

    relations = [r if rules.direction == "in" else r.both() for r in graphs]
    n = graphs.n_genes
    matrices = [
        sparse.csr_array((np.ones(r.n_edges, np.float32), r.indices.astype(np.int32), r.indptr),
                         shape=(n, n))
        for r in relations
    ]  # fmt: skip
    turned = [m.T.tocsr() for m in matrices]  # from targets to sources
    walked = turned if rules.over == "relation" else [sum(turned[1:], turned[0])]

    def sample(genes: NDArray[np.int64]) -> Sample:
        seeds = genes[genes >= 0]
        start = np.zeros(n, np.float32)
        start[seeds] = 1
        union = start > 0
        for matrix in walked:
            found = start
            for _ in range(rules.hops):
                found = ((found + matrix @ found) > 0).astype(np.float32)
            union |= found > 0
        if rules.perturbed == "deleted":
            union[seeds] = False
        nodes = np.flatnonzero(union).astype(np.int32)
        cut = [m[nodes][:, nodes] for m in matrices]
        parts = [(c.indptr.astype(np.int32), c.indices) for c in cut]
        n_edges = sum(len(sources) for _, sources in parts)
        return Sample(genes.astype(np.int32), (nodes, *parts), len(nodes), n_edges)

    return Strategy(
        name, f"neighbourhood as CSR by plain scipy, {rules.describe()}", sample,
        lambda samples: blocks(samples, len(matrices)), "blocks",
        reference=name.removesuffix("-scipy"),
    )  # fmt: skip


def same(sample: Sample, reference: Sample, graphs: GeneGraphs) -> bool:
    """Return whether a reference's sample has the same genes and the same edges as vcell's."""
    if reference.parts and isinstance(reference.parts[0], tuple):  # lazy: the remaining edges
        genes = sample.genes.astype(np.int64)
        alive = np.ones(graphs.n_genes, bool)
        alive[genes[genes < graphs.n_genes]] = False
        return all(
            (alive[edges].all(0) == keep.numpy()).all()
            for edges, keep in ((e.numpy(), k) for e, k in reference.parts)
        )
    if not np.array_equal(np.asarray(sample.parts[0]), np.asarray(reference.parts[0])):
        return False
    for (rows, sources), other in zip(sample.parts[1:], reference.parts[1:], strict=True):
        targets = np.repeat(np.arange(len(rows) - 1), np.diff(rows))
        if isinstance(other, tuple):
            if not (np.array_equal(other[0], rows) and np.array_equal(
                _sorted_rows(*other), sources
            )):  # fmt: skip
                return False
        elif not np.array_equal(other.numpy(), np.stack([sources.astype(np.int64), targets])):
            return False
    return True


def _sorted_rows(rows: NDArray[Any], sources: NDArray[Any]) -> NDArray[Any]:
    targets = np.repeat(np.arange(len(rows) - 1), np.diff(rows))
    return sources[np.lexsort((sources, targets))]
