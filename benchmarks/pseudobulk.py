"""5,000 samples of 500 cells beside TAPE's generator: CPU and wall time, memory, and the law.

    python benchmarks/pseudobulk.py speed
    python benchmarks/pseudobulk.py law [CELLS.h5ad --labels COLUMN]

`--peer` is a Python with scTAPE 1.1.2 and anndata, else that of ``benchmarks/.envs/tape``; its
`generate_simulated_data` is called as it is. Both read the same .h5ad and write one. Ours and the
peer's take turns in processes of their own; CPU time is user and system time, memory the largest
resident set (VmHWM). The exit code of `speed` is 1 if a ratio wanted in peers.py does not hold.
`law` compares what both drew: Kolmogorov-Smirnov on the fractions and on the sums of genes,
chi-square on cells.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import peers

MEASURE = """
import pathlib, time, json, sys
peak = pathlib.Path('/proc/self/status').read_text().split('VmHWM:')[1].split()[0]
t = __import__('os').times()
print(json.dumps({'cpu': t.user + t.system, 'mib': int(peak) / 1024}))
"""
OURS = (
    """
import sys
from vcell import cli
if sys.argv[2] != '0':
    code = cli.run(['pseudobulk', sys.argv[1], '--labels', sys.argv[4], '--samples', sys.argv[2],
                    '--mode', sys.argv[5], '-o', sys.argv[3] + '.h5ad', '--overwrite', '-q'])
    assert code == 0
else:
    import vcell_pseudobulk.work
"""
    + MEASURE
)
PEER = (
    """
import sys, warnings; warnings.filterwarnings('ignore')
import anndata, numpy as np
from TAPE.simulation import generate_simulated_data
if sys.argv[2] != '0':
    generate_simulated_data(sys.argv[1], outname=sys.argv[3], n=500, samplenum=int(sys.argv[2]),
                            random_state=0, sparse=sys.argv[5] == 'sparse',
                            rare=sys.argv[5] == 'rare')
