"""A slow, simple implementation of the 2025 metrics from their definitions."""

from __future__ import annotations

import numpy as np
from scipy import stats

from tests.evaluate.conftest import CONTROL


def normalised(cells) -> np.ndarray:
    """Counts scaled to the median total, log1p, float32: scanpy's arithmetic."""
    x = np.asarray(cells.X.todense(), np.float32)
    if np.abs(x - np.rint(x)).max() > 1e-3:
        return x
    totals = x.sum(axis=1)
    return np.log1p(x / (totals / np.median(totals))[:, None])


def groups(cells, x) -> dict[str, np.ndarray]:
    labels = cells.obs["target_gene"].astype(str).to_numpy()
    return {name: x[labels == name] for name in np.unique(labels)}


def halves(labels: np.ndarray, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Split the cells of every group in two, as documented; return the rows of both halves."""
    both: tuple[list[np.ndarray], list[np.ndarray]] = ([], [])
    for name in sorted(set(labels)):
        drawn = rng.permutation(np.flatnonzero(labels == name))
        half = len(drawn) // 2
        both[0].append(drawn[:half])
        both[1].append(drawn[half : 2 * half])
    return np.concatenate(both[0]), np.concatenate(both[1])


def means(cells) -> dict[str, np.ndarray]:
    return {
        n: v.astype(np.float64).mean(axis=0) for n, v in groups(cells, normalised(cells)).items()
    }


def mae(real, pred) -> dict[str, float]:
    a, b = means(real), means(pred)
    return {p: float(np.abs(a[p] - b[p]).mean()) for p in a if p != CONTROL}


def pds(real, pred) -> dict[str, float]:
    a, b = means(real), means(pred)
    names = [p for p in a if p != CONTROL]
    scores = {}
    for p in names:
        keep = np.array([gene != p for gene in real.var_names])
        d = {q: np.abs(((b[p] - b[CONTROL]) - (a[q] - a[CONTROL]))[keep]).sum() for q in names}
        nearer = sum(d[q] < d[p] for q in names)
        equal = sum(d[q] == d[p] for q in names) - 1
        scores[p] = 1 - (nearer + equal / 2) / len(names)
    return scores


def tests(cells) -> dict[str, tuple[np.ndarray, ...]]:
    """U, p, FDR and log2 fold change of every gene, per perturbation."""
    found = groups(cells, normalised(cells))
    control = found.pop(CONTROL)
    out = {}
    for name, x in found.items():
        a, b = x.astype(np.float64), control.astype(np.float64)
        r = stats.mannwhitneyu(a, b, axis=0, method="asymptotic", use_continuity=True)
        p = np.where(np.isnan(r.pvalue), 1.0, r.pvalue)
        with np.errstate(divide="ignore", invalid="ignore"):
            lfc = np.log2(np.expm1(a.mean(axis=0)) / np.expm1(b.mean(axis=0)))
        out[name] = (
            r.statistic,
            p,
            stats.false_discovery_control(p),
            np.where(np.isnan(lfc), 0.0, lfc),
        )
    return out


def des(real, pred) -> dict[str, float]:
    a, b = tests(real), tests(pred)
    scores = {}
    for name in a:
        called = np.flatnonzero(a[name][2] < 0.05)
        guessed = [i for i in np.argsort(-np.abs(b[name][3])) if b[name][2][i] < 0.05]
        guessed = guessed[: len(called)]
        scores[name] = len(set(called) & set(guessed)) / len(called) if len(called) else 0.0
    return scores
