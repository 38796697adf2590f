"""How strong a predicted effect must be to change as many genes as a real perturbation does.

A predicted effect lacks everything that the model does not know, and has no noise, so tests find
too few genes in cells generated from it. The measured perturbations of the run show how many genes
an effect of a given size changes,

    sqrt(number) = a + b log(n |effect|^2),      n cells, |effect|^2 with its sampling noise.

Those that the model was not fitted to show how much larger real effects are than predicted ones:
`unseen` is what |predicted|^2 lacks, apart from noise. Together they give the expected number of
genes for a prediction. The strength is the factor, within bounds, at which the generated cells
change that many genes; the effect is multiplied by it. P perturbations, N genes, G genes tested.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from vcell_predict.strength.significant import count

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Array = NDArray[np.float64]

LEAST, MOST = 0.5, 2.0  # strength
_STEPS = 61  # strengths tried, evenly spaced on a log scale


@dataclass(frozen=True)
class SignificanceCurve:
    """The number of significant genes as a function of the size of the effect."""

    offset: float
    slope: float
    genes: int  # tested
    n_perturbations: int  # in the fit
    noise: float  # mean of n times the sampling noise of |effect|^2
    unseen: float  # what |predicted|^2 lacks, without noise

    @classmethod
    def fit(
        cls,
        numbers: NDArray[np.int64],
        cells: NDArray[np.int64],
        delta: NDArray[np.floating],
        noise: NDArray[np.floating],
        genes: int,
        unseen: float,
    ) -> SignificanceCurve:
        """Fit measured perturbations: significant genes (P,), cells (P,), effects (P, N).

        `noise` (P,) is the mean sampling variance of a row of `delta`.
        """
        size = cells * _squares(delta)
        x = np.log(np.maximum(size, np.finfo(float).tiny))
        root = np.sqrt(numbers)
        spread = float(x.var())
        slope = max(float(((x - x.mean()) * root).mean()) / spread, 0.0) if spread > 0 else 0.0
        chance = float((cells * noise * delta.shape[1]).mean())
        return cls(
            float(root.mean() - slope * x.mean()), slope, genes, len(numbers), chance, unseen
        )

    def expected(self, effect: NDArray[np.floating], cells: NDArray[np.int64]) -> Array:
        """Return the number of genes (P,) that real perturbations with these predictions change."""
        size = cells * (_squares(effect) + self.unseen) + self.noise
        root = self.offset + self.slope * np.log(np.maximum(size, np.finfo(float).tiny))
        return np.asarray(np.clip(root, 0, None) ** 2).clip(max=self.genes)


def unseen(
    predicted: NDArray[np.floating], real: NDArray[np.floating], noise: NDArray[np.floating]
) -> float:
    """Return what must be added to |predicted|^2 to reach the sizes of real effects.

    Predicted and real effects (P, N) of perturbations that the model was not fitted to. The means
    of log |effect|^2 are compared, since the curve is linear in it: a few large effects do not
    dominate.
    """
    predicted_squares, chance = _squares(predicted), noise * real.shape[1]
    found = np.log(np.maximum(_squares(real), np.finfo(float).tiny)).mean()
    low, high = 0.0, float(_squares(real).max())
    for _ in range(50):
        middle = (low + high) / 2
        short = (
            np.log(np.maximum(predicted_squares + middle + chance, np.finfo(float).tiny)).mean()
            < found
        )
        low, high = (middle, high) if short else (low, middle)
    return (low + high) / 2


def strength(z: Array, target: Array) -> tuple[Array, NDArray[np.int64]]:
    """Return the strength of each perturbation (P,), and the number of genes significant at it.

    The z-scores (P, G) of cells at strength 1 grow in proportion to the strength.
    """
    tried = np.geomspace(LEAST, MOST, _STEPS)
    numbers = np.stack([count(z * t) for t in tried], axis=1)
    # the nearest to the target; of equals, the nearest to 1
    off = np.abs(np.sqrt(numbers) - np.sqrt(target)[:, None]) + 1e-6 * np.abs(np.log(tried))
    best = off.argmin(axis=1)
    return tried[best], numbers[np.arange(len(z)), best]


def _squares(effect: NDArray[np.floating]) -> Array:
    squares: Array = np.square(effect, dtype=np.float64).sum(axis=1)
    return squares
