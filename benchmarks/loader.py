"""Loaders and conversion against their peers, on the same cells, in interleaved rounds.

    python benchmarks/loader.py [--cells FILE.h5ad] [--rounds 5] [--only csr-4096,dense-4096]

`FILE.h5ad` needs counts and the obs columns `perturbation` and `batch`; without it, 40,000 cells of
20,000 genes are simulated. The exit code is 1 if a ratio wanted in peers.py does not hold, by the
clock. Without ``--only``, as ``make bench`` runs it, tables without an installed peer are left out.
Each entry runs in a separate process, with the interpreter of `benchmarks/.envs/NAME` for a peer; a
missing environment is reported and left out. Every process reads one epoch to warm up, in which it
checks that each cell came once (number of cells, sum of all counts) and measures the entropy of the
perturbation labels in a batch, and a second one, as the last buffer of an epoch is short and the
next full one may take new memory. Then three epochs are timed. Medians are printed with the spread,
and rates per CPU second, which other work on the machine disturbs less. Entries: `vcell` reuses the
memory of released batches, which is the default. `vcell-fresh` copies as annbatch does: every batch
has its own arrays. `vcell-memory` keeps the decoded store in memory, which is what a user gets if
it fits. cell-load reads uncompressed rows of 2,000 genes (its best setting), at random, or in runs
of one perturbation from a sorted file (`cell-load-sorted`).
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import resource
import shutil
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import peers

HERE = Path(__file__).resolve().parent
LABELS = ("perturbation", "batch")
#: The entries of each table: vcell's, and the peers.
#: `step` waits for each batch as long as a device would compute, and leaves the CPU free.
#: `pairs` are perturbed cells and controls of 2,000 genes; only perturbed cells are counted.
TABLES: dict[str, tuple[tuple[str, ...], tuple[str, ...]]] = {
    "csr-4096": (("vcell", "vcell-fresh", "vcell-memory"), ("annbatch",)),
    "csr-64": (("vcell", "vcell-fresh", "vcell-memory"), ("annbatch",)),
    "dense-4096": (("vcell", "vcell-fresh", "vcell-memory"), ("annbatch",)),
    "dense-64": (("vcell", "vcell-fresh", "vcell-memory"), ("annbatch",)),
    "plain-4096": (("vcell",), ("scdataset",)),
    "plain-64": (("vcell",), ("scdataset",)),
    "step-4096": (("vcell",), ("annbatch",)),
    "pairs-256": (("vcell", "vcell-memory"), ("cell-load", "cell-load-sorted")),
    "convert": (("vcell",), ("annbatch",)),
}
STEP = 0.1  # seconds
RUN = 512  # neighbouring cells that annbatch reads at a time
EPOCHS = 3

#: A batch: number of cells, a function for the sum of values, codes or labels of perturbations.
Seen = tuple[int, Callable[[], float], Any]


def vcell_batches(task: str, size: int, cells: Path, store: Path, kind: str) -> Any:
    """Return a function that starts an epoch of vcell."""
    from vcell.store import Loader, Output, Sets, Shuffled, Store

    dense = task in {"dense", "pairs"}
    output = Output(dense=dense, labels=LABELS, own=kind == "fresh")
    if task == "pairs":
        opened = Store.open(store)
        codes, names = opened.codes("perturbation")
        control = names.tolist().index("non-targeting")
        order: Any = Sets(
            perturbation=codes, control=control, context=opened.codes("batch")[0],
            set_size=1, sets_per_batch=size,
        )  # fmt: skip
        loader = Loader(opened, order, output, resident=kind == "memory")
    elif task == "plain":
        loader = Loader(cells, Shuffled(batch_size=size), output)
    else:
        loader = Loader(store, Shuffled(batch_size=size), output, resident=kind == "memory")

    def epoch() -> Iterator[Seen]:
        for batch in loader:
            values, labels = batch.x if dense else batch.data, batch.labels["perturbation"]
            if task == "pairs":
                values, labels = values[::2], labels[::2]
            yield len(labels), lambda v=values: float(v.sum(dtype="f8")), labels

    return epoch


def annbatch_batches(task: str, size: int, store: Path) -> Any:
    """Return a function that starts an epoch of annbatch on its own store, as its README advises.

    That is: zarrs decodes, only the label columns are loaded, and categories are kept. Its buffer
    is ours, 16,384 cells; runs of 512 (its default) were the fastest of 32, 256 and 512.
    """
    import annbatch
    import anndata as ad
    import numpy as np
    import zarr

    zarr.config.set({"codec_pipeline.path": "zarrs.ZarrsCodecPipeline"})
    collection = annbatch.DatasetCollection(zarr.open_group(store, mode="r"))

    def load(group: Any) -> Any:
        obs = ad.io.read_elem(group["obs"])[list(LABELS)]
        return ad.AnnData(X=ad.io.sparse_dataset(group["X"]), obs=obs)

    def epoch() -> Iterator[Seen]:
        with ad.settings.override(remove_unused_categories=False):
            loader = annbatch.Loader(
                batch_size=size, chunk_size=RUN, preload_nchunks=16_384 // RUN, shuffle=True,
                to=None, rng=np.random.default_rng(0),
            ).use_collection(collection, load_adata=load)  # fmt: skip
        for batch in loader:
            x = batch["X"]
            if task == "dense":
                x = x.toarray()
            yield x.shape[0], lambda v=x: float(v.sum(dtype="f8")), batch["obs"]["perturbation"]

    return epoch


def scdataset_batches(size: int, cells: Path) -> Any:
    """Return a function that starts an epoch of scDataset on the backed file."""
    import anndata as ad
    from scdataset import BlockShuffling, scDataset

    adata = ad.read_h5ad(cells, backed="r")
    block, fetch = (256, 4) if size >= 1024 else (16, 256)

    def take(collection: Any, index: Any) -> Any:
        part = collection[index].to_memory()
        part.obs = part.obs[list(LABELS)]
        return part

    def epoch() -> Iterator[Seen]:
        dataset = scDataset(
            adata, BlockShuffling(block_size=block), batch_size=size, fetch_factor=fetch,
            fetch_callback=take,
        )  # fmt: skip
        for batch in dataset:
            x = batch.X
            yield x.shape[0], lambda v=x: float(v.sum(dtype="f8")), batch.obs["perturbation"]

    return epoch


def cell_load_batches(size: int, stores: Path, *, in_runs: bool) -> Any:
    """Return a function that starts an epoch of cell-load."""
    import logging

    from cell_load.data_modules import PerturbationDataModule

    logging.disable()
    config = stores / "pairs" / "config.toml"
    config.write_text(f'[datasets]\nscreen = "{stores / "pairs"}"\n[training]\nscreen = "train"\n')
    sentence = 32
    module = PerturbationDataModule(
        str(config), batch_size=size // sentence, num_workers=0, pert_col="perturbation",
        batch_col="batch", cell_type_key="cell_type", control_pert="non-targeting",
        embed_key="X_hvg", output_space="gene", cell_sentence_len=sentence,
        should_yield_control_cells=False, use_consecutive_loading=in_runs,
    )  # fmt: skip
    module.setup()

    def epoch() -> Iterator[Seen]:
        for batch in module.train_dataloader():
            x = batch["pert_cell_emb"]
            assert batch["ctrl_cell_emb"].shape == x.shape
            yield len(x), lambda v=x: float(v.double().sum()), batch["pert_name"]

    return epoch


def entropy(labels: Any) -> float:
    """Entropy of some labels in bits."""
    import numpy as np

    _, counts = np.unique(np.asarray(labels), return_counts=True)
    share = counts / counts.sum()
    return float(-(share * np.log2(share)).sum())


def run_entry(entry: str, cells: Path, stores: Path) -> dict[str, Any]:
    """Measure one entry in this process."""
    table, who = entry.split(":")
    task, _, size = table.partition("-")
    if task == "convert":
        return convert(who, cells, stores)
    if who.startswith("vcell"):
        store = stores / ("pairs.zarr" if task == "pairs" else "vcell.zarr")
        epoch = vcell_batches(task, int(size), cells, store, who.partition("-")[2])
    elif who == "annbatch":
        epoch = annbatch_batches(task, int(size), stores / "annbatch.zarr")
    elif who.startswith("cell-load"):
        epoch = cell_load_batches(int(size), stores, in_runs=who.endswith("sorted"))
    else:
        epoch = scdataset_batches(int(size), cells)
    n, total, bits = first_epoch(epoch())
    for _ in epoch():
        pass
    seconds, cpu, timed, slept = time.perf_counter(), time.process_time(), 0, 0.0
    for _ in range(EPOCHS):
        for count, _, _ in epoch():
            timed += count
            if task == "step":
                begun = time.perf_counter()
                time.sleep(STEP)
                slept += time.perf_counter() - begun
    return {
        "cells": timed, "seconds": time.perf_counter() - seconds, "slept": slept,
        "cpu": time.process_time() - cpu, "warm_cells": n, "sum": total,
        "entropy": bits,
    }  # fmt: skip


def first_epoch(batches: Iterator[Seen]) -> tuple[int, float, float]:
    """Warm up; return the number of cells, the sum of values, the mean entropy of full batches."""
    n, total, entropies = 0, 0.0, []
    for count, sum_of, labels in batches:
        n += count
        total += sum_of()
        entropies.append(entropy(labels))
    return n, total, statistics.fmean(entropies[:-1] or entropies)


def convert(who: str, cells: Path, stores: Path) -> dict[str, Any]:
    """Time the conversion to a shuffled store; the second of two, to exclude compilation."""
    target = stores / f"{who}.zarr"
    rounds = 2 if who == "vcell" else 1
    for _ in range(rounds):
        shutil.rmtree(target, ignore_errors=True)
        seconds, cpu = time.perf_counter(), time.process_time()
        if who == "vcell":
            from vcell.store import prepare

            n = prepare([cells], target).manifest["n_cells"]
        else:
            import annbatch
            import h5py
            import zarr

            zarr.config.set({"codec_pipeline.path": "zarrs.ZarrsCodecPipeline"})
            made = annbatch.DatasetCollection(zarr.open_group(target, mode="w"))
            made.add_adatas([cells])
            with h5py.File(cells) as file:
                n = len(file["X/indptr"]) - 1
        seconds, cpu = time.perf_counter() - seconds, time.process_time() - cpu
    return {"cells": n, "seconds": seconds, "cpu": cpu}


def interpreter(who: str) -> Path | None:
    """Return a peer's Python, or None."""
    if who.startswith("vcell"):
        return Path(sys.executable)
    return peers.python_of(who.removesuffix("-sorted"))


