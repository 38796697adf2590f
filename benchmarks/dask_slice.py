r"""Tens of millions of cells by dask: slices are measured, the whole is extrapolated, and checked.

    python benchmarks/dask_slice.py                 # 1, 2 and 4 million cells, two workers
    python benchmarks/dask_slice.py --check         # 30 million as well

`vcell select-genes --engine dask` on two worker processes of one thread each. There is no disk for
30 million cells here, so a screen of many files is a folder of hard links to one file of a million
cells (2,000 genes, 300 non-zeros a cell): every cell is read, decoded and counted, but after the
first file the bytes come from the page cache. Reading from a disk is therefore not in these
figures. Times are CPU seconds of the command and of the workers; the line is the least-squares fit
through the slices. Memory is the largest resident set of the command and of one worker.
"""

from __future__ import annotations

import argparse
import os
import resource
import shutil
import sys
import time
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
from distributed import Client, LocalCluster
from whole import VCELL, measure

HERE = Path(__file__).resolve().parent
MILLION = 1_000_000
SIMULATE = ["simulate", "--genes", "2000", "--perturbations", "50", "--umis", "700", "--overwrite"]


@dataclass(frozen=True)
class Pass:
    """What one pass took: CPU seconds of command and workers, wall seconds, GB of each."""

    command: float
    workers: float
    wall: float
    command_peak: float
    worker_peak: float

    @property
    def cpu(self) -> float:
        """CPU seconds of all processes."""
        return self.command + self.workers


def used() -> tuple[float, float]:
    """Return the CPU seconds and the largest resident set, in GB, of the process it runs in."""
    of = resource.getrusage(resource.RUSAGE_SELF)
    return of.ru_utime + of.ru_stime, of.ru_maxrss * 1024 / 1e9


def one(cells: Path, count: int, client: Any, data: Path) -> Pass:
    """Select genes on `count` links to a file of cells."""
    folder, out = data / "cells", data / "out"
    for path in (folder, out):
        shutil.rmtree(path, ignore_errors=True)
    folder.mkdir()
    for number in range(count):
        os.link(cells, folder / f"part-{number:03}.h5ad")
    before = client.run(used)
    words = [
        *VCELL, "select-genes", str(folder), "-o", str(out), "--groups", "none",
        "--n-genes", "500", "--engine", "dask", "--scheduler", client.scheduler.address, "--quiet",
    ]  # fmt: skip
    cost = measure(words, data / "log", {})
    after = client.run(used)
    workers = sum(after[name][0] - before[name][0] for name in after)
    return Pass(cost.cpu, workers, cost.wall, cost.peak, max(peak for _, peak in after.values()))


def told(millions: int, cost: Pass) -> None:
    """Print one line."""
    print(
        f"{millions:>3} million cells: {cost.cpu:7.1f} CPU s ({cost.command:.1f} command + "
        f"{cost.workers:.1f} workers), {cost.wall:6.0f} s, {cost.command_peak:.2f} GB command, "
        f"{cost.worker_peak:.2f} GB worker",
        flush=True,
    )


def main() -> None:
    """Measure the slices, fit, extrapolate."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--slices", default="1,2,4", help="millions of cells")
    parser.add_argument("--whole", type=int, default=30, help="millions of cells")
    parser.add_argument("--check", action="store_true", help="measure the whole as well")
    parser.add_argument("--data", type=Path, default=HERE / ".data" / "dask")
    options = parser.parse_args()
    data = options.data
    data.mkdir(parents=True, exist_ok=True)
    cells = data / "million.h5ad"
    print(f"{datetime.now():%Y-%m-%d %H:%M}, {os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}")
    if not cells.exists():
        command, *settings = SIMULATE
        made = [*VCELL, command, str(cells), "--n-cells", str(MILLION), *settings, "--quiet"]
        measure(made, data / "log", {})
    slices = [int(n) for n in options.slices.split(",")]
    costs = {}
    # Each slice has workers of its own, so that memory is that of the slice.
    for count in [*slices, *([options.whole] if options.check else [])]:
        with (
            LocalCluster(
                n_workers=2, threads_per_worker=1, host="127.0.0.1", dashboard_address=None
            ) as cluster,
            Client(cluster) as client,
        ):
            one(cells, 1, client, data)  # compiles, and imports in the workers
            began = time.monotonic()
            costs[count] = one(cells, count, client, data)
            told(count, costs[count])
            took = time.monotonic() - began
            print(f"# {count} million: {took:.0f} s", file=sys.stderr, flush=True)
    for what, of in (
        ("CPU s", lambda c: c.cpu),
        ("GB of the command", lambda c: c.command_peak),
        ("GB of a worker", lambda c: c.worker_peak),
    ):
        slope, start = np.polyfit(slices, [of(costs[n]) for n in slices], 1)
        there = start + slope * options.whole
        line = f"{what} = {start:.2f} + {slope:.3f} x millions: {there:.2f} at {options.whole}"
        if options.check:
            line += f", measured {of(costs[options.whole]):.2f}"
        print(line)
    shutil.rmtree(data / "cells")
    shutil.rmtree(data / "out")


if __name__ == "__main__":
    main()
