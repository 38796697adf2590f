"""Pseudobulk: moments of groups of cells, in one pass.

Memory is groups x genes; cells are streamed. P groups, N genes.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import scipy.sparse as sp
from numpy.typing import NDArray

if TYPE_CHECKING:
    from vcell.data.log_cells import LogCells


@dataclass(frozen=True)
class GroupMoments:
    """Sums over the cells of each group, from which means and variances follow.

    Attributes
    ----------
    total
        (P, N) sums of the values.
    of_groups, of_genes
        (P,) and (N,) sums of their squares.
    count
        (P,) cells.
    """

    total: NDArray[np.float64]
    of_groups: NDArray[np.float64]
    of_genes: NDArray[np.float64]
    count: NDArray[np.int64]

    @classmethod
    def of(cls, cells: LogCells, codes: NDArray[np.int64], n_groups: int) -> GroupMoments:
        """Read the cells once; `codes` gives the group of each, -1 for none."""
        wanted = np.flatnonzero(codes >= 0)
        total = np.zeros((n_groups, cells.n_genes))
        of_groups, of_genes = np.zeros(n_groups), np.zeros(cells.n_genes)
        for numbers, block in cells.blocks(None if len(wanted) == len(codes) else wanted):
            group = codes[numbers]
            summed = (indicator(group, n_groups) @ block).tocoo()
            total[summed.row, summed.col] += summed.data
            square = np.square(block.data)  # block.multiply(block) would compare indices first
            of_genes += np.bincount(block.indices, square, cells.n_genes)
            of_cells = sp.csr_array((square, block.indices, block.indptr), block.shape).sum(axis=1)
            of_groups += np.bincount(group, of_cells, n_groups)
        return cls(total, of_groups, of_genes, np.bincount(codes[wanted], minlength=n_groups))

    @property
    def mean(self) -> NDArray[np.float64]:
        """(P, N) means."""
        found: NDArray[np.float64] = self.total / np.maximum(self.count, 1)[:, None]
        return found

    @property
    def variance(self) -> NDArray[np.float64]:
        """(P,) variances, averaged over genes; 0 for a group of one cell."""
        within = self.of_groups - self.count * np.square(self.mean).sum(axis=1)
        found: NDArray[np.float64] = within / (np.maximum(self.count - 1, 1) * self.total.shape[1])
        return found

    @property
    def within(self) -> NDArray[np.float64]:
        """(N,) standard deviation of each gene about the mean of its group."""
        between = (self.count[:, None] * np.square(self.mean)).sum(axis=0)
        found: NDArray[np.float64] = np.sqrt(
            np.maximum(self.of_genes - between, 0) / max(int(self.count.sum()), 1)
        )
        return found


def indicator(codes: NDArray[np.int64], n_groups: int) -> sp.csr_array:
    """Return (groups, cells): 1 where a cell belongs to a group."""
    ones = np.ones(len(codes))
    return sp.csr_array((ones, (codes, np.arange(len(codes)))), (n_groups, len(codes)))
