"""Many statistics in one pass over the cells: the engine of `select-genes` and similar commands.

A *pass* reads a `CellSource` once. Each block of cells is first measured cell by cell (library
size, genes, shares of marked genes, kept or not), then passed to any number of reducers, which
split their work into tasks that run on threads (the kernels release the GIL).

The result is bit for bit the same for any block size and any number of threads. Sums of whole
numbers do not depend on the order. Fractions are summed in a fixed order instead: tiles of 512
cells, counted from the first cell of the pass, each by one thread; the tiles of a span of 8,192
cells in order; then the spans in order. Other engines (`vcell.passes.dask`) process whole spans.

    table = run(source, [moments := NormalizedMoments(source.n_genes, target_sum=1e4)])
    moments.total  # [1, G, 3]
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vcell import console
from vcell.cores import cores
from vcell.data import CellSource
from vcell.data.block import Block
from vcell.kernels.cells import cell_totals
from vcell.passes.resume import PassState, Shelf, recall

TILE = 512
SPAN = 16 * TILE
LANES = 4  # copies of a large statistic filled in parallel, for any number of threads
Task = Callable[[], None]


@dataclass
class CellTable:
    """Measurements of a pass, one entry per cell in the order of reading.

    Attributes
    ----------
    totals
        Sum of the values.
    n_genes
        Number of genes above zero.
    marked
        Sum of the values in each kind of marked genes.
    kept
        Whether the cell was passed to the reducers.
    """

    totals: NDArray[np.float64]
    n_genes: NDArray[np.int32]
    marked: dict[str, NDArray[np.float64]]
    kept: NDArray[np.bool_]

    @classmethod
    def of(cls, n_cells: int, rules: CellRules) -> CellTable:
        """Make an empty table."""
        marked = {kind: np.zeros(n_cells) for kind in rules.marks}
        return cls(np.zeros(n_cells), np.zeros(n_cells, np.int32), marked, np.zeros(n_cells, bool))

    def share(self, kind: str) -> NDArray[np.float64]:
        """Return the share of a cell's counts in genes of `kind`; 0 for empty cells."""
        return self.marked[kind] / np.where(self.totals > 0, self.totals, 1.0)


@dataclass(frozen=True, kw_only=True)
class CellRules:
    """Rules that mark genes, and leave out cells from all reducers.

    Parameters
    ----------
    marks
        Boolean mask of genes for each kind, at most eight kinds: ``{"mito": ...}``.
    min_genes, min_counts, max_counts
        Inclusive bounds on genes and counts of a cell.
    max_share
        Largest share (0 to 1, inclusive) of a cell's counts, for each kind.
    allowed
        Boolean per cell of the source, for rules from obs columns such as doublets.
    """

    marks: Mapping[str, NDArray[np.bool_]] = field(default_factory=dict)
    min_genes: int = 0
    min_counts: float = 0.0
    max_counts: float = np.inf
    max_share: Mapping[str, float] = field(default_factory=dict)
    allowed: NDArray[np.bool_] | None = None

    def bits(self, n_genes: int) -> NDArray[np.uint8]:
        """Return one byte per gene with a bit for each kind."""
        bits = np.zeros(n_genes, np.uint8)
        for k, mask in enumerate(self.marks.values()):
            bits |= np.asarray(mask, bool).astype(np.uint8) << np.uint8(k)
        return bits

    def keeps(self, table: CellTable, at: slice, cells: NDArray[np.int64]) -> NDArray[np.bool_]:
        """Return which of the cells measured at `at` are passed to the reducers."""
        totals = table.totals[at]
        kept = (table.n_genes[at] >= self.min_genes) & (totals >= self.min_counts)
        kept &= totals <= self.max_counts
        safe = np.where(totals > 0, totals, 1.0)
        for kind, limit in self.max_share.items():
            kept &= table.marked[kind][at] / safe <= limit
        if self.allowed is not None:
            kept &= self.allowed[cells]
        return np.asarray(kept, bool)


