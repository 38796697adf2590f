"""Move real control cells so that their mean is the predicted one, and keep them cells.

A gene's values are scaled where that is enough; where it must rise further than twofold, some cells
are given typical values of it, as more cells of a real perturbation would have it.
n cells, N genes.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import scipy.sparse as sp
from numpy.typing import NDArray

if TYPE_CHECKING:
    from vcell.data.log_cells import LogCells

_MOST = 2.0  # how far values are scaled up before cells are added
_MEMORY = 1 << 30  # bytes of control cells kept


@dataclass(frozen=True)
class Pool:
    """Control cells in memory, and what a gene looks like in those that have it."""

    cells: sp.csr_array
    rows: NDArray[np.int64]
    typical: NDArray[np.float64]  # (N,) mean of the non-zero values, 0 where no cell has any

    @classmethod
    def read(cls, cells: LogCells, rows: NDArray[np.int64]) -> Pool:
        """Read the control cells `rows`, evenly thinned where they would not fit."""
        per_cell = _bytes_per_cell(cells, rows)
        rows = rows[:: max(-(-int(per_cell * len(rows)) // _MEMORY), 1)]
        blocks = list(cells.blocks(rows))
        pool = sp.vstack([block.astype(np.float32) for _, block in blocks], format="csr")
        kept = np.concatenate([numbers for numbers, _ in blocks])
        seen = np.bincount(pool.indices, minlength=pool.shape[1])
        total = np.asarray(pool.sum(axis=0, dtype=np.float64)).ravel()
        return cls(pool, kept, total / np.maximum(seen, 1))

    def move(
        self, n: int, mean: NDArray[np.floating], rng: np.random.Generator
    ) -> tuple[NDArray[np.int64], sp.csr_array]:
        """Return pool positions (n,) and their cells moved to the mean (N,), at least 0."""
        size = self.cells.shape[0]
        turns = [rng.permutation(size) for _ in range(-(-n // size))]
        chosen = np.concatenate(turns)[:n]
        taken = self.cells[chosen]
        wanted = np.maximum(mean, 0)
        now = np.asarray(taken.sum(axis=0, dtype=np.float64)).ravel() / n
        factor = np.minimum(np.divide(wanted, now, out=np.ones_like(now), where=now > 0), _MOST)
        taken.data *= factor[taken.indices].astype(np.float32)
        missing = np.where(self.typical > 0, n * (wanted - factor * now), 0)
        moved = taken + self._added(n, missing, rng)
        moved.sort_indices()
        return chosen, moved

    def _added(
        self, n: int, missing: NDArray[np.float64], rng: np.random.Generator
    ) -> sp.csr_array:
        """Spread each gene's missing total over random cells, in portions of a typical value."""
        with np.errstate(divide="ignore", invalid="ignore"):
            portions = np.where(missing > 0, missing / self.typical, 0)
        count = np.minimum(np.floor(portions + rng.random(len(portions))), n).astype(np.int64)
        genes = np.repeat(np.arange(len(count)), count)
        cells = np.concatenate([rng.permutation(n)[:k] for k in count[count > 0]] or [genes])
        values = self.typical[genes].astype(np.float32)
        return sp.csr_array((values, (cells, genes)), shape=(n, len(count)))


def _bytes_per_cell(cells: LogCells, rows: NDArray[np.int64]) -> float:
    """Estimate from the first cells what one takes in memory."""
    numbers, block = next(cells.blocks(rows[:1000]))
    return 8.0 * float(block.nnz) / max(len(numbers), 1)
