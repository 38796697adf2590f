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
from vcell.data.buffers import Buffers
from vcell.data.detect import elsewhere
from vcell.data.source import MAX_NNZ
from vcell.errors import UserError
from vcell.kernels.drawn import CLIP, WIDTH, add_beyond, add_drawn

if TYPE_CHECKING:
    from vcell.bulk.pools import Pools
    from vcell.data import CellSource
    from vcell.data.block import Block

#: Bytes for cells and sums, half each.
MEMORY = 1 << 28
_RESIDENT_TILE = 1 << 25  # bytes of sums while all cells are in memory: more gains nothing
_SMALL = 1 << 16
_CELLS = 2048  # of a piece: their table stays in the cache
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
    """Consecutive cells as CSR, three to five bytes a count.

    Attributes
    ----------
    first
        Number of the first cell.
    indptr, indices, values
        Values are bytes, counts up to `CLIP`.
    beyond
        The same for what larger counts have beyond it.
    largest
        The largest count.
    """

    first: int
    indptr: NDArray[np.int64]
    indices: NDArray[Any]
    values: NDArray[np.uint8]
    beyond: tuple[NDArray[np.int64], NDArray[Any], NDArray[np.int64]]
    largest: int

    @property
    def nbytes(self) -> int:
        """Bytes in memory."""
        held = (self.indptr, self.indices, self.values, *self.beyond)
        return sum(array.nbytes for array in held)


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
        The values are not counts, or a sum exceeds 2**31.
    """
    width = source.n_genes if genes is None else len(genes)
    wanted = np.sort(pools.order)
    kept = _resident(source, wanted, genes, memory // 2)
    room = min(_RESIDENT_TILE, memory // 2) if kept else memory // 2
    tile = max(room // (4 * max(width, 1)) // BLOCK, 1) * BLOCK
    total = len(pools.groups) * sampling.samples
    buffers = Buffers(keep=2)  # used again where the caller has let go of the samples before
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
            sums = buffers.take(len(drawn) * width, np.int32).reshape(len(drawn), width)
            sums[:] = 0
            rows = wanted if kept else np.unique(drawn.cells)
            place = np.empty(source.n_cells, np.int32)
            place[rows] = np.arange(len(rows), dtype=np.int32)
            cells = place[drawn.cells]
            for piece in kept or _pieces(source, rows, genes, memory // 64):
                sums = _added(piece, cells, sums, pool)
            yield Samples(drawn, _narrow(sums))
            bar.advance(len(drawn))
            del sums


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
    """Add one piece to the sums, in 64 bits where 32 might not do; threads share the genes."""
    if piece.largest * cells.shape[1] > _LARGEST:
        sums = sums.astype(np.int64)
    blocks = -(-sums.shape[1] // WIDTH)
    step = -(-blocks // pool._max_workers) * WIDTH
    jobs = [
        pool.submit(
            add_drawn, piece.indptr, piece.indices, piece.values, piece.first, cells,
            begin, min(begin + step, sums.shape[1]), sums,
        )
        for begin in range(0, sums.shape[1], max(step, 1))
    ]  # fmt: skip
    for job in jobs:
        job.result()
    add_beyond(*piece.beyond, piece.first, cells, sums)
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
) -> list[PackedCells] | None:
    """Return all cells that can be drawn, compressed, or None where they take too much memory."""
    if source.nnz is not None and genes is None:
        bytes_a_value = 3  # two for the gene, one for the count
        if source.nnz * bytes_a_value * len(rows) / max(source.n_cells, 1) > limit:
            return None
    kept, size = [], 0
    for piece in _pieces(source, rows, genes, limit // 32):
        kept.append(piece)
        size += piece.nbytes
        if size > limit:
            return None
    return kept


def _pieces(
    source: CellSource, rows: NDArray[np.int64], genes: NDArray[np.int64] | None, limit: int
) -> Iterator[PackedCells]:
    """Read some rows, compressed, in pieces of up to `_CELLS`; cells are numbered as in `rows`.

    `limit` is in bytes, of what is read at once: several such blocks are in memory.
    """
    chosen = None if len(rows) == source.n_cells else rows
    most = min(max(limit // 8, _FEWEST), MAX_NNZ)  # a float and a column number each
    held: list[PackedCells] = []
    first = n = 0
    for block in source.chunks(chosen, genes, max_nnz=most, max_rows=_CELLS, dtype="stored"):
        if n + len(block) > _CELLS:
            yield _joined(held)
            held, n = [], 0
        held.append(_compressed(source, block, first))
        first += len(block)
        n += len(block)
    if held:
        yield _joined(held)


def _compressed(source: CellSource, block: Block, first: int) -> PackedCells:
    """Narrow a block, and refuse values that are not counts."""
    data = block.data
    low, high = (data.min(), data.max()) if len(data) else (0, 0)
    if not (low >= 0 and high <= _LARGEST):
        _refuse(source, block, ~((data >= 0) & (data <= _LARGEST)))
    values = np.minimum(data, CLIP).astype(np.uint8)
    indices = block.indices.astype(np.uint16 if block.n_genes <= _SMALL else np.uint32)
    large = np.flatnonzero(data > CLIP)
    if data.dtype.kind == "f" and (
        not np.array_equal(values[data <= CLIP], data[data <= CLIP])
        or not np.array_equal(np.floor(data[large]), data[large])
    ):
        _refuse(source, block, np.floor(data) != data)
    indptr = block.indptr - block.indptr[0]
    beyond = (
        np.searchsorted(large, indptr).astype(np.int64), indices[large],
        data[large].astype(np.int64) - CLIP,
    )  # fmt: skip
    return PackedCells(first, indptr, indices, values, beyond, int(high))


def _refuse(source: CellSource, block: Block, wrong: NDArray[np.bool_]) -> None:
    at = int(np.argmax(wrong))
    cell = block.rows[int(np.searchsorted(block.indptr - block.indptr[0], at, side="right")) - 1]
    raise UserError(
        f"{source.name}: cell {cell:,} holds {block.data[at]:.6g}, which is not a count",
        hint=elsewhere(source),
    )


def _joined(pieces: list[PackedCells]) -> PackedCells:
    """Return consecutive pieces as one."""
    if len(pieces) == 1:
        return pieces[0]
    return PackedCells(
        pieces[0].first,
        *_stacked([(p.indptr, p.indices, p.values) for p in pieces]),
        _stacked([p.beyond for p in pieces]),
        max(piece.largest for piece in pieces),
    )


def _stacked(parts: list[tuple[NDArray[Any], ...]]) -> tuple[Any, Any, Any]:
    """Stack CSR arrays."""
    ends = np.cumsum([len(part[2]) for part in parts])
    borders = [parts[0][0]]
    borders += [part[0][1:] + end for part, end in zip(parts[1:], ends[:-1], strict=True)]
    return (
        np.concatenate(borders),
        np.concatenate([part[1] for part in parts]),
        np.concatenate([part[2] for part in parts]),
    )
