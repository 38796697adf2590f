"""Write the list of kernels to compile ahead of time: ``python tools/kernel_signatures.py``.

Runs the commands on small simulated cells in this process, and lists the compiled signatures. Run
it when a kernel is new or is called with other types; a test fails when it is needed.
"""

from __future__ import annotations

import os
import sys
import tempfile
from pathlib import Path

import anndata
import numpy as np
from scipy import sparse

from vcell.cli import run
from vcell.geneformer import checkpoint
from vcell.kernels import ahead
from vcell.nn.bert import Bert, BertShape

SCREEN = "--n-cells 400 --genes 200 --perturbations 12 --umis 3000"
HVG = "--groups none --n-genes 100"
COMMANDS = (
    "simulate real.h5ad {screen}",
    "simulate pred.h5ad {screen} --draw 1 --compress",
    "inspect real.h5ad --full",
    "evaluate pred.h5ad real.h5ad -o scores --ceiling",
    "evaluate pred.h5ad real.h5ad --rules vcc2025-official",
    "evaluate pred.h5ad real.h5ad --rules full",
    "evaluate pred.h5ad real.h5ad --rules vcc2026",
    "evaluate log.h5ad real.h5ad",
    "de real.h5ad -o de.parquet",
    "de log.h5ad -o log.parquet",
    "de real.h5ad -o rest.parquet --against rest",
    "de real.h5ad -o t.parquet --test t-test",
    "select-genes real.h5ad -o genes",
    "select-genes real.h5ad -o v3 --hvg-flavor seurat_v3 {hvg}",
    "select-genes real.h5ad -o residuals --hvg-flavor pearson_residuals {hvg}",
    "prepare real.h5ad -o all.store.zarr",
    "prepare real.h5ad -o few.store.zarr --genes genes/selected_genes.csv --min-genes 10",
    "train-vcc real.h5ad --model gp",
    "train-vcc real.h5ad --model transformer --preset tiny --max-steps 2",
    "predict latest -o made.h5ad",
    "pseudobulk real.h5ad --labels target_gene --samples 40 --cells 300 -o bulk.h5ad",
    "isp run tokens.h5ad --model model --vocabulary own.tsv --device cpu --max-cells 4",
)


def logged(source: str, target: str) -> None:
    """Write cells as log1p values."""
    cells = anndata.read_h5ad(source)
    totals = np.asarray(cells.X.sum(axis=1)).ravel()
    cells.X.data = np.log1p(cells.X.data / np.repeat(totals / 1e4, np.diff(cells.X.indptr)))
    cells.write_h5ad(target)


def geneformer(folder: Path) -> None:
    """Write a tiny Geneformer, its vocabulary, and cells of its genes."""
    shape = BertShape(n_layers=1, d_model=64, n_heads=1, d_ff=64, n_positions=128, n_tokens=200)
    bert = Bert(shape)
    checkpoint.made_up(bert, 0)
    checkpoint.save(bert, folder / "model")
    names = [f"ENSG{i:011d}" for i in range(2, shape.n_tokens)]
    lines = ["token\tid\tmedian\tsymbol", "<pad>\t0\t\t", "<mask>\t1\t\t"]
    lines += [f"{name}\t{i}\t1\tG{i}" for i, name in enumerate(names, 2)]
    (folder / "own.tsv").write_text("\n".join(lines) + "\n")
    counts = np.random.default_rng(0).poisson(1, (20, len(names))).astype(np.float32)
    cells = anndata.AnnData(sparse.csr_matrix(counts))
    cells.var_names, cells.obs["state"] = names, ["a", "b"] * 10
    cells.write_h5ad(folder / "tokens.h5ad")


def main() -> None:
    """Run all commands, and write the list."""
    with tempfile.TemporaryDirectory() as folder:
        os.chdir(folder)
        os.environ["VCELL_CACHE"] = str(Path(folder, "cache"))
        geneformer(Path())
        for number, words in enumerate(COMMANDS):
            code = run(["--no-config", *words.format(screen=SCREEN, hvg=HVG).split(), "--quiet"])
            if code:
                sys.exit(f"failed: vcell {words}")
            if number == 1:
                logged("real.h5ad", "log.h5ad")
        found = ahead.listed() if "--add" in sys.argv else {}
        for name, signatures in ahead.used().items():
            found[name] = sorted({*found.get(name, []), *signatures})
        ahead.write(found)
        print(f"{sum(map(len, found.values()))} signatures of {len(found)} kernels")


if __name__ == "__main__":
    main()
