"""The Virtual Cell Challenge's six members of 2026, from raw counts; names are cell-eval2's.

`members` compares two sides that `vcell.metrics.measured` has measured, in milliseconds.
Definitions: cell-eval2 0.20, rule version 3 (docs/evaluate.md).

Legend: ``P`` perturbations, ``G`` genes; arrays of groups have the control first, ``[P + 1]``.
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray

from vcell.metrics.measured import BULK_TARGET, Measured
from vcell.metrics.shares import share

Array = NDArray[np.float64]
PURITY, MIN_GATE = 0.9, 10
PDS, MSE = "pds_cosine", "expr_mse_unbiased_capped_norm"
FIDELITY, REACH = "de_wilcoxon_direction_fidelity_yield_raw", "de_wilcoxon_direction_reach_raw"
JACCARD, NMAE = "de_wilcoxon_sig_jaccard", "de_wilcoxon_lfc_nmae"
MEMBERS = (PDS, MSE, FIDELITY, REACH, JACCARD, NMAE)
#: Members for which less is better.
ERRORS = frozenset({MSE, NMAE})
#: Scaled values are clipped to these bounds; the other members have none.
BOUNDS = {MSE: (0.0, 1.0), NMAE: (-6.0, np.inf)}


def members(
    real: Measured, pred: Measured, target: NDArray[np.int64], genes: NDArray[np.str_]
) -> tuple[dict[str, Array], dict[str, float]]:
    """Return every member per perturbation (NaN: no value) and its value for the context.

    ``target[p]`` is the column of perturbation p's own gene, -1 for none.
    """
    own = _own(real, target)
    rows = {
        PDS: pds(real, pred, target),
        FIDELITY: fidelity(real, pred, own),
        REACH: reach(real, pred, own, genes),
        JACCARD: jaccard(real, pred, own),
        NMAE: nmae(real, pred.lfc, pred.tested, real, own),
    }
    above, below = error_parts(real, pred, own)
    with np.errstate(divide="ignore", invalid="ignore"):
        rows = {PDS: rows[PDS], MSE: above / below} | rows
    values = {name: mean(column) for name, column in rows.items()}
    values[MSE] = float(above.sum() / below.sum()) if below.sum() > 0 else float("nan")
    return rows, values


def components(real: Measured, pred: Measured, target: NDArray[np.int64]) -> dict[str, Array]:
    """Return the parts of the expression error per perturbation, by cell-eval2's names."""
    own = _own(real, target)
    above, below = error_parts(real, pred, own)
    n_genes = (~own).sum(axis=1)
    gap = (np.square(pred.bulk[1:] - real.bulk[1:]) * ~own).sum(axis=1)
    return {
        "expr_distance_unbiased": below,
        "expr_mse_unbiased": (gap - pred.noise[1:] - real.noise[1:]) / n_genes,
        "expr_mse_unbiased_capped": above,
        "expr_real_mass_ratio": np.expm1(real.bulk[1:]).sum(axis=1) / BULK_TARGET,
    }


def _own(real: Measured, target: NDArray[np.int64]) -> NDArray[np.bool_]:
    """Return ``[P, G]`` where a gene is the perturbation's own."""
    own = np.zeros(real.lfc.shape, bool)
    own[target >= 0, target[target >= 0]] = True
    return own


def mean(column: Array) -> float:
    """Average over the perturbations that have a value; NaN where none has."""
    present = column[~np.isnan(column)]
    return float(present.mean()) if len(present) else float("nan")


def pds(real: Measured, pred: Measured, target: NDArray[np.int64]) -> Array:
    """Rank of the true effect by cosine distance, every panel gene left out, ties counted half."""
    keep = np.ones(real.bulk.shape[1], bool)
    keep[target[target >= 0]] = False
    d = cosine_distances(
        (pred.bulk[1:] - pred.bulk[0])[:, keep], (real.bulk[1:] - real.bulk[0])[:, keep]
    )
    own = np.diag(d)[:, None]
    k = (d < own).sum(axis=1) + 0.5 * ((d == own).sum(axis=1) - 1)
    n = len(d)
    return 1.0 - k / (n - 1) if n > 1 else np.ones(n)


