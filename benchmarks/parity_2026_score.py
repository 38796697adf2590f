"""Write the scaled scores of cell-eval2 0.20.0, for tests/metrics/test_score_2026.py.

    cd benchmarks
    .envs/cell-eval2-0.20.0/bin/python parity_2026_score.py ../tests/metrics/golden

``score2026-CASE.npz`` has the cells of a ``vcc2026-CASE.npz`` (see parity_2026.py) and the scored
table of the peer's own commands: run, baseline, prep-real-bundle, score. ``agg2026-CASE.csv`` is
the ``agg_results.csv`` of the first command. ``scale2026.npz`` has the scale of every member over a
grid of values, including missing ones.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
import tempfile
from dataclasses import replace
from pathlib import Path

import anndata as ad
import numpy as np
import pandas as pd
import scipy.sparse as sp
from cell_eval2.catalog import CATALOG
from cell_eval2.competition import competition_members
from cell_eval2.scoring import is_degenerate, score_one

CASES = ("plain", "sparse", "unbalanced", "tied", "dense")
AGGREGATED = ("plain", "quiet", "single", "tied", "unbalanced")
SETTINGS = ("--preset", "vcc2026", "--set", "de.backend=pdex", "--cache-strict")
NOTHING = (float("nan"), float("inf"), float("-inf"))


def cells(stored: dict[str, np.ndarray], side: str) -> ad.AnnData:
    """Return one side; a prediction gets the real controls, which the peer requires."""
    genes, names = stored["genes"], stored[f"{side}_labels"]
    parts = (stored[f"{side}_{key}"] for key in ("data", "indices", "indptr"))
    data, indices, indptr = parts
    shape = len(indptr) - 1, len(genes)
    x = sp.csr_matrix((data.astype(np.float32), indices.astype(np.int32), indptr), shape)
    obs = pd.DataFrame({"target": names}, index=[f"{side}{i}" for i in range(len(names))])
    return ad.AnnData(x, obs=obs, var=pd.DataFrame(index=genes))


def tool(here: Path, *words: str) -> None:
    """Run a command of the peer."""
    path = str(Path(sys.executable).with_name("cell-eval2"))
    subprocess.run([path, *words], cwd=here, check=True)


def run(case: str, folder: Path, here: Path) -> None:
    """Compare the two sides of a case with the peer, in the folder `here`."""
    with np.load(folder / f"vcc2026-{case}.npz", allow_pickle=False) as stored:
        real, pred = (cells(dict(stored), side) for side in ("real", "pred"))
    given = ad.concat([pred, real[real.obs["target"] == "non-targeting"]])
    real.write_h5ad(here / "real.h5ad")
    given.write_h5ad(here / "pred.h5ad")
    tool(here, "run", "-ap", "pred.h5ad", "-ar", "real.h5ad", "-o", "out", *SETTINGS)


def aggregate(case: str, folder: Path) -> None:
    """Save the peer's summary of a case."""
    with tempfile.TemporaryDirectory() as aside:
        run(case, folder, Path(aside))
        shutil.copy(Path(aside) / "out/agg_results.csv", folder / f"agg2026-{case}.csv")


def score(case: str, folder: Path) -> None:
    """Score one case with the peer's commands, and save its table."""
    with tempfile.TemporaryDirectory() as aside:
        here = Path(aside)
        run(case, folder, here)
        for words in (
            ("baseline", "-ar", "real.h5ad", "-o", "base", "--save-pred", "b.h5ad", *SETTINGS),
            ("prep-real-bundle", "--real", "real.h5ad", "--baseline", "b.h5ad", "-o", "bundle",
             *SETTINGS),
            ("score", "--user-agg", "out/agg_results.csv", "--user-meta", "out/run_meta.json",
             "--real-bundle", "bundle", "-o", "s.csv"),
        ):  # fmt: skip
            tool(here, *words)
        table = pd.read_csv(here / "s.csv").set_index("metric")["from_replicate"]
    out = {f"scaled_{name}": float(v) for name, v in table.items() if name != "avg_score"}
    out["overall"] = float(table["avg_score"])
    np.savez_compressed(folder / f"score2026-{case}.npz", **out)
    print(case, out)


def scales(folder: Path) -> None:
    """Scale a grid of values between pairs of ends; NaN if the peer refuses the ends."""
    ends = [(b, r) for b in (0.0, 0.05, 0.5, 1.0, 1.4) for r in (0.0, 0.03, 0.5, 0.9, 1.0)]
    values = (*np.linspace(-0.5, 9.5, 21).round(2).tolist(), *NOTHING)
    grid = np.array([(u, b, r) for b, r in ends for u in values])
    out = {"grid": grid}
    for name in competition_members():
        scaled = np.full(len(grid), np.nan)
        for i, (u, b, r) in enumerate(grid.tolist()):
            try:
                policy = replace(CATALOG[name].scoring, anchor=r, allow_negative_baseline=False)
            except ValueError:  # a replicate at the worst value
                continue
            if not is_degenerate(b, policy):
                scaled[i] = score_one(u, b, policy)
        out[f"scaled_{name}"] = scaled
    np.savez_compressed(folder / "scale2026.npz", **out)


if __name__ == "__main__":
    scales(Path(sys.argv[1]))
    for one in AGGREGATED:
        aggregate(one, Path(sys.argv[1]))
    for one in sys.argv[2:] or CASES:
        score(one, Path(sys.argv[1]))
