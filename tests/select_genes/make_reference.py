"""Make reference.npz with scanpy 1.11.5: python make_reference.py H1.h5ad (scanpy, scikit-misc)."""

from __future__ import annotations

import sys
import warnings
from pathlib import Path

import anndata
import numpy as np
import pandas as pd
import scanpy as sc
from scipy import sparse

FLAVORS = ("seurat", "cell_ranger", "seurat_v3", "seurat_v3_paper", "pearson_residuals")
SCORES = {
    "seurat": "dispersions_norm",
    "cell_ranger": "dispersions_norm",
    "seurat_v3": "variances_norm",
    "seurat_v3_paper": "variances_norm",
    "pearson_residuals": "residual_variances",
}


def counts(cells: int = 400, genes: int = 300) -> np.ndarray:
    """Draw overdispersed counts of three kinds of cells, with rare genes and ties among them."""
    rng = np.random.default_rng(7)
    mean = np.exp(rng.normal(-1.0, 1.6, genes))
    kinds = np.exp(rng.normal(0, 0.8, (3, genes)) * (rng.random(genes) < 0.3))
    depth = np.exp(rng.normal(0, 0.4, cells))
    rate = depth[:, None] * mean * kinds[rng.integers(0, 3, cells)]
    drawn = rng.poisson(rng.gamma(2.0, rate / 2.0))
    drawn[:, :3] = 0  # genes of no cell
    drawn[:, 3:8] = 0
    drawn[np.arange(5), np.arange(3, 8)] = 1  # tied genes of one cell
    drawn[9, :] = 0  # an empty cell
    return np.minimum(drawn, 65_535).astype(np.uint16)


def choose(adata: anndata.AnnData, flavor: str, n_top: int, batch: str | None) -> pd.DataFrame:
    """Run scanpy as in its tutorials."""
    a = adata.copy()
    if flavor == "pearson_residuals":
        a = a[np.asarray(a.X.sum(axis=1)).ravel() > 0].copy()  # scanpy divides by zero otherwise
        sc.experimental.pp.highly_variable_genes(a, n_top_genes=n_top, batch_key=batch)
    elif flavor.startswith("seurat_v3"):
        sc.pp.highly_variable_genes(a, flavor=flavor, n_top_genes=n_top, batch_key=batch)
    else:
        if flavor == "cell_ranger" and batch is None:
            sc.pp.filter_genes(a, min_cells=1)
        sc.pp.normalize_total(a, target_sum=1e4)
        sc.pp.log1p(a)
        sc.pp.highly_variable_genes(a, flavor=flavor, n_top_genes=n_top, batch_key=batch)
    return a.var.reindex(adata.var_names)


def results(adata: anndata.AnnData, n_top: int, batch: str) -> dict[str, np.ndarray]:
    """Return every flavour's choice and score, with and without batches."""
    found = {}
    for flavor in FLAVORS:
        for key in (None, batch):
            var = choose(adata, flavor, n_top, key)
            name = f"{flavor}/{'batches' if key else 'all'}"
            found[f"{name}/chosen"] = var["highly_variable"].fillna(False).to_numpy(bool)
            found[f"{name}/score"] = var[SCORES[flavor]].to_numpy(np.float64)
    return found


def main(h1: Path) -> None:
    """Write reference.npz next to this file."""
    warnings.simplefilter("ignore")
    rng = np.random.default_rng(11)
    matrix = counts()
    genes = np.array([f"gene{i:03d}" for i in rng.permutation(matrix.shape[1])])
    batches = np.array(["b1", "b2", "b3"])[rng.integers(0, 3, matrix.shape[0])]
    small = anndata.AnnData(
        sparse.csr_matrix(matrix.astype(np.float32)),
        obs=pd.DataFrame({"batch": pd.Categorical(batches)}, index=np.arange(400).astype(str)),
        var=pd.DataFrame(index=genes),
    )
    real = anndata.read_h5ad(h1)
    real.X = sparse.csr_matrix(real.X)
    out = {"counts": matrix, "genes": genes, "batches": batches, "scanpy": np.array(sc.__version__)}
    out |= {f"small/{k}": v for k, v in results(small, 60, "batch").items()}
    out |= {f"h1/{k}": v for k, v in results(real, 200, "target_gene").items()}
    np.savez_compressed(Path(__file__).with_name("reference.npz"), **out)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
