"""The statistics a pass can gather: `vcell.passes` says how and in which order."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import numpy as np

from vcell.kernels import clipped, groups, moments, pearson
from vcell.kernels.cells import cell_totals
from vcell.kernels.moments import add_into
from vcell.passes import SPAN, TILE, Part, Reducer, Task, shares_of

if TYPE_CHECKING:
    from numpy.typing import NDArray

_SMALL = np.arange(moments.LUT, dtype=np.float32)
_TILED_BYTES = 8 << 20  # of one tile's sums; larger ones are shared out by batch instead


def cell_scale(totals: NDArray[np.float64], target_sum: float) -> NDArray[np.float32]:
    """Return what scanpy's `normalize_total` divides by, in float32: 1 for empty cells."""
    scale = totals.astype(np.float32) / np.float32(target_sum)
    return np.where(scale == 0, np.float32(1), scale)


class _GeneSums(Reducer):
    """Sums per batch and gene, ``total[B, G, K]``, in the fixed order of tiles and spans.

    With few batches every tile has sums of its own and tiles run side by side; with many, the
    batches of a span are shared out between threads, and each adds its cells up in their order.
    """

    def __init__(
        self, n_genes: int, columns: int, codes: NDArray[np.int32] | None, n_batches: int
    ) -> None:
        self.codes = codes
        self.total = np.zeros((n_batches, n_genes, columns))
        self.tiled = self.total.nbytes <= _TILED_BYTES
        self._span = np.zeros((SPAN // TILE if self.tiled else 1, *self.total.shape))
        self._used: set[int] = set()

    def _kernel(
        self, part: Part, cells: slice, codes: NDArray[np.int32], out: NDArray[np.float64]
    ) -> None:
        """Add some of the part's cells to ``out[B, G, K]``."""
        raise NotImplementedError

    def tasks(self, part: Part, threads: int) -> Iterator[Task]:
        """Return work on a part."""
        codes = part.codes(self.codes)
        if self.tiled:
            for tile, cells in part.tiles():
                self._used.add(tile)
                yield lambda t=tile, c=cells: self._kernel(part, c, codes[c], self._span[t])  # type: ignore[misc]
        else:
            self._used.add(0)
            everything = slice(0, len(codes))
            for lane in range(threads):
                own = np.where(codes % threads == lane, codes, np.int32(-1))
                yield lambda own=own: self._kernel(part, everything, own, self._span[0])  # type: ignore[misc]

    def end_span(self) -> None:
        """Add up the span."""
        used = sorted(self._used)
        if not used:
            return
        for tile in used[1:]:
            add_into(self._span[used[0]], self._span[tile])
        if self.spans is None:
            self.merge([self._span[used[0]]])
        else:
            self.spans.append(self._span[used[0]].copy())
        for tile in used:
            self._span[tile] = 0.0
        self._used.clear()

    def export(self) -> list[NDArray[np.float64]]:
        """Return the sums of every span."""
        return self.spans or []

    def merge(self, exported: list[NDArray[np.float64]]) -> None:
        """Add spans in their order."""
        for span in exported:
            add_into(self.total, span)


class GeneMoments(_GeneSums):
    """Non-zeros, sum and sum of squares of values as stored: ``total[B, G, 3]``.

    `single` says that the source stores float32, whose squares scanpy rounds to float32.
    """

    def __init__(
        self,
        n_genes: int,
        *,
        codes: NDArray[np.int32] | None = None,
        n_batches: int = 1,
        single: bool = True,
    ) -> None:
        super().__init__(n_genes, 3, codes, n_batches)
        self.single = single

    def _kernel(
        self, part: Part, cells: slice, codes: NDArray[np.int32], out: NDArray[np.float64]
    ) -> None:
        indptr = part.indptr[cells.start : cells.stop + 1]
        moments.gene_moments(indptr, part.indices, part.data, codes, self.single, out)


class NormalizedMoments(_GeneSums):
    """Non-zeros, sum and sum of squares of normalised values: ``total[B, G, 3]``.

    The values are ``log1p(x / total * target_sum)``, or with `linear` ``expm1`` of that (what
    flavour "seurat" works on). ``target_sum=None`` takes the stored values for log1p already.
    `totals` (per cell of the source) replaces the totals of the pass.
    """

    def __init__(
        self,
        n_genes: int,
        *,
        target_sum: float | None,
        linear: bool,
        codes: NDArray[np.int32] | None = None,
        n_batches: int = 1,
        totals: NDArray[np.float64] | None = None,
    ) -> None:
        super().__init__(n_genes, 3, codes, n_batches)
        self.target_sum = target_sum
        self.linear = linear
        self.totals = totals

    def _kernel(
        self, part: Part, cells: slice, codes: NDArray[np.int32], out: NDArray[np.float64]
    ) -> None:
        indptr = part.indptr[cells.start : cells.stop + 1]
        if self.target_sum is None:
            values = part.data[indptr[0] : indptr[-1]]
            genes = part.indices[indptr[0] : indptr[-1]]
            moments.listed_moments(
                np.repeat(codes, np.diff(indptr)), genes, self._final(values), out
            )
            return
        totals = part.totals if self.totals is None else self.totals[part.cells]
        scale = cell_scale(totals[cells], self.target_sum)
        table = self._final(np.log1p(_SMALL / scale[:, None]))
        room = int(indptr[-1] - indptr[0]) // 16  # over 99 % of UMI counts are in the table
        others, places = np.empty(room, np.int64), np.empty((room, 2), np.int32)
        found = moments.tabled_moments(
            indptr, part.indices, part.data, codes, table, out, others, places
        )
        if found > room:
            others, places = np.empty(found, np.int64), np.empty((found, 2), np.int32)
            moments.list_untabled(indptr, part.indices, part.data, codes, others, places)
        cell, gene = places[:found].T
        large = self._final(np.log1p(part.data[others[:found]] / scale[cell]))
        moments.listed_moments(codes[cell], gene, large, out)

    def _final(self, logs: NDArray[np.float32]) -> NDArray[np.float32]:
        return np.expm1(logs) if self.linear else logs


class ClippedSums(_GeneSums):
    """Sums up to each gene's clip value and the number above it: ``total[B, G, 3]``."""

    def __init__(
        self,
        clip: NDArray[np.float64],
        *,
        codes: NDArray[np.int32] | None = None,
    ) -> None:
        super().__init__(clip.shape[1], 3, codes, clip.shape[0])
        self.clip = clip

    def _kernel(
        self, part: Part, cells: slice, codes: NDArray[np.int32], out: NDArray[np.float64]
    ) -> None:
        indptr = part.indptr[cells.start : cells.stop + 1]
        clipped.clipped_sums(indptr, part.indices, part.data, codes, self.clip, out)


class ResidualSums(_GeneSums):
    """Sums of Pearson residuals and their squares over the non-zeros: ``total[B, G, 2]``.

    `depths` is the total of every cell of the source, `shares` ``[B, G]`` the genes' of a batch.
    """

    def __init__(
        self,
        shares: NDArray[np.float64],
        *,
        theta: float,
        clip: float,
        depths: NDArray[np.float64],
        codes: NDArray[np.int32] | None = None,
    ) -> None:
        super().__init__(shares.shape[1], 2, codes, shares.shape[0])
        self.depths = depths
        self.shares, self.theta, self.clip = shares, theta, clip

    def _kernel(
        self, part: Part, cells: slice, codes: NDArray[np.int32], out: NDArray[np.float64]
    ) -> None:
        indptr = part.indptr[cells.start : cells.stop + 1]
        pearson.residual_sums(
            indptr, part.indices, part.data, codes, self.depths[part.cells[cells]],
            self.shares, self.theta, self.clip, out,
        )  # fmt: skip


class CountHistogram(Reducer):
    """How often each gene has each count, and a list of counts beyond the histogram.

    Each thread fills its own. `overflowed` says that the list grew too long and was given up, so
    that `large` is not complete; `fractional` that there were values that no histogram can hold
    (not whole, or negative).
    """

    _ROOM = 1 << 16  # entries of the list at first

    def __init__(
        self,
        n_genes: int,
        *,
        codes: NDArray[np.int32] | None = None,
        n_batches: int = 1,
        bins: int = 254,
        max_large: int = 1 << 20,
    ) -> None:
        self.codes = codes
        self.shape = (n_batches, n_genes)
        self.bins = bins
        self.max_large = max_large
        self.overflowed = False
        self.fractional = False
        self._own: dict[int, tuple[NDArray[np.int64], NDArray[np.int32]]] = {}
        self._large: list[NDArray[np.float64]] = []
        self._fresh = 0  # entries since the list was last compressed
        self._lock = threading.Lock()

    def tasks(self, part: Part, threads: int) -> Iterator[Task]:
        """Return work on a part."""
        codes = part.codes(self.codes)
        for slot, (a, b) in enumerate(shares_of(len(codes), threads)):
            yield lambda s=slot, a=a, b=b: self._count(s, part, a, b, codes)  # type: ignore[misc]

    def _count(self, slot: int, part: Part, a: int, b: int, codes: NDArray[np.int32]) -> None:
        if slot not in self._own:
            self._own[slot] = (
                np.zeros(self.shape, np.int64),
                np.zeros((*self.shape, self.bins), np.int32),
            )
        nonzeros, histogram = self._own[slot]
        indptr = part.indptr[a : b + 1]
        values = part.data[indptr[0] : indptr[-1]]
        if clipped.not_counts(values):
            self.fractional = True
        room = int(np.count_nonzero(values >= self.bins + 2))
        large = np.empty((room, 4))
        found = clipped.count_histogram(
            indptr, part.indices, part.data, codes[a:b], nonzeros, histogram, large
        )
        with self._lock:
            self._large.append(large[:found])
            self._fresh += found
            if self._fresh > self.max_large // 4:
                self._compress()

    def _compress(self) -> None:
        """Count equal entries of the list together: few genes have all the large counts."""
        rows = self.large
        order = np.lexsort(rows[:, :3].T)
        rows = rows[order]
        first = np.flatnonzero(np.any(np.diff(rows[:, :3], axis=0, prepend=-1.0) != 0, axis=1))
        times = np.add.reduceat(rows[:, 3], first) if len(first) else rows[:, 3]
        self._large = [np.column_stack([rows[first, :3], times])]
        self._fresh = 0
        if len(first) > self.max_large:
            self.overflowed = True
            self._large = []

    def collect(self) -> None:
        """Add the threads' histograms into one."""
        self._compress()
        nonzeros, histogram = self._first()
        for slot in sorted(self._own)[1:]:
            nonzeros += self._own[slot][0]
            histogram += self._own[slot][1]
            del self._own[slot]

    @property
    def nonzeros(self) -> NDArray[np.int64]:
        """Non-zeros ``[B, G]``, once collected."""
        return self._first()[0]

    @property
    def histogram(self) -> NDArray[np.int32]:
        """Counts of the values 2, 3, ... ``[B, G, bins]``, once collected."""
        return self._first()[1]

    @property
    def large(self) -> NDArray[np.float64]:
        """Batch, gene, value and how often, of every larger count ``[L, 4]``."""
        return np.concatenate(self._large) if self._large else np.empty((0, 4))

    def _first(self) -> tuple[NDArray[np.int64], NDArray[np.int32]]:
        if not self._own:
            self._own[0] = (
                np.zeros(self.shape, np.int64),
                np.zeros((*self.shape, self.bins), np.int32),
            )
        return self._own[min(self._own)]

    def export(self) -> Any:
        """Return what was gathered."""
        self.collect()
        return self.nonzeros, self.histogram, self.large, self.overflowed, self.fractional

    def merge(self, exported: Any) -> None:
        """Add what was gathered elsewhere."""
        self.collect()
        nonzeros, histogram = self._first()
        nonzeros += exported[0]
        histogram += exported[1]
        self._large.append(exported[2])
        self._compress()
        self.fractional |= exported[4]
        self.overflowed |= exported[3]


class RareEntries(Reducer):
    """The cells and values of genes found in fewer than `limit` cells: what filtering them costs.

    `counts[G]` is the number of cells of every gene, or `limit` if they are more (several times
    that, where threads are added up); `cells` and `values` ``[G, limit - 1]`` hold
    the entries of those with fewer than `limit`. With a limit beyond `ROOM` genes are counted only.
    """

    ROOM = 65

    def __init__(self, n_genes: int, limit: int) -> None:
        self.limit = limit
        self.complete = limit <= self.ROOM
        self._own: dict[int, tuple[Any, Any, Any]] = {}
        self._n_genes = n_genes

    def _new(self) -> tuple[Any, Any, Any]:
        shape = (self._n_genes, max(self.limit - 1, 0) if self.complete else 0)
        return np.zeros(self._n_genes, np.int32), np.zeros(shape, np.int64), np.zeros(shape)

    def tasks(self, part: Part, threads: int) -> Iterator[Task]:
        """Return work on a part."""
        codes = part.codes(None)
        for slot, (a, b) in enumerate(shares_of(len(codes), threads)):
            yield lambda s=slot, a=a, b=b: self._list(s, part, a, b, codes)  # type: ignore[misc]

    def _list(self, slot: int, part: Part, a: int, b: int, codes: NDArray[np.int32]) -> None:
        if slot not in self._own:
            self._own[slot] = self._new()
        counts, cells, values = self._own[slot]
        moments.rare_entries(
            part.indptr[a : b + 1], part.indices, part.data, codes[a:b], part.cells[a:b],
            self.limit, counts, cells, values,
        )  # fmt: skip

    def export(self) -> Any:
        """Return what was gathered."""
        own = [self._own[slot] for slot in sorted(self._own)] or [self._new()]
        first, *others = own
        for other in others:
            _append_entries(first, other)
        self._own = {0: first}
        return first

    def merge(self, exported: Any) -> None:
        """Add what was gathered elsewhere."""
        _append_entries(self.export(), exported)

    def dropped(self) -> NDArray[np.bool_]:
        """Return which genes are in fewer than `limit` cells."""
        return np.asarray(self.export()[0] < self.limit)

    def losses(self, n_cells: int) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
        """Return the cells that lose counts with those genes, ascending, and how much each."""
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

    def tasks(self, part: Part, threads: int) -> Iterator[Task]:
        """Return work on a part."""
        for a, b in shares_of(len(part.cells), threads):
            yield lambda a=a, b=b: self._sum(part, a, b)  # type: ignore[misc]

    def _sum(self, part: Part, a: int, b: int) -> None:
        count, total, marked = np.empty(b - a, np.int32), np.empty(b - a), np.empty((b - a, 1))
        cell_totals(
            part.indptr[a : b + 1], part.indices, part.data, self._bits, total, count, marked
        )
        self.totals[part.cells[a:b]] = marked[:, 0]

    def export(self) -> Any:
        """Return what was gathered."""
        cells = np.flatnonzero(self.totals)
        return cells, self.totals[cells]

    def merge(self, exported: Any) -> None:
        """Add what was gathered elsewhere."""
        self.totals[exported[0]] = exported[1]


def _append_entries(first: tuple[Any, Any, Any], other: tuple[Any, Any, Any]) -> None:
    """Append the entries of `other` where there is room for them."""
    room = first[1].shape[1]
    for k in range(room):
        place = first[0] + k
        genes = np.flatnonzero((other[0] > k) & (place < room))
        first[1][genes, place[genes]] = other[1][genes, k]
        first[2][genes, place[genes]] = other[2][genes, k]
    first[0][:] += other[0]


class _GroupSums(Reducer):
    """Whole-number sums per group of cells; groups are shared out between threads."""

    total: NDArray[np.int64]

    def __init__(self, codes: NDArray[np.int32]) -> None:
        self.codes = codes

    def _add(self, part: Part, codes: NDArray[np.int32], order: NDArray[np.int64]) -> None:
        """Add the cells of `order` to their groups."""
        raise NotImplementedError

    def tasks(self, part: Part, threads: int) -> Iterator[Task]:
        """Return work on a part."""
        codes = part.codes(self.codes)
        order = groups.cells_by_group(codes)
        for lane in range(threads):
            own = order[codes[order] % threads == lane]
            if len(own):
                yield lambda own=own: self._add(part, codes, own)  # type: ignore[misc]

    def export(self) -> NDArray[np.int64]:
        """Return what was gathered."""
        return self.total

    def merge(self, exported: NDArray[np.int64]) -> None:
        """Add what was gathered elsewhere."""
        self.total += exported


class GroupSums(_GroupSums):
    """Sums of stored values per group: pseudobulk. ``sums`` is ``[P, G]`` float64.

    Counts add up exactly; with `whole` false values are rounded to 2**-20.
    """

    def __init__(
        self, n_genes: int, codes: NDArray[np.int32], n_groups: int, *, whole: bool = True
    ) -> None:
        super().__init__(codes)
        self.unit = 1.0 if whole else float(1 << 20)
        self.total = np.zeros((n_groups, n_genes), np.int64)

    def _add(self, part: Part, codes: NDArray[np.int32], order: NDArray[np.int64]) -> None:
        groups.group_sums(part.indptr, part.indices, part.data, codes, order, self.unit, self.total)

    @property
    def sums(self) -> NDArray[np.float64]:
        """The sums ``[P, G]``."""
        return self.total / self.unit


class GroupLogMoments(_GroupSums):
    """Sum and sum of squares of log-normalised values per group: ``total[P, G, 2]`` times 2**30.

    ``target_sum=None`` takes the stored values for log1p already.
    """

    def __init__(
        self, n_genes: int, codes: NDArray[np.int32], n_groups: int, *, target_sum: float | None
    ) -> None:
        super().__init__(codes)
        self.target_sum = target_sum
        self.total = np.zeros((n_groups, n_genes, 2), np.int64)

    def _add(self, part: Part, codes: NDArray[np.int32], order: NDArray[np.int64]) -> None:
        if self.target_sum is None:
            groups.group_moments(part.indptr, part.indices, part.data, codes, order, self.total)
        else:
            scale = cell_scale(part.totals, self.target_sum)
            groups.group_log_moments(
                part.indptr, part.indices, part.data, codes, scale, order, self.total
            )
