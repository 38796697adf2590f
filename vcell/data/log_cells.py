"""Cells as log1p of counts scaled to a common total, streamed block by block as scipy CSR."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np
import scipy.sparse as sp

from vcell.data.detect import elsewhere
from vcell.data.log_scale import log_scaled
from vcell.data.prefetch import prefetched
from vcell.errors import UserError

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from vcell.data import CellSource

LOG, COUNTS = "log1p", "counts"


class LogCells:
    """Log-normalised view of a source of counts; log1p values are unchanged.

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
                hint=elsewhere(source, kinds=(COUNTS, LOG)),
            )
        self.source, self.kind = source, kind
        self.target_sum = target_sum if kind == COUNTS else float("nan")
        self.n_genes = source.n_genes

    def blocks(
        self, rows: NDArray[np.int64] | None = None
    ) -> Iterator[tuple[NDArray[np.int64], sp.csr_array]]:
        """Yield cell numbers and log1p values, in the order of the file.

        The next block is read and scaled in a thread while the current one is processed.
        """
        return prefetched(self._blocks(rows))

    def _blocks(
        self, rows: NDArray[np.int64] | None
    ) -> Iterator[tuple[NDArray[np.int64], sp.csr_array]]:
        for block in self.source.chunks(rows=rows, prefetch=False):
            data = block.data.astype(np.float64)
            matrix = sp.csr_array(
                (data, block.indices, block.indptr), shape=(len(block.rows), self.n_genes)
            )
            if self.kind == COUNTS:
                totals = np.asarray(matrix.sum(axis=1)).ravel()
                factor = self.target_sum / np.where(totals > 0, totals, 1)
                matrix.data = log_scaled(data, factor, block.indptr)
            yield np.asarray(block.rows), matrix


def median_total(source: CellSource, rows: NDArray[np.int64] | None = None) -> float:
    """Return the median of the totals of non-empty cells, as in the challenge."""
    totals = [
        np.add.reduceat(block.data, block.indptr[:-1][np.diff(block.indptr) > 0], dtype=np.float64)
        for block in source.chunks(rows)
        if block.nnz
    ]
    if not totals:
        raise UserError(f"{source.name}: all cells looked at are empty")
    return float(np.median(np.concatenate(totals)))
