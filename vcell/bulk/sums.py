"""Add up the cells of samples in bounded memory, whatever the number of cells and of samples.

Where the compressed counts of all cells fit half of the memory granted, the file is read once and
they stay. Else samples are made some at a time, and the cells of each such part are read for it,
piece by piece: one pass over the file for each part. How many passes is said beforehand.
"""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from vcell import console
from vcell.bulk.draw import BLOCK, Drawn, Sampling, draws
from vcell.cores import cores
from vcell.data.detect import elsewhere
from vcell.data.source import MAX_NNZ
from vcell.errors import UserError
from vcell.kernels.drawn import add_drawn

if TYPE_CHECKING:
    from vcell.bulk.pools import Pools
    from vcell.data import CellSource
    from vcell.data.block import Block

#: Bytes for cells and sums, half each.
MEMORY = 1 << 28
_RESIDENT_TILE = 1 << 25  # bytes of sums while all cells are in memory: more gains nothing
_SMALL = 1 << 16
_FEWEST = 1 << 16  # non-zeros of a block
_LARGEST = np.iinfo(np.int32).max
_THREADS = 8


@dataclass(frozen=True)
class Samples:
    """Some samples, added up.

    Attributes
    ----------
    drawn
        What they are made of.
    counts
        ``[S, G]`` sums of their cells' counts, int32.
    """

    drawn: Drawn
    counts: NDArray[np.int32]


@dataclass(frozen=True)
class PackedCells:
    """Consecutive cells, compressed: CSR in the smallest unsigned types that hold them."""

    first: int
    indptr: NDArray[np.int64]
    indices: NDArray[Any]
    values: NDArray[Any]

    @property
    def largest(self) -> int:
        """The largest count."""
        return int(self.values.max(initial=0))