def cosine_distances(a: Array, b: Array) -> Array:
    """Return 1 - cosine of every row of a with every row of b; 1 where either is zero."""
    norms = np.linalg.norm(a, axis=1)[:, None] * np.linalg.norm(b, axis=1)
    return 1.0 - share(a @ b.T, norms, otherwise=0.0)


def error_parts(real: Measured, pred: Measured, own: NDArray[np.bool_]) -> tuple[Array, Array]:
    """Return numerator and denominator of the unbiased, capped squared error per perturbation."""
    used = ~own
    n_genes = used.sum(axis=1).astype(np.float64)
    credit = np.minimum(pred.noise[1:], real.noise[1:])
    claim = float((credit / n_genes).sum())
    if claim > 0:
        credit = credit * min(1.0, _budget(pred.bulk[1:], own, 1.0 / n_genes) / claim)
    gap = (np.square(pred.bulk[1:] - real.bulk[1:]) * used).sum(axis=1)
    size = (np.square(real.bulk[1:] - real.bulk[0]) * used).sum(axis=1)
    above = (gap - credit - real.noise[1:]) / n_genes
    below = (size - real.noise[1:] - real.noise[0]) / n_genes
    return above, below


def _budget(bulk: Array, own: NDArray[np.bool_], weight: Array) -> float:
    """Return the predicted profiles' weighted spread across perturbations, own genes left out."""
    w = np.where(own, 0.0, weight[:, None])
    deviation = bulk - bulk.mean(axis=0)
    total = w.sum(axis=0)
    enough = ((~own).sum(axis=0) >= 2) & (total > 0)
    with np.errstate(divide="ignore", invalid="ignore"):
        spread = (w * deviation**2).sum(axis=0) - (w * deviation).sum(axis=0) ** 2 / total
    return float(np.maximum(spread[enough], 0.0).sum())


def _same_direction(real: Measured, pred: Measured) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    """Return which genes have a real direction, and which are predicted with it."""
    judged = np.isfinite(real.fdr) & ~np.isnan(real.lfc) & (real.lfc != 0)
    stated = ~np.isnan(pred.lfc) & (pred.lfc != 0)
    return judged, judged & stated & (np.sign(real.lfc) == np.sign(pred.lfc))


def fidelity(real: Measured, pred: Measured, own: NDArray[np.bool_]) -> Array:
    """Share of correct directions among the calls, or among the real calls if those are more."""
    judged, match = _same_direction(real, pred)
    called = pred.significant & judged & ~own
    n = np.maximum(called.sum(axis=1), (real.significant & ~own).sum(axis=1))
    return share((called & match).sum(axis=1), n)


def reach(real: Measured, pred: Measured, own: NDArray[np.bool_], genes: NDArray[np.str_]) -> Array:
    """Return the depth, in the prediction's order, to which 90 % of directions are correct."""
    judged, match = _same_direction(real, pred)
    names = np.argsort(np.argsort(genes, kind="stable"), kind="stable")
    out = np.full(len(real.fdr), np.nan)
    for p in range(len(out)):
        pool = np.flatnonzero(real.significant[p] & ~own[p])
        if not len(pool):
            continue
        there = pool[pred.tested[pool]]
        order = np.lexsort(
            (
                names[there], -np.abs(pred.lfc[p, there]), pred.p[p, there], pred.fdr[p, there],
                ~pred.significant[p, there],
            )
        )  # fmt: skip
        ranked = there[order]
        depth, right = np.cumsum(judged[p, ranked]), np.cumsum(match[p, ranked])
        with np.errstate(invalid="ignore", divide="ignore"):
            pure = (depth > 0) & (right / depth >= PURITY)
        out[p] = (depth[pure].max() if pure.any() else 0) / len(pool)
    return out