@dataclass(frozen=True)
class CellSpan:
    """Consecutive cells of one span: the unit that a reducer processes.

    ``indices[indptr[i]:indptr[i + 1]]`` are the genes of cell ``i``.
    """

    position: int  # of the first cell, counted from the beginning of the pass
    cells: NDArray[np.int64]  # their numbers in the source
    indptr: NDArray[np.int64]
    indices: NDArray[np.int32]
    data: NDArray[np.float32]
    totals: NDArray[np.float64]
    kept: NDArray[np.bool_]

    def codes(self, codes: NDArray[np.int32] | None) -> NDArray[np.int32]:
        """Return each cell's batch or group (0 without codes), -1 where it is not kept."""
        own = np.int32(0) if codes is None else codes[self.cells]
        return np.where(self.kept, own, np.int32(-1)).astype(np.int32)

    def tiles(self) -> Iterator[tuple[int, slice]]:
        """Yield the number of each tile in its span, and its cells in this part."""
        start, stop = self.position, self.position + len(self.cells)
        while start < stop:
            end = min((start // TILE + 1) * TILE, stop)
            yield start % SPAN // TILE, slice(start - self.position, end - self.position)
            start = end


class Reducer(ABC):
    """A statistic over cells, filled by a pass.

    Pickling a reducer stores only its arguments, not its contents. A copy whose `spans` is a list
    stores the sums of every span separately, so that they can be added elsewhere in the same order.
    """

    _made_with: tuple[tuple[Any, ...], dict[str, Any]]
    spans: list[Any] | None = None

    def __new__(cls, *args: Any, **kwargs: Any) -> Any:
        """Store the arguments, for pickling."""
        reducer = super().__new__(cls)
        reducer._made_with = (args, kwargs)
        return reducer

    def __reduce__(self) -> Any:
        return _make, (type(self), *self._made_with)

    @abstractmethod
    def tasks(self, part: CellSpan, threads: int) -> Iterable[Task]:
        """Return tasks for a part; tasks of one part must not write to the same memory."""

    def end_part(self, part: CellSpan) -> None:  # noqa: B027 - most do not need it
        """Process a part after its tasks have finished, before it is freed."""

    def end_span(self) -> None:  # noqa: B027 - not needed for whole numbers
        """Add up the results of a span, in a fixed order."""

    @abstractmethod
    def export(self) -> list[NDArray[Any]]:
        """Return the results up to the end of a span, for `merge` elsewhere or later."""

    @abstractmethod
    def merge(self, exported: Sequence[NDArray[Any]]) -> None:
        """Add the results of the spans that follow."""

    @property
    def identity(self) -> tuple[Any, ...]:
        """What its results from given cells depend on."""
        return type(self).__name__, *self._made_with


def _make(kind: type[Reducer], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Reducer:
    reducer: Reducer = kind(*args, **kwargs)
    return reducer


@dataclass(frozen=True)
class Reader:
    """Reads a source under a set of rules, once for each call.

    Parameters
    ----------
    source, rules
        The cells, and which of them to leave out.
    ----------
    threads
        One per core by default.
    max_nnz
        Maximum number of non-zeros in a block; the source's own by default.
    label
        Text beside the progress bar; None for no bar.
    shelf
        Where the state of a long pass is saved, so that it can be resumed and its results reused
        (`vcell.passes.resume`). Nowhere by default.
    """

    source: CellSource
    rules: CellRules = field(default_factory=CellRules)
    threads: int | None = None
    max_nnz: int | None = None
    label: str | None = "reading cells"
    shelf: Shelf | None = None

    def __call__(
        self, reducers: Sequence[Reducer], *, rows: NDArray[np.int64] | slice | None = None
    ) -> CellTable:
        """Fill the reducers, and return the measurements per cell.

        Parameters
        ----------
        rows reducers
            The statistics to fill; see `Reducer`.
            Cells to read, ascending, or a slice; all by default.
        """
        chosen = slice(0, self.source.n_cells) if rows is None else rows
        if isinstance(chosen, slice):
            chosen = slice(*chosen.indices(self.source.n_cells)[:2])
            count = max(chosen.stop - chosen.start, 0)
        else:
            count = len(chosen)
        table = CellTable.of(count, self.rules)
        if self.shelf is None or rows is not None:
            self._walk(reducers, table, chosen, 0, lambda _: None)
            return table
        missing = recall(self.shelf, reducers, table)
        if missing != []:
            state = PassState(self.shelf, reducers if missing is None else missing, table)
            with state.listening():
                self._walk(state.reducers, table, chosen, state.position, state.reached)
            state.done()
        return table

    def held(self, block: Block) -> Reader:
        """Return a reader of cells in memory, under the same rules."""
        return replace(self, source=_Held(block), label=None, shelf=None)  # type: ignore[arg-type]

    def _walk(
        self,
        reducers: Sequence[Reducer],
        table: CellTable,
        rows: NDArray[np.int64] | slice,
        position: int,
        reached: Callable[[int], None],
    ) -> None:
        """Read the cells from `position` on; `reached` is called at the end of every span."""
        threads = self.threads or cores()
        bits = self.rules.bits(self.source.n_genes)
        options: dict[str, Any] = {} if self.max_nnz is None else {"max_nnz": self.max_nnz}
        left = len(table.kept) - position
        if isinstance(rows, slice):
            rows = slice(rows.start + position, max(rows.stop, rows.start + position))
        else:
            rows = rows[position:]
        with ThreadPoolExecutor(threads) as pool, _progress(self.label, left) as bar:
            for block in self.source.chunks(rows=rows, **options):
                cells = np.asarray(block.rows, np.int64)
                _together(pool, _measure_tasks(block, position, table, bits, threads))
                for begin, end in _within_spans(position, len(cells)):
                    at = slice(position + begin, position + end)
                    table.kept[at] = self.rules.keeps(table, at, cells[begin:end])
                    part = CellSpan(
                        position + begin, cells[begin:end], block.indptr[begin : end + 1],
                        block.indices, block.data, table.totals[at], table.kept[at],
                    )  # fmt: skip
                    _together(pool, [t for r in reducers for t in r.tasks(part, threads)])
                    for reducer in reducers:
                        reducer.end_part(part)
                    if (position + end) % SPAN == 0:
                        _end_span(reducers)
                        reached(position + end)
                position += len(cells)
                bar.advance(len(cells), read=self.source.bytes_of(len(cells), block.nnz))
        if position % SPAN:
            _end_span(reducers)


def run(
    source: CellSource,
    reducers: Sequence[Reducer],
    *,
    rules: CellRules | None = None,
    rows: NDArray[np.int64] | slice | None = None,
    threads: int | None = None,
    label: str | None = None,
    max_nnz: int | None = None,
) -> CellTable:
    """Read the cells once: a `Reader` for one pass."""
    return Reader(source, rules or CellRules(), threads, max_nnz, label)(reducers, rows=rows)


def _measure_tasks(
    block: Any, position: int, table: CellTable, bits: NDArray[np.uint8], threads: int
) -> list[Task]:
    def measure(a: int, b: int) -> None:
        at = slice(position + a, position + b)
        marked = np.zeros((b - a, len(table.marked) if bits.any() else 0))
        cell_totals(
            block.indptr[a : b + 1], block.indices, block.data, bits,
            table.totals[at], table.n_genes[at], marked,
        )  # fmt: skip
        for k, kind in enumerate(table.marked if bits.any() else ()):
            table.marked[kind][at] = marked[:, k]

    return [lambda a=a, b=b: measure(a, b) for a, b in shares_of(len(block.rows), threads)]  # type: ignore[misc]


def shares_of(count: int, shares: int) -> list[tuple[int, int]]:
    """Split ``range(count)`` into at most `shares` ranges of nearly equal length."""
    edges = np.linspace(0, count, min(shares, count) + 1).astype(int)
    return [(int(a), int(b)) for a, b in pairwise(edges)]


def _within_spans(position: int, count: int) -> Iterator[tuple[int, int]]:
    begin = 0
    while begin < count:
        end = min(count, begin + SPAN - (position + begin) % SPAN)
        yield begin, end
        begin = end


def _together(pool: ThreadPoolExecutor, tasks: Sequence[Task]) -> None:
    if len(tasks) == 1:
        tasks[0]()
        return
    for future in [pool.submit(task) for task in tasks]:
        future.result()


def _end_span(reducers: Sequence[Reducer]) -> None:
    for reducer in reducers:
        reducer.end_span()


@dataclass(frozen=True)
class _Held:
    """The part of a source's interface that a pass needs, for cells in memory."""

    block: Block

    @property
    def n_genes(self) -> int:
        return self.block.n_genes

    def chunks(self, rows: NDArray[np.int64], **_: Any) -> Iterator[Block]:
        assert len(rows) == len(self.block)
        yield self.block

    def bytes_of(self, n_cells: int, nnz: int) -> float:
        return 0.0


class _Silent:
    def advance(self, amount: float, *, read: float) -> None:
        pass

    def __enter__(self) -> _Silent:
        return self

    def __exit__(self, *_: object) -> None:
        pass


def _progress(label: str | None, count: int) -> Any:
    return _Silent() if label is None else console.progress(label, total=count, unit="cells")
