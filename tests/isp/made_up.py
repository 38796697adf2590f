"""Runs with known shifts, written like real runs."""

from __future__ import annotations

import numpy as np
import pandas as pd
from vcell_isp.design import IspDesign, PerturbedGenes

from vcell.geneformer.perturbation import CellBounds
from vcell.geneformer.tokens import TokenCells
from vcell.runs import Run


def shifts_of(rng, n_genes, n_cells, *, effect=None, donors=3, detection=1.0):
    """Rows of a table: noise, and a mean for each gene of `effect`."""
    lines = [
        (cell, gene, int(rng.integers(50)), 60, f"d{cell % donors}", 0.01 * rng.random())
        for gene in range(4, 4 + n_genes)
        for cell in range(n_cells)
        if rng.random() < detection
    ]
    frame = pd.DataFrame(lines, columns=["cell", "gene", "rank", "length", "donor", "distance"])
    shift = rng.normal(0, 1e-3, len(frame))
    for gene, mean in (effect or {}).items():
        shift[frame["gene"] == gene] += mean
    frame["shift_well"] = shift
    frame["shift_other"] = rng.permutation(shift)
    frame["cosine"] = 1 - frame["distance"]
    frame.insert(2, "symbol", [f"G{g}" for g in frame["gene"]])
    frame.insert(2, "ensembl_id", [f"ENSG{g:011d}" for g in frame["gene"]])
    return frame.sample(frac=1, random_state=0, ignore_index=True)


def run_of(tmp_path, frame, *, operation="delete", missing=None, donors=3, goal=True, genes=None):
    """A finished run around a table."""
    run = Run.create(tmp_path / "runs", "isp-run", config={"min_cells_per_donor": 5})
    n = int(frame["cell"].max()) + 1
    zeros = np.zeros(n, np.int64)
    cells = TokenCells(np.arange(n), np.arange(n + 1), np.full(n, 4, np.int32), zeros, zeros)
    IspDesign(
        cells, np.ones(n, bool), np.zeros(n, np.int32), zeros.astype(np.int32),
        ("sick", "well", "other"), tuple(f"d{i}" for i in range(donors)),
        ("well", "other") if goal else (), operation, 1, False, CellBounds(0, 0, 64),
        genes or PerturbedGenes("all", missing=missing or {}),
    ).save(run)  # fmt: skip
    frame.to_parquet(run.path / "shifts.parquet", index=False)
    run.finish("done", operation=operation, cells=n, events=len(frame), model="made up")
    return run
