"""Cells as log1p of counts scaled to a common total, streamed block by block as scipy CSR."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np
import scipy.sparse as sp

from vcell.errors import UserError

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from vcell.data import CellSource

LOG, COUNTS = "log1p", "counts"


class LogCells:
    """Log-normalised view of a source of counts; values that are log1p already pass unchanged.

    Parameters
    ----------
    source
        The cells.
    kind
        ``counts`` or ``log1p``: what the source holds.
    target_sum
        Total that each cell's counts are scaled to.
    """

    def __init__(self, source: CellSource, kind: str, target_sum: float) -> None:
        if kind not in (COUNTS, LOG):
            raise UserError(
                f"{source.name} holds {kind} values; raw counts or log1p values are needed",
                hint="name a layer that has them with --layer",
            )
        self.source, self.kind = source, kind
        self.target_sum = target_sum if kind == COUNTS else float("nan")
        self.n_genes = source.n_genes

    def blocks(
        self, rows: NDArray[np.int64] | None = None
    ) -> Iterator[tuple[NDArray[np.int64], sp.csr_array]]:
        """Yield cell numbers and log1p values, in the order of the file."""
        for block in self.source.chunks(rows=rows):
            data = block.data.astype(np.float64)
            matrix = sp.csr_array(
                (data, block.indices, block.indptr), shape=(len(block.rows), self.n_genes)
            )
            if self.kind == COUNTS:
                totals = np.asarray(matrix.sum(axis=1)).ravel()
                factor = self.target_sum / np.where(totals > 0, totals, 1)
                matrix.data = np.log1p(data * np.repeat(factor, np.diff(block.indptr)))
            yield np.asarray(block.rows), matrix

    def group_moments(
        self, codes: NDArray[np.int64], n_groups: int
    ) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.int64]]:
        """Return (P, N) means, (P,) variances averaged over genes, (P,) cells; code -1: no group.

        A group of one cell has the variance 0.
        """
        wanted = np.flatnonzero(codes >= 0)
        total, square = np.zeros((n_groups, self.n_genes)), np.zeros(n_groups)
        for numbers, block in self.blocks(None if len(wanted) == len(codes) else wanted):
            group = codes[numbers]
            member = sp.csr_array(
                (np.ones(len(group)), (group, np.arange(len(group)))), (n_groups, len(group))
            )
            summed = (member @ block).tocoo()
            total[summed.row, summed.col] += summed.data
            square += np.bincount(group, (block**2).sum(axis=1), n_groups)
        count = np.bincount(codes[wanted], minlength=n_groups)
        mean = total / np.maximum(count, 1)[:, None]
        within = square - count * (mean**2).sum(axis=1)
        return mean, within / (np.maximum(count - 1, 1) * self.n_genes), count


def median_total(source: CellSource, rows: NDArray[np.int64] | None = None) -> float:
    """Return the median of the cells' totals, empty cells left out, as the challenge scales."""
    totals = [
        np.add.reduceat(block.data, block.indptr[:-1][np.diff(block.indptr) > 0], dtype=np.float64)
        for block in source.chunks(rows)
        if block.nnz
    ]
    if not totals:
        raise UserError(f"{source.name}: all cells looked at are empty")
    return float(np.median(np.concatenate(totals)))
