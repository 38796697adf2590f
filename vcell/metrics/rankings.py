"""Comparisons of two rankings."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray


def mean_ranks(values: NDArray[np.generic]) -> NDArray[np.float64]:
    """Rank along the last axis from 1; equal values share the mean of the ranks they span.

    A slice that holds NaN has NaN for ranks. Equal to ``scipy.stats.rankdata``, which takes a
    second to import.
    """
    order = np.argsort(values, axis=-1, kind="stable")
    ordered = np.take_along_axis(values, order, axis=-1)
    n = ordered.shape[-1]
    place = np.arange(n)
    fresh = np.ones(ordered.shape, bool)  # start of each run of equal values
    fresh[..., 1:] = ordered[..., 1:] != ordered[..., :-1]
    first = np.maximum.accumulate(np.where(fresh, place, 0), axis=-1)
    ends = np.ones(ordered.shape, bool)
    ends[..., :-1] = fresh[..., 1:]
    last = np.minimum.accumulate(np.where(ends, place, n)[..., ::-1], axis=-1)[..., ::-1]
    ranks = np.empty(ordered.shape)
    np.put_along_axis(ranks, order, (first + last) / 2 + 1, axis=-1)
    ranks[np.isnan(values).any(axis=-1)] = np.nan
    return ranks


def spearman(one: NDArray[np.float64], other: NDArray[np.float64]) -> float | None:
    """Return Spearman's correlation with mid-ranks; None where one of them is constant."""
    good = np.isfinite(one) & np.isfinite(other)
    if good.sum() < 3:
        return None
    rho = rank_correlation(one[good], other[good])
    return None if np.isnan(rho) else rho


def rank_correlation(one: NDArray[np.generic], other: NDArray[np.generic]) -> float:
    """Return Pearson's correlation of mid-ranks; NaN where one side is constant."""
    a, b = mean_ranks(one), mean_ranks(other)
    a, b = a - a.mean(), b - b.mean()
    size = float(np.sqrt((a @ a) * (b @ b)))
    return float(a @ b) / size if size else float("nan")


def overlap(one: NDArray[np.float64], other: NDArray[np.float64], n: int) -> int:
    """Return how many of the n largest in absolute value both share."""
    n = min(n, len(one))
    tops = [set(np.argsort(-np.abs(values), kind="stable")[:n].tolist()) for values in (one, other)]
    return len(tops[0] & tops[1])
