r"""How time and memory grow with cells, genes and perturbations, command by command.

    python benchmarks/growth.py         # half an hour: up to 100,000 cells
    python benchmarks/growth.py --axes cells --cells 10000,100000,1000000,3000000 \
        --only inspect,select-genes,prepare,loader --turns 3

Whole processes on simulated counts: 300 non-zeros a cell, 2,000 genes and 50 perturbations where
they do not vary. Non-zeros grow with genes. Where perturbations vary there are 20,000 cells of
6,000 genes. A small run that is not counted compiles the kernels. Columns: user and system seconds,
GB of the largest resident set, and major page faults, if any. These count pages of mapped files
only, not what `read` had to fetch from the disk. Exponents are those of the curves a + b * size**p
through every three sizes, so that the constant start does not flatter them; a last one above 1.05
is told at the end. On a busy machine a process takes up to twice the CPU time that it takes alone,
and at other times not: `--turns` measures all sizes in turns and counts the least of each.

Mathematics makes larger: gp, whose kernel is inverted (cubic in perturbations), and distances
between effects (quadratic in them).
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

import h5py
from whole import VCELL, Cost, measure

HERE = Path(__file__).resolve().parent
CELLS, GENES, PERTURBATIONS, UMIS = 10_000, 2_000, 50, 700
CELLS_OF_MANY = 20_000  # where perturbations vary: 20 of each at 800
GENES_OF_MANY = 6_000  # simulate wants six or more for each perturbation
LOADER = """
import sys
from vcell.store import Loader, Output, Shuffled, Store
store = Store.open(sys.argv[1])
loader = Loader(store, Shuffled(batch_size=4096, seed=1), Output(), resident=False)
print(sum(len(batch.indptr) - 1 for batch in loader), "cells")
"""
TOKENS = """
import sys
import numpy as np
from vcell.data import open_cells
from vcell.geneformer import tokens, vocabulary
known = vocabulary.shipped("V2")
with open_cells(sys.argv[1]) as source:
    token_of = np.arange(source.n_genes, dtype=np.int32) + known.n_special
    print(sum(len(tokens.encode_block(block, token_of, known, 4096)) for block in source.chunks()))
