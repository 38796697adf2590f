"""Cells in the form that is fastest to sum up when drawn: see `vcell.kernels.drawn`."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from vcell.data.detect import elsewhere, sample_rows
from vcell.errors import UserError
from vcell.kernels.drawn import HALF, ROW, WHOLE, pack, position, sort_by_column

if TYPE_CHECKING:
    from vcell.data import CellSource
    from vcell.data.block import Block

LARGEST = np.iinfo(np.int32).max
#: Most cells of a piece: their numbers have 16 bits.
MOST_CELLS = 1 << 16
# Nanoseconds, measured: a drawn cell's 64 bytes of the table cost 2.6; a value kept alone .015 for
# each sample, whether or not it has the cell, or 1.5 for each that has it.
_HALF_BYTE, _BYTE, _ALONE, _ALONE_SELDOM = 2.6 / 128, 2.6 / 64, 0.015, 1.5
#: Share of the cells that a sample must have for `add_alone` to be the faster.
OFTEN = _ALONE / _ALONE_SELDOM
_REPEATED = 3  # largest count that is kept as several ones
_GENES_OF_HALVES, _GENES_OF_BYTES = 2 * ROW, ROW


@dataclass(frozen=True)
class GeneOrder:
    """In which order, and in which form, genes are added up. G genes, B blocks of a table.

    Attributes
    ----------
    order
        ``[G]`` the gene of each column of the sums: those in half bytes, in bytes, alone.
    column
        ``[G]`` the column of each gene.
    place
        ``[G]`` where `pack` puts each gene.
    halves
        How many blocks hold half bytes.
    starts
        ``[B + 1]`` the column at which each block begins.
    """

    order: NDArray[np.int64]
    column: NDArray[Any]
    place: NDArray[np.int32]
    halves: int
    starts: NDArray[np.int64]

    @classmethod
    def choose(cls, shares: NDArray[np.float64], drawn: float = 1) -> GeneOrder:
        """Choose the cheapest form of each gene.

        Parameters
        ----------
        shares
            ``[3, G]`` the shares of cells with a count above 0, above `HALF` and above `WHOLE`.
        drawn
            The share of the cells that a sample has.
        """
        some, more, most = shares
        alone = min(_ALONE / max(drawn, OFTEN), _ALONE_SELDOM)
        cost = np.stack([_HALF_BYTE + alone * more, _BYTE + alone * most, alone * some])
        form = cost.argmin(axis=0)
        order = np.argsort(form, kind="stable")
        n_half, n_byte = int((form == 0).sum()), int((form == 1).sum())
        in_halves, in_bytes = np.arange(n_half), np.arange(n_byte)
        halves = -(-n_half // _GENES_OF_HALVES)
        place = np.full(len(form), -1, np.int32)
        place[order[:n_half]] = in_halves // _GENES_OF_HALVES << 10 | position(
            in_halves % _GENES_OF_HALVES, halves=True
        )
        place[order[n_half : n_half + n_byte]] = (
            halves + in_bytes // _GENES_OF_BYTES << 10
            | position(in_bytes % _GENES_OF_BYTES, halves=False)
        )  # fmt: skip
        # numpy sorts 16 bits many times as fast
        narrow = np.dtype(np.uint16 if len(form) <= 1 << 16 else np.int32)
        column: NDArray[Any] = np.empty(len(form), narrow)
        column[order] = np.arange(len(form))
        starts = np.concatenate([
            np.arange(0, n_half, _GENES_OF_HALVES),
            np.arange(n_half, n_half + n_byte, _GENES_OF_BYTES), [n_half + n_byte],
        ])  # fmt: skip
        return cls(order.astype(np.int64), column, place, halves, starts.astype(np.int64))

    @classmethod
    def learn(
        cls, source: CellSource, rows: NDArray[np.int64], genes: NDArray[np.int64] | None, n: int
    ) -> GeneOrder:
        """Choose by some cells, spread evenly over those that may be drawn, `n` a sample."""
        n_genes = source.n_genes if genes is None else len(genes)
        above = np.zeros((3, n_genes), np.int64)
        some = rows[sample_rows(len(rows), source.nnz, source.n_genes)]
        for block in source.chunks(some, genes, max_nnz=1 << 18, dtype="stored", prefetch=False):
            for number, limit in enumerate((0, HALF, WHOLE)):
                above[number] += np.bincount(block.indices[block.data > limit], minlength=n_genes)
        return cls.choose(above / max(len(some), 1), n / max(len(rows), 1))

    @property
    def blocks(self) -> int:
        """How many blocks the table has."""
        return len(self.starts) - 1


@dataclass(frozen=True)
class Alone:
    """What is not in the table: rows of a piece, by column of the sums.

    Attributes
    ----------
    starts
        ``[G + 1]`` where each column begins.
    rows
        Rows with a count.
    values
        The counts; empty where all are one.
    """

    starts: NDArray[np.int64]
    rows: NDArray[np.uint16]
    values: NDArray[np.int32]

    @property
    def nbytes(self) -> int:
        """Bytes in memory."""
        return self.starts.nbytes + self.rows.nbytes + self.values.nbytes


@dataclass(frozen=True)
class PackedCells:
    """Consecutive cells.

    Attributes
    ----------
    first
        Number of the first cell.
    table
        ``[B, cells, ROW]`` bytes.
    ones, more
        What is not in the table; counts up to 3 are so many ones.
    largest
        The largest count.
    """

    first: int
    table: NDArray[np.uint8]
    ones: Alone
    more: Alone
    largest: int

    def __len__(self) -> int:
        return int(self.table.shape[1])

    @property
    def nbytes(self) -> int:
        """Bytes in memory."""
        return self.table.nbytes + self.ones.nbytes + self.more.nbytes


def packed(
    source: CellSource, rows: NDArray[np.int64], genes: NDArray[np.int64] | None, order: GeneOrder,
    *, most_cells: int, most_values: int,
) -> Iterator[PackedCells]:  # fmt: skip
    """Read some rows, piece by piece; cells are numbered as in `rows`.

    Parameters
    ----------
    most_cells, most_values
        Of a piece; of what is read at once, of which several are in memory.

    Raises
    ------
    UserError
        A value is not a count.
    """
    chosen = None if len(rows) == source.n_cells else rows
    piece = _Piece(order, 0, min(most_cells, len(rows)))
    for block in source.chunks(
        chosen, genes, max_nnz=most_values, max_rows=min(most_cells, 2048), dtype="stored"
    ):
        counts = _counts(source, block)
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
        self._table = np.zeros((order.blocks, size, ROW), np.uint8)
        self._done = self._largest = 0
        self._ones: list[NDArray[Any]] = []  # columns, cell by cell
        self._ends = np.zeros(size, np.int64)  # of each cell's ones
        self._more: list[tuple[NDArray[Any], NDArray[np.uint16], NDArray[np.int32]]] = []

    @property
    def full(self) -> bool:
        return 0 < self.size == self._done

    def take(self, block: Block, counts: NDArray[np.int32], begin: int) -> int:
        """Take cells of a block from `begin` on; return how many there was room for."""
        n: int = min(len(block) - begin, self.size - self._done)
        indptr = block.indptr[begin : begin + n + 1]
        mine = slice(int(indptr[0]), int(indptr[-1]))
        room = mine.stop - mine.start
        ends, genes, left = (
            np.empty(n, np.int64),
            np.empty(room, np.int32),
            np.empty(room, np.int32),
        )
        table = self._table[:, self._done : self._done + n]
        alone = pack(indptr, block.indices, counts, self._order.place, table, ends, genes, left)
        columns, left = self._order.column[genes[:alone]], left[:alone]
        times = np.where(left <= _REPEATED, left, 0)
        self._ones.append(np.repeat(columns, times))
        before = self._ends[self._done - 1] if self._done else 0
        self._ends[self._done : self._done + n] = before + np.append(0, np.cumsum(times))[ends]
        many = np.flatnonzero(left > _REPEATED)
        rows = self._done + np.searchsorted(ends, many, side="right")
        self._more.append((columns[many], rows.astype(np.uint16), left[many]))
        self._largest = max(self._largest, int(counts[mine].max(initial=0)))
        self._done += n
        return n

    def finish(self) -> PackedCells:
        n = len(self._order.order)
        starts = np.zeros(n + 1, np.int64)
        for part in self._ones:
            starts[1:] += np.bincount(part, minlength=n)
        np.cumsum(starts, out=starts)
        rows = np.empty(starts[-1], np.uint16)
        ones = np.concatenate(self._ones)
        self._ones.clear()
        sort_by_column(self._ends, ones, starts[:-1].copy(), rows)
        columns, of_more, values = (np.concatenate(part) for part in zip(*self._more, strict=True))
        by_column = np.argsort(columns, kind="stable")
        more_starts = np.append(0, np.cumsum(np.bincount(columns, minlength=n)))
        return PackedCells(
            self.first, self._table, Alone(starts, rows, values[:0]),
            Alone(more_starts, of_more[by_column], values[by_column]), self._largest,
        )  # fmt: skip


def _counts(source: CellSource, block: Block) -> NDArray[np.int32]:
    """Return the values as whole numbers; refuse what is not a count."""
    data: NDArray[Any] = block.data
    if len(data) and not (float(data.min()) >= 0 and float(data.max()) <= LARGEST):
        _refuse(source, block, ~((data >= 0) & (data <= LARGEST)))
    counts: NDArray[np.int32] = data.astype(np.int32, copy=False)
    if data.dtype.kind == "f" and not np.array_equal(counts, data):
        _refuse(source, block, counts != data)
    return counts


def _refuse(source: CellSource, block: Block, wrong: NDArray[np.bool_]) -> None:
    at = int(np.argmax(wrong))
    cell = block.rows[int(np.searchsorted(block.indptr - block.indptr[0], at, side="right")) - 1]
    raise UserError(
        f"{source.name}: cell {cell:,} holds {block.data[at]:.6g}, which is not a count",
        hint=elsewhere(source),
    )
