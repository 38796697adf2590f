"""Statistics and highly variable genes against scanpy: ``python benchmarks/data.py``.

Simulated counts (60,000 cells x 20,000 genes, about 158 million non-zeros) are written as anndata
writes them (gzip 4) and processed by vcell, by scanpy in memory and by scanpy on dask. Each run is
a separate process: functions are compiled on a small file, then the clock starts before the file is
opened. Peers and vcell alternate. Medians of wall and CPU seconds, their ratios and peak memory are
printed, and whether the same genes are chosen. Everything is read from the page cache. The peers
have their own environments (seurat_v3 on dask needs scanpy 1.12):

    python3.11 -m venv benchmarks/.envs/scanpy
    benchmarks/.envs/scanpy/bin/pip install scanpy==1.11.5 scikit-misc
    python3.12 -m venv benchmarks/.envs/scanpy-dask
    benchmarks/.envs/scanpy-dask/bin/pip install scanpy==1.12.4 scikit-misc "dask[array]"

``--memory 20000,100000,300000`` measures the peak memory (VmHWM) of ``vcell select-genes``, ``vcell
inspect --full`` and ``vcell prepare`` instead, on files of 18,080 genes and 5,000 non-zeros a cell.
The larger files repeat the smallest one.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path

HERE = Path(__file__).resolve().parent
PEERS = {"scanpy": HERE / ".envs" / "scanpy", "dask": HERE / ".envs" / "scanpy-dask"}
N_TOP = 2000
SCREEN = ("target_gene", "batch", "cell_type")  # columns written by the simulator
ROWS = {
    "read + QC + filters + log-normalise + HVG seurat": ("seurat", ("vcell", "scanpy", "dask")),
    "the same + pseudobulk of 200 perturbations": ("pseudobulk", ("vcell", "scanpy")),
    "HVG seurat_v3": ("seurat_v3", ("vcell", "scanpy", "dask")),
    "HVG pearson_residuals": ("pearson_residuals", ("vcell", "scanpy")),
    "HVG seurat_v3, vcell's own engines": ("engines", ("vcell", "vcell-dask")),
}


def vcell_task(task: str, path: Path, *, dask: bool = False) -> Iterable[str]:
    """Do a task with vcell."""
    import numpy as np

    from vcell import console
    from vcell.data import open_cells
    from vcell.hvg import make_plan
    from vcell.hvg.plan import FlavorSettings
    from vcell.passes import CellRules, Reader
    from vcell.passes.dask import DaskReader
    from vcell.passes.reducers import GroupLogMoments, GroupSums

    with open_cells(path) as source:
        filtered = task in ("seurat", "pseudobulk")
        rules = CellRules()
        if filtered:
            mito = np.char.startswith(source.genes, "MT-")
            rules = CellRules(min_genes=200, marks={"mito": mito})
        plan = make_plan(
            FlavorSettings(
                flavor={"pseudobulk": "seurat", "engines": "seurat_v3"}.get(task, task),
                n_genes=source.n_genes,
                n_cells=source.n_cells,
                n_top=N_TOP,
                target_sum=1e4,
                single=source.dtype == np.float32,
                genes=source.genes,
                min_cells=3 if filtered else 0,
            )
        )
        more = []
        if task == "pseudobulk":
            column = source.obs("target_gene")
            groups = (source.n_genes, column.codes, len(column.categories))
            more = [GroupSums(*groups), GroupLogMoments(*groups, target_sum=1e4)]
        console.settings.verbosity = console.QUIET
        read = DaskReader(source, rules) if dask else Reader(source, rules, label=None)
        ranking = plan.finish(read, read([*plan.reducers(), *more]))
        return source.genes[ranking.selected].tolist()


def scanpy_task(task: str, path: Path) -> Iterable[str]:
    """Do a task with scanpy in memory."""
    import scanpy as sc

    adata = sc.read_h5ad(path)
    if task == "pearson_residuals":
        sc.experimental.pp.highly_variable_genes(adata, n_top_genes=N_TOP)
    elif task == "seurat_v3":
        sc.pp.highly_variable_genes(adata, flavor=task, n_top_genes=N_TOP)
    else:
        adata.var["mito"] = adata.var_names.str.startswith("MT-")
        sc.pp.calculate_qc_metrics(
            adata, qc_vars=["mito"], percent_top=None, log1p=False, inplace=True
        )
        sc.pp.filter_cells(adata, min_genes=200)
        sc.pp.filter_genes(adata, min_cells=3)
        if task == "pseudobulk":
            sc.get.aggregate(adata, by="target_gene", func="sum")
        sc.pp.normalize_total(adata, target_sum=1e4)
        sc.pp.log1p(adata)
        if task == "pseudobulk":
            sc.get.aggregate(adata, by="target_gene", func=["mean", "var"])
        sc.pp.highly_variable_genes(adata, n_top_genes=N_TOP)
    return adata.var_names[adata.var["highly_variable"]]


def dask_task(task: str, path: Path) -> Iterable[str]:
    """Do a task with scanpy on dask arrays over the file: no QC, which it cannot do lazily."""
    import anndata
    import h5py
    import scanpy as sc

    with h5py.File(path) as file:
        var = anndata.io.read_elem(file["var"])
        lazy = anndata.experimental.read_elem_lazy(file["X"], chunks=(2000, len(var)))
        adata = anndata.AnnData(lazy, var=var)
        if task == "seurat_v3":
            sc.pp.highly_variable_genes(adata, flavor=task, n_top_genes=N_TOP)
        else:
            sc.pp.filter_genes(adata, min_cells=3)
            sc.pp.normalize_total(adata, target_sum=1e4)
            sc.pp.log1p(adata)
            sc.pp.highly_variable_genes(adata, n_top_genes=N_TOP)
        return adata.var_names[adata.var["highly_variable"]]


WAYS: dict[str, Callable[[str, Path], Iterable[str]]] = {
    "vcell": vcell_task,
    "vcell-dask": partial(vcell_task, dask=True),
    "scanpy": scanpy_task,
    "dask": dask_task,
}


def child(way: str, task: str, path: Path, warm: Path) -> None:
    """Warm up, time one task, and print the measurements."""
    import warnings

    warnings.simplefilter("ignore")
    WAYS[way](task, warm)
    wall, cpu = time.perf_counter(), time.process_time()
    genes = sorted(WAYS[way](task, path))
    print(
        json.dumps(
            {
                "wall": time.perf_counter() - wall,
                "cpu": time.process_time() - cpu,
                "peak": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024**2,
                "genes": hashlib.sha256(" ".join(genes).encode()).hexdigest()[:12],
            }
        )
    )


def in_a_child(way: str, task: str, path: Path, warm: Path) -> dict[str, float]:
    """Run one task in a separate process."""
    python = str(PEERS[way] / "bin" / "python") if way in PEERS else sys.executable
    command = [python, __file__, "--child", way, task, str(path), str(warm)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"{way} {task} failed:\n{done.stderr[-2000:]}")
    result: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return result


def compare(path: Path, warm: Path, repeats: int, only: list[str]) -> None:
    """Alternate between vcell and the peers, and print the table."""
    print("| task | who | wall s | CPU s | peak GB | times vcell's wall | CPU | genes |")
    print("|---|---|---|---|---|---|---|---|")
    for title, (task, ways) in ROWS.items():
        if only and task not in only:
            continue
        runs: dict[str, list[dict[str, float]]] = {way: [] for way in ways}
        for _ in range(repeats):
            for way in ways:
                runs[way].append(in_a_child(way, task, path, warm))
        middle = {
            way: {key: statistics.median(run[key] for run in found) for key in ("wall", "cpu")}
            for way, found in runs.items()
        }
        for way, found in runs.items():
            wall, cpu = middle[way]["wall"], middle[way]["cpu"]
            own = middle["vcell"]
            same = "same" if found[0]["genes"] == runs["vcell"][0]["genes"] else "other"
            print(
                f"| {title} | {way} | {wall:.2f} | {cpu:.2f} | {max(r['peak'] for r in found):.2f} "
                f"| {wall / own['wall']:.1f} | {cpu / own['cpu']:.1f} | {same} |",
                flush=True,
            )


def stored(path: Path) -> int:
    """Return the number of non-zeros of a file."""
    import h5py

    with h5py.File(path) as file:
        return int(file["X/data"].shape[0])


def tile(source: Path, path: Path, times: int) -> None:
    """Write the cells of a file several times over, uncompressed."""
    import h5py
    import numpy as np

    with h5py.File(source) as file, h5py.File(path, "w") as out:
        file.copy("var", out)
        x, group = file["X"], out.create_group("X")
        group.attrs.update(x.attrs)
        cells, genes = x.attrs["shape"]
        group.attrs["shape"] = np.array([cells * times, genes])
        nnz = len(x["data"])
        for name in ("data", "indices"):
            values, whole = x[name][...], group.create_dataset(name, (nnz * times,), x[name].dtype)
            for i in range(times):
                whole[i * nnz : (i + 1) * nnz] = values
        ends = x["indptr"][1:]
        group["indptr"] = np.concatenate([[0], *(ends + i * nnz for i in range(times))])
        file.copy("obs", out)
        for node in (out["obs/_index"], *(out[f"obs/{c}/codes"] for c in SCREEN)):
            name, values, dtype = node.name, np.tile(node[...], times), node.dtype
            attributes = dict(node.attrs)
            del out[name]
            out.create_dataset(name, data=values, dtype=dtype).attrs.update(attributes)


#: Runs a command and prints its peak memory; ru_maxrss would include the parent's.
PEAK = """
import sys
from pathlib import Path
from vcell.cli import run
code = run(sys.argv[1:])
peak = int(Path("/proc/self/status").read_text().split("VmHWM:")[1].split()[0])
print(f"\\n{peak / 1024}")
sys.exit(code)
"""


def memory(sizes: list[int], folder: Path) -> None:
    """Print the peak memory of the commands on files of growing size."""
    vcell = [sys.executable, "-m", "vcell"]
    first = folder / "first.h5ad"
    # in a separate process: a child's peak includes its parent's memory at the fork
    screen = ["--n-cells", sizes[0], "--genes", 18_080, "--perturbations", 150, "--umis", 25_000]
    subprocess.run([*vcell, "simulate", first, *map(str, screen), "--quiet"], check=True)
    commands = {
        f"select-genes, {flavor}": ["select-genes", "-o", folder / "o", "--hvg-flavor", flavor]
        for flavor in ("seurat", "seurat_v3", "pearson_residuals")
    } | {
        "inspect --full": ["inspect", "--full"],
        "prepare": ["prepare", "-o", folder / "store.zarr", "--overwrite"],
    }
    print("| cells | non-zeros | command | peak MB | seconds |\n|---|---|---|---|---|")
    for cells in sizes:
        path = folder / f"cells{cells}.h5ad"
        tiling = f"import data, pathlib; data.tile(*map(pathlib.Path, {[str(first), str(path)]}), "
        tiling += f"{cells // sizes[0]})"
        subprocess.run([sys.executable, "-c", tiling], check=True, cwd=HERE)
        for name, words in commands.items():
            started = time.perf_counter()
            done = subprocess.run(
                [sys.executable, "-c", PEAK, *map(str, words), path, "--quiet"],
                env=os.environ | {"VCELL_CACHE": str(folder / f"cache-{name}-{cells}")},
                capture_output=True, text=True, check=False,
            )  # fmt: skip
            if done.returncode:
                raise SystemExit(f"{name} failed on {cells} cells:\n{done.stderr[-2000:]}")
            seconds, peak = time.perf_counter() - started, float(done.stdout.split()[-1])
            nnz = stored(path)
            print(f"| {cells:,} | {nnz:,} | {name} | {peak:.0f} | {seconds:.1f} |", flush=True)
        path.unlink()


def main() -> None:
    """Make the files and measure."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--cells", type=int, default=60_000)
    parser.add_argument("--genes", type=int, default=20_000)
    parser.add_argument("--umis", type=float, default=7350)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--file", type=Path, help="use this gzip h5ad instead")
    parser.add_argument("--only", default="", help="some tasks: seurat,seurat_v3")
    parser.add_argument("--memory", default="", help="numbers of cells: 20000,100000")
    parser.add_argument("--folder", type=Path, help="where large files go")
    parser.add_argument("--child", nargs=4, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.child:
        child(args.child[0], args.child[1], Path(args.child[2]), Path(args.child[3]))
        return
    with tempfile.TemporaryDirectory(dir=args.folder) as name:
        folder = Path(name)
        if args.memory:
            memory([int(size) for size in args.memory.split(",")], folder)
            return
        sys.path.insert(0, str(HERE))
        from read import write

        warm, path = folder / "warm.h5ad", args.file or folder / "cells.h5ad"
        write(warm, 3000, 2000, 4000)
        if args.file is None:
            write(path, args.cells, args.genes, args.umis, perturbations=200)
        compare(path, warm, args.repeats, [task for task in args.only.split(",") if task])


if __name__ == "__main__":
    main()
