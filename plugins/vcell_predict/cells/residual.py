"""Shift real control cells to a predicted mean, so that they still look like real cells.

A gene that rises is found in more cells, with larger values; one that falls is lost in some cells.
How much of each follows from the change of its rate, as in counting: at f times the rate, the
probability that a cell misses the gene is the old one to the power f. The values are then scaled so
that the mean is exact.
n cells, N genes.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import scipy.sparse as sp

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from vcell_predict.cells.pool import Pool

_MOST = 3.0  # largest factor by which values are scaled to meet the mean


def move(
    pool: Pool, chosen: NDArray[np.int64], mean: NDArray[np.floating], rng: np.random.Generator
) -> sp.csr_array:
    """Return the log1p cells `chosen` of the pool, shifted to the mean (N,), at least 0."""
    taken = pool.cells[chosen]
    n, n_genes = taken.shape
    target = np.maximum(mean, 0).astype(np.float64)
    sums = np.bincount(taken.indices, taken.data, minlength=n_genes)
    share = np.bincount(taken.indices, minlength=n_genes) / n
    to = _detected(share, sums / n, target)
    thinned = _lose(taken, np.divide(to, share, out=np.ones(n_genes), where=share > 0), rng)
    gained = _gain(pool, thinned, np.maximum(to - share, 0), target, rng)
    cells = (thinned + gained).tocsr()
    _stretch(cells, share, to, sums / n, target)
    return cells


def _detected(
    share: NDArray[np.float64], now: NDArray[np.float64], target: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Return the share of cells that should have each gene."""
    with np.errstate(divide="ignore", invalid="ignore"):
        fold = np.expm1(target) / np.expm1(now)
        to = 1 - (1 - share) ** fold
    return np.where((now > 0) & (share < 1), to, np.where(target > 0, share, 0))


def _lose(cells: sp.csr_array, keep: NDArray[np.float64], rng: np.random.Generator) -> sp.csr_array:
    """Drop values at random so that a share of each gene's values remains."""
    falls = keep < 1
    at_risk = np.flatnonzero(falls[cells.indices])
    lost = at_risk[rng.random(len(at_risk)) >= keep[cells.indices[at_risk]]]
    cells.data[lost] = 0
    cells.eliminate_zeros()
    return cells


def _gain(
    pool: Pool,
    cells: sp.csr_array,
    more: NDArray[np.float64],
    target: NDArray[np.float64],
    rng: np.random.Generator,
) -> sp.csr_array:
    """Add each gene to a share `more` of the cells that lack it, with values drawn from the pool.

    A gene that no cell has is added to as many cells as its target mean needs.
    """
    n, n_genes = cells.shape
    have = np.bincount(cells.indices, minlength=n_genes)
    needed = np.divide(target, pool.typical, out=np.zeros(n_genes), where=pool.typical > 0)
    count = np.floor(np.where(have > 0, more, needed) * n + rng.random(n_genes))
    count = np.where(pool.detected > 0, np.minimum(count, n - have), 0).astype(np.int64)
    gene, cell = _places(cells, count, rng)
    value = pool.draw(gene, rng)
    return sp.csr_array((value, (cell, gene)), shape=(n, n_genes))


def _places(
    cells: sp.csr_array, count: NDArray[np.int64], rng: np.random.Generator
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Choose `count` cells of each gene among those that lack it."""
    n = cells.shape[0]
    by_gene = cells.tocsc()
    genes = np.flatnonzero(count)
    found = []
    for gene in genes:
        free = np.ones(n, np.bool_)
        free[by_gene.indices[by_gene.indptr[gene] : by_gene.indptr[gene + 1]]] = False
        found.append(rng.choice(np.flatnonzero(free), count[gene], replace=False, shuffle=False))
    return np.repeat(genes, count[genes]), np.concatenate([*found, np.zeros(0, np.int64)])


def _stretch(
    cells: sp.csr_array,
    share: NDArray[np.float64],
    to: NDArray[np.float64],
    now: NDArray[np.float64],
    target: NDArray[np.float64],
) -> None:
    """Scale each gene's rate in the cells that have it, then its values until the mean is exact."""
    n, n_genes = cells.shape
    with np.errstate(divide="ignore", invalid="ignore"):
        rate = np.expm1(target / to) / np.expm1(now / share)
    rate = np.where(np.isfinite(rate), rate, 1.0)
    moved = np.flatnonzero(np.abs(rate - 1)[cells.indices] > 1e-6)
    factor = rate[cells.indices[moved]]
    cells.data[moved] = np.log1p(factor * np.expm1(cells.data[moved].astype(np.float64)))
    sums = np.bincount(cells.indices, cells.data, minlength=n_genes)
    factor = np.divide(target * n, sums, out=np.ones(n_genes), where=sums > 0)
    cells.data *= np.minimum(factor, _MOST)[cells.indices].astype(np.float32)
