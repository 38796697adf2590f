"""One relation between genes: the in-neighbours of each gene, as CSR."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from vcell.kernels import graphs as kernel

Direction = Literal["in", "both"]
_TRIES = 10  # swaps tried per edge, enough to mix the edges of a graph


@dataclass(frozen=True, eq=False)
class Relation:
    """Edges between N genes; row t of the CSR lists the sources of gene t, ascending.

    Attributes
    ----------
    name
        The kind of edge: ``coexpression``, ``string91_fusion``, ``BIOGRID:physical``.
    indptr
        (N + 1,) int64: where each row starts.
    indices
        (E,) the sources: uint16 up to 65,536 genes, int32 beyond.
    weights
        (E,) float32, or None for edges without weights.
    directed
        Whether edges have a direction; if not, a pair may be stored once.
    """

    name: str
    indptr: NDArray[np.int64]
    indices: NDArray[np.uint16 | np.int32]
    weights: NDArray[np.float32] | None = None
    directed: bool = False
    #: Number of each edge in the original list; None if the CSR has another order.
    edge_ids: NDArray[np.int32] | None = field(default=None, repr=False)

    @classmethod
    def from_edges(
        cls,
        name: str,
        source: NDArray[np.integer],
        target: NDArray[np.integer],
        n_genes: int,
        weights: NDArray[np.float32] | None = None,
        *,
        directed: bool = False,
        keep: bool = False,
    ) -> tuple[Relation, int, int]:
        """Make a relation from (E,) ends; return it, and counts of dropped self-loops, duplicates.

        Parameters
        ----------
        keep
            Keep self-loops and duplicates, and store each edge's number in `edge_ids`.
        """
        source, target = (np.ascontiguousarray(x, np.int32) for x in (source, target))
        indptr, order = kernel.csr_order(source, target, n_genes)
        indices: NDArray[Any] = source[order].astype(index_type(n_genes))
        ordered = None if weights is None else np.asarray(weights, np.float32)[order]
        if keep:
            return cls(name, indptr, indices, ordered, directed, order), 0, 0
        flat = np.empty(0, np.float32) if ordered is None else ordered
        indptr, loops, duplicates = kernel.merged(indptr, indices, flat)
        n = int(indptr[-1])
        made = cls(
            name, indptr, indices[:n].copy(), None if ordered is None else ordered[:n].copy(),
            directed,
        )  # fmt: skip
        return made, int(loops), int(duplicates)

    @property
    def n_genes(self) -> int:
        """Number of genes, including those without edges."""
        return len(self.indptr) - 1

    @property
    def n_edges(self) -> int:
        """Number of stored edges; a pair stored in both directions counts twice."""
        return len(self.indices)

    @cached_property
    def n_both_ways(self) -> int:
        """Number of pairs that are stored in both directions."""
        return int(kernel.count_both_ways(self.indptr, self.indices))

    @property
    def symmetric(self) -> bool:
        """Whether every edge is stored in both directions (except self-loops)."""
        return 2 * self.n_both_ways == self.n_edges - self.n_loops

    @cached_property
    def n_loops(self) -> int:
        """Number of stored self-loops."""
        return int((self.indices == self.targets).sum())

    @property
    def targets(self) -> NDArray[np.int32]:
        """(E,) the target of every stored edge."""
        found: NDArray[np.int32] = kernel.targets_of(self.indptr)
        return found

    def edge_index(self) -> NDArray[np.int64]:
        """Return (2, E) sources and targets, as in PyG, in the order of the CSR."""
        return np.stack([self.indices.astype(np.int64), self.targets.astype(np.int64)])

    def degree(self, direction: Direction = "in") -> NDArray[np.int64]:
        """Return (N,) numbers of in-neighbours, or of all neighbours (``both``)."""
        return np.diff((self if direction == "in" else self.both()).indptr)

    def covered(self) -> NDArray[np.bool_]:
        """Return (N,) which genes have any edge."""
        found = np.diff(self.indptr) > 0
        found[self.indices] = True
        return found

    def both(self) -> Relation:
        """Return the relation with every edge in both directions, once each."""
        return self if self.symmetric and self.edge_ids is None else self._both

    @cached_property
    def _both(self) -> Relation:
        sources, targets = self.indices.astype(np.int32), self.targets
        weights = None if self.weights is None else np.concatenate([self.weights, self.weights])
        made, _, _ = Relation.from_edges(
            self.name, np.concatenate([sources, targets]), np.concatenate([targets, sources]),
            self.n_genes, weights,
        )  # fmt: skip
        return made

    def rewired(self, seed: int) -> tuple[Relation, float]:
        """Return the relation with its edges redrawn, and the share of edges that are new.

        Every gene keeps its numbers of sources and targets, or of neighbours if edges have no
        direction; there are no new self-loops or duplicates. Weights move with the first end.
        """
        sources, targets = self.indices.astype(np.int32), self.targets
        parts = [np.ones(len(sources), bool)]
        if not self.directed:  # pairs stored twice are swapped among themselves, and stay so
            twice = kernel.answered(self.indptr, self.indices)
            parts = [~twice, twice & (sources < targets)]
        ends = [np.stack([sources[p], targets[p]], 1) for p in parts]
        for i, part in enumerate(ends):
            fixed = np.concatenate([*ends[:i], *ends[i + 1 :], np.empty((0, 2), np.int32)])
            one, other = part[:, 0].copy(), part[:, 1].copy()
            kernel.rewire(
                one, other, fixed, self.n_genes, _TRIES * len(one), not self.directed, i == 1,
                seed + i,
            )  # fmt: skip
            ends[i] = np.stack([one, other], 1)
        ends.append(ends[-1][:, ::-1] if len(ends) == 2 else ends[0][:0])
        weights = self.weights
        if weights is not None:
            weights = np.concatenate([weights[p] for p in (*parts, parts[-1])])[
                : sum(map(len, ends))
            ]
        whole = np.concatenate(ends)
        made, _, _ = Relation.from_edges(
            self.name, whole[:, 0], whole[:, 1], self.n_genes, weights, directed=self.directed
        )
        kept = kernel.count_common(made.indptr, made.indices, self.indptr, self.indices)
        new = 1 - int(kept) / made.n_edges if made.n_edges else 0.0
        return made, new


def index_type(n_genes: int) -> type[np.uint16] | type[np.int32]:
    """Return the type of gene numbers: two bytes up to 65,536 genes."""
    return np.uint16 if n_genes <= 1 << 16 else np.int32
