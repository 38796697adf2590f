"""The counts that each cell loses when rare genes are left out."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from vcell.data.block import Block
from vcell.kernels import moments
from vcell.kernels.cells import cell_totals
from vcell.passes.engine import LANES, CellSpan, Reducer, Task, shares_of

if TYPE_CHECKING:
    from numpy.typing import NDArray


class RareEntries(Reducer):
    """The cells and values of genes found in fewer than `limit` cells: the losses of a filter.

    `counts[G]` is the number of cells of every gene, or at least `limit` if they are more; `cells`
    and `values` ``[G, limit - 1]`` hold the entries of those with fewer than `limit`. With a limit
    beyond `ROOM` genes are only counted.

    The complete rows of cells with such an entry are stored too (`rows_of`), up to `KEPT`
    non-zeros, so that these few cells need not be read again. They are not exported.
    """

    ROOM = 65
    KEPT = 8 << 20  # non-zeros: 48 MB

    def __init__(self, n_genes: int, limit: int) -> None:
        self.limit = limit
        self.complete = limit <= self.ROOM
        self._own: dict[int, list[NDArray[Any]]] = {}
        self._n_genes = n_genes
        self._rows: dict[int, tuple[NDArray[Any], NDArray[np.float32]]] = {}
        self._n_kept = 0

    def _new(self) -> list[NDArray[Any]]:
        shape = (self._n_genes, max(self.limit - 1, 0) if self.complete else 0)
        return [np.zeros(self._n_genes, np.int32), np.zeros(shape, np.int64), np.zeros(shape)]

    def tasks(self, part: CellSpan, threads: int) -> Iterator[Task]:
        """Return tasks for a part."""
        codes = part.codes(None)
        for slot, (a, b) in enumerate(shares_of(len(codes), min(threads, LANES))):
            yield lambda s=slot, a=a, b=b: self._list(s, part, a, b, codes)  # type: ignore[misc]

    def _list(self, slot: int, part: CellSpan, a: int, b: int, codes: NDArray[np.int32]) -> None:
        if slot not in self._own:
            self._own[slot] = self._new()
        counts, cells, values = self._own[slot]
        moments.rare_entries(
            part.indptr[a : b + 1], part.indices, part.data, codes[a:b], part.cells[a:b],
            self.limit, counts, counts < self.limit, cells, values,
        )  # fmt: skip

    def end_part(self, part: CellSpan) -> None:
        """Store the rows of cells that have an entry of a gene that is rare so far."""
        if not self.complete or self._n_kept > self.KEPT or not len(part.cells):
            return
        narrow = np.uint16 if self._n_genes <= 1 << 16 else np.int32
        touched = self._touched(int(part.cells[0]))
        for i in np.searchsorted(part.cells, touched).tolist():
            row = slice(part.indptr[i], part.indptr[i + 1])
            self._rows[int(part.cells[i])] = part.indices[row].astype(narrow), part.data[row].copy()
            self._n_kept += row.stop - row.start
        if self._n_kept > self.KEPT:  # some of their genes turned out to be common
            wanted = [cell for cell in self._touched(0).tolist() if cell in self._rows]
            self._rows = {cell: self._rows[cell] for cell in wanted}
            self._n_kept = sum(len(values) for _, values in self._rows.values())
            if self._n_kept > self.KEPT:
                self._rows = {}

    def _touched(self, first: int) -> NDArray[np.int64]:
        """Return the cells, from number `first` on, with an entry of a gene that is rare so far."""
        rare = sum(counts for counts, _, _ in self._own.values()) < self.limit
        found = [np.empty(0, np.int64)]
        for counts, cells, _ in self._own.values():
            genes = np.flatnonzero(rare & (counts > 0))
            own = cells[genes][np.arange(cells.shape[1]) < counts[genes, None]]
            found.append(own[own >= first])
        return np.unique(np.concatenate(found))

    def rows_of(self, cells: NDArray[np.int64]) -> Block | None:
        """Return the rows of these cells; None if one was not stored."""
        rows = [self._rows.get(cell) for cell in cells.tolist()]
        whole = [row for row in rows if row is not None]
        if len(whole) < len(rows) or not rows:
            return None
        indptr = np.zeros(len(rows) + 1, np.int64)
        np.cumsum([len(values) for _, values in whole], out=indptr[1:])
        return Block(
            int(cells[0]), cells, indptr, np.concatenate([i for i, _ in whole]).astype(np.int32),
            np.concatenate([values for _, values in whole]), self._n_genes,
        )  # fmt: skip

    def export(self) -> list[NDArray[Any]]:
        """Return counts and entries."""
        own = [self._own[slot] for slot in sorted(self._own)] or [self._new()]
        first, *others = own
        for other in others:
            _append_entries(first, other)
        self._own = {0: first}
        return first

    def merge(self, exported: Sequence[NDArray[Any]]) -> None:
        """Add counts and entries from elsewhere."""
        _append_entries(self.export(), exported)

    def dropped(self) -> NDArray[np.bool_]:
        """Return which genes are in fewer than `limit` cells."""
        return np.asarray(self.export()[0] < self.limit)

    def losses(self, n_cells: int) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
        """Return the cells that lose counts with those genes, ascending, and the counts lost."""
        counts, cells, values = self.export()
        used = (np.arange(cells.shape[1]) < counts[:, None]) & self.dropped()[:, None]
        loss = np.bincount(cells[used], weights=values[used], minlength=n_cells)
        touched = np.unique(cells[used])
        return touched, loss[touched]


class MarkedTotals(Reducer):
    """Each cell's sum over some genes: ``totals[C]`` by the number of the cell in the source."""

    def __init__(self, mask: NDArray[np.bool_], n_cells: int) -> None:
        self._bits = np.asarray(mask, bool).astype(np.uint8)
        self.totals = np.zeros(n_cells)

    def tasks(self, part: CellSpan, threads: int) -> Iterator[Task]:
        """Return tasks for a part."""
        for a, b in shares_of(len(part.cells), threads):
            yield lambda a=a, b=b: self._sum(part, a, b)  # type: ignore[misc]

    def _sum(self, part: CellSpan, a: int, b: int) -> None:
        count, total, marked = np.empty(b - a, np.int32), np.empty(b - a), np.empty((b - a, 1))
        cell_totals(
            part.indptr[a : b + 1], part.indices, part.data, self._bits, total, count, marked
        )
        self.totals[part.cells[a:b]] = marked[:, 0]

    def export(self) -> list[NDArray[Any]]:
        """Return the totals."""
        cells = np.flatnonzero(self.totals)
        return [cells, self.totals[cells]]

    def merge(self, exported: Sequence[NDArray[Any]]) -> None:
        """Add totals from elsewhere."""
        self.totals[exported[0]] = exported[1]


def _append_entries(first: Sequence[NDArray[Any]], other: Sequence[NDArray[Any]]) -> None:
    """Append the entries of `other` as far as there is room."""
    room = first[1].shape[1]
    for k in range(room):
        place = first[0] + k
        genes = np.flatnonzero((other[0] > k) & (place < room))
        first[1][genes, place[genes]] = other[1][genes, k]
        first[2][genes, place[genes]] = other[2][genes, k]
    first[0][:] += other[0]
