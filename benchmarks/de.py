"""Rank tests alone, in memory: vcell, illico and pdex on the same machine and threads.

    python benchmarks/de.py CELLS.h5ad [--threads 2] [--without pdex]

CELLS.h5ad has log1p values or counts in CSR, with ``target_gene`` and ``non-targeting`` controls
(``benchmarks/evaluate.py`` simulates such a file). Each package runs in its own process, which
reads the file and computes log1p values first. Only the tests are timed, in the second of two
calls, since the first compiles. Peers are in ``benchmarks/.envs`` (see benchmarks/evaluate.py); a
missing one is reported and left out.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from datetime import datetime
from pathlib import Path

ENVS = Path(__file__).parent / ".envs"
HEAD = """
import json, resource, sys, time
import anndata as ad, numpy as np, scipy.sparse as sp
path, threads = {path!r}, {threads}
a = ad.read_h5ad(path)
a.obs = a.obs[["target_gene"]].astype(str)
x = sp.csr_matrix(a.X, dtype=np.float32)
if (x.data[:10000] == np.rint(x.data[:10000])).all():
    totals = np.asarray(x.sum(axis=1)).ravel()
    x.data = np.log1p(x.data / np.repeat(totals / np.median(totals), np.diff(x.indptr)))
x.data = x.data.astype(np.float32)
x.indptr, x.indices = x.indptr.astype(np.int32), x.indices.astype(np.int32)  # illico takes no int64
a.X = x
def cpu():
    u = [resource.getrusage(w) for w in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(v.ru_utime + v.ru_stime for v in u)
"""
TAIL = """
small = a[: len(a) // 20].copy() if {warm_small} else a
run(small)
began, used = time.perf_counter(), cpu()
run(a)
peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6
print(json.dumps(dict(wall=time.perf_counter() - began, cpu=cpu() - used, peak=peak)))
"""
VCELL = """
from types import SimpleNamespace
from vcell.metrics import significance
from vcell.metrics.groups import summarise
def run(a):
    labels = a.obs["target_gene"].to_numpy(str)
    names = np.array(["non-targeting", *sorted(set(labels) - {{"non-targeting"}})])
    place = {{name: i for i, name in enumerate(names)}}
    group = np.array([place[label] for label in labels], np.int32)
    x, step = a.X, 1024
    def blocks():
        for start in range(0, x.shape[0], step):
            stop = min(start + step, x.shape[0])
            lo, hi = x.indptr[start], x.indptr[stop]
            yield SimpleNamespace(
                rows=np.arange(start, stop), data=x.data[lo:hi], indices=x.indices[lo:hi],
                indptr=(x.indptr[start : stop + 1] - lo).astype(np.int64),
            )
    found = summarise(blocks, group, len(names), x.shape[1], threads=threads)
    return significance.differential(found, names, a.var_names.to_numpy(str))
"""
ILLICO = """
from illico import asymptotic_wilcoxon
def run(a):
    return asymptotic_wilcoxon(a, is_log1p=True, group_keys="target_gene",
                               reference="non-targeting", n_threads=threads)
"""
PDEX = """
from pdex import pdex
def run(a):
    return pdex(a, groupby="target_gene", mode="ref", threads=threads, is_log1p=True)
"""


def measure(python: str, code: str, path: Path, threads: int) -> dict[str, float]:
    """Run one package and return its measurements."""
    script = (HEAD + code + TAIL).format(path=str(path), threads=threads, warm_small=True)
    done = subprocess.run([python, "-c", script], capture_output=True, text=True, check=False)
    if done.returncode:
        sys.exit(done.stderr[-2000:])
    found: dict[str, float] = json.loads(done.stdout.strip().splitlines()[-1])
    return found


def main() -> None:
    """Measure and print ratios."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("cells", type=Path)
    parser.add_argument("--threads", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--without", action="append", default=[])
    args = parser.parse_args()
    peers = {
        "vcell": (sys.executable, VCELL),
        "illico": (str(ENVS / "illico/bin/python"), ILLICO),
        "pdex": (str(ENVS / "cell-eval-0.8.2/bin/python"), PDEX),
    }
    print(f"{datetime.now():%Y-%m-%d}, {args.cells.name}, {args.threads} threads")
    first = None
    for name, (python, code) in peers.items():
        if name in args.without or not Path(python).exists():
            print(f"{name} is left out")
            continue
        cost = measure(python, code, args.cells, args.threads)
        first = first or cost
        print(
            f"{name:<8} {cost['wall']:8.2f} s wall ({cost['wall'] / first['wall']:5.1f}x) "
            f"{cost['cpu']:8.2f} s CPU ({cost['cpu'] / first['cpu']:5.1f}x) "
            f"{cost['peak']:6.2f} GB",
            flush=True,
        )


if __name__ == "__main__":
    main()
