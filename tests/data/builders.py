"""Files of every kind that vcell reads, all holding the same cells."""

from __future__ import annotations

import gzip
from collections.abc import Callable
from pathlib import Path
from typing import Any

import anndata
import h5py
import numpy as np
import pandas as pd
import scipy.io
import scipy.sparse as sp

from vcell.data import open_cells


def counts(n_cells: int = 57, n_genes: int = 23, density: float = 0.3, seed: int = 0) -> np.ndarray:
    """A table of counts with an empty cell and an empty gene."""
    rng = np.random.default_rng(seed)
    table = rng.poisson(2.0, (n_cells, n_genes)) * (rng.random((n_cells, n_genes)) < density)
    table[n_cells // 2] = 0
    table[:, n_genes // 3] = 0
    return table.astype(np.float32)


def annotated(table: np.ndarray, form: Callable[[np.ndarray], Any] = sp.csr_matrix) -> Any:
    """An AnnData with a column of every kind."""
    n, g = table.shape
    labels = np.array(["non-targeting", "TP53", "Ünïcode"])
    obs = pd.DataFrame(
        {
            "target_gene": pd.Categorical(labels[np.arange(n) % 3], categories=labels),
            "batch": pd.Categorical.from_codes(np.arange(n) % 5 - 1, ["a", "b", "c", "d"]),
            "plain": [f"text {i % 7}" for i in range(n)],
            "score": np.linspace(0, 1, n, dtype=np.float32),
            "n": np.arange(n),
            "flag": np.arange(n) % 2 == 0,
            "maybe_n": pd.array([None if i % 4 == 0 else i for i in range(n)], dtype="Int64"),
            "maybe": pd.array([None if i % 3 == 0 else i % 2 == 0 for i in range(n)], "boolean"),
        },
        index=[f"cell {i}" for i in range(n)],
    )
    var = pd.DataFrame({"id": [f"ENSG{i}" for i in range(g)]}, index=[f"Gene{i}" for i in range(g)])
    return anndata.AnnData(form(table), obs, var)


def strip(path: Path, node: str, name: str) -> None:
    """Delete an attribute."""
    with h5py.File(path, "a") as file:
        del file[node].attrs[name]


def write_tenx_h5(path: Path, table: np.ndarray, version: int = 3) -> None:
    """A 10x .h5 as Cell Ranger lays it out."""
    csr = sp.csr_matrix(table).astype(np.int32)
    n, g = table.shape
    with h5py.File(path, "w") as file:
        group = file.create_group("matrix" if version == 3 else "GRCh38")
        for name in ("data", "indices", "indptr"):
            values = getattr(csr, name).astype(np.int32 if name == "data" else np.int64)
            size = min(16, len(values))
            group.create_dataset(name, data=values, chunks=(size,), compression="gzip")
        group["shape"] = np.array([g, n], np.int32)
        group["barcodes"] = np.array([f"cell {i}" for i in range(n)], "S")
        names = np.array([f"Gene{i}" for i in range(g)], "S")
        ids = np.array([f"ENSG{i}" for i in range(g)], "S")
        if version == 3:
            features = group.create_group("features")
            features["name"], features["id"] = names, ids
            features["feature_type"] = np.array(["Gene Expression"] * g, "S")
        else:
            group["gene_names"], group["genes"] = names, ids


def write_mtx(folder: Path, table: np.ndarray, *, zipped: bool = True) -> None:
    """A 10x folder."""
    folder.mkdir()
    n, g = table.shape
    scipy.io.mmwrite(folder / "matrix.mtx", sp.coo_matrix(table.T.astype(int)), field="integer")
    (folder / "barcodes.tsv").write_text("".join(f"cell {i}\n" for i in range(n)))
    (folder / "features.tsv").write_text(
        "".join(f"ENSG{i}\tGene{i}\tGene Expression\n" for i in range(g))
    )
    if zipped:
        for path in list(folder.iterdir()):
            with gzip.open(f"{path}.gz", "wb") as out:
                out.write(path.read_bytes())
            path.unlink()


def use(path: Any, layer: str | None = None) -> np.ndarray:
    """Open and read everything that a command could."""
    with open_cells(path, layer) as source:
        dense = [block.toarray() for block in source.chunks(max_nnz=100)]
        for name in source.obs_columns:
            column = source.obs(name)
            _ = column.values, column.codes, column.categories
        _ = source.cells, source.genes
        for name in source.var_columns:
            source.var(name)
        return np.concatenate(dense) if dense else np.zeros((0, source.n_genes))
