"""`vcell evaluate` and `vcell de` beside cell-eval, pdex and illico: CPU time and peak memory.

    python benchmarks/evaluate.py [--cells 20000] [--genes 18080] [--perturbations 50]
    python benchmarks/evaluate.py --only large     # 50,000 and 200,000 cells a side; 12 GB of files
    python benchmarks/evaluate.py --only 2026      # one whole context; 3 GB of files, minutes
    python benchmarks/evaluate.py --only peer2026  # a small context beside cell-eval2, minutes

The peers live in ``benchmarks/.envs/cell-eval-0.8.2`` (``pip install cell-eval==0.8.2``),
``cell-eval2-0.20.0`` and ``illico`` (``pip install illico==0.6.0``); one that is absent is left
out, and said. The cells are simulated (``vcell simulate``, two draws under one truth) and kept in
``benchmarks/.data``. Everything runs on the same machine in the same minutes, so read the ratios.
CPU time is user + system of the process and its children, memory the largest resident set of one
process. The scores of both sides are compared as well: a fast wrong answer would not count.
"""

from __future__ import annotations

import argparse
import csv
import json
import os
import shlex
import shutil
import sys
import tempfile
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
class CommandCost:
    """The cost of one command."""

    cpu: float  # seconds
    wall: float
    peak: float  # GB


def measure(words: list[str], log: Path) -> CommandCost:
    """Run a command; its output goes to `log`."""
    started = time.monotonic()
    with log.open("wb") as sink:
        pid = os.posix_spawn(
            words[0], words, os.environ,
            file_actions=[(os.POSIX_SPAWN_DUP2, sink.fileno(), n) for n in (1, 2)],
        )  # fmt: skip
        _, status, used = os.wait4(pid, 0)
    if os.waitstatus_to_exitcode(status):
        sys.exit(f"{' '.join(words)} failed:\n{log.read_text()[-2000:]}")
    return CommandCost(
        used.ru_utime + used.ru_stime, time.monotonic() - started, used.ru_maxrss * 1024 / 1e9
    )


def median_of(words: list[str], log: Path, fresh: tuple[Path, ...] = ()) -> CommandCost:
    """Run a short command three times: the kernel's memory management varies twofold."""
    costs = []
    for _ in range(3):
        for folder in fresh:
            shutil.rmtree(folder, ignore_errors=True)
        costs.append(measure(words, log))
    return sorted(costs, key=lambda cost: cost.cpu)[1]


def simulate(
    cells: int, genes: int, perturbations: int, *options: str, controls: float = 0.25
) -> tuple[Path, Path]:
    """Make real and predicted cells: two draws with the same true effects."""
    DATA.mkdir(exist_ok=True)
    paths = []
    for draw, name in enumerate(("real", "pred")):
        path = DATA / f"{name}-{cells}x{genes}x{perturbations}.h5ad"
        if not path.exists():
            words = [
                *VCELL, "simulate", str(path), "--n-cells", str(cells), "--genes", str(genes),
                "--perturbations", str(perturbations), "--umis", "25000", "--control-fraction",
                str(controls), "--draw", str(draw), "--quiet", *options,
            ]  # fmt: skip
            measure(words, DATA / "simulate.log")
        paths.append(path)
    return paths[0], paths[1]


def means(path: Path) -> dict[str, float]:
    """Read the mean of each metric from an agg_results.csv."""
    with path.open(newline="") as file:
        rows = {row["statistic"]: row for row in csv.DictReader(file)}
    return {name: float(v) for name, v in rows["mean"].items() if name != "statistic"}


def evaluations(real: Path, pred: Path, threads: str) -> list[tuple[str, CommandCost]]:
    """Score the same pair with vcell, with and without the baseline, and with cell-eval."""
    lines, ours = [], [*VCELL, "evaluate", str(pred), str(real), "--threads", threads]
    out, cache = DATA / "vcell-out", DATA / "cache"
    for folder in (out, cache):
        shutil.rmtree(folder, ignore_errors=True)
    warm = [*ours, "--no-baseline", "--cache", str(cache)]
    small = simulate(600, 500, 4)  # compiles missing kernels, once per installation
    measure([*VCELL, "evaluate", *map(str, small), "-o", str(out), "--cache", str(cache)],
            DATA / "log")  # fmt: skip
    lines.append(("vcell evaluate --no-baseline", median_of(warm, DATA / "vcell.log")))
    full = [*ours, "-o", str(out), "--cache", str(cache)]
    lines.append(("vcell evaluate -o DIR", median_of(full, DATA / "vcell.log", (out, cache))))
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


def tests(real: Path, threads: str) -> list[tuple[str, CommandCost]]:
    """Test every gene of every perturbation with vcell, and with the rank-test packages."""
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


