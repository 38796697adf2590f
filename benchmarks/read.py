"""Reading a whole matrix, against h5py: ``python benchmarks/read.py [--cells 20000]``.

Simulated counts are written as anndata writes them (gzip 4, its chunks) and read as CSR blocks with
each installed decoder, and with h5py, slab by slab. Repeats are interleaved; medians and their
ratio to h5py are printed. Everything is read from the page cache.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable
from functools import partial
from importlib.util import find_spec
from pathlib import Path

import h5py

from vcell.data import decode, open_cells
from vcell.data.simulate import simulate


def write(path: Path, cells: int, genes: int, umis: float, perturbations: int = 50) -> None:
    """Write counts with anndata's chunks and compression."""
    plain = path.with_name("plain.h5ad")
    screen = simulate(cells=cells, genes=genes, perturbations=perturbations, umis=umis, seed=0)
    screen.write_h5ad(plain)
    with h5py.File(plain) as source, h5py.File(path, "w") as out:
        for name in ("obs", "var"):
            source.copy(name, out)
        group = out.create_group("X")
        group.attrs.update(source["X"].attrs)
        for name in ("data", "indices", "indptr"):
            values = source["X"][name][...]
            group.create_dataset(name, data=values, compression="gzip", compression_opts=4)
    plain.unlink()


def by_h5py(path: Path) -> tuple[int, float]:
    """Read slabs of 1,000 cells, as backed AnnData does."""
    total, n = 0.0, 0
    with h5py.File(path) as file:
        x = file["X"]
        indptr = x["indptr"][...]
        for first in range(0, len(indptr) - 1, 1000):
            a, b = indptr[first], indptr[min(first + 1000, len(indptr) - 1)]
            data, indices = x["data"][a:b], x["indices"][a:b]
            n += len(indices)
            total += float(data[::1000].sum())
    return n, total


def by_vcell(path: Path, inflater: str) -> tuple[int, float]:
    """Read blocks with the decoder of one package."""
    decode.INFLATERS = (inflater,)
    decode.decoder.cache_clear()
    n = 0
    with open_cells(path) as source:
        for block in source.chunks():
            n += block.nnz
    return n, 0.0


def main() -> None:
    """Time them in turn."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--cells", type=int, default=20_000)
    parser.add_argument("--genes", type=int, default=20_000)
    parser.add_argument("--umis", type=float, default=8000)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--file", type=Path, help="read this gzip h5ad instead")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        path = args.file or Path(folder) / "cells.h5ad"
        if args.file is None:
            write(path, args.cells, args.genes, args.umis)
        ways: dict[str, Callable[[], tuple[int, float]]] = {"h5py": lambda: by_h5py(path)}
        for name in filter(find_spec, list(decode.INFLATERS)):
            ways[f"vcell, {name}"] = partial(by_vcell, path, name)
        wall: dict[str, list[float]] = {name: [] for name in ways}
        cpu: dict[str, list[float]] = {name: [] for name in ways}
        sizes = set()
        for _ in range(args.repeats):
            for name, run in ways.items():
                t, c = time.perf_counter(), time.process_time()
                sizes.add(run()[0])
                wall[name].append(time.perf_counter() - t)
                cpu[name].append(time.process_time() - c)
        assert len(sizes) == 1, sizes
        nnz = sizes.pop()
        print(f"{nnz / 1e6:.1f} M non-zeros, {path.stat().st_size / 1e6:.0f} MB on disk")
        print(
            f"{'':20s}  median s   best s    cpu s   GB/s at best   times h5py: median, best, cpu"
        )
        for name in ways:
            found = [statistics.median(wall[name]), min(wall[name]), statistics.median(cpu[name])]
            base = [
                statistics.median(wall["h5py"]), min(wall["h5py"]), statistics.median(cpu["h5py"])
            ]  # fmt: skip
            ratios = "  ".join(f"{b / s:5.2f}" for b, s in zip(base, found, strict=True))
            times = "  ".join(f"{s:7.2f}" for s in found)
            print(f"{name:20s}  {times}   {nnz * 8 / found[1] / 1e9:12.2f}   {ratios}")


if __name__ == "__main__":
    main()
