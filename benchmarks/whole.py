"""The cost of commands as users run them, against their peers and a lower bound.

    python benchmarks/whole.py                       # everything, about 40 quiet minutes
    python benchmarks/whole.py --only evaluate --cells 20000

Whole processes with their defaults (baseline, tables and pages included). vcell runs with a cold
and with a warm cache of kernels, alternating with the peers, which have their own environments
(``benchmarks/.envs``). Cells are simulated: 18,080 genes, 5,000 non-zeros a cell, 50
perturbations; gzip and not. CPU is user and system time of a process and its children, memory the
largest resident set of one process.

The floor is what this machine needs for the same bytes and numbers, measured in the same run:
reading every byte of the file once and decompressing it, and for rankings sorting every non-zero
once as 32 bits. It is CPU time of one thread.

The exit code is 1 if a ratio wanted in peers.py does not hold. ``make bench`` runs this too.
"""

from __future__ import annotations

import argparse
import csv
import os
import platform
import shutil
import statistics
import sys
import tempfile
import time
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

import peers

HERE = Path(__file__).resolve().parent
VCELL = [sys.executable, "-m", "vcell"]
GENES, PERTURBATIONS, UMIS = 18_080, 50, 25_000
LARGEST_FOR_PEERS = {"evaluate": 20_000, "de": 20_000}  # larger files take hours, or do not fit


@dataclass(frozen=True)
class Cost:
    """The cost of a process: CPU and wall seconds, GB, CPU seconds of the kernel, pages read."""

    cpu: float
    wall: float
    peak: float
    system: float = 0.0
    faults: int = 0


@dataclass(frozen=True)
class Job:
    """One line of the table: our words, the peer's, and what the floor counts."""

    name: str
    ours: list[str]
    peer: str  # its environment
    theirs: list[str]
    files: tuple[Path, ...]
    sorts: bool = False


def measure(words: list[str], log: Path, env: dict[str, str]) -> Cost:
    """Run a process to its end."""
    started = time.monotonic()
    with log.open("wb") as sink:
        pid = os.posix_spawn(
            words[0], words, os.environ | env,
            file_actions=[(os.POSIX_SPAWN_DUP2, sink.fileno(), n) for n in (1, 2)],
        )  # fmt: skip
        _, status, used = os.wait4(pid, 0)
    if os.waitstatus_to_exitcode(status):
        sys.exit(f"{' '.join(words)} failed:\n{log.read_text()[-2000:]}")
    wall = time.monotonic() - started
    cpu, peak = used.ru_utime + used.ru_stime, used.ru_maxrss * 1024 / 1e9
    return Cost(cpu, wall, peak, used.ru_stime, used.ru_majflt)


def middle(costs: list[Cost]) -> Cost:
    """Return the median of each number."""
    return Cost(*(statistics.median(getattr(c, n) for c in costs) for n in ("cpu", "wall", "peak")))


def simulate(cells: int, data: Path, *, packed: bool, draw: int = 0) -> Path:
    """Make real (draw 0) or predicted cells (1) with the same true effects, and keep them."""
    data.mkdir(parents=True, exist_ok=True)
    path = data / f"{('real', 'pred')[draw]}-{cells}{'-gzip' if packed else ''}.h5ad"
    if not path.exists():
        words = [
            *VCELL, "simulate", str(path), "--n-cells", str(cells), "--genes", str(GENES),
            "--perturbations", str(PERTURBATIONS), "--umis", str(UMIS), "--control-fraction",
            "0.25", "--draw", str(draw), "--quiet", *(["--compress"] if packed else []),
        ]  # fmt: skip
        measure(words, data / "simulate.log", {})
    return path


