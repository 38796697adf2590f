"""The sampling noise of effects by gene, as cells vary about the mean of their perturbation.

Genes are noisy to very different degrees, and their noise is correlated: the mean of a hundred
cells happens to have more dividing cells than that of another hundred. Both are seen within
perturbations, where no effect is. N genes, R components, P rows of a screen.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from vcell.screen.features import variation

if TYPE_CHECKING:
    from vcell.data.log_cells import LogCells

Array = NDArray[np.float64]

_CELLS = 10_000  # enough for variances; more would only cost time
_COMPONENTS = 16
_LEAST = 1e-3  # genes of less variance, relative to the mean of all, are hardly expressed
_ALONE = 0.1  # smallest share of a gene's variance that it does not share


def cell_noise(cells: LogCells, group: NDArray[np.int64], seed: int) -> tuple[Array, Array]:
    """Return the variance of each gene within groups of cells (N,), and loadings (N, R).

    The correlations within groups are about L L', L the loadings; components that independent genes
    would have as well are 0. `group` is that of each cell, -1 for none.
    """
    used = np.flatnonzero(group >= 0)
    used = used[:: max(-(-len(used) // _CELLS), 1)]
    code = np.full(len(group), -1, np.int64)
    present, code[used] = np.unique(group[used], return_inverse=True)
    seen = np.ones(cells.n_genes, bool)
    sd, loadings = variation(cells, used, code, seen, rank=_COMPONENTS, seed=seed)
    free = max(len(used) - len(present), 1)
    variance = np.square(sd) * len(used) / free
    # an eigenvalue of a sample is larger than the true one (Baik and Silverstein 2006)
    size, ratio = np.square(loadings).sum(axis=0), cells.n_genes / free
    spike = size > (1 + np.sqrt(ratio)) ** 2
    half = size[spike] + 1 - ratio
    true = (half + np.sqrt(np.maximum(np.square(half) - 4 * size[spike], 0))) / 2
    found = loadings[:, spike] * np.sqrt(np.maximum(true - 1, 0) / size[spike])
    return variance, found


@dataclass(frozen=True)
class Whitening:
    """Linear maps to coordinates in which sampling noise has the same variance in all directions.

    With C = D^1/2 (1 + U S U') D^1/2 the covariance of a cell, effects are multiplied by
    D^-1/2 (1 + U S U')^-1/2. Genes that are hardly expressed are not among the coordinates.

    Attributes
    ----------
    genes
        (N,) whether a gene is.
    """

    genes: NDArray[np.bool_]
    scale: Array
    vectors: Array
    shrink: Array

    @classmethod
    def of(cls, variance: Array, loadings: Array) -> Whitening:
        """Return the maps for what `cell_noise` returns."""
        genes = variance > max(_LEAST * float(variance.mean()), 1e-12)
        loadings = loadings * genes[:, None]
        alone = np.maximum(1 - np.square(loadings).sum(axis=1), _ALONE)
        vectors, values, _ = np.linalg.svd(loadings / np.sqrt(alone)[:, None], full_matrices=False)
        scale = np.where(genes, 1 / np.sqrt(np.where(genes, variance, 1) * alone), 0)
        return cls(genes, scale, vectors, 1 / np.sqrt(1 + np.square(values)))

    def into(self, effects: Array) -> Array:
        """Return effects (P, N) in these coordinates."""
        return self._along(effects * self.scale, self.shrink)

    def back(self, effects: Array) -> Array:
        """Return effects (P, N) from these coordinates; 0 for genes that are not among them."""
        found = self._along(effects, 1 / self.shrink)
        return np.divide(found, self.scale, out=np.zeros_like(found), where=self.genes)

    def columns(self, vectors: Array) -> Array:
        """Return (N, K): effects times it are `into(effects)` times the vectors (N, K)."""
        return self._along(vectors.T, self.shrink).T * self.scale[:, None]

    def _along(self, rows: Array, factor: Array) -> Array:
        return np.asarray(rows + ((rows @ self.vectors) * (factor - 1)) @ self.vectors.T)
