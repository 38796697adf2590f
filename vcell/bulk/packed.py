"""Cells in a form for fast sums of drawn cells: see `vcell.kernels.packing`."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from vcell.data.buffers import Buffers
from vcell.data.detect import sample_rows, whole_counts
from vcell.kernels.packing import GENE_LANES, GENES, REPEATED, count_bits, pack, sort_by_gene

if TYPE_CHECKING:
    from vcell.data import CellSource
    from vcell.data.block import Block

#: Maximum number of cells of a piece: their numbers, and the zero row, have 16 bits.
MOST_CELLS = (1 << 16) - 1
#: Maximum number of bits of a count in the table; higher bits are listed.
PLANES = 8
_LINE = 64  # bytes of a cache line
_BITS = 31  # of a count
#: A bit goes into the table above this share of the drawn cells (measured: .4 to .6 are fastest).
_WORTH = 0.5


@dataclass(frozen=True)
class GeneOrder:
    """Where the counts of genes are stored for the sums. G genes, B blocks of a table.

    Attributes
    ----------
    order
        The genes in the table, block by block.
    place
        ``[G]`` position of each gene, for `pack`.
    level
        ``[G]`` number of bits of a gene's counts in the table.
    planes
        ``[B + 1]`` the table's first plane of each block.
    starts
        ``[B + 1]`` where each block begins in `order`.
    """

    order: NDArray[np.uint32]
    place: NDArray[np.int32]
    level: NDArray[np.int64]
    planes: NDArray[np.int64]
    starts: NDArray[np.int64]

    @classmethod
    def choose(cls, shares: NDArray[np.float64], drawn: float) -> GeneOrder:
        """Choose for the table the bits that more cells have than half of what a sample draws.

        Parameters
        ----------
        shares
            ``[PLANES, G]`` share of cells whose count has each bit.
        drawn
            Share of the cells that a sample draws.
        """
        often = shares > _WORTH * drawn
        depth = np.where(often.any(axis=0), PLANES - often[::-1].argmax(axis=0), 0)
        order = np.argsort(-depth, kind="stable")
        n, genes = int((depth > 0).sum()), len(depth)
        starts = np.append(np.arange(0, n, GENES), n)
        deepest = depth[order[starts[:-1]]]
        planes = np.append(0, np.cumsum(deepest))
        widths = np.diff(starts)
        level, place = np.zeros(genes, np.int64), np.zeros(genes, np.int32)
        order = order[:n]
        level[order] = np.repeat(deepest, widths)
        place[order] = np.repeat(planes[:-1], widths) << 14 | np.arange(n) % GENES << 5
        place |= level.astype(np.int32)
        return cls(order.astype(np.uint32), place, level, planes, starts)

    @classmethod
    def learn(
        cls, source: CellSource, rows: NDArray[np.int64], genes: NDArray[np.int64] | None, n: int
    ) -> GeneOrder:
        """Choose by some cells, evenly spread over those to draw from, for `n` per sample."""
        n_genes = source.n_genes if genes is None else len(genes)
        having = np.zeros((PLANES, n_genes), np.int64)
        some = rows[sample_rows(len(rows), source.nnz, source.n_genes)]
        for block in source.chunks(some, genes, max_nnz=1 << 18, dtype="stored", prefetch=False):
            count_bits(block.indices, whole_counts(source, block), having)
        return cls.choose(having / max(len(some), 1), n / max(len(rows), 1))

    def table_bytes(self, cells: int) -> int:
        """Return the bytes of the table for some cells."""
        return int(self.planes[-1]) * (cells + 1) * GENE_LANES * 8


@dataclass(frozen=True)
class PackedCells:
    """Consecutive cells.

    Attributes
    ----------
    first
        Number of the first cell.
    table
        ``[planes, cells + 1, GENE_LANES]`` words; the last row is zero.
    starts, ones
        Rests beyond the table: the rows of each gene, twice for a rest of 2.
    more_starts, more_levels, more
        Larger rests, bit by bit.
    largest
        The largest count.
    """

    first: int
    table: NDArray[np.uint64]
    starts: NDArray[np.int64]
    ones: NDArray[np.uint16]
    more_starts: NDArray[np.int64]
    more_levels: NDArray[np.uint8]
    more: NDArray[np.uint16]
    largest: int

    def __len__(self) -> int:
        return int(self.table.shape[1]) - 1

    @property
    def nbytes(self) -> int:
        """Bytes in memory."""
        lists = (self.starts, self.ones, self.more_starts, self.more_levels, self.more)
        return self.table.nbytes + sum(one.nbytes for one in lists)


def lines(*shape: int) -> NDArray[np.uint64]:
    """Return zeros, aligned to cache lines."""
    size = int(np.prod(shape))
    raw = np.zeros(size + _LINE // 8, np.uint64)
    skipped = -raw.__array_interface__["data"][0] % _LINE // 8
    return raw[skipped : skipped + size].reshape(shape)


def packed(
    source: CellSource, rows: NDArray[np.int64], genes: NDArray[np.int64] | None, order: GeneOrder,
    *, most_cells: int, most_values: int,
) -> Iterator[PackedCells]:  # fmt: skip
    """Read some rows, piece by piece; cells are numbered as in `rows`.

    Parameters
    ----------
    most_cells, most_values
        Maximum size of a piece; maximum number of values per block read (several are in memory).

    Raises
    ------
    UserError
        If a value is not a count.
    """
    chosen = None if len(rows) == source.n_cells else rows
    piece, buffers = _Piece(order, 0, min(most_cells, len(rows))), Buffers(keep=2)
    for block in source.chunks(
        chosen, genes, max_nnz=most_values, max_rows=min(most_cells, 2048), dtype="stored"
    ):
        counts = whole_counts(source, block, buffers)
        done = 0
        while done < len(block):
            done += piece.take(block, counts, done)
            if piece.full:
                yield piece.finish()
                first = piece.first + piece.size
                piece = _Piece(order, first, min(most_cells, len(rows) - first))


class _Piece:
    """A piece that is being filled."""

    def __init__(self, order: GeneOrder, first: int, size: int) -> None:
        self.first, self.size, self._order = first, size, order
        self._table = lines(max(int(order.planes[-1]), 1), size + 1, GENE_LANES)
        self._done = self._largest = 0
        self._starts = np.zeros(len(order.place) + 1, np.int64)
        self._ones: list[tuple[int, NDArray[np.int64], NDArray[Any]]] = []  # cell by cell
        self._more: list[NDArray[np.int64]] = []

    @property
    def full(self) -> bool:
        return 0 < self.size == self._done

    def take(self, block: Block, counts: NDArray[np.int32], begin: int) -> int:
        """Add cells of a block from `begin` on; return how many fit."""
        n: int = min(len(block) - begin, self.size - self._done)
        indptr = block.indptr[begin : begin + n + 1]
        mine = counts[int(indptr[0]) : int(indptr[-1])]
        order, ends = self._order, np.empty(n, np.int64)
        small = len(order.place) <= 1 << 16
        ones = np.empty(REPEATED * (len(mine) + 1), np.uint16 if small else np.int32)
        more = np.empty(_BITS * np.count_nonzero(mine > REPEATED), np.int64)
        n_ones, n_more = pack(
            indptr, block.indices, counts, order.place, self._done, self._table, self._starts, ends,
            ones, more,
        )  # fmt: skip
        self._ones.append((self._done, ends, ones[:n_ones].copy()))
        self._more.append(more[:n_more].copy())
        self._largest = max(self._largest, int(mine.max(initial=0)))
        self._done += n
        return n

    def finish(self) -> PackedCells:
        starts = np.cumsum(self._starts)
        rows, cursor = np.empty(starts[-1], np.uint16), starts.copy()
        for first, ends, genes in self._ones:
            sort_by_gene(ends, genes, first, cursor, rows)
        self._ones.clear()
        more = np.sort(np.concatenate(self._more))
        more_starts = np.searchsorted(more, np.arange(len(starts)) << 21)
        return PackedCells(
            self.first, self._table, starts, rows, more_starts,
            (more >> 16 & 31).astype(np.uint8), (more & 0xFFFF).astype(np.uint16), self._largest,
        )  # fmt: skip
