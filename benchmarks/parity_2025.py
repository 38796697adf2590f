"""Write the results of cell-eval and pdex on small inputs, for tests/metrics/test_parity_2025.py.

    python -m venv benchmarks/.envs/cell-eval-0.8.2
    benchmarks/.envs/cell-eval-0.8.2/bin/pip install cell-eval==0.8.2 pdex==0.3.0
    benchmarks/.envs/cell-eval-0.8.2/bin/python benchmarks/parity_2025.py tests/metrics/golden

The leaderboard's versions, for ``--rules vcc2025-official`` (their groups have more than eight
cells, below which pdex 0.1.27 uses an exact test):

    benchmarks/.envs/cell-eval-0.6.6/bin/pip install cell-eval==0.6.6 pdex==0.1.27
    benchmarks/.envs/cell-eval-0.6.6/bin/python benchmarks/parity_2025.py tests/metrics/golden

Names of cases may follow. Each gives one ``vcc2025-CASE.npz`` or ``official-CASE.npz``: the cells
of both sides (float32, dense), the metrics per perturbation, and U, p and FDR of the real side.
"""

from __future__ import annotations

import sys
import tempfile
from importlib.metadata import version
from pathlib import Path

import anndata as ad
import numpy as np
import pandas as pd
import polars as pl
import scanpy as sc
import scipy.sparse as sp
from cell_eval import MetricsEvaluator

CONTROL = "non-targeting"
CASES = {
    # genes, cells of each perturbation, controls, depth, stored sparse
    "plain": (150, [25, 25, 25, 25, 25], 80, 2000, True),
    "tied": (120, [30, 30, 30, 30], 90, 60, True),  # counts of one to three: nearly all tied
    "dense": (100, [20, 20, 20], 60, 4000, False),
    "unbalanced": (120, [3, 70, 9, 31], 90, 1500, True),
    "single": (90, [40], 70, 1500, True),
    # integer counts, which the peer normalises to each side's median; one cell is empty
    "counts": (110, [24, 18, 30], 70, 1500, True),
    "dense-counts": (100, [20, 26, 16], 60, 1500, False),
}
OFFICIAL = version("cell-eval").startswith("0.6")
LEFT_OUT = ["clustering_agreement", "pearson_edistance"]


def cells(case: str, seed: int, shift: float) -> ad.AnnData:
    """Draw Poisson counts around shared rates, logged or not; `shift` scales the effects."""
    n_genes, sizes, controls, depth, sparse = CASES[case]
    truth = np.random.default_rng([len(case), n_genes])
    rate = truth.gamma(0.6, 1.0, n_genes)
    effect = truth.normal(0, 1, (len(sizes), n_genes)) * (truth.random(n_genes) < 0.4)
    rng = np.random.default_rng(seed)
    names = [CONTROL] * controls + [f"G{i:03d}" for i, n in enumerate(sizes) for _ in range(n)]
    rows = []
    for name in names:
        mu = rate if name == CONTROL else rate * np.exp(shift * effect[int(name[1:])])
        rows.append(rng.poisson(mu / mu.sum() * depth))
    x = np.array(rows, np.float32)
    x[:, 5] = 0  # expressed nowhere
    if "counts" in case:
        x[7] = 0
    obs = pd.DataFrame({"target": names}, index=[f"c{i}" for i in range(len(names))])
    var = pd.DataFrame(index=[f"G{i:03d}" for i in range(n_genes)])
    out = ad.AnnData(sp.csr_matrix(x) if sparse else x, obs=obs, var=var)
    if "counts" not in case:
        sc.pp.normalize_total(out, target_sum=1000)
        sc.pp.log1p(out)
    return out[rng.permutation(len(names))].copy()


def write(case: str, folder: Path) -> None:
    """Score one case with the peer, and save inputs and outputs."""
    real, pred = cells(case, 1, 0.7), cells(case, 2, 0.5)
    with tempfile.TemporaryDirectory() as aside:
        judge = MetricsEvaluator(
            pred.copy(), real.copy(), control_pert=CONTROL, pert_col="target", num_threads=1,
            outdir=aside,
        )  # fmt: skip
        results, _ = judge.compute(profile="full", skip_metrics=LEFT_OUT, write_csv=False)
        de = pl.read_csv(f"{aside}/real_de.csv")
    frame = results.to_pandas().sort_values("perturbation")
    out = {f"pert_{m}": frame[m].to_numpy(float) for m in frame.columns if m != "perturbation"}
    table = de.to_pandas().sort_values(["target", "feature"])
    shape = len(frame), len(real.var)
    if OFFICIAL:
        table["log2_fold_change"] = np.log2(table["fold_change"])
    for column in ("statistic", "p_value", "fdr", "log2_fold_change"):
        out[f"de_{column}"] = table[column].to_numpy(float).reshape(shape)
    for side, one in (("real", real), ("pred", pred)):
        x = one.X.toarray() if sp.issparse(one.X) else one.X
        out |= {
            f"{side}_x": x.astype(np.float32),
            f"{side}_labels": one.obs["target"].to_numpy(str),
        }
    out["genes"] = real.var_names.to_numpy(str)
    np.savez_compressed(folder / f"{'official' if OFFICIAL else 'vcc2025'}-{case}.npz", **out)
    print(case, {k: float(np.nanmean(v)) for k, v in out.items() if k.startswith("pert_")})


if __name__ == "__main__":
    official = ("plain", "tied", "single", "dense", "counts", "dense-counts")
    for one in sys.argv[2:] or (official if OFFICIAL else CASES):
        write(one, Path(sys.argv[1]))