def measure(entry: str, args: argparse.Namespace) -> dict[str, Any] | None:
    """Run one entry in a separate process."""
    python = interpreter(entry.split(":")[1])
    if python is None:
        return None
    command = [python, __file__, "--entry", entry, "--cells", args.cells, "--stores", args.stores]
    environment = os.environ | {"PYTHONWARNINGS": "ignore"}
    done = subprocess.run(
        [str(word) for word in command], capture_output=True, text=True, check=False,
        env=environment,
    )  # fmt: skip
    if done.returncode:
        sys.exit(f"{entry}: failed\n{done.stderr[-2000:]}")
    return dict(json.loads(done.stdout.splitlines()[-1]))


def main() -> None:
    """Run the rounds and print the tables."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--cells", type=Path)
    parser.add_argument("--stores", type=Path, default=HERE / ".data" / "stores")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--only", default="")
    parser.add_argument("--entry", default="", help=argparse.SUPPRESS)
    args = parser.parse_args()
    args.stores.mkdir(parents=True, exist_ok=True)
    if args.cells is None:
        args.cells = simulated(args.stores.parent / "loader-40000.h5ad")
    stores = args.stores / args.cells.stem  # those of other cells are not taken for these
    stores.mkdir(exist_ok=True)
    if args.entry:
        found = run_entry(args.entry, args.cells, stores)
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
        print(json.dumps(found | {"rss": peak}))  # in GiB
        return
    tables = args.only.split(",") if args.only else compared()
    prepare_stores(args, stores, tables)
    entries = (f"{table}:{who}" for table in tables for who in itertools.chain(*TABLES[table]))
    results: dict[str, list[dict[str, Any]]] = {entry: [] for entry in entries}
    for number in range(1, args.rounds + 1):
        for entry, runs in results.items():
            if (got := measure(entry, args)) is not None:
                runs.append(got)
                rate = got["cells"] / got["seconds"]
                print(f"round {number} {entry} {rate:,.0f}/s", file=sys.stderr)
    ratios: dict[str, dict[str, float]] = {}
    for table in tables:
        ratios |= report(table, results)
    peers.judge(ratios)


def compared() -> list[str]:
    """Return the tables with a peer that is installed; others are left out, loudly."""
    return [name for name, (_, others) in TABLES.items() if any(map(interpreter, others))]


def simulated(path: Path) -> Path:
    """Make the usual cells, once."""
    import h5py

    if not path.exists():
        words = "--n-cells 40000 --genes 20000 --perturbations 200 --umis 7000 --compress --quiet"
        made = path.with_name("making.h5ad")
        simulate = [sys.executable, "-m", "vcell", "simulate", str(made), "--overwrite"]
        subprocess.run([*simulate, *words.split()], check=True)
        with h5py.File(made, "r+") as file:
            obs = file["obs"]
            obs.move("target_gene", LABELS[0])
            columns = obs.attrs["column-order"]
            obs.attrs["column-order"] = [LABELS[0] if c == "target_gene" else c for c in columns]
        made.rename(path)
    return path


def prepare_stores(args: argparse.Namespace, stores: Path, tables: list[str]) -> None:
    """Build the loaders' stores, once."""
    for who in ("vcell", "annbatch"):
        if tables != ["convert"] and not (stores / f"{who}.zarr").exists():
            measure(f"convert:{who}", args)
    if "pairs-256" in tables and not (stores / "pairs").exists():
        prepare_pairs(args.cells, stores)


