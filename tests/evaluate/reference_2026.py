"""A slow, simple, dense implementation of the 2026 members, from the challenge's description."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy import stats

from tests.evaluate.conftest import CONTROL

TS = 5e4


@dataclass
class Group:
    """One group's cells."""

    cells: np.ndarray

    @property
    def bulk(self) -> np.ndarray:
        total = self.cells.sum(axis=0)
        return np.log1p(TS * total / total.sum())

    @property
    def noise(self) -> float:
        n = len(self.cells)
        if n < 2:
            return 0.0
        rest = self.cells.sum(axis=0) - self.cells
        v = np.log1p(TS * rest / rest.sum(axis=1, keepdims=True))
        return (n - 1) / n * float(np.square(v - v.mean(axis=0)).sum())

    @property
    def cpm(self) -> np.ndarray:
        return self.cells / (self.cells.sum(axis=1, keepdims=True) / 1e6)


def groups(cells) -> dict[str, Group]:
    x = np.asarray(cells.X.todense(), np.float64)
    labels = cells.obs["target_gene"].astype(str).to_numpy()
    return {name: Group(x[labels == name]) for name in sorted(set(labels))}


def table(group: Group, control: Group, kept: np.ndarray):
    """Return lfc of all genes, and p and adjusted p of those that are kept (else NaN)."""
    a, b = group.cpm, control.cpm
    p = stats.mannwhitneyu(np.log1p(a), np.log1p(b), axis=0, method="asymptotic").pvalue
    p = np.where(np.isnan(p), 1.0, p)
    p[~kept] = np.nan
    q = np.full(len(p), np.nan)
    q[kept] = stats.false_discovery_control(p[kept])
    return np.log2((a.mean(axis=0) + 1e-9) / (b.mean(axis=0) + 1e-9)), p, q


def members(real_cells, pred_cells) -> dict[str, float]:
    real, pred = groups(real_cells), groups(pred_cells)
    control = real[CONTROL]
    genes = list(real_cells.var_names)
    names = [n for n in real if n != CONTROL]
    kept = control.cpm.mean(axis=0) > 5
    panel = np.array([g not in names for g in genes])
    real_d = {n: (real[n].bulk - control.bulk)[panel] for n in names}
    pred_d = {n: (pred[n].bulk - control.bulk)[panel] for n in names}
    out: dict[str, list[float]] = {k: [] for k in ("pds", "fidelity", "reach", "jaccard", "nmae")}
    above, below, claims = [], [], []
    used = {n: np.array([g != n for g in genes]) for n in names}
    for n in names:
        d = {
            q: 1 - float(pred_d[n] @ real_d[q])
            / float(np.linalg.norm(pred_d[n]) * np.linalg.norm(real_d[q]))
            for q in names
        }  # fmt: skip
        k = sum(d[q] < d[n] for q in names) + (sum(d[q] == d[n] for q in names) - 1) / 2
        out["pds"].append(1 - k / (len(names) - 1) if len(names) > 1 else 1.0)
        claims.append(min(pred[n].noise, real[n].noise) / used[n].sum())
        lfc, _, q = table(real[n], control, kept)
        guess, p_hat, q_hat = table(pred[n], control, kept)
        sig, called = (q < 0.05) & used[n], (q_hat < 0.05) & used[n]
        judged = lfc != 0  # equal means have no direction: such a gene is neither right nor wrong
        right = judged & (np.sign(lfc) == np.sign(guess))
        stated = (called & judged).sum()
        if max(stated, sig.sum()):
            out["fidelity"].append((called & right).sum() / max(stated, sig.sum()))
        if sig.any():
            order = sorted(
                np.flatnonzero(sig),
                key=lambda g: (not q_hat[g] < 0.05, q_hat[g], p_hat[g], -abs(guess[g]), genes[g]),
            )
            tops = [order[:k] for k in range(1, len(order) + 1) if judged[order[:k]].any()]
            depths = [
                judged[top].sum() for top in tops if right[top].sum() / judged[top].sum() >= 0.9
            ]
            out["reach"].append(max(depths, default=0) / len(order))
        either = (sig | called).sum()
        out["jaccard"].append((sig & called).sum() / either if either else 1.0)
        if sig.sum() >= 10:
            out["nmae"].append(np.abs(guess - lfc)[sig].sum() / np.abs(lfc)[sig].sum())
    budget = 0.0
    for g in range(len(genes)):
        rows = [n for n in names if used[n][g]]
        if len(rows) < 2:
            continue
        w = np.array([1 / used[n].sum() for n in rows])
        b = np.array([pred[n].bulk[g] for n in rows])
        budget += float((w * (b - (w * b).sum() / w.sum()) ** 2).sum())
    rho = min(1.0, budget / sum(claims)) if sum(claims) else 1.0
    for n in names:
        u = used[n]
        credit = rho * min(pred[n].noise, real[n].noise)
        gap = np.square(pred[n].bulk - real[n].bulk)[u].sum()
        size = np.square(real[n].bulk - control.bulk)[u].sum()
        above.append((gap - credit - real[n].noise) / u.sum())
        below.append((size - real[n].noise - control.noise) / u.sum())
    means = {k: float(np.mean(v)) if v else float("nan") for k, v in out.items()}
    return {
        "pds_cosine": means["pds"],
        "expr_mse_unbiased_capped_norm": sum(above) / sum(below),
        "de_wilcoxon_direction_fidelity_yield_raw": means["fidelity"],
        "de_wilcoxon_direction_reach_raw": means["reach"],
        "de_wilcoxon_sig_jaccard": means["jaccard"],
        "de_wilcoxon_lfc_nmae": means["nmae"],
    }
