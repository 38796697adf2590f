"""Cells read row by row and returned gene by gene, in bounded memory.

Every block of cells is transposed separately and stored. What does not fit into memory goes to one
unnamed temporary file, which the system removes even if the process crashes. A range of genes is
then one short read per block. So a file is decompressed only once, however large it is.

Legend: ``G`` genes, ``K`` genes of a range, ``N`` entries, ``C`` cells.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
from numpy.typing import NDArray

from vcell import console
from vcell import memory as free_memory
from vcell.data.buffers import Scratch, pages
from vcell.data.overflow_file import OverflowFile
from vcell.kernels import by_gene as kernels
from vcell.kernels.transpose import count_columns, scatter_columns

if TYPE_CHECKING:
    from vcell.metrics.groups import Rows

#: Bytes of transposed blocks held in memory, if a quarter of the free memory is that much; later
#: blocks go to the file. 20,000 cells of 5,000 genes take 400 MB.
MEMORY = 512 << 20
#: Entries that a thread processes at once; a gene with more entries is a task of its own.
ENTRIES = 1 << 19
#: Maximum number of rows of a block whose entries take 16 bits, and share of counts beyond them.
_NARROW_ROWS, _MANY_LARGE = 1 << 10, 1 / 16
_scratch = Scratch()


@dataclass(frozen=True)
class Columns:
    """The entries of some genes; those of gene k are ``first[k]`` to ``first[k + 1]``."""

    first: NDArray[np.int64]
    cell: NDArray[np.int32]
    value: NDArray[Any]  # float32, or float64 if any block had float64


class ByGene(Protocol):
    """A source of entries, gene by gene."""

    @property
    def counts(self) -> NDArray[np.int64]:
        """``[G]`` upper bounds on the number of entries of each gene."""
        ...

    def read(self, lo: int, hi: int) -> Columns:
        """Give the entries of genes lo to hi."""
        ...


@dataclass(frozen=True)
class Piece:
    """One transposed block: starts of genes, cells, and entries or their file offset.

    The entries are count << row_bits | row in one array, or rows and values in two.

    Attributes
    ----------
    row_bits
        Low bits of an entry, which hold the row in the block; 0: rows are an array of their own.
    large
        Position << 16 | count, ascending, of the counts that do not fit into an entry.
    """

    starts: NDArray[np.int32]
    numbers: NDArray[np.int32]
    kinds: tuple[np.dtype[Any], ...]
    read_as: np.dtype[Any]
    held: tuple[NDArray[Any], ...] | None
    offset: int = 0
    row_bits: int = 0
    large: NDArray[np.int64] = field(default_factory=lambda: np.zeros(0, np.int64))

    @property
    def most(self) -> int:
        """The largest count of an entry; it stands for all those in `large`."""
        return (1 << (8 * self.kinds[0].itemsize - self.row_bits)) - 1

    def large_between(self, a: int, b: int) -> NDArray[np.int64]:
        """Return the large counts of the entries from number a to b."""
        lo, hi = np.searchsorted(self.large, [a << 16, b << 16])
        return self.large[lo:hi]


def join(parts: list[Columns]) -> Columns:
    """Concatenate the entries of several sources of cells, gene by gene."""
    if len(parts) == 1:
        return parts[0]
    first = np.sum([part.first for part in parts], axis=0)
    kind = np.result_type(*(part.value.dtype for part in parts))
    cell, value = np.empty(first[-1], np.int32), np.empty(first[-1], kind)
    cursor = first[:-1].copy()
    for part in parts:
        kernels.join(part.first, part.cell, part.value, cursor, cell, value)
    return Columns(first, cell, value)


def spans(counts: NDArray[np.int64], at_once: int = ENTRIES) -> list[tuple[int, int]]:
    """Split the genes into ranges of about so many entries."""
    runs, lo, held = [], 0, 0
    for gene, n in enumerate(counts.tolist()):
        if gene > lo and held + n > at_once:
            runs.append((lo, gene))
            lo, held = gene, 0
        held += n
    return [*runs, (lo, len(counts))]


def only(block: Any, chosen: NDArray[np.bool_]) -> Any:
    """Return some rows of a block."""
    each = np.repeat(chosen, np.diff(block.indptr))
    indptr = np.concatenate(([0], np.cumsum(np.diff(block.indptr)[chosen])))
    return replace(
        block, rows=block.rows[chosen], indptr=indptr, indices=block.indices[each],
        data=block.data[each],
    )  # fmt: skip


def _entry(n_rows: int, data: NDArray[Any]) -> tuple[int, int]:
    """Return the bits of the row and the bytes of an entry for a block of counts.

    Two bytes instead of four halve the memory that is written, read and got from the system.
    """
    row_bits = max((n_rows - 1).bit_length(), 1)
    some = data[:: max(len(data) >> 14, 1)]
    most = (1 << (16 - row_bits)) - 1
    if n_rows <= _NARROW_ROWS and (some >= most).sum() <= _MANY_LARGE * len(some):
        return row_bits, 2
    return 16, 4


class GeneMajor:
    """Transposed cells: `add` blocks of cells, then `read` ranges of genes.

    Cells are numbered as in their blocks, plus `offset`.
    """

    def __init__(self, n_genes: int, *, offset: int = 0, memory: int | None = None) -> None:
        self.n_genes, self.offset = n_genes, offset
        self._budget = self._left = free_memory.budget(MEMORY) if memory is None else memory
        self.counts = np.zeros(n_genes, np.int64)
        self.pieces: list[Piece] = []
        self.dtype: np.dtype[Any] = np.dtype(np.float32)  # of the values that `read` returns
        self.packed = True  # whether all pieces hold counts
        self._file: OverflowFile | None = None

    def add(self, block: Rows) -> None:
        """Transpose and store some cells (canonical CSR)."""
        self.keep(self.transpose(block))

    def transpose(self, block: Rows, *, counts: bool | None = None) -> Piece:
        """Transpose some cells; thread-safe. `keep` then stores the pieces, in order.

        `counts`: whether every value is a whole number from 0 to 65535; None if not known.
        """
        starts = np.zeros(self.n_genes + 1, np.int64)
        count_columns(block.indices, starts[1:])
        np.cumsum(starts, out=starts)
        data = block.data
        if data.dtype != np.float64:
            data = np.ascontiguousarray(data, np.float32)
        narrow, numbers = starts.astype(np.int32), (block.rows + self.offset).astype(np.int32)
        if len(numbers) <= 1 << 16 and (kernels.fits(data) if counts is None else counts):
            row_bits, width = _entry(len(numbers), data)
            own = pages(width * len(data)).view(f"u{width}")
            piece = Piece(narrow, numbers, (own.dtype,), data.dtype, (own,), row_bits=row_bits)
            large = _scratch.take("large", len(data), np.int64)
            n = kernels.scatter_counts(
                block.indptr, block.indices, data, narrow[:-1].copy(), own, row_bits, piece.most,
                large,
            )  # fmt: skip
            return replace(piece, large=np.sort(large[:n]))
        kind = np.uint16 if len(numbers) <= 1 << 16 else np.uint32
        held = np.empty(len(data), kind), np.empty(len(data), data.dtype)
        scatter_columns(block.indptr, block.indices, data, 0, starts[:-1].copy(), *held)
        return Piece(narrow, numbers, tuple(part.dtype for part in held), data.dtype, held)

    def keep(self, piece: Piece) -> None:
        """Store a transposed block, in memory or in the file."""
        if piece.held is None or not len(piece.held[0]):
            return
        self.counts += np.diff(piece.starts)
        self.dtype = np.promote_types(self.dtype, piece.read_as)
        self.packed &= piece.row_bits > 0
        size = sum(part.nbytes for part in piece.held)
        if size <= self._left:
            self._left -= size
            self.pieces.append(piece)
        else:
            self._left = 0
            file = self._scratch()
            self.pieces.append(replace(piece, held=None, offset=file.size))
            for part in piece.held:
                file.append(part)

    def read(self, lo: int, hi: int) -> Columns:
        """Return the entries of genes lo to hi, each gene's in the order of the cells."""
        first = np.concatenate(([0], np.cumsum(self.counts[lo:hi])))
        cell, value = np.empty(first[-1], np.int32), np.empty(first[-1], self.dtype)
        cursor = first[:-1].copy()
        for piece in self.pieces:
            starts = piece.starts[lo : hi + 1]
            entries = self.entries(piece, int(starts[0]), int(starts[-1]))
            if piece.row_bits:
                large = piece.large_between(int(starts[0]), int(starts[-1]))
                kernels.gather_counts(
                    starts, entries[0], piece.row_bits, piece.most, large, piece.numbers, cursor,
                    cell, value,
                )  # fmt: skip
            else:
                rows, values = entries
                kernels.gather(starts, rows, values, piece.numbers, cursor, cell, value)
        return Columns(first, cell, value)

    def entries(self, piece: Piece, a: int, b: int) -> tuple[NDArray[Any], ...]:
        """Return the entries of a piece from number a to b, from memory or from the file."""
        if piece.held is not None:
            return tuple(part[a:b] for part in piece.held)
        n, at = int(piece.starts[-1]), piece.offset
        entries = tuple(np.empty(b - a, kind) for kind in piece.kinds)
        for part in entries:
            self._scratch().fill(part, at + a * part.itemsize)
            at += n * part.itemsize
        return entries

    def _scratch(self) -> OverflowFile:
        """Return the temporary file; it is made when it is first needed."""
        if self._file is None:
            self._file = OverflowFile()
            console.say(
                f"{console.bytes_text(self._budget)} of transposed cells are held in memory; a "
                f"temporary file in {self._file.folder} (TMPDIR chooses where) holds the rest"
            )
        return self._file

    def close(self) -> None:
        """Release memory and the temporary file."""
        self.pieces = []
        if self._file is not None:
            self._file.close()
            self._file = None


