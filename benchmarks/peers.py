"""The peers of ``make bench``: their environments, what they run, and the ratios wanted of vcell.

Every script of ``make bench`` judges itself by `WANTED` or `ALLOWED`, quoted in docs/benchmarks.md.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path

ENVS = Path(__file__).resolve().parent / ".envs"
INSTALL = "python benchmarks/bench.py --install"


@dataclass(frozen=True)
class Peer:
    """What pip installs, the Python it needs, and the tables that are left out without it."""

    packages: tuple[str, ...]
    tables: str
    python: str | None = None  # None: that of vcell


PEERS = {
    "cell-eval-0.8.2": Peer(("cell-eval==0.8.2",), "evaluate"),
    # statsmodels and pyarrow are not among its dependencies
    "illico": Peer(("illico==0.6.0", "statsmodels", "pyarrow"), "de"),
    "scanpy": Peer(("scanpy==1.11.5", "scikit-misc"), "select-genes, inspect, prepare"),
    "annbatch": Peer(("annbatch[zarrs]==0.3.1", "zarrs==0.2.3"), "batches, convert", "3.12"),
    "scdataset": Peer(("scdataset==0.3.0",), "loader.py's table of plain h5ad files"),
    "cell-load": Peer(("cell-load==0.10.4",), "loader.py's table of pairs"),
    "tape": Peer(("scTAPE==1.1.2",), "pseudobulk"),
}
#: Row and measure: the least ratio of the peer's cost to vcell's.
WANTED: dict[str, dict[str, float]] = {
    "evaluate, 20,000 cells": {"CPU, warm": 40.0, "CPU, cold": 30.0, "memory": 5.0},
    "de, 20,000 cells": {"CPU, warm": 6.0},
    # scanpy's rows are those of gzip files, the usual kind
    **{
        f"{command}, {cells} cells, gzip": {"clock, warm": ratio}
        for command in ("select-genes", "inspect --full", "prepare")
        for cells, ratio in (("20,000", 10.0), ("60,000", 20.0))
    },
    # from disk, in arrays of their own, and in memory, as `Loader` does where the store fits
    **{
        f"{kind}-{size}, {who} / annbatch": {"clock": ratio}
        for kind, fresh in (("csr", 1.7), ("dense", 1.8))
        for size in (4096, 64)
        for who, ratio in (("vcell", 6.0), ("vcell-fresh", fresh), ("vcell-memory", 6.0))
    },
    "plain-4096, vcell / scdataset": {"clock": 7.0},
    "plain-64, vcell / scdataset": {"clock": 7.0},
    "step-4096, vcell / annbatch": {"clock": 1.0},
    "pairs-256, vcell / cell-load": {"clock": 10.0},
    "pairs-256, vcell / cell-load-sorted": {"clock": 1.5},
    "convert, vcell / annbatch": {"clock": 10.0},
    "pseudobulk": {"CPU": 20.0, "memory": 10.0},
}
#: What has no peer, and the most that it may cost: times the CPU of importing click, and seconds.
ALLOWED: dict[str, float] = {"help": 1.5, "command": 0.5}

# Counts are scaled to the median total and logged first, as in `vcell de`.
ILLICO = """
import anndata as ad, numpy as np, sys
from illico import asymptotic_wilcoxon
a = ad.read_h5ad(sys.argv[1])
a.X.indptr = a.X.indptr.astype(a.X.indices.dtype)  # it takes no mixture of widths
totals = np.asarray(a.X.sum(axis=1), np.float32).ravel()
divisor = totals / np.median(totals)
a.X.data = np.log1p(a.X.data.astype(np.float32) / np.repeat(divisor, np.diff(a.X.indptr)))
a.obs["target_gene"] = a.obs["target_gene"].astype(str)
found = asymptotic_wilcoxon(a, is_log1p=True, group_keys="target_gene",
                            reference="non-targeting", n_threads=int(sys.argv[2]))
found.to_parquet(sys.argv[3])
"""
READ = """
import sys, numpy as np, scanpy as sc
a = sc.read_h5ad(sys.argv[1])
a.X.indptr = a.X.indptr.astype(a.X.indices.dtype)  # it takes no mixture of widths
"""
SELECT = (
    READ
    + """
