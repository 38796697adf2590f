"""Comparisons of two rankings."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray


def spearman(one: NDArray[np.float64], other: NDArray[np.float64]) -> float | None:
    """Return Spearman's correlation with mid-ranks; None where one of them is constant."""
    from scipy.stats import rankdata

    good = np.isfinite(one) & np.isfinite(other)
    if good.sum() < 3:
        return None
    a, b = rankdata(one[good]), rankdata(other[good])
    a, b = a - a.mean(), b - b.mean()
    size = float(np.sqrt((a @ a) * (b @ b)))
    return float(a @ b) / size if size > 0 else None


def overlap(one: NDArray[np.float64], other: NDArray[np.float64], n: int) -> int:
    """Return how many of the n largest in size are the same."""
    n = min(n, len(one))
    tops = [set(np.argsort(-np.abs(values), kind="stable")[:n].tolist()) for values in (one, other)]
    return len(tops[0] & tops[1])
