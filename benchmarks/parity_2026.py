"""Write the results of cell-eval2 0.20.0 on small inputs, for tests/metrics/test_parity_2026.py.

    python -m venv benchmarks/.envs/cell-eval2-0.20.0
    benchmarks/.envs/cell-eval2-0.20.0/bin/pip install cell-eval2==0.20.0 pdex==0.3.0
    benchmarks/.envs/cell-eval2-0.20.0/bin/python benchmarks/parity_2026.py tests/metrics/golden

Names of cases may follow. Each gives one ``vcc2026-CASE.npz``: the cells of both sides, and the
peer's members per perturbation and overall, its baseline and its replicate anchor (preset vcc2026,
with pdex for DE).
"""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path

import anndata as ad
import numpy as np
import pandas as pd
import scipy.sparse as sp
from cell_eval2.anchor import compute_replicate_anchor
from cell_eval2.baseline import build_generic_baseline
from cell_eval2.config import EvalConfig
from cell_eval2.run import aggregate_metrics, compute_metrics

CONTROL = "non-targeting"
CASES = {
    # genes, perturbations, cells of each, controls, depth, share of genes affected
    "plain": (240, 6, [40] * 6, 160, 4000, 0.3),
    "sparse": (300, 5, [30] * 5, 120, 500, 0.3),
    "unbalanced": (200, 5, [6, 90, 12, 45, 25], 150, 3000, 0.4),
    "tiled": (180, 4, [30] * 4, 100, 3000, 0.3),  # all predicted cells are equal
    "copied": (180, 4, [30] * 4, 100, 3000, 0.3),  # the prediction is the real cells
    "single": (160, 1, [60], 120, 3000, 0.4),
    "tied": (150, 5, [24] * 5, 80, 1500, 0.4),  # every cell has 1,500 counts: equal counts tie
    "dense": (140, 4, [25] * 4, 90, 3000, 0.3),  # stored dense, in float64
    "hollow": (150, 4, [20, 25, 15, 30], 80, 2500, 0.3),  # one cell of every group has no counts
    "quiet": (160, 5, [20] * 5, 100, 2500, 0.08),  # few effects, so some members have no value
}


def cells(case: str, seed: int, shift: float) -> ad.AnnData:
    """Draw Poisson counts around shared rates; `shift` scales the effects."""
    n_genes, n, sizes, controls, depth, share = CASES[case]
    truth = np.random.default_rng([len(case), n_genes])
    rate = truth.gamma(0.6, 1.0, n_genes)
    effect = truth.normal(0, 1.0, (n, n_genes)) * (truth.random((n, n_genes)) < share)
    effect[np.arange(n), np.arange(n)] = -2.0
    rng = np.random.default_rng(seed)
    names = [CONTROL] * controls + [f"G{i:03d}" for i in range(n) for _ in range(sizes[i])]
    rows = []
    for name in names:
        mu = rate if name == CONTROL else rate * np.exp(shift * effect[int(name[1:])])
        if case == "tied":
            rows.append(rng.multinomial(depth, mu / mu.sum()))
        else:
            rows.append(rng.poisson(mu / mu.sum() * depth * rng.gamma(8, 1 / 8)))
    obs = pd.DataFrame({"target": names}, index=[f"c{i}" for i in range(len(names))])
    var = pd.DataFrame(index=[f"G{i:03d}" for i in range(n_genes)])
    if case == "hollow":
        for name in set(names):
            rows[names.index(name)][:] = 0
    x = np.array(rows, float) if case == "dense" else sp.csr_matrix(np.array(rows, np.float32))
    shuffled = rng.permutation(len(names))
    return ad.AnnData(x, obs=obs, var=var)[shuffled].copy()


def table(frame: object, names: list[str]) -> dict[str, np.ndarray]:
    """Return the tidy results as one array per metric, NaN if the peer has no value."""
    wide = frame.to_pandas().pivot(index="perturbation", columns="metric", values="value")
    return {m: wide[m].reindex(names).to_numpy(float) for m in wide.columns}


def ends(real: ad.AnnData, config: EvalConfig) -> dict[str, object]:
    """Return the peer's baseline, and the values of its replicate's splits."""
    base = build_generic_baseline(real, config=config, allow_degenerate=True)
    aggregate = base.agg.to_pandas().set_index("statistic").loc["mean"]
    out = {f"base_{m}": float(v) for m, v in aggregate.items() if v is not None}
    splits, _ = compute_replicate_anchor(real, config=config)
    for metric, part in splits.to_pandas().groupby("metric"):
        out[f"split_{metric}"] = part.sort_values("split_index")["value"].to_numpy(float)
    return out


def write(case: str, folder: Path) -> None:
    """Score one case with the peer, and save inputs and outputs."""
    real, pred = cells(case, 1, 0.6), cells(case, 2, 0.45)
    if case == "copied":
        pred = real
    pred = pred[pred.obs["target"] != CONTROL].copy()
    if case == "tiled":
        pred.X = sp.csr_matrix(np.repeat(np.rint(pred.X.mean(axis=0)), pred.n_obs, axis=0))
        pred.X = pred.X.astype(np.float32)
    given = ad.concat(
        [pred, real[real.obs["target"] == CONTROL]], index_unique="-", keys=["p", "r"]
    )
    given.var = real.var
    config = EvalConfig.from_preset("vcc2026")
    config = replace(
        config, de=replace(config.de, backend="pdex"), num_threads=1, cache_strict=False
    )
    found = compute_metrics(given, real, config=config)
    names = sorted(set(pred.obs["target"]))
    out = {f"pert_{k}": v for k, v in table(found, names).items()}
    total = aggregate_metrics(found)
    out |= {f"mean_{m}": v for m, v in zip(total["metric"], total["mean"], strict=True)}
    if len(names) > 1:  # the peer's mean response needs two
        out |= ends(real, config)
    for side, one in (("real", real), ("pred", pred)):
        csr = sp.csr_matrix(one.X)
        out |= {
            f"{side}_indptr": csr.indptr, f"{side}_indices": csr.indices.astype(np.int16),
            f"{side}_data": csr.data.astype(np.uint16),
            f"{side}_labels": one.obs["target"].to_numpy(str),
        }  # fmt: skip
    out["genes"] = real.var_names.to_numpy(str)
    np.savez_compressed(folder / f"vcc2026-{case}.npz", **out)
    print(case, {k: v for k, v in out.items() if k.startswith("mean_")})


if __name__ == "__main__":
    for one in sys.argv[2:] or CASES:
        write(one, Path(sys.argv[1]))