def prepare_pairs(cells: Path, stores: Path) -> None:
    """Build a store of the 2,000 most variable genes, and a sorted copy for cell-load."""
    import anndata as ad
    import numpy as np

    from vcell.store import Recipe, Store, prepare

    whole = Store.open(stores / "vcell.zarr")
    top = whole.statistics["variance"].argsort()[::-1][:2000]
    prepare([cells], stores / "pairs.zarr", Recipe(genes=tuple(whole.genes[top])))
    store = Store.open(stores / "pairs.zarr")
    rows = np.argsort(store.codes("perturbation")[0], kind="stable")
    matrix = store.read(rows).astype(np.float32)
    table = store.obs.iloc[rows][list(LABELS)].assign(cell_type="one")
    adata = ad.AnnData(matrix, obs=table, obsm={"X_hvg": matrix.toarray()})
    (stores / "pairs").mkdir()
    adata.write_h5ad(stores / "pairs" / "sorted.h5ad")


def report(table: str, results: dict[str, list[dict[str, Any]]]) -> dict[str, dict[str, float]]:
    """Print one comparison, and return the ratios of vcell's rows to each peer."""
    ours, others = TABLES[table]
    print(f"\n{table}")
    rates: dict[str, tuple[float, float]] = {}
    for who in [*ours, *others]:
        if not (runs := results[f"{table}:{who}"]):
            continue
        wall = sorted(run["cells"] / run["seconds"] for run in runs)
        cpu = statistics.median(run["cells"] / run["cpu"] for run in runs)
        rates[who] = statistics.median(wall), cpu
        memory = max(run["rss"] for run in runs)
        more = ""
        if runs[0].get("slept"):
            waiting = statistics.median(1 - run["slept"] / run["seconds"] for run in runs)
            more = f"  waiting {waiting:.1%} of the time behind steps of {STEP:g} s"
        if "sum" in runs[0]:
            more += f"  sum {runs[0]['sum']:.0f}  label entropy {runs[0]['entropy']:.2f} bits"
        print(
            f"  {who:16s} {rates[who][0]:>9,.0f} cells/s ({wall[0]:,.0f}-{wall[-1]:,.0f}), "
            f"{cpu:>9,.0f} per CPU-second, {memory:.2f} GiB{more}"
        )
    ratios = {}
    for who, peer in itertools.product(ours, others):
        if who in rates and peer in rates:
            by_wall, by_cpu = (rates[who][i] / rates[peer][i] for i in (0, 1))
            row = f"{table}, {who} / {peer}"
            ratios[row] = {"clock": by_wall, "CPU": by_cpu}
            wanted = peers.WANTED.get(row, {}).get("clock", "nothing")
            print(f"  {who} / {peer}: {by_wall:.2f} by the clock, {by_cpu:.2f} by CPU time "
                  f"(wanted: {wanted})")  # fmt: skip
    return ratios


if __name__ == "__main__":
    main()
