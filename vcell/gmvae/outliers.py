"""The distance of cells from all training cells, and the shift of a batch.

The score of a cell is its squared Mahalanobis distance to the nearest label's centre in the latent
space, with one within-label covariance for all. Its threshold is learnt on cells held out.
N cells, D dimensions, C centres.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from scipy.special import softmax

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Array = NDArray[Any]

_SHRINK = 0.05  # shrinkage of the covariance towards a multiple of the identity, to invert it
_QUANTILES = 1001


@dataclass(frozen=True)
class Outliers:
    """Centres (C, D), a whitening (D, D), and quantiles of the scores of held-out cells."""

    centres: Array
    whitening: Array
    quantiles: Array

    @classmethod
    def learnt(cls, x: Array, codes: Array, held_out: Array) -> Outliers:
        """Learn from cells (N, D) with codes, -1 for none, and from held-out cells."""
        x = np.asarray(x, np.float64)
        known = codes >= 0
        names, place = np.unique(codes[known], return_inverse=True)
        sums = np.zeros((len(names), x.shape[1]))
        np.add.at(sums, place, x[known])
        centres = sums / np.bincount(place)[:, None]
        apart = x[known] - centres[place]
        covariance = apart.T @ apart / max(len(apart) - len(names), 1)
        ball = np.trace(covariance) / len(covariance) or 1.0
        covariance = (1 - _SHRINK) * covariance + _SHRINK * ball * np.eye(len(covariance))
        whitening = np.linalg.inv(np.linalg.cholesky(covariance)).T
        one = cls(centres, whitening, np.zeros(_QUANTILES))
        scores = one.scores(held_out)
        return cls(centres, whitening, np.quantile(scores, np.linspace(0, 1, _QUANTILES)))

    def distances(self, x: Array) -> Array:
        """Return the squared distance of each cell to each centre, (N, C)."""
        a, b = x @ self.whitening, self.centres @ self.whitening
        found = (a * a).sum(1)[:, None] - 2 * a @ b.T + (b * b).sum(1)
        distances: Array = np.maximum(found, 0)
        return distances

    def scores(self, x: Array) -> Array:
        """Return each cell's distance to the nearest centre."""
        found: Array = self.distances(np.asarray(x, np.float64)).min(1)
        return found

    def threshold(self, share: float) -> float:
        """Return the score that a `share` of the held-out cells exceed."""
        return float(np.interp(1 - share, np.linspace(0, 1, len(self.quantiles)), self.quantiles))

    def shift(self, x: Array, rounds: int = 50) -> Array:
        """Return the offset (D,) of some cells from the training cells, by EM.

        Cells are modelled as draws around the centres, moved by one offset: the mean difference
        between cells and centres, weighted by how likely each centre is.
        """
        x = np.asarray(x, np.float64)
        offset = np.zeros(x.shape[1])
        for _ in range(rounds):
            likely = softmax(-0.5 * self.distances(x - offset), axis=1)
            new = (x - likely @ self.centres).mean(0)
            moved, offset = np.abs(new - offset).max(), new
            if moved < 1e-6:
                break
        return offset
