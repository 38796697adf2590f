"""Agreement of two tables of differential expression: the rest of cell-eval's full profile.

Each function takes tables of the same perturbations and genes and returns a value per perturbation;
NaN where cell-eval has no value. Significance and fold changes are compared in float32, as there.

Legend: ``P`` perturbations, ``G`` genes.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from vcell.metrics.rankings import mean_ranks, rank_correlation
from vcell.metrics.shares import share

if TYPE_CHECKING:
    from vcell.metrics.significance import DeTable
    from vcell.metrics.vcc2025 import Calls

Array = NDArray[np.float64]
_LEAST = 1e-10  # lower bound on FDR


def recall(real: Calls, pred: Calls) -> Array:
    """``de_sig_genes_recall``: share of the real calls that were predicted."""
    found = (real.significant & pred.significant).sum(axis=1)
    return share(found, real.counts)


def direction(real: DeTable, pred: DeTable, calls: Calls) -> Array:
    """``de_direction_match``: share of the real calls whose fold change has the same sign."""
    same = np.sign(real.lfc) == np.sign(pred.lfc)
    return share((same & calls.significant).sum(axis=1), calls.counts)


def fold_changes(real: DeTable, pred: DeTable, calls: Calls) -> Array:
    """``de_spearman_lfc_sig``: rank correlation of fold changes over the real calls."""
    out = np.full(len(real.lfc), np.nan)
    for p, genes in enumerate(calls.genes):
        if len(genes) > 1:
            a, b = (t.lfc[p, genes].astype(np.float32) for t in (real, pred))
            out[p] = rank_correlation(a, b)
    return out


def numbers(real: Calls, pred: Calls) -> float:
    """``de_spearman_sig``: rank correlation of how many genes are called; 1 if none is called."""
    some = real.counts > 0
    if not some.any():
        return 1.0
    return rank_correlation(real.counts[some], pred.counts[some])


def areas(real: Calls, pred: DeTable) -> tuple[Array, Array]:
    """``pr_auc`` and ``roc_auc`` of finding the real calls by the predicted FDR."""
    strength = -np.log10(np.clip(pred.fdr.astype(np.float32), np.float32(_LEAST), 1))
    precision, roc = np.full((2, len(strength)), np.nan)
    for p, truth in enumerate(real.significant):
        positives = int(truth.sum())
        if 0 < positives < len(truth):
            precision[p] = _average_precision(truth, strength[p])
            ranks = mean_ranks(strength[p])
            below = ranks[truth].sum() - positives * (positives + 1) / 2
            roc[p] = below / (positives * (len(truth) - positives))
    return precision, roc


def _average_precision(truth: NDArray[np.bool_], strength: NDArray[np.floating]) -> float:
    """Sum precision over the steps in recall, equal strengths count as one step."""
    order = np.argsort(-strength, kind="stable")
    found = np.cumsum(truth[order])
    last = np.append(np.diff(strength[order]) != 0, True)
    hits, seen = found[last], np.flatnonzero(last) + 1
    return float((np.diff(hits, prepend=0) * hits / seen).sum() / hits[-1])
