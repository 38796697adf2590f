r"""How time and memory grow with cells, genes and perturbations, command by command.

    python benchmarks/growth.py         # minutes: up to 100,000 cells
    python benchmarks/growth.py --axes cells --cells 10000,100000,1000000,3000000 \
        --only inspect,select-genes,prepare,loader

Whole processes on simulated counts, 300 non-zeros a cell, 2,000 genes and 50 perturbations where
they do not vary. CPU is user and system time, memory the largest resident set. The exponent is that
of what each step adds, log(rise / rise before) / log(step / step before), so that the constant
start does not flatter it; a last one above 1.05 is marked. Mathematics makes larger: gp, whose
kernel is inverted (cubic in perturbations), and distances between effects (quadratic in them).
"""

from __future__ import annotations

import argparse
import math
import os
import shutil
import sys
import time
from datetime import datetime
from pathlib import Path

from whole import VCELL, Cost, measure

HERE = Path(__file__).resolve().parent
CELLS, GENES, PERTURBATIONS, UMIS = 10_000, 2_000, 50, 700
LOADER = """
import sys
from vcell.store import Loader, Output, Shuffled, Store
store = Store.open(sys.argv[1])
loader = Loader(store, Shuffled(batch_size=4096, seed=1), Output(), resident=False)
print(sum(len(batch.indptr) - 1 for batch in loader), "cells")
"""
COMMANDS = {
    "simulate": ["simulate", "{cells}", "--n-cells", "{n}", "--genes", "{g}", "--perturbations",
                 "{p}", "--umis", "{u}", "--overwrite"],
    "inspect": ["inspect", "{cells}", "--full"],
    "select-genes": ["select-genes", "{cells}", "-o", "{out}", "--groups", "none", "--n-genes",
                     "500"],
    "prepare": ["prepare", "{cells}", "-o", "{store}"],
    "loader": [],
    "de": ["de", "{cells}", "-o", "{out}.parquet"],
    "evaluate": ["evaluate", "{cells}", "{cells}", "-o", "{out}"],
    "train-vcc": ["train-vcc", "{cells}", "--model", "gp", "--runs", "{out}"],
}  # fmt: skip


def one(axis: str, value: int, only: list[str], data: Path) -> dict[str, Cost]:
    """Measure every command on one size."""
    n, g, p = (value if axis == name else usual for name, usual in
               (("cells", CELLS), ("genes", GENES), ("perturbations", PERTURBATIONS)))  # fmt: skip
    if axis == "perturbations":
        n = 40 * max(p, 250)  # cells of each, not cells in all
    places = {
        "cells": str(data / "cells.h5ad"), "out": str(data / "out"), "n": str(n), "g": str(g),
        "store": str(data / "store.zarr"), "p": str(p), "u": str(UMIS * g / GENES),
    }  # fmt: skip
    empty(data)  # an interrupted run may have left its cells
    found = {}
    for name, words in COMMANDS.items():
        needed = name == "simulate" or (name == "prepare" and "loader" in only)
        if only and name not in only and not needed:
            continue
        empty(data, "out*")
        filled = [*VCELL, *(word.format(**places) for word in words), "--quiet"]
        if name == "loader":
            filled = [sys.executable, "-c", LOADER, places["store"]]
        found[name] = measure(filled, data / "log", {"VCELL_CACHE": str(data / "out-cache")})
    empty(data)
    return found


def empty(data: Path, names: str = "*") -> None:
    """Remove what commands wrote."""
    for path in data.glob(names):
        shutil.rmtree(path) if path.is_dir() else path.unlink()


def exponents(sizes: list[int], values: list[float]) -> list[float]:
    """Return the exponent of each step's rise against the one before."""
    found = []
    for i in range(2, len(sizes)):
        before, after = values[i - 1] - values[i - 2], values[i] - values[i - 1]
        steps = (sizes[i - 1] - sizes[i - 2], sizes[i] - sizes[i - 1])
        small = before <= 0.05 or after <= 0.05  # seconds, or GB: noise
        found.append(
            math.nan if small else math.log(after / before) / math.log(steps[1] / steps[0])
        )
    return found


def table(axis: str, sizes: list[int], only: list[str], data: Path) -> list[str]:
    """Measure along one axis and print; return what grows faster than it should."""
    rows = []
    for size in sizes:
        began = time.monotonic()
        rows.append(one(axis, size, only, data))
        print(f"# {axis} {size:,}: {time.monotonic() - began:.0f} s", file=sys.stderr, flush=True)
    print(
        f"\n{axis:<16}" + "".join(f"{size:>18,}" for size in sizes) + "   exponents of CPU, memory"
    )
    fast = []
    for name in rows[0]:
        cpu, peak = [row[name].cpu for row in rows], [row[name].peak for row in rows]
        powers = exponents(sizes, cpu)
        memory = exponents(sizes, peak)
        cells = "".join(f"{a:>9.2f} s{b:>5.2f} GB" for a, b in zip(cpu, peak, strict=True))
        spelt = " ".join("–" if math.isnan(x) else f"{x:.2f}" for x in powers)
        spelt += "; " + " ".join("–" if math.isnan(x) else f"{x:.2f}" for x in memory)
        if powers and powers[-1] > 1.05:
            fast.append(f"{name} grows with {axis} to the power of {powers[-1]:.2f}")
            spelt += "  <- more than linear"
        print(f"{name:<16}{cells}   {spelt}", flush=True)
    return fast


def main() -> None:
    """Measure along three axes."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--cells", default="1000,10000,100000")
    parser.add_argument("--genes", default="1000,2000,4000,8000")
    parser.add_argument("--perturbations", default="50,100,200,400")
    parser.add_argument("--axes", default="cells,genes,perturbations")
    parser.add_argument("--only", default="")
    parser.add_argument("--data", type=Path, default=HERE / ".data" / "growth")
    options = parser.parse_args()
    options.data.mkdir(parents=True, exist_ok=True)
    only = [name for name in options.only.split(",") if name]
    print(f"{datetime.now():%Y-%m-%d %H:%M}, {os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}")
    fast = []
    for axis in options.axes.split(","):
        sizes = [int(size) for size in getattr(options, axis).split(",")]
        fast += table(axis, sizes, only, options.data)
    print("\n" + ("\n".join(fast) or "nothing grows faster than linearly"))


if __name__ == "__main__":
    main()
