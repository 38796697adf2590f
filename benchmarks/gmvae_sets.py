"""Cells with known types for gmvae.py, from files of public repositories, as .h5ad.

    python benchmarks/gmvae_sets.py FILE.h5 ... -o FOLDER              # one set for each file
    python benchmarks/gmvae_sets.py DONOR.csv ... -o FOLDER --name NAME   # one set for all files
    python benchmarks/gmvae_sets.py FILE.h5ad -o FOLDER --column COLUMN   # its column of types

Reads the .h5 files of scDCC (https://github.com/ttgump/scDCC): ``X`` has counts, cells x genes, and
``Y`` the number of each cell's type. Genes have no names there, so they are numbered. Also reads
the .csv files of Baron et al. (GSE84133): a cell's name, its barcode, its type, then its counts.
Of .h5ad files, the layer ``counts`` is read where there is one. Cells whose type is NA or has no
other cell are left out; nothing else is filtered beyond what the authors left out.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import anndata
import h5py
import numpy as np
import pandas as pd
import scipy.sparse as sp


def read_h5(path: Path) -> anndata.AnnData:
    """Return the cells of a file with ``X`` and ``Y``."""
    with h5py.File(path) as file:
        counts, label = file["X"][:], file["Y"][:]
    obs = pd.DataFrame({"cell_type": [f"type {int(name):02d}" for name in label]})
    obs.index = [f"cell{i}" for i in range(len(obs))]
    var = pd.DataFrame(index=[f"gene{j}" for j in range(counts.shape[1])])
    return anndata.AnnData(sp.csr_matrix(counts.astype(np.float32)), obs=obs, var=var)


def read_csv(path: Path) -> anndata.AnnData:
    """Return the cells of one donor of Baron et al."""
    table = pd.read_csv(path, index_col=0)
    obs = pd.DataFrame({"cell_type": table["assigned_cluster"], "donor": path.stem})
    counts = table.drop(columns=["barcode", "assigned_cluster"])
    var = pd.DataFrame(index=counts.columns)
    return anndata.AnnData(sp.csr_matrix(counts.to_numpy(np.float32)), obs=obs, var=var)


def read_h5ad(path: Path, column: str) -> anndata.AnnData:
    """Return the cells of a file with a known type, and the types as `cell_type`."""
    data = anndata.read_h5ad(path)
    label = data.obs[column].astype(str)
    known = ((label != "NA") & (label.map(label.value_counts()) > 1)).to_numpy()
    counts = data.layers.get("counts", data.X)
    obs = pd.DataFrame({"cell_type": label.to_numpy()[known]})
    obs.index = [f"cell{i}" for i in range(len(obs))]
    counts = sp.csr_matrix(counts[known].astype(np.float32))
    return anndata.AnnData(counts, obs=obs, var=pd.DataFrame(index=data.var_names.astype(str)))


def main() -> None:
    """Convert the files."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("files", nargs="+", type=Path)
    parser.add_argument("-o", "--output", required=True, type=Path)
    parser.add_argument("--name", help="of the set that all files make together")
    parser.add_argument("--column", default="cell_type", help="of an .h5ad file's types")
    parser.add_argument("--genes", type=Path, help="keep these: vcell select-genes' table")
    args = parser.parse_args()
    args.output.mkdir(parents=True, exist_ok=True)
    readers = {".csv": read_csv, ".h5ad": lambda path: read_h5ad(path, args.column)}
    read = [readers.get(path.suffix, read_h5)(path) for path in args.files]
    sets = dict(zip([path.stem for path in args.files], read, strict=True))
    if args.name:
        sets = {args.name: anndata.concat(read)}
    for name, every in sets.items():
        kept = pd.read_csv(args.genes)["gene"] if args.genes else every.var_names
        cells = every[:, kept].copy()
        cells.write_h5ad(args.output / f"{name}.h5ad")
        print(f"{name}: {cells.n_obs} cells, {cells.n_vars} genes, "
              f"{cells.obs['cell_type'].nunique()} types")  # fmt: skip


if __name__ == "__main__":
    main()
