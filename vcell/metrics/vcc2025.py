"""The Virtual Cell Challenge's metrics of 2025: MAE, PDS, DES and related ones.

Functions take means and tables and return one value per perturbation; none reads cells, so a
trainer can score an epoch with them. Names and definitions are cell-eval's. Ties, whose order in
cell-eval depends on the processor, have a rule here: PDS gives tied effects their mean rank, DES
orders equal fold changes by p-value and then by gene.

Legend: ``P`` perturbations, ``G`` genes.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Literal

import numpy as np
from numpy.typing import NDArray

from vcell.cores import in_parts
from vcell.kernels.distances import cosines, pairwise

if TYPE_CHECKING:
    from collections.abc import Mapping

    from vcell.metrics.significance import DeTable

Array = NDArray[np.float64]
ALPHA = np.float32(0.05)  # cell-eval compares in float32
_WORTH_THREADS = 3_000_000  # differences: about a millisecond of work
Distance = Literal["l1", "l2", "cosine"]
Ties = Literal["midrank", "peer"]
#: The three of the leaderboard, in cell-eval's order.
SCORED = ("overlap_at_N", "mae", "discrimination_score_l1")
BEST_IS_ZERO = frozenset({"mae", "mse", "mae_delta", "mse_delta"})
UNSCALED = frozenset({"de_nsig_counts_real", "de_nsig_counts_pred"})


def scale(name: str, raw: float, baseline: float | None) -> float | None:
    """Scale as the 2025 leaderboard did: 0 is the baseline, 1 is perfect, and 0 the minimum.

    None where there is no baseline to scale by, or its value is not defined (NaN): cell-eval's
    ``score`` then writes 0, whatever the prediction is worth. None of `SCORED` is such a metric.
    """
    if baseline is None or math.isnan(baseline) or name in UNSCALED:
        return None
    best = 0.0 if name in BEST_IS_ZERO else 1.0
    span = best - baseline
    if span == 0 or math.isnan(raw):
        return 0.0
    return max(0.0, (raw - baseline) / span)


def overall(raw: Mapping[str, float], baseline: Mapping[str, float]) -> float:
    """Return the leaderboard's score: the mean of the three scaled metrics."""
    scaled = [scale(name, raw[name], baseline[name]) or 0.0 for name in SCORED]
    return float(np.mean(scaled))


def absolute_error(real: Array, pred: Array) -> Array:
    """``mae``: mean absolute difference of the mean profiles (or of their deltas)."""
    # row by row, in reused memory
    return np.array([np.abs(a - b).mean() for a, b in zip(pred, real, strict=True)])


def squared_error(real: Array, pred: Array) -> Array:
    """``mse``: mean squared difference."""
    error: Array = np.square(pred - real).mean(axis=1)
    return error


def pearson(real: Array, pred: Array) -> Array:
    """``pearson_delta``: correlation of real and predicted effects; NaN where one is constant."""
    a, b = real - real.mean(axis=1, keepdims=True), pred - pred.mean(axis=1, keepdims=True)
    with np.errstate(invalid="ignore", divide="ignore"):
        r: Array = (a * b).sum(axis=1) / np.sqrt(
            np.square(a).sum(axis=1) * np.square(b).sum(axis=1)
        )
    return r


def distances(
    real: Array, pred: Array, target: NDArray[np.int64], metric: Distance = "l1"
) -> Array:
    """Return ``[P, P]`` distances of every predicted effect (rows) to every real one.

    ``target[p]`` is the column of perturbation p's own gene, left out of row p; -1 for none.
    """
    d = np.empty((len(pred), len(real)))
    if metric == "cosine":
        cosines(pred, real, target, d)
    else:
        squared = metric == "l2"
        if d.size * real.shape[1] < _WORTH_THREADS:
            pairwise(pred, real, target, squared, d)
        else:
            in_parts(lambda a, b: pairwise(pred[a:b], real, target[a:b], squared, d[a:b]), len(d))
    return d


def discrimination(d: Array, ties: Ties = "midrank") -> Array:
    """``discrimination_score``: 1 - rank / P of the true effect among all real ones.

    "midrank" gives tied effects the mean of the ranks they span; "peer" takes the position in
    numpy's default argsort, as cell-eval does, which under exact ties depends on the processor.
    """
    n = len(d)
    own = np.diag(d)[:, None]
    if ties == "peer":
        order = np.argsort(d, axis=1)
        rank = np.argmax(order == np.arange(n)[:, None], axis=1).astype(np.float64)
    else:
        rank = (d < own).sum(axis=1) + ((d == own).sum(axis=1) - 1) / 2
    score: Array = 1 - rank / n
    return score


def tied(d: Array) -> int:
    """Count perturbations whose true effect has the same distance as another effect."""
    return int(((d == np.diag(d)[:, None]).sum(axis=1) > 1).sum())


class Calls:
    """The significant genes of every perturbation, strongest first.

    Strength is the absolute log2 fold change in float32 (an undefined one first, as in cell-eval);
    equal ones by p-value, then by the genes' order.
    """

    def __init__(self, table: DeTable) -> None:
        self.significant = np.empty(table.fdr.shape, bool)
        self.strength: list[NDArray[np.float32]] = []  # of the genes that are called, in order
        self.genes: list[NDArray[np.int64]] = []
        for row, fdr in enumerate(table.fdr):
            self.significant[row] = fdr.astype(np.float32) < ALPHA
            genes = np.flatnonzero(self.significant[row])
            strength = np.abs(table.lfc[row, genes]).astype(np.float32)
            strength[np.isnan(strength)] = np.inf
            order = np.lexsort((genes, table.p[row, genes], -strength))
            self.genes.append(genes[order])
            self.strength.append(strength[order])

    @property
    def counts(self) -> NDArray[np.int64]:
        """Number of significant genes of each perturbation."""
        return np.array([len(genes) for genes in self.genes])


def overlap(real: Calls, pred: Calls, k: int | None = None) -> Array:
    """``overlap_at_N`` (DES), ``overlap_at_k``: share of the top N or k real calls predicted."""
    return _shared(real, pred, k, of=real)


def precision(real: Calls, pred: Calls, k: int | None = None) -> Array:
    """``precision_at_N`` and ``precision_at_k``: as `overlap`, k bounded by what was called."""
    return _shared(real, pred, k, of=pred)


def _shared(real: Calls, pred: Calls, k: int | None, *, of: Calls) -> Array:
    scores = np.zeros(len(real.genes))
    for row, (a, b) in enumerate(zip(real.genes, pred.genes, strict=True)):
        n = min(k or len(of.genes[row]), len(of.genes[row]))
        if n:
            scores[row] = len(np.intersect1d(a[:n], b[:n], assume_unique=True)) / n
    return scores


def ambiguous(calls: Calls, sizes: NDArray[np.int64]) -> int:
    """Count perturbations in which equal fold changes straddle the cut at the given sizes."""
    found = 0
    for row, n in enumerate(sizes.tolist()):
        genes = calls.genes[row]
        if 0 < n < len(genes):
            found += bool(calls.strength[row][n - 1] == calls.strength[row][n])
    return found