def samples(
    source: CellSource,
    pools: Pools,
    sampling: Sampling,
    *,
    genes: NDArray[np.int64] | None = None,
    memory: int = MEMORY,
    threads: int | None = None,
) -> Iterator[Samples]:
    """Yield samples added up, some at a time, in the order of the groups.

    Parameters
    ----------
    source
        Raw counts.
    genes
        Which columns, in the order they shall have. None: all.
    memory
        Bytes for cells and sums. Less of it means more passes over the file.
    threads
        How many add; by default as many as this process may use.

    Raises
    ------
    UserError
        The values are no counts, or a sum exceeds 2**31.
    """
    width = source.n_genes if genes is None else len(genes)
    wanted = np.sort(pools.order)
    kept = _resident(source, wanted, genes, memory // 2)
    room = min(_RESIDENT_TILE, memory // 2) if kept else memory // 2
    tile = max(room // (4 * max(width, 1)) // BLOCK, 1) * BLOCK
    total = len(pools.groups) * sampling.samples
    if kept is None:
        console.say(
            f"{source.name}: its counts need more memory than is granted, so they are read for "
            f"each {tile:,} of {total:,} samples: {-(-total // tile)} times"
        )
    with (
        ThreadPoolExecutor(threads or cores(_THREADS)) as pool,
        console.progress("adding cells up", total, "samples") as bar,
    ):
        for drawn in _tiles(draws(pools, sampling), tile):
            sums = np.zeros((len(drawn), width), np.int32)
            rows = wanted if kept else np.unique(drawn.cells)
            place = np.empty(source.n_cells, np.int32)
            place[rows] = np.arange(len(rows), dtype=np.int32)
            cells = place[drawn.cells]
            for piece in [kept] if kept else _pieces(source, rows, genes, memory // 4):
                sums = _added(piece, cells, sums, pool)
            yield Samples(drawn, _narrow(sums))
            bar.advance(len(drawn))


def all_samples(source: CellSource, pools: Pools, sampling: Sampling, **how: Any) -> Samples:
    """Return all samples at once; `how` is as for `samples`."""
    parts = list(samples(source, pools, sampling, **how))
    drawn = Drawn.joined([part.drawn for part in parts])
    return Samples(drawn, np.concatenate([part.counts for part in parts]))


def _tiles(blocks: Iterator[Drawn], size: int) -> Iterator[Drawn]:
    """Gather blocks into parts of about `size` samples."""
    held: list[Drawn] = []
    for block in blocks:
        held.append(block)
        if sum(map(len, held)) >= size:
            yield Drawn.joined(held)
            held = []
    if held:
        yield Drawn.joined(held)


def _added(
    piece: PackedCells, cells: NDArray[np.int32], sums: NDArray[Any], pool: ThreadPoolExecutor
) -> NDArray[Any]:
    """Add one piece to the sums, in 64 bits where 32 might not do; threads share the samples."""
    if piece.largest * cells.shape[1] > _LARGEST:
        sums = sums.astype(np.int64)
    n = len(cells)
    step = -(-n // (4 * pool._max_workers))
    jobs = [
        pool.submit(
            add_drawn, piece.indptr, piece.indices, piece.values, piece.first,
            cells, begin, min(begin + step, n), sums,
        )
        for begin in range(0, n, step)
    ]  # fmt: skip
    for job in jobs:
        job.result()
    return sums


def _narrow(sums: NDArray[Any]) -> NDArray[np.int32]:
    if sums.dtype == np.int32:
        return sums
    if sums.max(initial=0) > _LARGEST:
        raise UserError(
            f"a sum of counts is {sums.max():,}, more than 2**31", hint="draw fewer --cells"
        )
    return sums.astype(np.int32)


def _resident(
    source: CellSource, rows: NDArray[np.int64], genes: NDArray[np.int64] | None, limit: int
) -> PackedCells | None:
    """Return all cells that can be drawn, compressed, or None where they take too much memory."""
    if source.nnz is not None and genes is None:
        bytes_a_value = 4  # two for the gene, two for the count
        if source.nnz * bytes_a_value * len(rows) / max(source.n_cells, 1) > limit:
            return None
    for piece in _pieces(source, rows, genes, limit):
        return piece if len(piece.indptr) - 1 == len(rows) else None
    return None


def _pieces(
    source: CellSource, rows: NDArray[np.int64], genes: NDArray[np.int64] | None, limit: int
) -> Iterator[PackedCells]:
    """Read some rows in pieces of about `limit` bytes; cells are numbered as in `rows`."""
    chosen = None if len(rows) == source.n_cells else rows
    held: list[PackedCells] = []
    first = size = 0
    most = min(max(limit // 16, _FEWEST), MAX_NNZ)  # what is read ahead is bounded, too
    for block in source.chunks(chosen, genes, max_nnz=most, dtype="stored"):
        piece = _compressed(source, block, first)
        held.append(piece)
        first += len(block)
        size += piece.indices.nbytes + piece.values.nbytes
        if size >= limit:
            yield _joined(held)
            held, size = [], 0
    if held:
        yield _joined(held)


def _compressed(source: CellSource, block: Block, first: int) -> PackedCells:
    """Narrow a block, and refuse what is no count."""
    data = block.data
    low, high = (data.min(), data.max()) if len(data) else (0, 0)
    if not (low >= 0 and high <= _LARGEST):
        _refuse(source, block, ~((data >= 0) & (data <= _LARGEST)))
    values = data.astype(np.uint16 if high < _SMALL else np.uint32)
    if data.dtype.kind == "f" and not np.array_equal(values, data):
        _refuse(source, block, values != data)
    indices = block.indices.astype(np.uint16 if block.n_genes <= _SMALL else np.uint32)
    return PackedCells(first, block.indptr - block.indptr[0], indices, values)


def _refuse(source: CellSource, block: Block, wrong: NDArray[np.bool_]) -> None:
    at = int(np.argmax(wrong))
    cell = block.rows[int(np.searchsorted(block.indptr - block.indptr[0], at, side="right")) - 1]
    raise UserError(
        f"{source.name}: cell {cell:,} holds {block.data[at]:.6g}, which is no count",
        hint=elsewhere(source),
    )


def _joined(pieces: list[PackedCells]) -> PackedCells:
    """Return consecutive pieces as one; they are given up one array after the other."""
    if len(pieces) == 1:
        return pieces[0]
    ends = np.cumsum([len(piece.values) for piece in pieces])
    indptr = [pieces[0].indptr]
    indptr += [p.indptr[1:] + end for p, end in zip(pieces[1:], ends[:-1], strict=True)]
    indices = np.concatenate([piece.indices for piece in pieces])
    values = np.concatenate([piece.values for piece in pieces])
    return PackedCells(pieces[0].first, np.concatenate(indptr), indices, values)