def jaccard(real: Measured, pred: Measured, own: NDArray[np.bool_]) -> Array:
    """Overlap of the called sets; 1 where both are empty."""
    a, b = real.significant & ~own, pred.significant & ~own
    return share((a & b).sum(axis=1), (a | b).sum(axis=1), otherwise=1.0)


def nmae(
    gate: Measured, lfc: Array, tested: NDArray[np.bool_], real: Measured, own: NDArray[np.bool_]
) -> Array:
    """Absolute error of fold changes over the gate's calls, relative to their size.

    `gate` decides genes and size; the error is between `lfc` and `real`'s, each 0 where its side
    did not test the gene.
    """
    calls = gate.significant & ~own & np.isfinite(gate.lfc)
    guess = np.where(tested & np.isfinite(lfc), lfc, 0.0)
    truth = np.where(real.tested & np.isfinite(real.lfc), real.lfc, 0.0)
    size = (np.abs(gate.lfc) * calls).sum(axis=1)
    scored = (calls.sum(axis=1) >= MIN_GATE) & (size > 0)
    error = (np.abs(guess - truth) * calls).sum(axis=1)
    return share(error, size, where=scored)


def scale(name: str, value: float, baseline: float, replicate: float) -> float:
    """Scale a member between baseline (0) and replicate (1), within its bounds.

    A missing or infinite value counts as the worst: the lower bound, or a raw 0 for members without
    one. NaN if the ends define no scale: one is not finite, or the replicate is not better than the
    baseline or is itself the worst value.
    """
    span = replicate - baseline
    rising = name not in ERRORS
    if not np.isfinite(span) or not (replicate > 0 and span > 0 if rising else span < 0):
        return float("nan")
    low, high = BOUNDS.get(name, (-np.inf, np.inf))
    scaled = (value - baseline) / span
    if not np.isfinite(scaled):
        scaled = low if np.isfinite(low) else -baseline / span
    return float(np.clip(scaled, low, high))


def halves(
    group: NDArray[np.int32], order: Iterable[int], seed: int
) -> tuple[NDArray[np.int32], NDArray[np.int32]]:
    """Split every group into two disjoint halves of floor(n / 2) cells, as cell-eval2 draws them.

    `order` lists the groups in pandas' order. Cells outside a half get -1.
    """
    rng = np.random.default_rng(seed)
    first, second = np.full((2, len(group)), -1, np.int32)
    for g in order:
        drawn = rng.permutation(np.flatnonzero(group == g))
        half = len(drawn) // 2
        first[drawn[:half]] = g
        second[drawn[half : 2 * half]] = g
    return first, second


def split_seeds() -> list[int]:
    """Return the seeds of the five splits, derived as cell-eval2 derives them."""
    return [int(seed) for seed in np.random.SeedSequence(0).generate_state(5)]


def baseline_scale(means: Array, target: NDArray[np.int64]) -> Array:
    """Return the factor of each gene that turns a control cell into a baseline cell.

    The mean over perturbations of their mean counts, each without its own gene, divided by the
    controls' mean; 0 where that is 0.
    """
    total, count = means[1:].sum(axis=0), np.full(means.shape[1], float(len(means) - 1))
    for p in np.flatnonzero(target >= 0):
        total[target[p]] -= means[p + 1, target[p]]
        count[target[p]] -= 1.0
    with np.errstate(divide="ignore", invalid="ignore"):
        profile = np.where(count > 0, total / count, means[0])
        factor: Array = np.where(means[0] > 0, profile / means[0], 0.0)
    return factor


def draws(controls: NDArray[np.int64], sizes: NDArray[np.int64]) -> NDArray[np.int64]:
    """Draw the controls from which the baseline's cells are made, perturbation by perturbation."""
    rng = np.random.default_rng(0)
    return np.concatenate([controls[rng.integers(0, len(controls), size=int(n))] for n in sizes])
