"""First pass: measure and filter every block of cells, and write it to disk by bucket.

A bucket is a range of ranks in the final order, which is known beforehand, small enough to be
sorted in memory later. Two files hold the column ids and values of all blocks; a table holds where
each bucket's part of each block begins. A small spill is held in memory instead, in one bucket.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray

from vcell import console, memory
from vcell.data.block import sparse_dtype
from vcell.data.buffers import Buffers, pages
from vcell.data.source import MAX_NNZ
from vcell.errors import UserError
from vcell.kernels import scatter
from vcell.outputs.aside import sync_file
from vcell.store.recipe import Recipe

if TYPE_CHECKING:
    from vcell.data import Block, CellSource
    from vcell.store.build.workdir import BuildJournal

#: Bytes of a spill that is held in memory, if a quarter of the free memory is that much: 130
#: million counts, seconds of work. A larger one lies in files, so that a killed run can go on.
MEMORY = 512 << 20
#: Non-zeros of a block for a spill in memory: what is read stays in the cache. In files, smaller
#: blocks would mean smaller pieces of buckets.
HELD_NNZ = 1 << 20
Mode = Literal["counts", "float32", "float64"]
#: Type of spilled values.
VALUE_TYPE: dict[Mode, str] = {"counts": "u2", "float32": "f4", "float64": "f8"}


class NotCounts(Exception):
    """The values need another type than the one tried first."""

    def __init__(self, mode: Mode) -> None:
        super().__init__(mode)
        self.mode: Mode = mode


@dataclass
class CellMeasures:
    """Measurements of each cell, in files, if a run may be resumed."""

    total: NDArray[np.float64]
    mito: NDArray[np.float64]
    genes: NDArray[np.int32]
    #: Elements that go into the store, -1 where the cell is left out.
    length: NDArray[np.int64]

    @classmethod
    def open(cls, folder: Path | None, n: int, *, new: bool) -> CellMeasures:
        """Map the files; create them for a new run. Without a folder, they are in memory."""

        def column(name: str, dtype: str) -> NDArray[Any]:
            if folder is None or n == 0:
                return np.empty(n, dtype)
            mode: Literal["w+", "r+"] = "w+" if new else "r+"
            return np.memmap(folder / f"{name}.bin", dtype, mode, shape=(n,))

        return cls(
            column("total", "f8"), column("mito", "f8"), column("genes", "i4"),
            column("length", "i8"),
        )  # fmt: skip

    def flush(self) -> None:
        """Flush the files to disk."""
        for column in (self.total, self.mito, self.genes, self.length):
            if isinstance(column, np.memmap):
                column.flush()


class HeldSpill:
    """Column ids and values of all rows; memory is taken from the system when it is filled."""

    def __init__(self, room: int, index_type: np.dtype[Any], value_type: np.dtype[Any]) -> None:
        self.idx: NDArray[Any] = pages(room * index_type.itemsize).view(index_type)
        self.val: NDArray[Any] = pages(room * value_type.itemsize).view(value_type)
        #: Counts too large for `val`, block by block.
        self.escaped: list[NDArray[Any]] = []

    @classmethod
    def if_it_fits(
        cls, source: CellSource, column: NDArray[np.int32], mode: Mode
    ) -> HeldSpill | None:
        """Reserve memory for the spill of some cells; None if it may need too much."""
        room = source.n_cells * source.n_genes if source.nnz is None else source.nnz
        types = index_type(int(column.max(initial=-1)) + 1), np.dtype(VALUE_TYPE[mode])
        size, most = room * sum(kind.itemsize for kind in types), memory.budget(MEMORY)
        text = f"{console.bytes_text(size)} of non-zeros"
        if size > most:
            limit = console.bytes_text(most)
            console.detail(f"{text} go through files: in memory at most {limit} are held")
            return None
        console.detail(f"{text} are held in memory: if it is stopped, the work begins again")
        return cls(room, *types)


@dataclass
class Spill:
    """The first pass and the files it writes."""

    folder: Path
    recipe: Recipe
    mode: Mode
    n_buckets: int
    rank: NDArray[np.int64]  # of every cell: its position in the final order
    bucket: NDArray[np.int32]  # of every cell
    column: NDArray[np.int32]  # of every gene: its column in the store, or -1
    mito: NDArray[np.bool_]
    doublet: NDArray[np.bool_]
    names: NDArray[Any]  # genes, for messages
    cells: CellMeasures
    held: HeldSpill | None  # None: in files
    #: Progress: cells read, and elements, segments and escaped counts written.
    next_cell: int = 0
    elements: int = 0
    segments: int = 0
    escaped: int = 0
    #: Statistics of each gene of the store, from the cells read so far.
    stats: NDArray[np.float64] = field(init=False)
    _memory: Buffers = field(default_factory=Buffers)

    @property
    def value_type(self) -> np.dtype[Any]:
        """Type of the spilled values."""
        return np.dtype(VALUE_TYPE[self.mode])

    @property
    def index_type(self) -> np.dtype[Any]:
        """Type of the spilled column ids: 16 bits where possible."""
        return index_type(int(self.column.max(initial=-1)) + 1)

    def in_order(self) -> NDArray[np.integer[Any]]:
        """Return all cells in their final order."""
        n = len(self.rank)
        cells: NDArray[np.integer[Any]] = np.empty(n, np.int32 if n < 1 << 31 else np.int64)
        cells[self.rank] = np.arange(n, dtype=cells.dtype)
        return cells

    def resume(self, journal: BuildJournal) -> None:
        """Continue from the journal of an earlier run."""
        for name in ("next_cell", "elements", "segments", "escaped"):
            setattr(self, name, int(journal.state.get(name, 0)))
        self.stats = np.zeros((int(self.column.max(initial=-1)) + 1, 4))
        if self.next_cell:
            self.stats = np.load(self._stats_path(self.next_cell), allow_pickle=False)

    def run(self, source: CellSource, journal: BuildJournal) -> None:
        """Spill the remaining blocks."""
        if self.next_cell:
            console.say(f"continuing at cell {self.next_cell:,} of {source.n_cells:,}")
        sizes = {
            "idx": self.elements * self.index_type.itemsize,
            "val": self.elements * self.value_type.itemsize,
            "segments": self.segments * 8,
            "escaped": self.escaped * ESCAPED.itemsize,
        }
        held = self.held is not None
        files = {} if held else {name: self._reopen(name, size) for name, size in sizes.items()}
        most = HELD_NNZ if held else MAX_NNZ
        try:
            with console.progress("reading", source.n_cells) as bar:
                bar.advance(self.next_cell)
                rest = slice(self.next_cell, source.n_cells)
                kind = sparse_dtype(source.dtype)
                for block in source.chunks(rows=rest, max_nnz=most, dtype=kind):
                    self._block(block, files)
                    self.step(journal)
                    bar.advance(len(block), read=source.bytes_of(len(block), len(block.data)))
        finally:
            self._memory = Buffers()
            for file in files.values():
                file.close()

    def step(
        self, journal: BuildJournal, flush: Callable[[], None] | None = None, **changes: Any
    ) -> None:
        """Record the progress in the journal if due, after `flush` has put the data on disk."""
        if self.held is not None or not journal.due():
            return
        stats, path = self.stats.copy(), self._stats_path(self.next_cell)

        def sync() -> None:
            for name in ("idx", "val", "segments", "escaped"):
                sync_file(self.folder / f"{name}.spill")
            self.cells.flush()
            if flush is not None:
                flush()
            noted = self._stats_path(int(journal.state.get("next_cell", 0)))
            for old in set(self.folder.glob("genes-*.npy")) - {noted}:
                old.unlink()
            if path != noted:
                np.save(path, stats)
                sync_file(path)

        journal.step(
            sync, next_cell=self.next_cell, elements=self.elements, segments=self.segments,
            escaped=self.escaped, **changes,
        )  # fmt: skip

    def _block(self, block: Block, files: dict[str, Any]) -> None:
        """Measure, filter and spill one block."""
        indptr = np.asarray(block.indptr, np.int64)
        n = len(indptr) - 1
        cells = slice(block.start, block.start + n)
        length, flags = np.empty(n, np.int64), np.empty(n, np.int64)
        total, mito, genes = np.empty(n), np.empty(n), np.empty(n, np.int32)
        scatter.measure(
            indptr, block.indices, block.data, self.mito, self.column, total, mito, genes,
            length, flags,
        )  # fmt: skip
        self._check(flags, block)
        keep = self._keep(total, mito, genes, self.doublet[cells])
        self.cells.total[cells], self.cells.mito[cells] = total, mito
        self.cells.genes[cells] = genes
        self.cells.length[cells] = np.where(keep, length, -1)
        segment = np.empty(self.n_buckets + 1, np.int64)
        at = np.empty(n, np.int64)
        scatter.place(self.bucket[cells], keep, length, self.n_buckets, segment, at)
        size = int(segment[-1])
        idx, val = self._room(size)
        rest = (indptr, block.indices, block.data, keep, at, self.column)
        escaped = np.empty(0, ESCAPED)
        if self.mode == "counts":
            n_escaped = scatter.scatter_counts(*rest, idx, val, self.stats)
            if n_escaped:
                escaped = np.empty(n_escaped, ESCAPED)
                position, value = np.empty(n_escaped, np.int64), np.empty(n_escaped, np.uint32)
                scatter.escaped_counts(*rest, position, value)
                escaped["position"], escaped["value"] = position + self.elements, value
        else:
            scatter.scatter_values(*rest, idx, val, self.stats)
        if self.held is not None:
            self.held.escaped.append(escaped)
        else:
            _write(files["idx"], idx)
            _write(files["val"], val)
            _write(files["segments"], segment[:-1] + self.elements)
            _write(files["escaped"], escaped)
        self.next_cell += n
        self.elements += size
        self.segments += len(segment) - 1
        self.escaped += len(escaped)

    def _room(self, size: int) -> tuple[NDArray[Any], NDArray[Any]]:
        """Return where the elements of the next block go: to their place, or to be written."""
        if self.held is None:
            take = self._memory.take
            return take(size, self.index_type), take(size, self.value_type)
        here = slice(self.elements, self.elements + size)
        return self.held.idx[here], self.held.val[here]

    def _keep(
        self,
        total: NDArray[np.float64],
        mito: NDArray[np.float64],
        genes: NDArray[np.int32],
        doublet: NDArray[np.bool_],
    ) -> NDArray[np.bool_]:
        keep = ~doublet & (genes >= self.recipe.min_genes)
        if self.recipe.min_counts:  # values that are not counts may have a negative sum
            keep &= total >= self.recipe.min_counts
        if self.recipe.max_mito is not None:
            keep &= mito <= self.recipe.max_mito * total
        return keep

    def _check(self, flags: NDArray[np.int64], block: Block) -> None:
        """Raise for values that cannot be stored; switch to floats if they are not counts."""
        found = int(np.bitwise_or.reduce(flags, initial=0))
        if found & scatter.NOT_FINITE:
            row = int(np.flatnonzero(flags & scatter.NOT_FINITE)[0])
            span = slice(int(block.indptr[row]), int(block.indptr[row + 1]))
            j = int(np.flatnonzero(~np.isfinite(block.data[span]))[0])
            raise UserError(
                f"cell {block.start + row} has NaN or infinity "
                f"for gene {self.names[int(block.indices[span][j])]}",
                hint="look with `vcell inspect FILE --full`",
            )
        counts = not found & (scatter.FRACTION | scatter.NEGATIVE)
        if self.mode == "counts" and not counts:
            raise NotCounts("float64" if found & scatter.INEXACT else "float32")
        if self.mode == "float32" and found & scatter.INEXACT:
            raise NotCounts("float64")

    def _reopen(self, name: str, size: int) -> Any:
        """Open a file of the spill for appending after its first `size` bytes."""
        file = (self.folder / f"{name}.spill").open("ab", buffering=0)
        file.truncate(size)
        file.seek(size)
        return file

    def _stats_path(self, cell: int) -> Path:
        """Return a file name of its own for each step: the journal decides which one is valid."""
        return self.folder / f"genes-{cell}.npy"


def _write(file: Any, values: NDArray[Any]) -> None:
    """Write all of an array to an unbuffered file, which may accept only a part at a time."""
    left = memoryview(values.view(np.uint8))  # type: ignore[arg-type]
    while left:
        left = left[file.write(left) :]


#: A count too large for the spill: its position among all spilled elements, and its value.
ESCAPED = np.dtype([("position", "i8"), ("value", "u4")])


def index_type(n_columns: int) -> np.dtype[Any]:
    """Return the smallest type of column ids; signed if possible, as scipy warns otherwise."""
    if n_columns <= 1 << 15:
        return np.dtype("i2")
    return np.dtype("u2" if n_columns <= 1 << 16 else "i4")
