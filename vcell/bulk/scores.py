"""Errors of estimated fractions: RMSE and Lin's concordance (CCC), for each type and overall."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class FractionScores:
    """Agreement of estimated fractions with the true ones.

    Attributes
    ----------
    types
        Names.
    rmse, ccc
        One per type. CCC is NaN if neither the truth nor the estimate varies.
    overall_rmse, overall_ccc
        Over all samples and types as one list, as in TAPE and Scaden.
    """

    types: tuple[str, ...]
    rmse: NDArray[np.float64]
    ccc: NDArray[np.float64]
    overall_rmse: float
    overall_ccc: float

    def plain(self) -> dict[str, Any]:
        """Return the scores as JSON types, with None for NaN."""
        return {
            "rmse": self.overall_rmse,
            "ccc": _plain(self.overall_ccc),
            "types": {
                name: {"rmse": float(r), "ccc": _plain(c)}
                for name, r, c in zip(self.types, self.rmse, self.ccc, strict=True)
            },
        }


def scored(
    truth: NDArray[np.floating], estimate: NDArray[np.floating], types: Sequence[str]
) -> FractionScores:
    """Compare ``(samples, types)`` fractions with the truth."""
    x, y = np.asarray(truth, np.float64), np.asarray(estimate, np.float64)
    if x.shape != y.shape or x.shape[1] != len(types):
        raise ValueError(f"fractions are {x.shape} and {y.shape} for {len(types)} types")
    rmse = np.sqrt(np.square(x - y).mean(axis=0))
    every = x.reshape(-1, 1), y.reshape(-1, 1)
    return FractionScores(
        tuple(types), rmse, concordance(x, y),
        float(np.sqrt(np.square(x - y).mean())), float(concordance(*every)[0]),
    )  # fmt: skip


def concordance(x: NDArray[np.float64], y: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return Lin's concordance of each column: ``2 cov / (var x + var y + (mean x - mean y)^2)``.

    Variances are divided by n, as in Lin (1989).
    """
    mean_x, mean_y = x.mean(axis=0), y.mean(axis=0)
    both = ((x - mean_x) * (y - mean_y)).mean(axis=0)
    spread = x.var(axis=0) + y.var(axis=0) + np.square(mean_x - mean_y)
    varies = spread > 0
    found: NDArray[np.float64] = np.where(varies, 2 * both / np.where(varies, spread, 1), np.nan)
    return found


def _plain(value: float) -> float | None:
    return None if np.isnan(value) else float(value)
