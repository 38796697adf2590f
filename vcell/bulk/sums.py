"""Sum the cells of samples, in bounded memory for any number of cells and samples.

If the packed counts of all cells fit into half of the memory limit, the file is read once and the
counts stay in memory. Otherwise samples are made in parts, with one pass over the file for each.
The number of passes is reported first.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from vcell import console
from vcell.bulk.adding import Adder
from vcell.bulk.draw import BLOCK, Drawn, Sampling, draws
from vcell.bulk.packed import MOST_CELLS, GeneOrder, PackedCells, packed
from vcell.cores import cores
from vcell.data.detect import LARGEST_COUNT
from vcell.data.source import MAX_NNZ
from vcell.errors import UserError
from vcell.kernels.drawn import SAMPLES

if TYPE_CHECKING:
    from vcell.bulk.pools import Pools
    from vcell.data import CellSource

#: Memory limit in bytes, half for cells and half for sums.
MEMORY = 1 << 28
_FEWEST = 1 << 16  # non-zeros of a block
_THREADS = 8
_PIECE = 1 << 14  # cells for which a plane of genes stays in the cache


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
    adder = Adder(order, width, sampling.cells, threads or cores(_THREADS))
    tile = max(memory // 2 // (4 * max(width, 1)) // BLOCK, 1) * BLOCK
    if resident:
        tile = SAMPLES if len(resident) == 1 else min(tile, SAMPLES)
    total = len(pools.groups) * sampling.samples
    if resident is None:
        console.say(
            f"{source.name}: its counts need more memory than is granted, so they are read for "
            f"each {tile:,} of {total:,} samples: {-(-total // tile)} times"
        )
    with adder, console.progress("adding cells up", total, "samples") as bar:
        for drawn in _tiles(draws(pools, sampling), tile):
            rows = wanted if resident else np.unique(drawn.cells)
            place = np.empty(source.n_cells, np.int32)
            place[rows] = np.arange(len(rows), dtype=np.int32)
            pieces = resident or _pieces(source, rows, genes, order, memory // 2)
            first = 0
            for sums in adder.sums(pieces, place[drawn.cells]):
                yield Samples(drawn.part(first, first + len(sums)), _narrow(sums))
                first += len(sums)
                bar.advance(len(sums))
                del sums
            del drawn


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
            joined, held = Drawn.joined(held), []
            yield joined
            del joined
    if held:
        yield Drawn.joined(held)


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
