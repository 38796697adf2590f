"""Turn real control cells into cells of another mean and depth, as integer counts.

Counts are thinned where they must fall and added where they must rise, both as if the same cell
were sampled again. Added counts of a gene go partly to the cells that have it, in proportion to
its variation between cells beyond chance (w), and partly to all cells, by their size. Corrections
use the drawn counts, so that they meet the target mean without further noise.
n cells, N genes.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import scipy.sparse as sp

from vcell.data.log_scale import log_scaled

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from vcell_predict.cells.pool import Pool

    Array = NDArray[np.float64]

_ROUNDS = 4  # of correction; after two the error is below one count
_MOST = 8.0  # largest fold change in a round


class ControlCounts:
    """Counts of a pool of control cells, and what generation needs to know of every gene."""

    def __init__(self, pool: Pool, target_sum: float) -> None:
        self.pool, self.target_sum = pool, target_sum
        cells = pool.cells
        self.library = np.asarray(cells.sum(axis=1, dtype=np.float64)).ravel()
        self.varying = _varying(cells, self.library)

    def make(
        self,
        chosen: NDArray[np.int64],
        mean: NDArray[np.floating],
        library: Array | None,
        rng: np.random.Generator,
    ) -> sp.csr_array:
        """Return counts with a given mean log1p value, corrected for the change of depth.

        Parameters
        ----------
        chosen
            (n,) positions in the pool.
        mean
            (N,) target mean of log1p values at the depth of the pool.
        library
            (n,) target totals; None keeps those of the controls.
        """
        wanted_size = self.library[chosen] if library is None else library
        cells = self.pool.cells[chosen].astype(np.float64)
        shift = np.zeros(cells.shape[1])
        if library is not None:
            resized = self._resize(cells, wanted_size, rng)
            shift = self._mean(resized) - self._mean(cells)
            cells = resized
        target = np.maximum(mean + shift, 0)
        for _ in range(_ROUNDS):
            now = self._mean(cells)
            with np.errstate(divide="ignore", invalid="ignore"):
                fold = np.expm1(target) / np.expm1(now)
            fold = np.clip(np.where(now > 0, fold, 1.0), 0, _MOST)
            cells = self._change(cells, fold, rng)
            if library is not None:
                cells = self._resize(cells, wanted_size, rng)
        return cells.astype(np.float32)

    def _mean(self, cells: sp.csr_array) -> Array:
        """Return the mean log1p value of the cells, each scaled to the target sum."""
        factor = self.target_sum / np.maximum(_totals(cells), 1)
        value = log_scaled(cells.data, factor, cells.indptr)
        total = np.bincount(cells.indices, value, minlength=cells.shape[1])
        return np.asarray(total / cells.shape[0])

    def _change(self, cells: sp.csr_array, fold: Array, rng: np.random.Generator) -> sp.csr_array:
        """Multiply each gene's rate by its fold (N,)."""
        n_genes = cells.shape[1]
        sums = np.bincount(cells.indices, cells.data, minlength=n_genes)
        more = rng.poisson(np.maximum(fold - 1, 0) * (1 - self.varying) * sums)
        gene = np.repeat(np.arange(n_genes), more)
        cell = _weighted(_totals(cells), len(gene), rng)
        return _redrawn(cells, fold[cells.indices], self.varying, (cell, gene), rng)

    def _resize(
        self, cells: sp.csr_array, library: Array, rng: np.random.Generator
    ) -> sp.csr_array:
        """Multiply each cell's rates so that its total becomes `library` (n,)."""
        totals = _totals(cells)
        fold = np.where(totals > 0, library / np.maximum(totals, 1), 1.0)
        spread = np.bincount(cells.indices, cells.data, minlength=cells.shape[1]) * (
            1 - self.varying
        )
        own = self.varying[cells.indices] * cells.data
        rest = totals - np.bincount(_row_of(cells), own, minlength=len(totals))
        more = rng.poisson(np.maximum(fold - 1, 0) * np.maximum(rest, 0))
        cell = np.repeat(np.arange(len(totals)), more)
        gene = _weighted(spread, len(cell), rng)
        each = np.repeat(fold, np.diff(cells.indptr))
        return _redrawn(cells, each, self.varying, (cell, gene), rng)


def _redrawn(
    cells: sp.csr_array,
    fold: Array,
    varying: Array,
    more: tuple[NDArray[np.int64], NDArray[np.int64]],
    rng: np.random.Generator,
) -> sp.csr_array:
    """Thin or raise each count by its factor (nnz,), and add single counts at (cells, genes)."""
    data = cells.data.copy()
    falls, rises = np.flatnonzero(fold < 1), np.flatnonzero(fold > 1)
    data[falls] = rng.binomial(data[falls].astype(np.int64), fold[falls])
    data[rises] += rng.poisson((fold[rises] - 1) * data[rises] * varying[cells.indices[rises]])
    thinned = sp.csr_array((data, cells.indices, cells.indptr), cells.shape)
    added = sp.csr_array((np.ones(len(more[0])), more), cells.shape)
    found = (thinned + added).tocsr()
    found.eliminate_zeros()
    return found


def _varying(cells: sp.csr_array, library: Array) -> Array:
    """Return mean / (mean + size) of each gene's negative binomial, by the method of moments."""
    n, n_genes = cells.shape
    scale = library.mean() / np.maximum(library, 1)
    value = cells.data * np.repeat(scale, np.diff(cells.indptr))
    mean = np.bincount(cells.indices, value, minlength=n_genes) / n
    squares = np.bincount(cells.indices, value**2, minlength=n_genes) / n
    chance = mean * scale[library > 0].mean()
    beyond = np.maximum(squares - mean**2 - chance, 0)  # mean^2 / size
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where(mean > 0, beyond / (beyond + mean), 0.0)


def _weighted(weight: Array, n: int, rng: np.random.Generator) -> NDArray[np.int64]:
    """Draw n numbers with the given weights."""
    ends = np.cumsum(weight)
    if not n or not ends[-1] > 0:
        return np.zeros(0, np.int64)
    drawn = np.searchsorted(ends, rng.random(n) * ends[-1], side="right")
    return np.asarray(np.minimum(drawn, len(ends) - 1), np.int64)


def _totals(cells: sp.csr_array) -> Array:
    totals: Array = np.asarray(cells.sum(axis=1)).ravel()
    return totals


def _row_of(cells: sp.csr_array) -> NDArray[np.int64]:
    n: int = cells.shape[0]
    rows: NDArray[np.int64] = np.repeat(np.arange(n), np.diff(cells.indptr))
    return rows