@dataclass(frozen=True)
class ResampledCells:
    """Cells drawn with replacement from others, each gene scaled by a factor.

    Attributes
    ----------
    cells
        The cells that are drawn from.
    factor
        ``[G]`` of each gene.
    bounds, numbers
        Cell c's copies are the cells ``numbers[bounds[c] : bounds[c + 1]]``.
    """

    cells: GeneMajor
    factor: NDArray[np.float64]
    bounds: NDArray[np.int64]
    numbers: NDArray[np.int32]

    @classmethod
    def draw(
        cls, cells: GeneMajor, factor: NDArray[np.float64], drawn: NDArray[np.int64], n_cells: int
    ) -> ResampledCells:
        """Make the copies: that of cell ``drawn[i]`` has number ``n_cells + i``."""
        order = np.argsort(drawn, kind="stable")
        bounds = np.searchsorted(drawn[order], np.arange(n_cells + 1))
        return cls(cells, factor, bounds.astype(np.int64), (n_cells + order).astype(np.int32))

    @property
    def counts(self) -> NDArray[np.int64]:
        """Estimate the entries of each gene, as if each cell were drawn equally often."""
        originals = max(int((np.diff(self.bounds) > 0).sum()), 1)
        return self.cells.counts * -(-len(self.numbers) // originals)

    def totals(self, step: int = 512) -> NDArray[np.float64]:
        """Return the total of every copy."""
        each = np.zeros(len(self.bounds) - 1)
        for lo in range(0, self.cells.n_genes, step):
            hi = min(lo + step, self.cells.n_genes)
            found = self.cells.read(lo, hi)
            kernels.scaled_totals(found.first, found.cell, found.value, self.factor[lo:hi], each)
        totals = np.empty(len(self.numbers))
        totals[self.numbers - len(each)] = np.repeat(each, np.diff(self.bounds))
        return totals

    def read(self, lo: int, hi: int) -> Columns:
        """Return the copies' entries of genes lo to hi."""
        found = self.cells.read(lo, hi)
        n = int(np.diff(self.bounds)[found.cell].sum())
        first = np.empty(hi - lo + 1, np.int64)
        cell, value = np.empty(n, np.int32), np.empty(n, np.float32)
        n = kernels.emit(
            found.first, found.cell, found.value, self.factor[lo:hi], self.bounds, self.numbers,
            first, cell, value,
        )  # fmt: skip
        return Columns(first, cell[:n], value[:n])
