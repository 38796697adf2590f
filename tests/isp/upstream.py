"""Upstream's statistics gene by gene with scipy and statsmodels' formulas, as its code reads."""

from __future__ import annotations

import random

import numpy as np
from scipy.stats import ranksums


def fdr_bh(p):
    """Benjamini and Hochberg, written as a definition."""
    p = np.asarray(p)
    n = len(p)
    order = np.argsort(p)
    out = np.empty(n)
    lowest = 1.0
    for rank in range(n, 0, -1):
        lowest = min(lowest, p[order[rank - 1]] * n / rank)
        out[order[rank - 1]] = lowest
    return out


def goal_state_shift(by_gene):
    """by_gene: {token: list of shifts}, in ascending tokens."""
    pool = []
    for token in sorted(by_gene):
        pool += by_gene[token]
    if len(pool) > 100_000:
        random.seed(42)
        pool = random.sample(pool, k=100_000)
    tokens = sorted(by_gene)
    p = [ranksums(pool, by_gene[t]).pvalue for t in tokens]
    fdr = fdr_bh(p)
    return {t: (np.mean(by_gene[t]), p[i], fdr[i], len(by_gene[t])) for i, t in enumerate(tokens)}
