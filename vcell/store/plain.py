"""Cells directly from a file (h5ad, zarr, 10x) or an AnnData, without a store.

Blocks of neighbouring cells are read through `vcell.data`, which decodes them on threads; the
shuffling of a buffer is then the same as for a store.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from vcell import console
from vcell.data import CellSource, open_cells
from vcell.errors import UserError
from vcell.store.cells import Codes, Opened, RowSpans, Types

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from vcell.data.buffers import Buffers
    from vcell.store.priority_pool import PriorityPool

_NO_LIMIT = 1 << 62


class FileCells:
    """Rows of an open `CellSource`."""

    def __init__(self, source: CellSource) -> None:
        self.source = source
        self.n_cells, self.n_genes = source.n_cells, source.n_genes

    def plan(self, rows: NDArray[np.int64]) -> Any:
        """Return the rows in the order of the file, and the place of each row there."""
        return np.unique(rows, return_inverse=True)

    def fetch(self, plan: Any, types: Types, memory: Buffers, pool: PriorityPool) -> RowSpans:
        """Read the buffer's cells in the order of the file, as one block."""
        del types, memory, pool
        ascending, place = plan
        blocks = list(
            self.source.chunks(ascending, max_nnz=_NO_LIMIT, max_rows=_NO_LIMIT, prefetch=False)
        )
        if not blocks:
            nothing = np.zeros(0, np.int64)
            return RowSpans(nothing.astype(np.int32), nothing.astype(np.float32), nothing, nothing,
                         contiguous=False)  # fmt: skip
        (block,) = blocks
        length = np.diff(block.indptr)[place]
        return RowSpans(block.indices, block.data, block.indptr[place], length, contiguous=False)

    def close(self) -> None:
        """Close the file."""
        self.source.close()


def open_plain(cells: Any) -> Opened:
    """Open a path, an AnnData or an open source for a loader."""
    source = cells if isinstance(cells, CellSource) else open_cells(cells)

    def codes(column: str) -> Codes:
        found = source.obs(column)
        return found.codes, found.categories

    def columns_of(genes: Sequence[str] | NDArray[Any]) -> NDArray[np.int64]:
        wanted = np.asarray(genes)
        if wanted.dtype.kind in "iu":
            return wanted.astype(np.int64)
        place = {gene: i for i, gene in enumerate(source.genes.tolist())}
        missing = [gene for gene in wanted.tolist() if gene not in place]
        if missing:
            some = ", ".join(missing[:5])
            raise UserError(f"{source.name} lacks {len(missing)} of the genes, such as {some}")
        return np.array([place[gene] for gene in wanted.tolist()], np.int64)

    return Opened(FileCells(source), codes, columns_of, lambda: _scale(source))


def _scale(source: CellSource) -> NDArray[np.float32]:
    """Scale to the median library size; needs a pass over the cells, unlike a store."""
    console.say(f"{source.name}: reading the library sizes first (a store would know them)")
    totals = np.zeros(source.n_cells)
    for block in source.chunks():
        running = np.concatenate([[0.0], np.cumsum(block.data, dtype=np.float64)])
        totals[block.rows] = np.diff(running[block.indptr])
    target = float(np.median(totals[totals > 0])) if (totals > 0).any() else 1.0
    return (target / np.where(totals > 0, totals, target)).astype(np.float32)
