"""Sum the cells of samples, in bounded memory for any number of cells and samples.

If the packed counts of all cells fit into half of the memory limit, the file is read once and the
counts stay in memory. Otherwise samples are made in parts, with one pass over the file for each.
The number of passes is reported first.
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
from vcell.bulk.packed import MOST_CELLS, GeneOrder, PackedCells, lines, packed
from vcell.cores import cores, share
from vcell.data.buffers import Buffers
from vcell.data.detect import LARGEST_COUNT
from vcell.data.source import MAX_NNZ
from vcell.errors import UserError
from vcell.kernels.drawn import (
    SAMPLE_LANES,
    SAMPLES,
    add_listed,
    add_table,
    mark,
    most_often,
    restore,
)

if TYPE_CHECKING:
    from vcell.bulk.pools import Pools
    from vcell.data import CellSource

#: Memory limit in bytes, half for cells and half for sums.
MEMORY = 1 << 28
_FEWEST = 1 << 16  # non-zeros of a block
_THREADS = 8
_PIECE = 1 << 14  # cells for which a plane of genes stays in the cache
_SHARES = 4  # tasks per thread, since genes differ in work
_SELDOM = 0.5  # below this share of cells with a bit, these cells are searched first


@dataclass(frozen=True)
class Samples:
    """Some samples, with their sums.

    Attributes
    ----------
    drawn
        The cells of the samples.
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
    """Yield samples with their sums, some at a time, in the order of the groups.

    Parameters
    ----------
    source
        Cells with raw counts.
    genes
        Columns of the sums, in this order. None: all.
    memory
        Limit on the bytes of cells and sums. Less memory means more passes over the file.
    threads
        Number of threads; by default as many as this process may use.

    Raises
    ------
    UserError
        If the values are not counts, or a sum exceeds 2**31.
    """
    width = source.n_genes if genes is None else len(genes)
    wanted = np.sort(pools.order)
    order = GeneOrder.learn(source, wanted, genes, sampling.cells)
    resident = _resident(source, wanted, genes, order, memory // 2)
    tile = max(memory // 2 // (4 * max(width, 1)) // BLOCK, 1) * BLOCK
    tile = min(tile, SAMPLES) if resident else tile
    total = len(pools.groups) * sampling.samples
    buffers = Buffers(keep=2)  # reused once the caller has released earlier samples
    if resident is None:
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
            rows = wanted if resident else np.unique(drawn.cells)
            place = np.empty(source.n_cells, np.int32)
            place[rows] = np.arange(len(rows), dtype=np.int32)
            cells = place[drawn.cells]
            for piece in resident or _pieces(source, rows, genes, order, memory // 2):
                if piece.largest * sampling.cells > LARGEST_COUNT:
                    sums = sums.astype(np.int64, copy=False)
                for begin in range(0, len(drawn), SAMPLES):
                    some = slice(begin, begin + SAMPLES)
                    _add(pool, piece, order, cells[some], sums[some])
            _share(pool, partial(_restored, sums, order), len(drawn))
            yield Samples(drawn, _narrow(sums))
            bar.advance(len(drawn))
            del sums


def all_samples(source: CellSource, pools: Pools, sampling: Sampling, **how: Any) -> Samples:
    """Return all samples at once; `how` are further arguments of `samples`."""
    parts = list(samples(source, pools, sampling, **how))
    drawn = Drawn.joined([part.drawn for part in parts])
    return Samples(drawn, np.concatenate([part.counts for part in parts]))


def _tiles(blocks: Iterator[Drawn], size: int) -> Iterator[Drawn]:
    """Combine blocks into parts of about `size` samples."""
    held: list[Drawn] = []
    for block in blocks:
        held.append(block)
        if sum(map(len, held)) >= size:
            yield Drawn.joined(held)
            held = []
    if held:
        yield Drawn.joined(held)


def _share(pool: ThreadPoolExecutor, work: Callable[[int, int], None], n: int) -> None:
    share(pool, work, n, _SHARES * pool._max_workers)


def _add(
    pool: ThreadPoolExecutor, piece: PackedCells, order: GeneOrder, cells: NDArray[np.int32],
    sums: NDArray[Any],
) -> None:  # fmt: skip
    """Add one piece to at most `SAMPLES` samples; columns are in the order of `GeneOrder`."""
    ends_of = (piece.first, piece.first + len(piece))
    span = np.stack([(cells < end).sum(axis=1) for end in ends_of], axis=1)
    levels = int(most_often(cells, span)).bit_length()
    if not levels:
        return
    bits = lines(levels, len(piece) + 1, SAMPLE_LANES)
    often = np.zeros((levels, len(piece)), np.uint8)
    mark(cells, span, piece.first, bits, often)
    rows = (cells - piece.first).astype(np.uint16)  # those outside the piece are not used
    seldom = often.mean(axis=1) < _SELDOM

    def table(begin: int, end: int) -> None:
        add_table(piece.table, order.planes, order.starts, rows, span, begin, end, sums)

    def listed(begin: int, end: int) -> None:
        add_listed(
            piece.starts, piece.ones, order.level, piece.more_starts, piece.more_levels,
            piece.more, bits, often, seldom, begin, end, sums,
        )  # fmt: skip

    _share(pool, table, len(order.starts) - 1)  # whole blocks, so that their planes are cached
    _share(pool, listed, sums.shape[1])


def _restored(sums: NDArray[Any], order: GeneOrder, begin: int, end: int) -> None:
    restore(sums[begin:end], order.order)


def _narrow(sums: NDArray[Any]) -> NDArray[np.int32]:
    if sums.dtype == np.int32:
        return sums
    if sums.max(initial=0) > LARGEST_COUNT:
        raise UserError(
            f"a sum of counts is {sums.max():,}, more than 2**31", hint="draw fewer --cells"
        )
    return sums.astype(np.int32)


def _resident(
    source: CellSource, rows: NDArray[np.int64], genes: NDArray[np.int64] | None, order: GeneOrder,
    limit: int,
) -> list[PackedCells] | None:  # fmt: skip
    """Return all cells that can be drawn, or None if they take more than `limit` bytes."""
    if order.table_bytes(len(rows)) > limit:
        return None
    pieces, size = [], 0
    for piece in packed(
        source, rows, genes, order, most_cells=MOST_CELLS, most_values=_values(limit)
    ):
        pieces.append(piece)
        size += piece.nbytes
        if size > limit:
            return None
    return pieces


def _pieces(
    source: CellSource, rows: NDArray[np.int64], genes: NDArray[np.int64] | None, order: GeneOrder,
    memory: int,
) -> Iterator[PackedCells]:  # fmt: skip
    """Read pieces so that two fit into an eighth of the memory, if possible."""
    most = memory // (16 * max(order.table_bytes(1) // 2, 1))
    return packed(
        source, rows, genes, order, most_cells=min(max(most, BLOCK), _PIECE),
        most_values=_values(memory),
    )  # fmt: skip


def _values(memory: int) -> int:
    """Return the number of values to read at once; several such blocks are in memory."""
    return min(max(memory // 512, _FEWEST), MAX_NNZ)