a.var["mt"] = a.var_names.str.startswith("MT-")
sc.pp.calculate_qc_metrics(a, qc_vars=["mt"], inplace=True)
sc.pp.filter_cells(a, min_genes=1)
sc.pp.filter_genes(a, min_cells=1)
sc.pp.normalize_total(a)
sc.pp.log1p(a)
sc.pp.highly_variable_genes(a, flavor="seurat", n_top_genes=2000)
a.var.to_csv(sys.argv[2])
"""
)
# Without shares of the top genes, which `vcell inspect --full` does not compute.
INSPECT = (
    READ
    + """
a.var["mt"] = a.var_names.str.startswith("MT-")
sc.pp.calculate_qc_metrics(a, qc_vars=["mt"], percent_top=None, log1p=False, inplace=True)
print(a)
print(a.obs.describe(include="all"))
print(a.var.describe(include="all"))
"""
)
PREPARE = (
    READ
    + """
sc.pp.filter_cells(a, min_genes=200)
sc.pp.filter_genes(a, min_cells=3)
a = a[np.random.default_rng(0).permutation(a.n_obs)]
a.write_zarr(sys.argv[2])
"""
)


def python_of(peer: str) -> Path | None:
    """Return a peer's Python, or None, told loudly, once."""
    python = ENVS / peer / "bin" / "python"
    if python.exists():
        return python
    _left_out(peer, ENVS / peer)
    return None


@cache
def _left_out(peer: str, folder: Path) -> None:
    print(f"LEFT OUT: {peer} is not installed in {folder}: {INSTALL}", flush=True)


def missing() -> list[str]:
    """Return a line for each peer that is not installed."""
    return [
        f"LEFT OUT: {peer.tables} beside {name}, which is not installed: {INSTALL}"
        for name, peer in PEERS.items()
        if not (ENVS / name / "bin" / "python").exists()
    ]


def install() -> None:
    """Create the peers' environments; the exit code is 1 if a Python is absent."""
    absent = []
    for name, peer in PEERS.items():
        python = ENVS / name / "bin/python"
        if not python.exists():
            base = base_python(peer.python)
            if base is None:
                absent.append(f"{name} needs Python {peer.python}: put python{peer.python} on PATH")
                continue
            subprocess.run([base, "-m", "venv", str(ENVS / name)], check=True)
        subprocess.run([str(python), "-m", "pip", "install", "-q", *peer.packages], check=True)
    if absent:
        sys.exit("\n".join(absent))


def base_python(version: str | None) -> str | None:
    """Return a Python of a version (None: this one), which must start: a shim may lead nowhere."""
    if version in (None, f"3.{sys.version_info.minor}"):
        return sys.executable
    found = shutil.which(f"python{version}")
    works = (
        found and not subprocess.run([found, "-c", ""], capture_output=True, check=False).returncode
    )
    return found if works else None


def misses(found: Mapping[str, Mapping[str, float]]) -> tuple[int, list[str]]:
    """Return how many ratios are judged, and a line for each that does not hold.

    `found` has ratios by row and measure. Rows and measures nothing is wanted of are not judged; a
    ratio that is not a number does not hold.
    """
    judged, missed = 0, []
    for row, ratios in found.items():
        for measure, least in WANTED.get(row, {}).items():
            if measure not in ratios:
                continue
            judged += 1
            if not ratios[measure] >= least:
                missed.append(f"{row}, {measure}: {ratios[measure]:.1f} times, {least:g} wanted")
    return judged, missed


def excesses(found: Mapping[str, Mapping[str, float]]) -> tuple[int, list[str]]:
    """Return how many costs are judged against `ALLOWED`, and a line for each that is above it."""
    missed = [
        f"{name}: {cost:.2f}, at most {ALLOWED[kind]:g} is allowed"
        for kind, costs in found.items()
        for name, cost in costs.items()
        if not cost <= ALLOWED[kind]
    ]
    return sum(map(len, found.values())), missed


def judge(found: Mapping[str, Mapping[str, float]]) -> None:
    """Print the judgement of a script; the exit code is 1 if a ratio does not hold."""
    tell(*misses(found))


def tell(judged: int, missed: list[str]) -> None:
    """Print a judgement, and exit with 1 if something is missed."""
    print(f"\n{judged} judged, {len(missed)} missed", flush=True)
    if missed:
        sys.exit("\n".join(f"MISSED: {line}" for line in missed))
