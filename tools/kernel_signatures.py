"""Write the list of kernels to compile ahead of time: ``python tools/kernel_signatures.py``.

Runs commands on small made-up cells, each as a process, with an empty cache of kernels, and lists
what they have compiled there. Run it when a kernel is new or is called with other types; tests fail
when that is needed. It compiles everything, which takes some minutes.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from pathlib import Path

import anndata
import numpy as np
from scipy import sparse

from vcell.geneformer import checkpoint
from vcell.kernels import ahead, object_cache
from vcell.nn.bert import Bert, BertShape

SCREEN = "--n-cells 400 --genes 200 --perturbations 12 --umis 3000"
HVG = "--groups none --n-genes 100"
TINY = "--preset tiny --max-steps 4 --validate-every 2"
LOADER = """
from vcell.store import Loader, Output, Shuffled, Store
some = range(0, 90, 3)
for name in ("all", "log"):
    for output in (
        Output(), Output(genes=some), Output(dense=True), Output(dense=True, genes=some),
        Output(log1p=name == "all"), Output(dense=True, log1p=name == "all"),
    ):
        store = Store.open(f"{name}.store.zarr")
        for batch in Loader(store, Shuffled(batch_size=64, seed=1), output, resident=False):
            pass
"""
COMMANDS = (  # of vcell, or lines of Python
    f"simulate real.h5ad {SCREEN}",
    f"simulate pred.h5ad {SCREEN} --draw 1 --compress",
    "inspect real.h5ad --full",
    "inspect wide.h5ad --full",
    "evaluate pred.h5ad real.h5ad -o scores --ceiling",
    "evaluate pred.h5ad real.h5ad --rules vcc2025-official",
    "evaluate pred.h5ad real.h5ad --rules full",
    "evaluate pred.h5ad real.h5ad --rules vcc2026",
    "evaluate log.h5ad real.h5ad",
    "evaluate wide.h5ad real.h5ad",
    "de real.h5ad -o de.parquet",
    "de log.h5ad -o log.parquet",
    "de log.h5ad -o log-rest.parquet --against rest",
    "de wide.h5ad -o wide.parquet",
    "de real.h5ad -o rest.parquet --against rest",
    "de real.h5ad -o t.parquet --test t-test",
    "select-genes real.h5ad -o genes",
    "select-genes wide.h5ad -o wide",
    f"select-genes real.h5ad -o v3 --hvg-flavor seurat_v3 {HVG}",
    f"select-genes real.h5ad -o ranger --hvg-flavor cell_ranger {HVG}",
    f"select-genes real.h5ad -o residuals --hvg-flavor pearson_residuals {HVG}",
    f"select-genes real.h5ad -o frequent --hvg-flavor seurat_v3 --min-cells 380 {HVG}",
    f"select-genes log.h5ad -o logged {HVG}",
    "effects real.h5ad -o effects.parquet",
    "prepare real.h5ad -o all.store.zarr",
    "prepare wide.h5ad -o wide.store.zarr",
    "prepare log.h5ad -o log.store.zarr",
    "prepare huge.h5ad -o huge.store.zarr",
    "prepare real.h5ad -o few.store.zarr --genes genes/selected_genes.csv --min-genes 10",
    "convert real.h5ad dense.h5ad --to dense",
    "convert real.h5ad columns.h5ad --to csc",
    "inspect columns.h5ad --full",
    "select-genes columns.h5ad -o by-column",
    LOADER,
    "train-vcc real.h5ad --model gp",
    "predict latest -o made.h5ad",
    f"train-vcc real.h5ad --model transformer {TINY}",
    "predict latest -o made.h5ad --overwrite",
    *(
        f"train-gmvae real.h5ad --labels target_gene --epochs 1 --likelihood {one}"
        for one in ("nb", "zinb", "poisson", "mse")
    ),
    "embed latest real.h5ad -o embedded.h5ad",
    "train-gmvae real.h5ad --components 3 --epochs 1",
    *(
        f"train-graph tau.tsv --graph graph.tsv --model {model} --max-steps 3"
        for model in ("factors", "graph-gp", "mlp", "dango")
    ),
    "train-graph tau.tsv --graph graph.tsv --model graph-gp --control rewired --seeds 1",
    "graph-profile --scale 0.05 --batch-size 4 --steps 1",
    "pseudobulk real.h5ad --labels target_gene --samples 40 --cells 300 -o bulk.h5ad",
    "isp run tokens.h5ad --model model --vocabulary own.tsv --device cpu --max-cells 4",
)
_ROWS = "int64:1C int32:1C float32:1C int32:1C"
_RECORDS = "row=int32,column=int32,value={}:1C"
#: What these commands do not show: keys of 64 bits (2^32 pairs of value and group), counts above a
#: table's, pseudobulk of logarithms, text and columns that are turned round by a file, sampled
#: cells in a validation, composition of bulk, hops of a graph in other forms, rows out of order,
#: Geneformer by numpy.
ALSO = {
    "vcell.kernels.attention.attend_head": [
        "float32:2A float32:2A float32:2A float32:1C float32:2C float32:1C float32:2A"
    ],
    # blocks of more than 1,024 cells
    "vcell.kernels.by_gene.gather_counts": [
        "int32:1C uint32:1C int64 int64 int64:1C int32:1C int64:1C int32:1C float32:1C"
    ],
    "vcell.kernels.by_gene.scatter_counts": [
        f"int64:1C int32:1C {kind}:1C int32:1C uint32:1C int64 int64 int64:1C"
        for kind in ("float32", "float64")
    ],
    "vcell.kernels.ranks.level_keys": [
        f"int32:1C uint32:1C int64 int64 int64:1C int32:1C uint32:2C {kind}:2C int64:1C {kind}:1C "
        "uint32:1C int32:1C uint16:1C int64"
        for kind in ("float32", "float64")
    ],
    "vcell.kernels.clipped.clipped_sums": [f"{_ROWS} float64:2C float64:3C"],
    "vcell.kernels.clipped.list_large": [f"{_ROWS} float64 float64:2C"],
    "vcell.kernels.groups.group_moments": [f"{_ROWS} int64:1C int64:3C"],
    "vcell.kernels.groups.group_sums": [f"{_ROWS} int64:1C float64 int64:2C"],
    "vcell.kernels.khop.induced_pairs": ["int32:1C int32:1C int64:1C uint16:1C int64:2C"],
    "vcell.kernels.khop.induced_places": ["int32:1C int32:1C int64:1C uint16:1C int64:1C"],
    "vcell.kernels.merged.cells_against": [
        "float32:2C int64:1C float32:1C float64:1C float64 float64:1C float64:1C"
    ],
    "vcell.kernels.ranks.narrow": ["uint64:1C int64 uint32:1C"],
    "vcell.kernels.ranks.widen": ["uint32:1C uint32:1C int64 uint64:1C"],
    "vcell.kernels.rows.disorder": [
        f"int64:1C int32:1C {kind}:1C" for kind in ("float32", "float64")
    ],
    "vcell.kernels.transformer.add_and_normalise": [
        "float32:2C float32:2C float32:1C float32:1C float32:1C float32"
    ],
    "vcell.kernels.transformer.add_and_rectify": ["float32:2C float32:1C"],
    "vcell.kernels.transformer.add_vector": ["float32:2A float32:1C", "float32:2C float32:1C"],
    "vcell.kernels.transpose.deal": [
        f"int32:1C int32:1C {kind}:1C int64 int64:1C {_RECORDS.format(kind)}"
        for kind in ("float32", "int32")
    ],
    "vcell.kernels.transpose.sort_by_row": [
        f"{_RECORDS.format(kind)} int64 int64:1C int32:1C {kind}:1C"
        for kind in ("float32", "int32")
    ],
}


def variants(source: str) -> None:
    """Write the same cells with some high counts, in 64 bits, and as log1p values."""
    cells = anndata.read_h5ad(source)
    counts = cells.X.copy()
    cells.X.data[::5000] = 100_000
    cells.write_h5ad("huge.h5ad")
    cells.X = counts
    cells.X = sparse.csr_matrix(cells.X, dtype=np.float64)
    cells.write_h5ad("wide.h5ad")
    totals = np.asarray(cells.X.sum(axis=1)).ravel()
    cells.X.data = np.log1p(cells.X.data / np.repeat(totals / 1e4, np.diff(cells.X.indptr)))
    cells.X = cells.X.astype(np.float32)
    cells.write_h5ad("log.h5ad")


def geneformer() -> None:
    """Write a tiny Geneformer, its vocabulary, and cells of its genes."""
    shape = BertShape(n_layers=1, d_model=64, n_heads=1, d_ff=64, n_positions=128, n_tokens=200)
    bert = Bert(shape)
    checkpoint.made_up(bert, 0)
    checkpoint.save(bert, Path("model"))
    names = [f"ENSG{i:011d}" for i in range(2, shape.n_tokens)]
    lines = ["token\tid\tmedian\tsymbol", "<pad>\t0\t\t", "<mask>\t1\t\t"]
    lines += [f"{name}\t{i}\t1\tG{i}" for i, name in enumerate(names, 2)]
    Path("own.tsv").write_text("\n".join(lines) + "\n")
    counts = np.random.default_rng(0).poisson(1, (20, len(names))).astype(np.float32)
    cells = anndata.AnnData(sparse.csr_matrix(counts))
    cells.var_names, cells.obs["state"] = names, ["a", "b"] * 10
    cells.write_h5ad("tokens.h5ad")


def network() -> None:
    """Write values of pairs of genes, and a graph of the genes."""
    random = np.random.default_rng(0)
    genes = [f"G{i}" for i in range(24)]
    pairs = [(a, b) for i, a in enumerate(genes) for b in genes[:i]]
    lines = [f"{a}+{b}\t{random.normal():.4f}" for a, b in pairs if random.random() < 0.5]
    Path("tau.tsv").write_text("\n".join(["genes\tvalue", *lines]) + "\n")
    edges = [f"{a}\t{b}" for a, b in pairs if random.random() < 0.2]
    Path("graph.tsv").write_text("\n".join(["a\tb", *edges]) + "\n")


def main() -> None:
    """Run all commands, and write the list."""
    with tempfile.TemporaryDirectory() as folder:
        os.chdir(folder)
        os.environ |= {"VCELL_CACHE": f"{folder}/cache", "NUMBA_CACHE_DIR": f"{folder}/kernels"}
        geneformer()
        network()
        failed = []
        for number, words in enumerate(COMMANDS):
            ours = ["-m", "vcell", "--no-config", *words.split(), "--quiet"]
            line = [sys.executable, *(["-c", words] if "\n" in words else ours)]
            done = subprocess.run(line, capture_output=True, text=True, check=False)
            n = len(list(Path("kernels/vcell").glob("*.kernel")))
            print(f"{n:4}  {words.strip().splitlines()[0]}", flush=True)
            if done.returncode:
                failed.append(words)
                print(done.stderr[-1000:], flush=True)
            if number == 0:
                variants("real.h5ad")
        if failed:
            sys.exit(f"failed: {failed}")
        found: dict[str, set[str]] = {name: set(kinds) for name, kinds in ALSO.items()}
        for file in Path("kernels/vcell").glob("*.kernel"):
            head = object_cache.read(file)
            found.setdefault(head["kernel"], set()).add(head["signature"])
        ahead.write({name: sorted(kinds) for name, kinds in found.items()})
        print(f"{sum(map(len, found.values()))} signatures of {len(found)} kernels")


if __name__ == "__main__":
    main()