def floor(files: tuple[Path, ...], *, sorts: bool) -> float:
    """Return the CPU seconds to read, decompress and, if requested, sort the files' contents."""
    import h5py
    import numpy as np

    from vcell.data import decode

    inflate = decode.inflater(decode.inflater_name())  # the fastest that is installed
    spent = time.process_time()
    buffer = bytearray(8 << 20)
    for path in files:
        with path.open("rb", buffering=0) as file:
            while file.readinto(buffer):
                pass
    spent = time.process_time() - spent
    for path in files:
        with h5py.File(path) as file:
            n = int(file["X/data"].shape[0])
            for name in ("data", "indices"):
                part = file[f"X/{name}"]
                if part.compression is None:
                    continue
                some = range(0, n, max(n // 64, part.chunks[0]))  # a sample of the chunks
                chunks = [
                    part.id.read_direct_chunk((start // part.chunks[0] * part.chunks[0],))[1]
                    for start in some
                ]
                inflated = np.empty(part.chunks[0] * part.dtype.itemsize, np.uint8)
                began = time.process_time()
                for chunk in chunks:
                    inflate(chunk, inflated)
                spent += (time.process_time() - began) / len(chunks) * -(-n // part.chunks[0])
        if sorts:
            cells = max(int(n / GENES), 1)  # entries of a gene
            keys = np.random.default_rng(0).integers(0, 1 << 31, (256, cells)).astype(np.uint32)
            began = time.process_time()
            keys.sort(axis=1)
            spent += (time.process_time() - began) / keys.size * n
    return spent


def row(task: Job, cells: int, *, packed: bool) -> str:
    """Name a row as peers.py does."""
    return f"{task.name}, {cells:,} cells{', gzip' if packed else ''}"


def tasks(cells: int, data: Path, threads: str, *, packed: bool) -> list[Job]:
    """Return the comparisons for one shape of data."""
    real = simulate(cells, data, packed=packed)
    out = data / "out"
    r, o = str(real), str(out)
    found = [
        Job("select-genes", ["select-genes", r, "-o", o, "--groups", "none", "--n-genes", "2000"],
             "scanpy", ["-c", peers.SELECT, r, o], (real,)),
        Job("inspect --full", ["inspect", r, "--full"],
             "scanpy", ["-c", peers.INSPECT, r], (real,)),
        Job("prepare", ["prepare", r, "-o", f"{o}.zarr", "--min-genes", "200", "--min-cells", "3"],
             "scanpy", ["-c", peers.PREPARE, r, f"{o}.zarr"], (real,)),
    ]  # fmt: skip
    if not packed:
        pred = simulate(cells, data, packed=False, draw=1)
        found += [
            Job("evaluate", ["evaluate", str(pred), r, "-o", o, "--threads", threads],
                 "cell-eval-0.8.2",
                 ["run", "-ap", str(pred), "-ar", r, "--profile", "vcc", "--num-threads", threads,
                  "-o", o], (real, pred), sorts=True),
            Job("de", ["de", r, "-o", f"{o}.parquet", "--threads", threads],
                 "illico", ["-c", peers.ILLICO, r, threads, f"{o}.parquet"], (real,), sorts=True),
        ]  # fmt: skip
    return found


def clean(data: Path) -> None:
    """Remove the output of the last run."""
    for path in data.glob("out*"):
        shutil.rmtree(path) if path.is_dir() else path.unlink()


def run(task: Job, cells: int, options: argparse.Namespace) -> dict[str, Cost]:
    """Measure one task: cold, then warm, alternating with the peer."""
    data: Path = options.data
    kernels = data / "kernels"
    python = None if cells > LARGEST_FOR_PEERS.get(task.name, cells) else peers.python_of(task.peer)
    words = [str(python), *task.theirs]
    if python and task.name == "evaluate":
        words[0] = str(python.with_name("cell-eval"))
    costs: dict[str, list[Cost]] = {"cold": [], "warm": [], "peer": []}
    for turn in range(options.turns + 1):
        if turn == 0:
            shutil.rmtree(kernels, ignore_errors=True)
        clean(data)
        with tempfile.TemporaryDirectory(dir=data) as cache:
            env = {"NUMBA_CACHE_DIR": str(kernels), "VCELL_CACHE": cache}
            cost = measure([*VCELL, *task.ours, "--quiet"], data / "ours.log", env)
        costs["warm" if turn else "cold"].append(cost)
        slow = task.name in LARGEST_FOR_PEERS and cells >= 20_000
        if python and turn and (turn == 1 or not slow):
            if task.name == "evaluate":
                scores = means(data / "out/agg_results.csv")
            clean(data)
            cost = measure(words, data / "peer.log", {})
            costs["peer"].append(cost)
            if task.name == "evaluate":
                same(scores, means(data / "out/agg_results.csv"))
    return {name: middle(found) for name, found in costs.items() if found}


def means(path: Path) -> dict[str, float]:
    """Read the mean of each metric."""
    with path.open(newline="") as file:
        rows = {row["statistic"]: row for row in csv.DictReader(file)}
    return {name: float(v) for name, v in rows["mean"].items() if name != "statistic"}


def same(ours: dict[str, float], theirs: dict[str, float]) -> None:
    """Check that both results agree."""
    off = {name: (ours[name], v) for name, v in theirs.items() if abs(ours[name] - v) > 1e-6}
    if off:
        sys.exit(f"the scores differ: {off}")


def show(task: Job, cells: int, packed: bool, costs: dict[str, Cost]) -> dict[str, float]:
    """Print a row, and return its ratios."""
    lowest = floor(task.files, sorts=task.sorts)
    warm, cold = costs["warm"], costs["cold"]
    shape = f"{task.name:<15}{cells:>7,} {'gzip' if packed else '    '}"
    line = f"{shape} {cold.cpu:7.2f} {warm.cpu:7.2f} {warm.wall:7.2f} {warm.peak:6.2f}"
    line += f" {lowest:7.2f} {warm.cpu / max(lowest, 1e-9):6.1f}"
    ratios = {}
    if "peer" in costs:
        peer = costs["peer"]
        ratios = {
            "CPU, cold": peer.cpu / cold.cpu, "CPU, warm": peer.cpu / warm.cpu,
            "clock, warm": peer.wall / warm.wall, "memory": peer.peak / warm.peak,
        }  # fmt: skip
        line += f" {peer.cpu:8.2f} {peer.wall:8.2f} {peer.peak:6.2f}"
        line += "".join(f" {ratio:7.1f}" for ratio in ratios.values())
    print(line, flush=True)
    return ratios


def main() -> None:
    """Measure and print; fail if a required ratio does not hold."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--cells", default="2000,20000,60000")
    parser.add_argument("--only", default="", help="tasks, with commas between them")
    parser.add_argument("--gzip", action="store_true", help="only compressed files")
    parser.add_argument("--turns", type=int, default=3)
    parser.add_argument("--threads", default=str(len(os.sched_getaffinity(0))))
    parser.add_argument("--data", type=Path, default=HERE / ".data" / "whole")
    options = parser.parse_args()
    load = os.getloadavg()[0]
    print(
        f"{datetime.now():%Y-%m-%d %H:%M}, {platform.processor() or platform.machine()}, "
        f"{options.threads} threads, load {load:.1f}{' (NOT QUIET)' if load > 0.7 else ''}; "
        f"warm and peer: medians of up to {options.turns} turns; seconds, GB"
    )
    heads = ("cold", "warm", "clock")
    print(f"\n{'task':<15}{'cells':>7}      {heads[0]:>7} {heads[1]:>7} {heads[2]:>7} "
          f"{'GB':>6} {'floor':>7} {'x':>6} {'peer CPU':>8} {'clock':>8} {'GB':>6} {'cold x':>7} "
          f"{'warm x':>7} {'clock x':>7} {'mem x':>7}")  # fmt: skip
    only = [name for name in options.only.split(",") if name]
    found = {}
    for cells in map(int, options.cells.split(",")):
        for packed in (False, True):
            if options.gzip and not packed:
                continue
            for task in tasks(cells, options.data, options.threads, packed=packed):
                if not only or task.name in only:
                    found[row(task, cells, packed=packed)] = show(
                        task, cells, packed, run(task, cells, options)
                    )
    clean(options.data)
    peers.judge(found)


if __name__ == "__main__":
    main()
