"""What decoding a store's chunks costs, and what it would cost at least.

    python benchmarks/frames.py STORE.zarr

Microseconds of CPU time for a cell, one thread, the least of seven rounds over 32 chunks of column
ids and of counts: numcodecs and our kernel, each on frames that numcodecs wrote (as in older
stores) and on ours; then what follows decoding, copying rows to int32 and float32 through the cache
and past it, and the floor, storing as many zeros. STORE holds counts in lz4, made by `vcell
prepare`.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numcodecs import blosc

from vcell.kernels import frames, gather
from vcell.store import Store

N_CHUNKS = 32


def least(call: Callable[[], object], cells: float) -> str:
    """Return the least microseconds of CPU time for a cell."""
    spent = []
    for _ in range(7):
        began = time.process_time()
        call()
        spent.append(time.process_time() - began)
    return f"{min(spent) / cells * 1e6:6.2f}"


def codecs(name: str, chunks: list[np.ndarray[Any, Any]], cells: float, *, by_bit: bool) -> None:
    """Print a line for the frames of one array."""
    shuffle = blosc.BITSHUFFLE if by_bit else blosc.SHUFFLE
    work, out = np.empty(frames.WORK, np.uint8), np.empty_like(chunks[0])
    room = np.empty(frames.room(out.nbytes), np.uint8)

    def theirs(chunk: np.ndarray[Any, Any]) -> bytes:
        coded: bytes = blosc.compress(chunk, b"lz4", 3, shuffle, 1 << 15)
        return coded

    old = [theirs(chunk) for chunk in chunks]
    new = [room[: frames.encode(chunk, by_bit, room, work)].tobytes() for chunk in chunks]
    arrays = [np.frombuffer(frame, np.uint8) for frame in new]
    for frame, chunk in zip(arrays, chunks, strict=True):
        assert frames.decode(frame, out, work)
        assert (out == chunk).all()
    sizes = [sum(map(len, coded)) / sum(map(len, chunks)) for coded in (old, new)]
    costs = [
        least(call, cells)
        for call in (
            lambda: [theirs(chunk) for chunk in chunks],
            lambda: [frames.encode(chunk, by_bit, room, work) for chunk in chunks],
            lambda: [blosc.decompress(frame, out) for frame in old],
            lambda: [blosc.decompress(frame, out) for frame in new],
            lambda: [frames.decode(frame, out, work) for frame in arrays],
        )
    ]
    print(f"{name:8s} {sizes[0]:6.3f} {sizes[1]:6.3f} " + " ".join(f"{x:>12s}" for x in costs))


def copies(idx: np.ndarray[Any, Any], val: np.ndarray[Any, Any], n_values: int) -> None:
    """Print the cost of copying rows, in an order of their own, to 8 bytes for each value."""
    rows = 8192
    length = np.full(rows, n_values)
    src = np.arange(rows) % (len(idx) // n_values) * n_values
    dst = np.random.default_rng(0).permutation(rows) * n_values
    out = np.zeros(rows * n_values, np.int32), np.zeros(rows * n_values, np.float32)
    order = np.arange(rows)
    end = len(idx)
    print(
        "copying: through the cache",
        least(lambda: gather.copy_rows(idx, val, src, length, dst, 0, rows, *out), rows),
        "past it",
        least(
            lambda: gather.rows_from_chunk(
                idx, val, 0, end, src, length, dst, order, 0, rows, *out
            ),
            rows,
        ),
        "zeros",
        least(lambda: [part.fill(0) for part in out], rows),
    )


def main() -> None:
    """Measure the first chunks of a store."""
    blosc.use_threads = False
    with Store.open(Path(sys.argv[1])) as store:
        n = min(N_CHUNKS, store.nnz // store.chunk)
        idx = [np.empty(store.chunk, store.idx_dtype) for _ in range(n)]
        val = [np.empty(store.chunk, store.val_dtype) for _ in range(n)]
        for number in range(n):
            store.read_chunk(number, idx[number], val[number])
        per_cell = store.nnz // store.n_cells
    cells = n * len(idx[0]) / per_cell
    print(f"{per_cell:,} values a cell; bytes of a value, microseconds of a cell")
    print("          old    new    write numcodecs, ours; read numcodecs old, new, ours new")
    codecs("ids", idx, cells, by_bit=False)
    codecs("counts", val, cells, by_bit=True)
    copies(idx[0], val[0], per_cell)


if __name__ == "__main__":
    main()