"""
COMMANDS = {
    "simulate": ["simulate", "{cells}", "--n-cells", "{n}", "--genes", "{g}", "--perturbations",
                 "{p}", "--umis", "{u}", "--overwrite"],
    "inspect": ["inspect", "{cells}", "--full"],
    "select-genes": ["select-genes", "{cells}", "-o", "{out}", "--groups", "none", "--n-genes",
                     "500"],
    "convert": ["convert", "{cells}", "{out}.zarr"],
    "prepare": ["prepare", "{cells}", "-o", "{store}"],
    "loader": [],
    "isp tokens": [],
    "effects": ["effects", "{cells}", "-o", "{out}.parquet"],
    "de": ["de", "{cells}", "-o", "{out}.parquet"],
    "evaluate": ["evaluate", "{cells}", "{cells}", "-o", "{out}"],
    "train-vcc": ["train-vcc", "{cells}", "--runs", "{runs}"],
    "predict": ["predict", "latest", "--runs", "{runs}", "-o", "{pred}"],
    "pack": ["pack", "{pred}", "-o", "{out}.vcc", "--genes", "{genes}"],
    "pseudobulk": ["pseudobulk", "{cells}", "--labels", "target_gene", "-o", "{out}.h5ad"],
    "train-gmvae": ["train-gmvae", "{cells}", "--labels", "target_gene", "--epochs", "1", "--runs",
                    "{latents}"],
    "embed": ["embed", "latest", "{cells}", "--runs", "{latents}", "-o", "{out}.h5ad"],
}  # fmt: skip
#: What a command works on, but for the cells.
NEEDS = {"loader": "prepare", "predict": "train-vcc", "pack": "predict", "embed": "train-gmvae"}


def one(
    axis: str, value: int, only: list[str], data: Path, *, made: bool = False
) -> dict[str, Cost]:
    """Measure every command on one size; `made`: its cells are there."""
    n, g, p = (value if axis == name else usual for name, usual in
               (("cells", CELLS), ("genes", GENES), ("perturbations", PERTURBATIONS)))  # fmt: skip
    umis = UMIS * g / GENES
    if axis == "perturbations":
        n, g = CELLS_OF_MANY, GENES_OF_MANY
    places = {
        "n": str(n), "g": str(g), "p": str(p), "u": str(umis),
        **{name: str(data / place) for name, place in (
            ("cells", "cells.h5ad"), ("store", "out-store.zarr"), ("pred", "out-pred.h5ad"),
            ("out", "out"), ("runs", "out-runs"), ("latents", "out-latents"),
            ("genes", "genes.csv"),
        )},
    }  # fmt: skip
    if not made:
        empty(data)  # an interrupted run may have left its cells
        data.mkdir(parents=True, exist_ok=True)
    found = {}
    for name in wanted(only):
        if made and name == "simulate":
            continue
        empty(data, "out", "out.*", "out-cache")
        filled = [*VCELL, *(word.format(**places) for word in COMMANDS[name]), "--quiet"]
        if name == "loader":
            filled = [sys.executable, "-c", LOADER, places["store"]]
        elif name == "isp tokens":
            filled = [sys.executable, "-c", TOKENS, places["cells"]]
        found[name] = measure(filled, data / "log", {"VCELL_CACHE": str(data / "out-cache")})
        cost = found[name]  # told at once: a run that is stopped has not measured in vain
        told = f"# {axis} {value:,} {name}: {cost.cpu:.2f} s, {cost.system:.2f} of them system"
        print(f"{told}, {cost.peak:.2f} GB, {cost.faults:,} faults", file=sys.stderr, flush=True)
        if name == "simulate":
            with h5py.File(places["cells"]) as file:
                genes = file["var"][file["var"].attrs["_index"]].asstr()[:]
            Path(places["genes"]).write_text("\n".join(genes) + "\n")
    empty(data, "out*")
    return found


def wanted(only: list[str]) -> list[str]:
    """Return the commands to measure, and those whose output they need, in order."""
    names = {*only, "simulate"} if only else set(COMMANDS)
    for name in reversed(COMMANDS):
        if name in names and name in NEEDS:
            names.add(NEEDS[name])
    return [name for name in COMMANDS if name in names]


def empty(data: Path, *names: str) -> None:
    """Remove what commands wrote."""
    for path in [path for name in names or ["*"] for path in data.glob(name)]:
        shutil.rmtree(path) if path.is_dir() else path.unlink()


def least(costs: list[Cost]) -> Cost:
    """Return the cheapest of several turns: the one that others disturbed least."""
    return min(costs, key=lambda cost: cost.cpu)


def exponents(sizes: list[int], values: list[float]) -> list[float]:
    """Return for every three sizes the exponent p of the curve a + b * size**p through them."""
    found = []
    for i in range(2, len(sizes)):
        before, after = values[i - 1] - values[i - 2], values[i] - values[i - 1]
        small = before <= 0.05 or after <= 0.05  # seconds, or GB: noise
        found.append(math.nan if small else power(sizes[i - 2 : i + 1], after / before))
    return found


def power(sizes: list[int], rises: float) -> float:
    """Return p, from the ratio of two rises."""
    x0, x1, x2 = (size / sizes[1] for size in sizes)
    low, high = 1e-3, 10.0
    while high - low > 1e-4:
        p = (low + high) / 2
        low, high = (p, high) if (x2**p - x1**p) / (x1**p - x0**p) < rises else (low, p)
    return low


def table(
    axis: str, sizes: list[int], only: list[str], data: Path, turns: int, *, keep: bool
) -> list[str]:
    """Measure along one axis and print; return what grows faster than it should."""
    found: dict[str, list[list[Cost]]] = {name: [[] for _ in sizes] for name in wanted(only)}
    for turn in range(turns):
        for at, size in enumerate(sizes):
            began = time.monotonic()
            place = data / f"{axis}-{size}"
            made = turn > 0 or (keep and (place / "genes.csv").exists())
            for name, cost in one(axis, size, only, place, made=made).items():
                found[name][at].append(cost)
            if turn == turns - 1 and not keep:
                shutil.rmtree(place)
            took = time.monotonic() - began
            print(f"# {axis} {size:,}: {took:.0f} s", file=sys.stderr, flush=True)
    print(f"\n{axis:<13}" + "".join(f"{size:>21,}" for size in sizes))
    fast = []
    for name, measured in found.items():
        if not all(measured):  # cells of an earlier run
            continue
        costs = [least(each) for each in measured]
        cells = "".join(
            f"{cost.cpu - cost.system:>9.2f} +{cost.system:>5.2f} {cost.peak:>5.2f}"
            for cost in costs
        )
        told = []
        for what, values in (
            ("user", [cost.cpu - cost.system for cost in costs]),
            ("CPU", [cost.cpu for cost in costs]),
            ("memory", [cost.peak for cost in costs]),
        ):
            powers = exponents(sizes, values)
            told.append(f"{what} " + " ".join("–" if math.isnan(x) else f"{x:.2f}" for x in powers))
            if powers and powers[-1] > 1.05:
                fast.append(f"{what} of {name} grows with {axis} to the power of {powers[-1]:.2f}")
        if faults := [cost.faults for cost in costs if cost.faults]:
            told.append(f"faults {max(faults):,}")
        print(f"{name:<13}{cells}   {'; '.join(told)}", flush=True)
    return fast


def main() -> None:
    """Measure along three axes."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--cells", default="1000,10000,100000")
    parser.add_argument("--genes", default="1000,2000,4000,8000")
    parser.add_argument("--perturbations", default="100,200,400,800")
    parser.add_argument("--axes", default="cells,genes,perturbations")
    parser.add_argument("--only", default="")
    parser.add_argument("--turns", type=int, default=1)
    parser.add_argument("--keep", action="store_true", help="keep the cells, and use those there")
    parser.add_argument("--data", type=Path, default=HERE / ".data" / "growth")
    options = parser.parse_args()
    options.data.mkdir(parents=True, exist_ok=True)
    only = [name for name in options.only.split(",") if name]
    print(f"{datetime.now():%Y-%m-%d %H:%M}, {os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}")
    one("cells", 1000, only, options.data / "first")  # compiles
    if not options.keep:
        empty(options.data)
    fast = []
    for axis in options.axes.split(","):
        sizes = [int(size) for size in getattr(options, axis).split(",")]
        fast += table(axis, sizes, only, options.data, options.turns, keep=options.keep)
    print("\n" + ("\n".join(fast) or "nothing grows faster than linearly"))


if __name__ == "__main__":
    main()