"""
    + MEASURE
)


def run(python: str, code: str, *words: object) -> dict[str, float]:
    """Run one program and return its measurements, with the wall time."""
    import time

    environment = {**os.environ, "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
    begun = time.perf_counter()
    done = subprocess.run(
        [python, "-W", "ignore", "-c", code, *map(str, words)],
        capture_output=True, text=True, check=False, env=environment,
    )  # fmt: skip
    if done.returncode:
        sys.exit(done.stderr[-3000:])
    return json.loads(done.stdout.splitlines()[-1]) | {"wall": time.perf_counter() - begun}


def make(path: Path, cells: int, genes: int, density: float) -> None:
    """Write counts of eight types of unequal size, with genes of unequal means."""
    import anndata
    import numpy as np
    import pandas as pd
    from scipy import sparse

    rng = np.random.default_rng(0)
    kind = rng.choice(8, cells, p=np.arange(1, 9) / 36)
    level = rng.gamma(0.3, 1, genes)
    change = np.exp(rng.normal(0, 0.7, (8, genes)))
    blocks = []
    for first in range(0, cells, 500):
        rate = level * change[kind[first : first + 500]]
        rate *= rng.gamma(6, 1 / 6, (len(rate), 1)) * density * genes / level.sum() * 2.2
        blocks.append(sparse.csr_matrix(rng.poisson(rate).astype(np.float32)))
    x = sparse.vstack(blocks, format="csr")
    obs = pd.DataFrame({"CellType": [f"t{k}" for k in kind]}, index=[f"c{i}" for i in range(cells)])
    anndata.AnnData(x, obs=obs).write_h5ad(path)
    print(f"{cells:,} cells, {genes:,} genes, {x.nnz / cells:,.0f} non-zeros a cell")


def speed(args: argparse.Namespace, folder: Path) -> None:
    """Time and memory of both, and the cost of imports alone."""
    path = folder / "cells.h5ad"
    make(path, args.cells, args.genes, 0.055)
    best: dict[str, dict[str, float]] = {}
    for _ in range(args.turns):
        for name, python, code in (("ours", sys.executable, OURS), ("TAPE", args.peer, PEER)):
            for n in (0, args.samples):
                told = run(python, code, path, n, folder / name, "CellType", "dirichlet")
                known = best.setdefault(f"{name} {n}", told)
                best[f"{name} {n}"] = {k: min(known[k], told[k]) for k in told}
    for name, told in best.items():
        print(f"{name}: " + ", ".join(f"{k} {v:,.1f}" for k, v in told.items()))
    ours, peer = best[f"ours {args.samples}"], best[f"TAPE {args.samples}"]
    own, theirs = (best[f"{n} 0"]["cpu"] for n in ("ours", "TAPE"))
    cpu, wall, memory = (peer[what] / ours[what] for what in ("cpu", "wall", "mib"))
    print(f"CPU {cpu:.1f} times (less what importing costs "
          f"{(peer['cpu'] - theirs) / (ours['cpu'] - own):.1f}), wall {wall:.1f} times, "
          f"memory {memory:.1f} times")  # fmt: skip
    peers.judge({"pseudobulk": {"CPU": cpu, "clock": wall, "memory": memory}})


def law(args: argparse.Namespace, folder: Path) -> None:
    """Compare the distributions of both generators' samples, in each common mode."""
    import anndata
    import numpy as np
    from scipy import stats

    path = folder / "cells.h5ad"
    if args.file:
        data = anndata.read_h5ad(args.file)
        data.obs["CellType"] = data.obs[args.labels].astype(str)
        data.write_h5ad(path)
    else:
        make(path, 2000, 500, 0.2)
    data = anndata.read_h5ad(path)
    rows = []
    for mode in ("dirichlet", "sparse"):
        run(sys.executable, OURS, path, args.samples, folder / "ours", "CellType", mode)
        run(args.peer, PEER, path, args.samples, folder / "TAPE", "CellType", mode)
        ours, peer = (anndata.read_h5ad(folder / f"{name}.h5ad") for name in ("ours", "TAPE"))
        types = list(ours.uns["pseudobulk"]["types"])
        x, y = np.asarray(ours.obsm["fractions"]), peer.obs[types].to_numpy()
        own = [stats.ks_2samp(x[:, k], y[:, k]) for k in range(len(types))]
        # the composition of genes: sums as shares of their total
        a, b = (np.asarray(s.X, float) for s in (ours, peer))
        a, b = (s / s.sum(1, keepdims=True) for s in (a, b))
        genes = np.argsort(-a.mean(0))[:200]
        of_genes = [stats.ks_2samp(a[:, g], b[:, g]) for g in genes]
        lacking = [np.bincount((f == 0).sum(1), minlength=len(types) + 1) for f in (x, y)]
        table = np.stack(lacking)[:, np.sum(lacking, 0) >= 10]
        chi = stats.chi2_contingency(table).pvalue if table.shape[1] > 1 else np.nan
        rows.append((mode, own, of_genes, chi))
        print(f"{mode}: KS of {len(types)} fractions, least p {min(t.pvalue for t in own):.3f}, "
              f"largest distance {max(t.statistic for t in own):.4f}; of {len(genes)} genes, "
              f"least p {min(t.pvalue for t in of_genes):.4f}, share below .05 "
              f"{np.mean([t.pvalue < 0.05 for t in of_genes]):.3f}; types that are missing, "
              f"chi-square p {chi:.3f}")  # fmt: skip
    _cells(args, path, folder, data)


def _cells(args: argparse.Namespace, path: Path, folder: Path, data: object) -> None:
    """Test that all cells of a type are equally likely, and that labels count the drawn cells."""
    import numpy as np
    from scipy import stats

    from vcell import cli

    out = folder / "rows.npz"
    code = cli.run(["pseudobulk", str(path), "--labels", "CellType", "--samples", str(args.samples),
                    "-o", str(out), "-q"])  # fmt: skip
    assert code == 0
    with np.load(out, allow_pickle=False) as file:
        rows, fractions, types = file["rows"], file["fractions"], file["types"]
    kind = data.obs["CellType"].to_numpy()  # type: ignore[attr-defined]
    times = np.bincount(rows.ravel(), minlength=len(kind))
    p = [stats.chisquare(times[kind == name]).pvalue for name in types]
    counted = np.stack([(kind[rows] == name).sum(1) for name in types], axis=1)
    exact = (counted / rows.shape[1] == fractions).all()
    print(f"cells within a type: chi-square of {len(types)} types, least p {min(p):.3f}; "
          f"labels equal to the cells drawn in {len(rows):,} samples: {exact}")  # fmt: skip


def main() -> None:
    """Run one of the comparisons."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--peer", help="a Python with scTAPE")
    parser.add_argument("--turns", type=int, default=2)
    parser.add_argument("--cells", type=int, default=6000)
    parser.add_argument("--genes", type=int, default=20_000)
    parser.add_argument("--samples", type=int, default=5000)
    parser.add_argument("what", choices=["speed", "law"])
    parser.add_argument("file", nargs="?", type=Path)
    parser.add_argument("--labels", default="CellType")
    args = parser.parse_args()
    args.peer = args.peer or peers.python_of("tape")
    if args.peer is None:
        return
    with tempfile.TemporaryDirectory() as folder:
        {"speed": speed, "law": law}[args.what](args, Path(folder))


if __name__ == "__main__":
    main()