def larger(threads: str) -> list[tuple[str, CommandCost]]:
    """Score more and more cells: what grows is time, not memory."""
    lines = []
    for cells in (50_000, 200_000):
        real, pred = simulate(cells, 18_080, 50)
        words = [*VCELL, "evaluate", str(pred), str(real), "--no-baseline", "--threads", threads]
        lines.append((f"{cells:,} + {cells:,} cells", measure(words, DATA / "vcell.log")))
    return lines


def whole_context(threads: str) -> list[tuple[str, CommandCost]]:
    """Score one context of 2026 in full size, once making both anchors, once finding them."""
    real, pred = simulate(138_400, 18_533, 300, "--compress", controls=0.133)
    cache = DATA / "cache-2026"
    shutil.rmtree(cache, ignore_errors=True)
    words = [*VCELL, "evaluate", str(pred), str(real), "--rules", "vcc2026", "--threads", threads]
    words += ["--cache", str(cache)]
    return [
        (name, measure(words, DATA / "vcell-2026.log"))
        for name in ("vcell evaluate, anchors made", "vcell evaluate, anchors kept")
    ]


def beside_the_peer(threads: str) -> list[tuple[str, CommandCost]]:
    """Score a small context of 2026 with vcell and with cell-eval2, which both make the anchors."""
    real, pred = simulate(2_400, 6_000, 10, "--compress", controls=0.17)
    with tempfile.TemporaryDirectory(dir=DATA) as aside:
        ours = [*VCELL, "evaluate", str(pred), str(real), "--rules", "vcc2026", "--threads",
                threads, "--cache", f"{aside}/cache", "-o", f"{aside}/ours", "--quiet"]  # fmt: skip
        lines = [("vcell evaluate --rules vcc2026", measure(ours, DATA / "vcell-2026.log"))]
        peer = ENVS / "cell-eval2-0.20.0/bin/cell-eval2"
        if not peer.exists():
            print(f"cell-eval2 is left out: {peer} is absent")
            return lines
        settings = ["--preset", "vcc2026", "--set", "de.backend=pdex", "--cache-strict"]
        settings += ["--pert-col", "target_gene"]
        sides = ["-ap", str(pred), "-ar", str(real)]
        script = [
            ["run", *sides, "-o", "out", *settings],
            ["baseline", *sides[2:], "-o", "base", "--save-pred", "b.h5ad", *settings],
            ["prep-real-bundle", "--real", str(real), "--baseline", "b.h5ad", "-o", "bundle",
             *settings],
            ["score", "--user-agg", "out/agg_results.csv", "--user-meta", "out/run_meta.json",
             "--real-bundle", "bundle", "-o", "scores.csv"],
        ]  # fmt: skip
        lines_of_shell = [shlex.join([str(peer), *words]) for words in script]
        shell = " && ".join([f"cd {shlex.quote(aside)}", *lines_of_shell])
        cost = measure(["/bin/sh", "-c", shell], DATA / "peer-2026.log")
        lines.append(("cell-eval2 run, baseline, bundle, score", cost))
        theirs = last_row(Path(aside) / "scores.csv")["from_replicate"]
        overall = json.loads((Path(aside) / "ours/score.json").read_text())["overall"]
        print(f"overall score: vcell {overall:.12f}  cell-eval2 {float(theirs):.12f}")
    return lines


def last_row(path: Path) -> dict[str, str]:
    """Return the last row of a table, which has the average score."""
    with path.open(newline="") as file:
        return list(csv.DictReader(file))[-1]


def show(title: str, lines: list[tuple[str, CommandCost]]) -> None:
    """Print costs, and ratios to the first row."""
    print(f"\n{title}\n{'':<42}{'CPU s':>9}{'wall s':>9}{'peak GB':>9}{'CPU x':>8}{'memory x':>10}")
    first = lines[0][1]
    for name, cost in lines:
        print(
            f"{name:<42}{cost.cpu:9.1f}{cost.wall:9.1f}{cost.peak:9.2f}"
            f"{cost.cpu / first.cpu:8.1f}{cost.peak / first.peak:10.1f}"
        )


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--cells", type=int, default=20_000)
    parser.add_argument("--genes", type=int, default=18_080)
    parser.add_argument("--perturbations", type=int, default=50)
    parser.add_argument("--threads", default=str(os.cpu_count() or 1))
    parser.add_argument("--only", choices=("evaluate", "de", "large", "2026", "peer2026"))
    args = parser.parse_args()
    apart = {
        "large": ("vcc2025, 18,080 genes, 50 perturbations", larger),
        "2026": ("vcc2026, 138,400 + 138,400 cells x 18,533 genes", whole_context),
        "peer2026": ("vcc2026, 2,400 + 2,400 cells x 6,000 genes", beside_the_peer),
    }
    if args.only in apart:
        title, run = apart[args.only]
        show(title, run(args.threads))
        return
    real, pred = simulate(args.cells, args.genes, args.perturbations)
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
