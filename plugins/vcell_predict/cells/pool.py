"""Real control cells in memory, from which cells are generated. N genes."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np
import scipy.sparse as sp
from numpy.typing import NDArray

from vcell import console
from vcell.data.log_scale import log_scaled

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    Reader = Callable[[NDArray[np.int64]], Iterable[tuple[NDArray[np.int64], sp.csr_array]]]

MEMORY = 1 << 30  # bytes of control cells in memory, half of them a second copy by gene
_BYTES = 16  # per non-zero: a float32 and an int32, in two copies


@dataclass(frozen=True)
class Pool:
    """Control cells of one context.

    Parameters
    ----------
    cells
        Their values: log1p, or counts.
    rows
        Their row numbers in the file.
    batch
        Code of each cell's batch; all 0 if there are no batches.
    """

    cells: sp.csr_array
    rows: NDArray[np.int64]
    batch: NDArray[np.int64]

    @classmethod
    def read(
        cls,
        reader: Reader,
        rows: NDArray[np.int64],
        batch: NDArray[np.int64],
        *,
        memory: int = MEMORY,
        called: str = "control cells",
    ) -> Pool:
        """Read the cells `rows`; if they do not fit, thin them evenly and say so.

        `reader` yields row numbers and values; `batch` has a code for every cell of the file.
        """
        a_cell = _BYTES * _filled(reader, rows)
        fit = max(int(memory / max(a_cell, 1)), 1)
        if fit < len(rows):
            console.warn(
                f"{fit:,} of {len(rows):,} {called} are kept in memory to make cells from "
                f"({memory / (1 << 20):,.0f} MiB); the others are copied unchanged"
            )
            rows = rows[np.linspace(0, len(rows) - 1, fit).astype(np.int64)]
        blocks = [(numbers, block.astype(np.float32)) for numbers, block in reader(rows)]
        cells = sp.vstack([block for _, block in blocks], format="csr")
        chosen = np.concatenate([numbers for numbers, _ in blocks])
        return cls(cells, chosen, batch[chosen])

    def __len__(self) -> int:
        return int(self.cells.shape[0])

    @cached_property
    def detected(self) -> NDArray[np.int64]:
        """(N,) number of cells with each gene."""
        return np.bincount(self.cells.indices, minlength=self.cells.shape[1])

    @cached_property
    def typical(self) -> NDArray[np.float64]:
        """(N,) mean value of each gene in the cells that have it, 0 if none has."""
        total = np.bincount(self.cells.indices, self.cells.data, minlength=self.cells.shape[1])
        return np.asarray(total / np.maximum(self.detected, 1))

    @cached_property
    def variance(self) -> NDArray[np.float64]:
        """(N,) variance of the values over all cells, zeros included."""
        n, width = max(len(self), 2), self.cells.shape[1]
        data = self.cells.data.astype(np.float64)
        total = np.bincount(self.cells.indices, data, minlength=width)
        square = np.bincount(self.cells.indices, data**2, minlength=width)
        return np.maximum(square - total**2 / n, 0) / (n - 1)

    @cached_property
    def _by_gene(self) -> sp.csc_array:
        return self.cells.tocsc()

    def draw(self, genes: NDArray[np.int64], rng: np.random.Generator) -> NDArray[np.float32]:
        """Return a random non-zero value of each of `genes`."""
        first = self._by_gene.indptr[genes].astype(np.int64)
        at = first + (rng.random(len(genes)) * self.detected[genes]).astype(np.int64)
        values: NDArray[np.float32] = self._by_gene.data[at]
        return values

    def logged(self, target_sum: float) -> Pool:
        """Return a pool of counts as log1p values, scaled to `target_sum`."""
        totals = np.asarray(self.cells.sum(axis=1, dtype=np.float64)).ravel()
        factor = target_sum / np.maximum(totals, 1)
        values = log_scaled(self.cells.data, factor, self.cells.indptr).astype(np.float32)
        cells = sp.csr_array((values, self.cells.indices, self.cells.indptr), self.cells.shape)
        return replace(self, cells=cells)

    def genes(self, chosen: NDArray[np.int64]) -> Pool:
        """Return the pool with a subset of the genes."""
        return replace(self, cells=self.cells[:, chosen].tocsr())

    def choose(self, n: int, rng: np.random.Generator) -> NDArray[np.int64]:
        """Choose n cells, each once before any is repeated."""
        turns = [rng.permutation(len(self)) for _ in range(-(-n // len(self)))]
        return np.concatenate([*turns, np.zeros(0, np.int64)])[:n]

    def matching(
        self, batch: Sequence[int] | NDArray[np.int64], rng: np.random.Generator
    ) -> NDArray[np.int64]:
        """Choose a cell of each given batch, or any cell if the pool has none of that batch."""
        codes = np.asarray(batch, np.int64)
        chosen = self.choose(len(codes), rng)
        for code in np.unique(codes):
            own, places = np.flatnonzero(self.batch == code), np.flatnonzero(codes == code)
            if len(own):
                chosen[places] = np.resize(rng.permutation(own), len(places))
        return chosen


def _filled(reader: Reader, rows: NDArray[np.int64]) -> float:
    """Estimate the non-zeros per cell from a few hundred cells spread over the file."""
    some = rows[np.unique(np.linspace(0, len(rows) - 1, min(len(rows), 256)).astype(np.int64))]
    found = [(len(numbers), block.nnz) for numbers, block in reader(some)]
    return float(sum(nnz for _, nnz in found)) / max(sum(n for n, _ in found), 1)
