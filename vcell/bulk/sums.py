"""Add up the cells of samples in bounded memory, whatever the number of cells and of samples.

Where the compressed counts of all cells fit half of the memory granted, the file is read once and
the counts stay in memory. Otherwise samples are made a part at a time, with one pass over the file
for each part. The number of passes is reported first.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from vcell import console
from vcell.bulk.draw import BLOCK, Drawn, Sampling, draws
from vcell.bulk.packed import LARGEST, MOST_CELLS, OFTEN, GeneOrder, PackedCells, packed
from vcell.cores import cores
from vcell.data.buffers import Buffers
from vcell.data.source import MAX_NNZ
from vcell.errors import UserError
from vcell.kernels.drawn import (
    MOST_TIMES,
    ROW,
    add_alone,
    add_alone_seldom,
    add_drawn,
    count_draws,
    restore,
    samples_of,
)

if TYPE_CHECKING:
    from vcell.bulk.pools import Pools
    from vcell.data import CellSource

#: Bytes for cells and sums, half each.
MEMORY = 1 << 28
_RESIDENT_TILE = 1 << 23  # bytes of sums while all cells are in memory: more gains little
_FEWEST = 1 << 16  # non-zeros of a block
_THREADS = 8
_PART = 2048  # cells of which a block stays in the cache while samples add them


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
    order = GeneOrder.learn(source, wanted, genes, sampling.cells)
    kept = _resident(source, wanted, genes, order, memory // 2)
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
            for piece in kept or _pieces(source, rows, genes, order, memory // 2):
                if piece.largest * sampling.cells > LARGEST:
                    sums = sums.astype(np.int64, copy=False)
                _share(pool, partial(_added, piece, cells, sums, order), len(drawn))
            _share(pool, partial(_restored, sums, order), len(drawn))
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


def _share(pool: ThreadPoolExecutor, work: Callable[[int, int], None], n: int) -> None:
    """Let each thread do some of `n` samples."""
    step = -(-n // pool._max_workers)
    jobs = [pool.submit(work, first, min(first + step, n)) for first in range(0, n, step)]
    for job in jobs:
        job.result()


def _added(
    piece: PackedCells, cells: NDArray[np.int32], sums: NDArray[Any], order: GeneOrder,
    begin: int, end: int,
) -> None:  # fmt: skip
    """Add one piece to some of the samples; columns are in the order of `GeneOrder`."""
    mine, out = cells[begin:end], sums[begin:end]
    parts = [piece.first + row for row in (*range(0, len(piece), _PART), len(piece))]
    bounds = np.stack([(mine < part).sum(axis=1) for part in parts], axis=1)
    table = piece.table.view(np.uint64)
    add_drawn(table, order.halves, order.starts, piece.first, mine, bounds, out)
    span = bounds[:, [0, -1]]
    ones, more = piece.ones, piece.more
    drawn = int((span[:, 1] - span[:, 0]).sum())
    if drawn > OFTEN * len(piece) * len(mine):
        times = np.zeros((len(piece), -(-len(mine) // 8) * 8), np.uint8)
        most = count_draws(mine, span, piece.first, times)
        if most <= MOST_TIMES:
            lanes = times.view(np.uint64)
            add_alone(ones.starts, ones.rows, more.starts, more.rows, more.values, lanes, most, out)
            return
    ends, having = np.zeros(len(piece) + 1, np.int64), np.empty(drawn, np.int32)
    samples_of(mine, span, piece.first, ends, having)
    for part in (ones, more):
        add_alone_seldom(part.starts, part.rows, part.values, ends, having, out)


def _restored(sums: NDArray[Any], order: GeneOrder, begin: int, end: int) -> None:
    restore(sums[begin:end], order.order)


def _narrow(sums: NDArray[Any]) -> NDArray[np.int32]:
    if sums.dtype == np.int32:
        return sums
    if sums.max(initial=0) > LARGEST:
        raise UserError(
            f"a sum of counts is {sums.max():,}, more than 2**31", hint="draw fewer --cells"
        )
    return sums.astype(np.int32)


def _resident(
    source: CellSource, rows: NDArray[np.int64], genes: NDArray[np.int64] | None, order: GeneOrder,
    limit: int,
) -> list[PackedCells] | None:  # fmt: skip
    """Return all cells that can be drawn, or None where they take more than `limit` bytes."""
    if len(rows) * order.blocks * ROW > limit:
        return None
    kept, size = [], 0
    for piece in packed(
        source, rows, genes, order, most_cells=MOST_CELLS, most_values=_values(limit)
    ):
        kept.append(piece)
        size += piece.nbytes
        if size > limit:
            return None
    return kept


def _pieces(
    source: CellSource, rows: NDArray[np.int64], genes: NDArray[np.int64] | None, order: GeneOrder,
    memory: int,
) -> Iterator[PackedCells]:  # fmt: skip
    """Read pieces of which two fit an eighth of the memory, if a few cells do."""
    most = memory // (16 * ROW * max(order.blocks, 1))
    return packed(
        source, rows, genes, order, most_cells=min(max(most, BLOCK), _PART),
        most_values=_values(memory),
    )  # fmt: skip


def _values(memory: int) -> int:
    """Return how many values are read at once; several such blocks are in memory."""
    return min(max(memory // 512, _FEWEST), MAX_NNZ)
