"""Matrices as the blocks that `vcell.metrics` reads."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import scipy.sparse as sp

from vcell.metrics.by_gene import GeneMajor
from vcell.metrics.measured import Grouping, Measured, measure

GOLDEN = Path(__file__).parent / "golden"
CONTROL = "non-targeting"


@dataclass(frozen=True)
class Piece:
    """Some cells as canonical CSR."""

    start: int
    rows: np.ndarray
    indptr: np.ndarray
    indices: np.ndarray
    data: np.ndarray
    n_genes: int

    def tocsr(self) -> sp.csr_matrix:
        shape = (len(self.rows), self.n_genes)
        return sp.csr_matrix((self.data, self.indices, self.indptr), shape=shape)


def blocks(
    x: sp.csr_matrix, rows: np.ndarray | None = None, step: int = 37
) -> Callable[[], Iterator[Piece]]:
    """Return a function that reads some cells of a matrix, a few at a time."""
    wanted = np.arange(x.shape[0]) if rows is None else rows

    def read() -> Iterator[Piece]:
        for start in range(0, len(wanted), step):
            some = wanted[start : start + step]
            part = sp.csr_matrix(x[some])
            part.eliminate_zeros()
            part.sort_indices()
            indptr, indices = part.indptr.astype(np.int64), part.indices.astype(np.int32)
            yield Piece(start, some, indptr, indices, part.data, x.shape[1])

    return read


def numbered(labels: np.ndarray) -> tuple[list[str], np.ndarray]:
    """Return the perturbations' names, sorted, and each cell's group (0 the control)."""
    names = sorted(set(labels.tolist()) - {CONTROL})
    place = {CONTROL: 0} | {name: i + 1 for i, name in enumerate(names)}
    return names, np.array([place[label] for label in labels.tolist()], np.int32)


def measured(x: sp.csr_matrix, group: np.ndarray, n_groups: int) -> Measured:
    """Measure the counts of one side by the rules of 2026."""
    totals = np.asarray(x.astype(np.float64).sum(axis=1)).ravel()
    with closing(GeneMajor(x.shape[1])) as cells:
        for block in blocks(x)():
            cells.add(block)
        return next(measure([cells], [Grouping([group], n_groups, totals)], totals))[0]
