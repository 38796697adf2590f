"""`vcell evaluate` and `vcell de` beside cell-eval, pdex and illico: CPU time and peak memory.

    python benchmarks/evaluate.py [--cells 20000] [--genes 18080] [--perturbations 50]
    python benchmarks/evaluate.py --only 2026      # one whole context; 3 GB of files, minutes

The peers live in ``benchmarks/.envs/cell-eval-0.8.2`` (``pip install cell-eval==0.8.2``) and
``benchmarks/.envs/illico`` (``pip install illico==0.6.0``); one that is absent is left out, and
said. The cells are simulated (``vcell simulate``, two draws under one truth) and kept in
``benchmarks/.data``. Everything runs on the same machine in the same minutes, so read the ratios.
CPU time is user + system of the process and its children, memory the largest resident set of one
process. The scores of both sides are compared as well: a fast wrong answer would not count.
"""

from __future__ import annotations

import argparse
import csv
import os
import shutil
import sys
import time
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

HERE = Path(__file__).parent
ENVS, DATA = HERE / ".envs", HERE / ".data"
VCELL = [sys.executable, "-m", "vcell"]
ILLICO = """
import anndata as ad
from illico import asymptotic_wilcoxon
a = ad.read_h5ad({path!r})
a.obs["target_gene"] = a.obs["target_gene"].astype(str)
asymptotic_wilcoxon(a, is_log1p=False, group_keys="target_gene", reference="non-targeting",
                    n_threads={threads})
"""
PDEX = """
import anndata as ad
from pdex import pdex
a = ad.read_h5ad({path!r})
pdex(a, groupby="target_gene", mode="ref", threads={threads}, is_log1p=False)
"""


@dataclass(frozen=True)
class Cost:
    """What one command took."""

    cpu: float  # seconds
    wall: float
    peak: float  # GB


def measure(words: list[str], log: Path) -> Cost:
    """Run a command to its end; its output goes to `log`."""
    started = time.monotonic()
    with log.open("wb") as sink:
        pid = os.posix_spawn(
            words[0], words, os.environ,
            file_actions=[(os.POSIX_SPAWN_DUP2, sink.fileno(), n) for n in (1, 2)],
        )  # fmt: skip
        _, status, used = os.wait4(pid, 0)
    if os.waitstatus_to_exitcode(status):
        sys.exit(f"{' '.join(words)} failed:\n{log.read_text()[-2000:]}")
    return Cost(
        used.ru_utime + used.ru_stime, time.monotonic() - started, used.ru_maxrss * 1024 / 1e9
    )


def simulate(args: argparse.Namespace) -> tuple[Path, Path]:
    """Make real and predicted cells: two draws under the same truth."""
    DATA.mkdir(exist_ok=True)
    paths = []
    for draw, name in enumerate(("real", "pred")):
        path = DATA / f"{name}-{args.cells}x{args.genes}x{args.perturbations}.h5ad"
        if not path.exists():
            words = [
                *VCELL, "simulate", str(path), "--cells", str(args.cells), "--genes",
                str(args.genes), "--perturbations", str(args.perturbations), "--umis", "25000",
                "--control-fraction", "0.25", "--draw", str(draw), "--quiet",
            ]  # fmt: skip
            measure(words, DATA / "simulate.log")
        paths.append(path)
    return paths[0], paths[1]


def means(path: Path) -> dict[str, float]:
    """Read the mean of each metric from an agg_results.csv."""
    with path.open(newline="") as file:
        rows = {row["statistic"]: row for row in csv.DictReader(file)}
    return {name: float(v) for name, v in rows["mean"].items() if name != "statistic"}


