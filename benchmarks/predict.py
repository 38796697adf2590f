"""Predicted against real cells: the number of significant genes, and the effect of calibration.

    python benchmarks/predict.py [--seeds 4] [--model ridge] [--cells 8000] [--genes 2000]

On simulated screens (``vcell simulate``, kept in ``benchmarks/.data``), by seed:

- making: cells generated from the mean of real perturbed cells; their number of significant genes
as
  a share of that of the real cells, and the correlation of z-scores, for both ways of generating;
- calibrating: ``vcell train-vcc`` and ``vcell predict --evaluate`` with 30 % of the perturbations
  held out, at strength 1 and calibrated: the numbers of predicted and real significant genes (mean
  over perturbations), the mean error of their square roots, and the challenge's scores.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import anndata
import numpy as np
import scipy.sparse as sp
from vcell_predict.cells.counts import ControlCounts
from vcell_predict.cells.pool import Pool
from vcell_predict.cells.residual import move
from vcell_predict.strength.significant import count, z_scores

from vcell.data.simulate import Simulator

DATA = Path(__file__).parent / ".data" / "predict"
CONTROL = "non-targeting"


class SimulatedScreen:
    """A simulated screen in memory, as counts and as log1p values."""

    def __init__(self, path: Path) -> None:
        adata = anndata.read_h5ad(path)
        self.label = adata.obs["target_gene"].to_numpy()
        self.names = [n for n in adata.obs["target_gene"].cat.categories if n != CONTROL]
        self.counts = _pool(sp.csr_array(adata.X))
        self.total = float(np.median(self.counts.cells.sum(axis=1)))
        self.log = self.counts.logged(self.total)

    def rows(self, name: str) -> Any:
        """Return the cells of a perturbation."""
        return np.flatnonzero(self.label == name)


def _pool(cells: Any) -> Pool:
    n = cells.shape[0]
    return Pool(cells.astype(np.float32), np.arange(n), np.zeros(n, np.int64))


def making(screen: SimulatedScreen) -> dict[str, tuple[float, float]]:
    """Return for each way the number of genes as a share of the real one, and the correlation."""
    rows = screen.rows(CONTROL)
    counts, log = _pool(screen.counts.cells[rows]), _pool(screen.log.cells[rows])
    real = [screen.log.cells[screen.rows(name)] for name in screen.names]
    rng, maker = np.random.default_rng(0), ControlCounts(counts, screen.total)
    made: dict[str, list[Any]] = {"residual": [], "counts": []}
    for cells in real:
        mean, chosen = np.asarray(cells.mean(axis=0)).ravel(), log.choose(cells.shape[0], rng)
        made["residual"].append(move(log, chosen, mean, rng))
        drawn = maker.make(chosen, mean, None, rng)
        made["counts"].append(_pool(drawn).logged(screen.total).cells)
    wanted = z_scores(log.cells, real)
    clear = count(wanted) > 10  # the others have too few genes to compare
    found = {}
    for how, cells in made.items():
        z = z_scores(log.cells, cells)
        share = count(z)[clear] / count(wanted)[clear]
        alike = [np.corrcoef(z[i], wanted[i])[0, 1] for i in np.flatnonzero(clear)]
        found[how] = (float(share.mean()), float(np.mean(alike)))
    return found


def calibrating(path: Path, screen: SimulatedScreen, model: str) -> dict[str, dict[str, float]]:
    """Return the results of the command at strength 1 and calibrated."""
    folder = path.parent
    runs = folder / f"runs-{model}"
    if not runs.exists():
        _vcell("train-vcc", path, "--model", model, "--test-share", 0.3, "--runs", runs)
    found = {}
    for flag in ("--no-calibrate", "--calibrate"):
        out = folder / "prediction.h5ad"
        words = ["predict", "latest", "--runs", runs, flag, "--evaluate", path, "-o", out]
        words.append("--overwrite")
        told = _vcell(*words)
        names = list(dict.fromkeys(told["perturbations"]))
        predicted = anndata.read_h5ad(out)
        label, cells = predicted.obs["target_gene"].to_numpy(), sp.csr_array(predicted.X)
        mine = count(z_scores(cells[label == CONTROL], [cells[label == n] for n in names]))
        groups = [screen.log.cells[screen.rows(n)] for n in names]
        real = count(z_scores(screen.log.cells[screen.rows(CONTROL)], groups))
        metrics = told["evaluate"]["metrics"]
        found[flag] = {
            "genes": float(mine.mean()),
            "real": float(real.mean()),
            "off": float(np.abs(np.sqrt(mine) - np.sqrt(real)).mean()),
            "DES": metrics["overlap_at_N"]["raw"],
            "PDS": metrics["discrimination_score_l1"]["raw"],
            "MAE": metrics["mae"]["raw"],
            "overall": told["evaluate"]["overall"],
        }
    return found


def _vcell(*words: Any) -> Any:
    command = [sys.executable, "-m", "vcell", *map(str, words), "--json", "--quiet"]
    ran = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    return json.loads(ran.stdout)


def main() -> None:
    """Measure every seed."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, default=4)
    parser.add_argument("--model", default="ridge")
    parser.add_argument("--cells", type=int, default=8000)
    parser.add_argument("--genes", type=int, default=2000)
    parser.add_argument("--perturbations", type=int, default=80)
    given = parser.parse_args()
    size = {name: getattr(given, name) for name in ("cells", "genes", "perturbations")}
    for seed in range(given.seeds):
        folder = DATA / "-".join(map(str, [*size.values(), seed]))
        path = folder / "cells.h5ad"
        if not path.exists():
            folder.mkdir(parents=True, exist_ok=True)
            Simulator(**size, seed=seed).write(path)
        screen = SimulatedScreen(path)
        for how, (share, alike) in making(screen).items():
            print(f"seed {seed}  {how:9} genes x {share:.2f}, z-scores correlate {alike:.3f}")
        for flag, values in calibrating(path, screen, given.model).items():
            said = ", ".join(f"{name} {value:.4g}" for name, value in values.items())
            print(f"seed {seed}  {flag:14} {said}", flush=True)


if __name__ == "__main__":
    main()
