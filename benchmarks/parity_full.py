"""Write cell-eval 0.8.2's energy distance and cluster agreement, for tests/metrics/test_full.py.

    cd benchmarks
    .envs/cell-eval-0.8.2/bin/python parity_full.py ../tests/metrics/golden

``full-CASE.npz``: log1p cells of both sides (of ``vcc2025-CASE.npz``, or drawn here), the two
metrics, the neighbour graph of the real centroids and the clusters of both sides.
"""

from __future__ import annotations

import logging
import sys
from pathlib import Path

import anndata as ad
import numpy as np
import pandas as pd
from cell_eval._types import PerturbationAnndataPair
from cell_eval.metrics._anndata import ClusteringAgreement, edistance

CONTROL = "non-targeting"
RESOLUTIONS = (0.2, 0.4, 0.6, 0.8, 1.0, 1.5, 2.0)


def families(seed: int) -> ad.AnnData:
    """Draw 48 perturbations in five families, four cells each, as log1p."""
    truth, rng = np.random.default_rng(0), np.random.default_rng(seed)
    centre, genes = truth.normal(0, 1.0, (5, 60)), [f"G{i:03d}" for i in range(60)]
    family = truth.integers(0, 5, 48)
    if seed == 2:
        family[:14] = truth.integers(0, 5, 14)  # predicted in another family
    names = [CONTROL] * 30 + [f"G{i:03d}" for i in range(48) for _ in range(4)]
    rate = truth.gamma(2.0, 1.0, 60)
    rows = [
        rng.poisson(rate if n == CONTROL else rate * np.exp(0.4 * centre[family[int(n[1:])]]))
        for n in names
    ]
    obs = pd.DataFrame({"target": names}, index=[f"c{i}" for i in range(len(names))])
    return ad.AnnData(np.log1p(np.array(rows, np.float32)), obs=obs, var=pd.DataFrame(index=genes))


def stored(case: str, side: str, folder: Path) -> ad.AnnData:
    """Return one side of a case of parity_2025.py."""
    with np.load(folder / f"vcc2025-{case}.npz", allow_pickle=False) as golden:
        x, names, genes = golden[f"{side}_x"], golden[f"{side}_labels"], golden["genes"]
    obs = pd.DataFrame({"target": names}, index=[f"c{i}" for i in range(len(names))])
    return ad.AnnData(x, obs=obs, var=pd.DataFrame(index=genes))


def write(case: str, folder: Path) -> None:
    """Measure one case with the peer, and save inputs and outputs."""
    if case == "families":
        real, pred = families(1), families(2)
    else:
        real, pred = (stored(case, side, folder) for side in ("real", "pred"))
    pair = PerturbationAnndataPair(real=real, pred=pred, pert_col="target", control_pert=CONTROL)
    out: dict[str, object] = {"pearson_edistance": edistance(pair)}
    if case == "families":
        out["clustering_agreement"] = ClusteringAgreement()(pair)
        for side, one in (("real", real), ("pred", pred)):
            centroids = ClusteringAgreement._centroid_ann(one, "target", CONTROL).copy()
            for resolution in RESOLUTIONS:
                ClusteringAgreement._cluster_leiden(centroids, resolution, f"at{resolution}", 15)
                out[f"{side}_at_{resolution}"] = centroids.obs[f"at{resolution}"].astype(int)
            out[f"{side}_graph"] = centroids.obsp["connectivities"].toarray()
        for side, one in (("real", real), ("pred", pred)):
            out |= {f"{side}_x": one.X, f"{side}_labels": one.obs["target"].to_numpy(str)}
        out["genes"] = real.var_names.to_numpy(str)
    np.savez_compressed(folder / f"full-{case}.npz", **out)
    print(case, out["pearson_edistance"], out.get("clustering_agreement"))


if __name__ == "__main__":
    logging.disable(logging.INFO)
    for one in sys.argv[2:] or ("plain", "dense", "unbalanced", "families"):
        write(one, Path(sys.argv[1]))