def evaluations(real: Path, pred: Path, threads: str) -> list[tuple[str, Cost]]:
    """Score the same pair by vcell, with and without the baseline, and by cell-eval."""
    lines, ours = [], [*VCELL, "evaluate", str(pred), str(real), "--threads", threads]
    out, cache = DATA / "vcell-out", DATA / "cache"
    for folder in (out, cache):
        shutil.rmtree(folder, ignore_errors=True)
    warm = [*ours, "--no-baseline", "--cache", str(cache)]
    measure([*VCELL, "evaluate", "--help"], DATA / "log")
    lines.append(("vcell evaluate --no-baseline", measure(warm, DATA / "vcell.log")))
    full = [*ours, "-o", str(out), "--cache", str(cache)]
    lines.append(("vcell evaluate -o DIR", measure(full, DATA / "vcell.log")))
    peer = ENVS / "cell-eval-0.8.2/bin/cell-eval"
    if not peer.exists():
        print(f"cell-eval is left out: {peer} is absent")
        return lines
    theirs = DATA / "cell-eval-out"
    shutil.rmtree(theirs, ignore_errors=True)
    words = [
        str(peer), "run", "-ap", str(pred), "-ar", str(real), "--profile", "vcc",
        "--num-threads", threads, "-o", str(theirs),
    ]  # fmt: skip
    lines.append(("cell-eval run --profile vcc", measure(words, DATA / "peer.log")))
    a, b = means(out / "agg_results.csv"), means(theirs / "agg_results.csv")
    for name, value in b.items():
        print(f"{name:<26} vcell {a[name]:.9f}  cell-eval {value:.9f}")
    return lines


def tests(real: Path, threads: str) -> list[tuple[str, Cost]]:
    """Test every gene of every perturbation by vcell, and by the rank-test packages."""
    out = DATA / "de.parquet"
    out.unlink(missing_ok=True)
    words = [*VCELL, "de", str(real), "-o", str(out), "--threads", threads]
    lines = [("vcell de", measure(words, DATA / "de.log"))]
    scripts = {"illico": ILLICO, "cell-eval-0.8.2": PDEX}
    for env, script in scripts.items():
        python = ENVS / env / "bin/python"
        name = "illico" if env == "illico" else "pdex"
        if not python.exists():
            print(f"{name} is left out: {python} is absent")
            continue
        code = script.format(path=str(real), threads=threads)
        lines.append((name, measure([str(python), "-c", code], DATA / f"{name}.log")))
    return lines


def whole_context(threads: str) -> list[tuple[str, Cost]]:
    """Score one context of 2026 in full size, once making both anchors, once finding them."""
    shape, paths = ["138400", "18533", "300"], []
    for draw, name in enumerate(("real", "pred")):
        path = DATA / f"{name}-{'x'.join(shape)}.h5ad"
        paths.append(str(path))
        if not path.exists():
            words = [
                *VCELL, "simulate", str(path), "--cells", shape[0], "--genes", shape[1],
                "--perturbations", shape[2], "--umis", "25000", "--control-fraction", "0.133",
                "--draw", str(draw), "--compress", "--quiet",
            ]  # fmt: skip
            measure(words, DATA / "simulate.log")
    cache = DATA / "cache-2026"
    shutil.rmtree(cache, ignore_errors=True)
    words = [*VCELL, "evaluate", paths[1], paths[0], "--rules", "vcc2026", "--threads", threads]
    words += ["--cache", str(cache)]
    return [
        (name, measure(words, DATA / "vcell-2026.log"))
        for name in ("vcell evaluate, anchors made", "vcell evaluate, anchors kept")
    ]


def show(title: str, lines: list[tuple[str, Cost]]) -> None:
    """Print costs and, against the first line, ratios."""
    print(f"\n{title}\n{'':<32}{'CPU s':>9}{'wall s':>9}{'peak GB':>9}{'CPU x':>8}{'memory x':>10}")
    first = lines[0][1]
    for name, cost in lines:
        print(
            f"{name:<32}{cost.cpu:9.1f}{cost.wall:9.1f}{cost.peak:9.2f}"
            f"{cost.cpu / first.cpu:8.1f}{cost.peak / first.peak:10.1f}"
        )


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--cells", type=int, default=20_000)
    parser.add_argument("--genes", type=int, default=18_080)
    parser.add_argument("--perturbations", type=int, default=50)
    parser.add_argument("--threads", default=str(os.cpu_count() or 1))
    parser.add_argument("--only", choices=("evaluate", "de", "2026"))
    args = parser.parse_args()
    if args.only == "2026":
        show("vcc2026, 138,400 + 138,400 cells x 18,533 genes", whole_context(args.threads))
        return
    real, pred = simulate(args)
    print(
        f"{datetime.now():%Y-%m-%d}, {os.cpu_count()} cores, {args.cells:,} + {args.cells:,} cells "
        f"x {args.genes:,} genes, {args.perturbations} perturbations, {args.threads} threads"
    )
    if args.only != "de":
        show("scores (vcc2025)", evaluations(real, pred, args.threads))
    if args.only != "evaluate":
        show("rank tests", tests(real, args.threads))


if __name__ == "__main__":
    main()
