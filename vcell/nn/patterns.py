"""Attention patterns: gene graphs as the blocks of rows and keys that attention processes.

A pattern divides the tokens into blocks of rows, each with the union of the keys that its rows
need. Only allowed pairs are stored, so memory is proportional to the edges; rows that share
neighbours are grouped, so that the unions stay small.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from vcell.errors import UserError

_DENSE_ROWS = 128  # rows of a block if all attend to all
_ROWS = (16, 32, 64, 128)  # sizes of a block tried for a sparse pattern
_GATHER = 24  # cost of fetching a key, in multiplications with a row


@dataclass(frozen=True)
class Graph:
    """Undirected pairs of nodes as CSR, each node its own neighbour."""

    indptr: NDArray[np.int64]
    indices: NDArray[np.int64]  # sorted within a node

    @property
    def n_nodes(self) -> int:
        """Number of nodes."""
        return len(self.indptr) - 1

    @property
    def n_edges(self) -> int:
        """Number of pairs of different nodes."""
        return (len(self.indices) - self.n_nodes) // 2

    @classmethod
    def from_edges(cls, n_nodes: int, edges: ArrayLike) -> Graph:
        """Make a graph from (E, 2) pairs of node numbers, in any order and direction.

        Raises
        ------
        UserError
            If a pair has a node that does not exist.
        """
        pairs = np.asarray(edges, dtype=np.int64).reshape(-1, 2)
        outside = (pairs < 0) | (pairs >= n_nodes)
        if outside.any():
            line = int(np.flatnonzero(outside.any(1))[0])
            raise UserError(f"edge {line} joins {pairs[line].tolist()}; there are {n_nodes} genes")
        loops = np.arange(n_nodes)
        flat = np.unique(
            np.concatenate([pairs @ [n_nodes, 1], pairs @ [1, n_nodes], loops * (n_nodes + 1)])
        )
        rows, columns = np.divmod(flat, n_nodes)
        return cls(np.searchsorted(rows, np.arange(n_nodes + 1)), columns)

    @classmethod
    def coexpressed(cls, values: NDArray[np.float32], k: int, block: int = 1024) -> Graph:
        """Join each gene to the k genes whose (samples, genes) values correlate most with its own.

        The sign does not matter; genes without variance get no partners of their own.
        """
        centred = values - values.mean(0)
        length = np.sqrt(np.square(centred).sum(0))
        unit = centred / np.where(length > 0, length, 1)
        n_genes = unit.shape[1]
        k = min(k, n_genes - 1)
        pairs = []
        for start in range(0, n_genes, block):
            near = np.abs(unit[:, start : start + block].T @ unit)  # (block, genes)
            rows = np.arange(start, start + len(near))
            near[np.arange(len(near)), rows] = -1
            best = np.argpartition(-near, k - 1, axis=1)[:, :k]
            found = np.take_along_axis(near, best, 1) > 0
            pairs.append(np.stack([np.repeat(rows, found.sum(1)), best[found]], 1))
        return cls.from_edges(n_genes, np.concatenate(pairs))

    @classmethod
    def band(cls, n_nodes: int, window: int) -> Graph:
        """Join each node to those at most `window` places away."""
        nodes = np.arange(n_nodes)[:, None] + np.arange(-window, window + 1)
        inside = (nodes >= 0) & (nodes < n_nodes)
        return cls(np.concatenate([[0], np.cumsum(inside.sum(1))]), nodes[inside])

    def first(self, count: int) -> Graph:
        """Return the first nodes and the edges among them."""
        stop = self.indptr[count]
        rows = np.repeat(np.arange(count), np.diff(self.indptr[: count + 1]))
        kept = self.indices[:stop] < count
        counts = np.bincount(rows[kept], minlength=count)
        return Graph(np.concatenate([[0], np.cumsum(counts)]), self.indices[:stop][kept])

    def order(self) -> NDArray[np.int64]:
        """Return the nodes in an order that keeps neighbours close (reverse Cuthill-McKee)."""
        if self.n_nodes == 0:
            return np.arange(0)
        from scipy.sparse import csr_matrix
        from scipy.sparse.csgraph import reverse_cuthill_mckee

        ones = np.ones(len(self.indices), np.int8)
        matrix = csr_matrix((ones, self.indices, self.indptr), shape=(self.n_nodes, self.n_nodes))
        return np.asarray(reverse_cuthill_mckee(matrix, symmetric_mode=True), dtype=np.int64)


@dataclass(frozen=True, eq=False)
class Pattern:
    """Blocks of rows with the keys they read; made by `pattern_for` and `everybody`."""

    n_tokens: int
    rows: Tensor  # int64, every token once, by block
    keys: Tensor  # int64, keys by block; a block without keys reads all tokens
    hits: Tensor  # int32, allowed pairs as row * keys + key inside their block
    starts: Tensor  # int64 (blocks + 1, 3) on the CPU: starts of rows, keys, hits of each block

    def to(self, device: torch.device) -> Pattern:
        """Move the tensors that kernels index with."""
        return replace(
            self,
            rows=self.rows.to(device),
            keys=self.keys.to(device),
            hits=self.hits.to(device),
        )

    def share(self, share: float) -> Pattern:
        """Return evenly chosen blocks, about this share of the rows, to measure time with."""
        n_blocks = len(self.starts) - 1
        chosen = np.unique(np.linspace(0, n_blocks - 1, max(1, round(share * n_blocks)), dtype=int))
        cuts = [(self.starts[i], self.starts[i + 1]) for i in chosen]
        rows, keys, hits = (
            torch.cat([x[int(a[j]) : int(b[j])] for a, b in cuts])
            for j, x in enumerate((self.rows, self.keys, self.hits))
        )
        lengths = torch.stack([b - a for a, b in cuts])
        starts = torch.cat([torch.zeros_like(lengths[:1]), lengths.cumsum(0)])
        return Pattern(self.n_tokens, rows, keys, hits, starts)

    @property
    def scores(self) -> int:
        """Number of scores computed, including disallowed ones in blocks."""
        n_rows, n_keys, _ = self.starts.diff(dim=0).unbind(1)
        return int((n_rows * torch.where(n_keys == 0, self.n_tokens, n_keys)).sum())

    @property
    def pairs(self) -> int:
        """Number of allowed pairs."""
        n_rows, n_keys, _ = self.starts.diff(dim=0).unbind(1)
        return len(self.hits) + int(n_rows[n_keys == 0].sum()) * self.n_tokens

    def allowed(self, tokens: Tensor | None = None) -> Tensor:
        """Return a mask (some, T) of the tokens that some tokens, or all, attend to."""
        wanted = torch.arange(self.n_tokens, device=self.rows.device) if tokens is None else tokens
        place = torch.full((self.n_tokens,), -1, device=self.rows.device)
        place[wanted] = torch.arange(len(wanted), device=self.rows.device)
        dense = torch.zeros(len(wanted), self.n_tokens, dtype=torch.bool, device=self.rows.device)
        for (r0, k0, h0), (r1, k1, h1) in pairwise(self.starts.tolist()):
            lines, keys, hits = place[self.rows[r0:r1]], self.keys[k0:k1], self.hits[h0:h1].long()
            if k0 == k1:
                dense[lines[lines >= 0]] = True
                continue
            line, key = lines[hits // len(keys)], keys[hits % len(keys)]
            dense[line[line >= 0], key[line >= 0]] = True
        return dense


def everybody(
    n_tokens: int, device: torch.device | str = "cpu", n_rows: int = _DENSE_ROWS
) -> Pattern:
    """Let every token attend to all, in blocks of `n_rows` rows."""
    starts = torch.zeros(-(-n_tokens // n_rows) + 1, 3, dtype=torch.int64)
    starts[:, 0] = (torch.arange(len(starts)) * n_rows).clamp_max(n_tokens)
    nothing = torch.empty(0, dtype=torch.int64, device=device)
    return Pattern(n_tokens, torch.arange(n_tokens, device=device), nothing, nothing.int(), starts)


def pattern_for(n_tokens: int, n_global: int, *, graph: Graph | None, window: int) -> Pattern:
    """Make the pattern of a graph, or of a window if there is no graph.

    The first `n_global` tokens attend to all, and all attend to them; node i is token
    n_global + i.
    """
    n_global = min(n_global, n_tokens)
    n_nodes = n_tokens - n_global
    if graph is None:
        graph, order = Graph.band(n_nodes, window), np.arange(n_nodes)
    else:
        if graph.n_nodes < n_nodes:
            message = f"{n_nodes} genes, but the graph has only {graph.n_nodes}"
            raise ValueError(message)
        graph = graph.first(n_nodes)
        order = graph.order()
    cuts = [_cut(graph, order, n_rows) for n_rows in _ROWS]
    costs = [sum(len(u) for u in cut) * (n + _GATHER) for n, cut in zip(_ROWS, cuts, strict=True)]
    best = int(np.argmin(costs))
    return _assemble(graph, order, _ROWS[best], cuts[best], n_global)


def _neighbours(graph: Graph, nodes: NDArray[np.int64]) -> tuple[NDArray[Any], NDArray[Any]]:
    """Return the neighbours of some nodes, and the node that each belongs to."""
    counts = graph.indptr[nodes + 1] - graph.indptr[nodes]
    owner = np.repeat(np.arange(len(nodes)), counts)
    within = np.arange(len(owner)) - np.repeat(np.cumsum(counts) - counts, counts)
    return graph.indices[graph.indptr[nodes][owner] + within], owner


def _cut(graph: Graph, order: NDArray[np.int64], n_rows: int) -> list[NDArray[np.int64]]:
    """Return the keys of each block of `n_rows` nodes."""
    return [
        np.unique(_neighbours(graph, order[start : start + n_rows])[0])
        for start in range(0, len(order), n_rows)
    ]


def _assemble(
    graph: Graph,
    order: NDArray[np.int64],
    n_rows: int,
    unions: list[NDArray[np.int64]],
    n_global: int,
) -> Pattern:
    everywhere = np.arange(n_global)
    rows, keys, hits = [everywhere], [everywhere[:0]], [everywhere[:0]]
    for i, union in enumerate(unions):
        nodes = order[i * n_rows : (i + 1) * n_rows]
        neighbours, owner = _neighbours(graph, nodes)
        width = n_global + len(union)
        rows.append(n_global + nodes)
        keys.append(np.concatenate([everywhere, n_global + union]))
        hits.append(
            np.concatenate(
                [
                    (np.arange(len(nodes))[:, None] * width + everywhere).ravel(),
                    owner * width + n_global + np.searchsorted(union, neighbours),
                ]
            )
        )
    if n_global == 0:
        rows, keys, hits = rows[1:], keys[1:], hits[1:]
    lengths = [[len(part) for part in parts] for parts in (rows, keys, hits)]
    starts = np.concatenate([np.zeros((1, 3)), np.cumsum(np.array(lengths).T, axis=0)])
    return Pattern(
        n_global + len(order),
        torch.from_numpy(np.concatenate(rows)),
        torch.from_numpy(np.concatenate(keys)),
        torch.from_numpy(np.concatenate(hits).astype(np.int32)),
        torch.from_numpy(starts.astype(np.int64)),
    )
