"""Neighbourhoods of perturbed genes, and the edges among their genes.

`Neighbourhoods` holds all relations of some graphs, joined for fast walks. Its `rules` (direction,
each relation or the union, perturbed genes kept or deleted) should be named in every output.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray

from vcell.graph.relation import Direction, Relation, index_type
from vcell.kernels import khop as kernel

if TYPE_CHECKING:
    from vcell.graph.gene_graphs import GeneGraphs

Over = Literal["relation", "union"]
_WIDE = 4  # rows with more genes than a quarter of a mask's words are stored as bits


@dataclass(frozen=True)
class Rules:
    """The definition of a neighbourhood.

    Attributes
    ----------
    hops
        Maximum distance of genes, in edges.
    direction
        ``in`` follows edges from target to source only, as PyG does; ``both`` in either direction.
    over
        ``relation``: all hops in one relation, then the union; ``union``: each hop in any relation.
    perturbed
        ``kept``, or ``deleted``: removed after the neighbourhood was found.
    """

    hops: int = 1
    direction: Direction = "in"
    over: Over = "relation"
    perturbed: Literal["kept", "deleted"] = "kept"

    def describe(self) -> str:
        """Describe the rules."""
        way = "from target to source" if self.direction == "in" else "in both directions"
        over = "in each relation" if self.over == "relation" else "over the union of relations"
        hops = "1 hop" if self.hops == 1 else f"{self.hops} hops"
        return f"{hops} {way}, {over}, perturbed genes {self.perturbed}"


@dataclass(frozen=True, eq=False)
class SubGraph:
    """The genes of a neighbourhood and the edges among them, numbered within it.

    Attributes
    ----------
    nodes
        (n,) genes, ascending.
    edges
        (2, e) int64 sources and targets for each relation, or (rows (n + 1,), sources (e,)) as CSR
        of two-byte numbers.
    rules
        The definition of the neighbourhood.
    """

    nodes: NDArray[np.int32]
    edges: tuple[Any, ...]
    rules: Rules

    @property
    def n_edges(self) -> int:
        """Number of edges of all relations."""
        return sum(part.shape[1] if isinstance(part, np.ndarray) else len(part[1])
                   for part in self.edges)  # fmt: skip


class Neighbourhoods:
    """All relations of some graphs, joined for fast search of neighbourhoods.

    Parameters
    ----------
    graphs
        The relations; edges of `direction` "both" are used in both directions, for hops and for the
        edges among the genes found.
    rules
        The definition of a neighbourhood.
    """

    def __init__(self, graphs: GeneGraphs | Iterable[Relation], rules: Rules) -> None:
        self.rules = rules
        relations = [r if rules.direction == "in" else r.both() for r in graphs]
        self.names = tuple(relation.name for relation in relations)
        self.n_genes = relations[0].n_genes
        self.words = -(-self.n_genes // 64)
        starts = np.cumsum([0, *(r.n_edges for r in relations)])
        self._indptr = np.stack([r.indptr + at for r, at in zip(relations, starts, strict=False)])
        self._indices = (
            relations[0].indices if len(relations) == 1
            else np.concatenate([r.indices for r in relations])
        )  # fmt: skip
        self._place, self._bits = kernel.wide_rows(
            self._indptr, self._indices, max(self.words // _WIDE, 1), self.words
        )
        self._rank = np.empty(self.n_genes, np.int32)
        self._room: NDArray[Any] = np.empty(0, np.uint8)

    @property
    def nbytes(self) -> int:
        """Bytes of the shared arrays, which are made once for any number of samples."""
        arrays = (self._indptr, self._indices, self._place, self._bits)
        return sum(array.nbytes for array in arrays)

    def masks(self, seeds: NDArray[np.integer]) -> NDArray[np.uint64]:
        """Return (B, W) bit masks of the neighbourhoods of (B, S) genes; negative ones are skipped.

        Bit g % 64 of word g // 64 is gene g.
        """
        seeds = np.atleast_2d(np.asarray(seeds, np.int64))
        if seeds.size and int(seeds.max()) >= self.n_genes:
            raise IndexError(f"gene {int(seeds.max())} of {self.n_genes}")
        masks: NDArray[np.uint64] = kernel.k_hop(
            seeds, self.rules.hops, self.rules.over == "relation", self._indptr, self._indices,
            self._place, self._bits, self.words,
        )  # fmt: skip
        if self.rules.perturbed == "deleted":
            sample, _ = np.nonzero(seeds >= 0)
            genes = seeds[seeds >= 0].astype(np.uint64)
            bit = np.left_shift(np.uint64(1), genes & np.uint64(63))
            word = (genes >> np.uint64(6)).astype(np.int64)
            np.bitwise_and.at(masks, (sample, word), ~bit)
        return masks

    def nodes(self, mask: NDArray[np.uint64]) -> NDArray[np.int32]:
        """Return the genes of one (W,) mask, ascending."""
        found: NDArray[np.int32] = kernel.members(mask, self._rank)
        return found

    def pairs(self, mask: NDArray[np.uint64], *, reuse: bool = False) -> SubGraph:
        """Return the edges among the genes of a mask as (2, e) int64, relation by relation.

        Parameters
        ----------
        reuse
            Write into the arrays of the previous call, which are overwritten, instead of allocating
            new memory; the caller must copy what it needs.
        """
        nodes = self.nodes(mask)
        parts = []
        for room, indptr in self._rooms(nodes, 2 * 8, reuse=reuse):
            out = room.view(np.int64).reshape(2, -1)
            n = kernel.induced_pairs(nodes, self._rank, indptr, self._indices, out)
            parts.append(out[:, :n])
        return SubGraph(nodes, tuple(parts), self.rules)

    def csr(self, mask: NDArray[np.uint64], *, reuse: bool = False) -> SubGraph:
        """Return the edges among the genes of a mask as CSR, two bytes a source (four beyond 65,536
        genes), relation by relation.
        """  # noqa: D205
        nodes = self.nodes(mask)
        kind = np.dtype(index_type(self.n_genes))
        parts = []
        for room, indptr in self._rooms(nodes, kind.itemsize, reuse=reuse):
            out, rows = room.view(kind), np.empty(len(nodes) + 1, np.int32)
            n = kernel.induced_csr(nodes, self._rank, indptr, self._indices, rows, out)
            parts.append((rows, out[:n]))
        return SubGraph(nodes, tuple(parts), self.rules)

    def places(self, mask: NDArray[np.uint64]) -> list[NDArray[np.int64]]:
        """Return the positions in each relation's CSR of the edges among the genes of a mask."""
        nodes = self.nodes(mask)
        found = []
        for room, indptr in self._rooms(nodes, 8, reuse=False):
            out = room.view(np.int64)
            n = kernel.induced_places(nodes, self._rank, indptr, self._indices, out)
            found.append(out[:n] - indptr[0])
        return found

    def _rooms(
        self, nodes: NDArray[np.int32], itemsize: int, *, reuse: bool
    ) -> Iterable[tuple[NDArray[np.uint8], NDArray[np.int64]]]:
        """Yield memory for all edges of the rows of `nodes` in each relation, and its `indptr`."""
        # multiples of 64 bytes, so that every view is aligned
        needs = [
            -(-(kernel.room_for(nodes, indptr) + 1) * itemsize // 64) * 64
            for indptr in self._indptr
        ]
        if reuse and len(self._room) < sum(needs):
            self._room = np.empty(sum(needs), np.uint8)
        rooms = self._room if reuse else np.empty(sum(needs), np.uint8)
        at = 0
        for need, indptr in zip(needs, self._indptr, strict=True):
            yield rooms[at : at + need], indptr
            at += need


def k_hop_subgraph(
    genes: NDArray[np.integer],
    hops: int,
    edge_index: NDArray[np.integer],
    n_genes: int,
    direction: Direction = "in",
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64], NDArray[np.bool_]]:
    """Return the same as PyG's function of this name with ``relabel_nodes``.

    Duplicates and self-loops are kept, and edges stay in the order of `edge_index`.

    Returns
    -------
    (n,) genes, ascending; (2, e) renumbered edges; positions of `genes` in `subset`; (E,) mask of
    the edges among them.
    """
    relation, _, _ = Relation.from_edges("edges", edge_index[0], edge_index[1], n_genes, keep=True)
    walked = relation if direction == "in" else relation.both()
    assert relation.edge_ids is not None
    seeds = np.atleast_1d(np.asarray(genes, np.int64))
    found = Neighbourhoods([walked], Rules(hops)).masks(seeds[None])[0]
    stored = Neighbourhoods([relation], Rules(hops))
    subset = stored.nodes(found).astype(np.int64)
    numbers = np.sort(relation.edge_ids[stored.places(found)[0]])
    edge_mask = np.zeros(edge_index.shape[1], bool)
    edge_mask[numbers] = True
    edges = np.searchsorted(subset, edge_index[:, numbers])
    return subset, edges, np.searchsorted(subset, seeds), edge_mask
