"""Sums, means and rank sums of cells that were transposed once, for any number of groupings.

Counts stay counts until their gene is processed, and only then become log1p values. Tables of the
keys of every count in every cell (`vcell.metrics.levels`) make 32-bit keys, which are sorted.

Legend: ``P`` groups (group 0 is the reference), ``G`` genes, ``K`` genes of a range, ``C`` cells.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from vcell.cores import cores
from vcell.data.buffers import Scratch
from vcell.data.log_scale import log_divided
from vcell.kernels import radix, ranks
from vcell.metrics.by_gene import ENTRIES, Columns, GeneMajor, Piece, join, only, spans
from vcell.metrics.levels import KeyOrder, Levels
from vcell.metrics.scaled import BlockSurvey

if TYPE_CHECKING:
    from vcell.metrics.groups import Against, Rows

Array = NDArray[np.float64]
#: Entries of a range of genes, the larger number where there are many. Every range visits every
#: block, and each visit costs some 20 microseconds, however few entries it finds.
_RANGE, _LONG_RANGE = 1 << 20, 1 << 23
AT_ONCE = 1 << 21  # non-zeros of a block: transposed, it is a small part of the cache
_scratch = Scratch(least=8 * ENTRIES)


@dataclass(frozen=True)
class SourcePart:
    """Cells of one source, transposed, and each cell's divisor before log1p.

    ``divisor`` is by number in the source, from `cells.offset` on; None for values as stored.
    """

    cells: GeneMajor
    divisor: NDArray[np.floating] | None = None

    def read(self, lo: int, hi: int) -> Columns:
        """Return the values of genes lo to hi."""
        found = self.cells.read(lo, hi)
        if self.divisor is None:
            return found
        own = self.divisor[found.cell - self.cells.offset]
        return Columns(found.first, found.cell, log_divided(found.value.astype(own.dtype), own))


@dataclass(frozen=True)
class _Tabled:
    """A block of cells with the keys, and if needed the values, of its small counts, ``[L, R]``."""

    cells: GeneMajor
    piece: Piece
    key: NDArray[np.uint32]
    value: NDArray[np.floating]

    def append(
        self, lo: int, hi: int, to: tuple[NDArray[Any], ...], beyond: tuple[NDArray[Any], ...],
        n_beyond: int,
    ) -> int:  # fmt: skip
        """Append the keys of genes lo to hi; see `vcell.kernels.ranks.level_keys`."""
        piece, starts = self.piece, self.piece.starts[lo : hi + 1]
        a, b = int(starts[0]), int(starts[-1])
        (entries,) = self.cells.entries(piece, a, b)
        n: int = ranks.level_keys(
            starts, entries, piece.row_bits, piece.most, piece.large_between(a, b), piece.numbers,
            self.key, self.value, *to, *beyond, n_beyond,
        )  # fmt: skip
        return n


@dataclass(frozen=True)
class _Entries:
    """Values and keys of a range of genes: gene k's are those from ``first[k]`` to ``last[k]``."""

    first: NDArray[np.int64]
    last: NDArray[np.int64]
    values: NDArray[np.floating] | None  # None: bits of the keys, see `base`
    keys: NDArray[Any]  # not sorted yet
    shift: int  # bits of the group, the lowest of a key
    zero: int  # key of the value 0, without the group's bits: keys of negative values are below
    #: Genes whose keys do not have ranks yet.
    unranked: NDArray[np.int64]
    base: int = 0  # without values: keys hold the bits of float32 values, less this


def transpose(
    cells: GeneMajor, blocks: Iterable[Rows], group: NDArray[np.int32], *,
    threads: int | None, survey: bool = False,
) -> list[BlockSurvey]:  # fmt: skip
    """Read the cells that have a group, and transpose them; return surveys if `survey`."""
    threads = threads or cores()
    surveys: list[BlockSurvey] = []

    def work(block: Rows) -> tuple[Piece, BlockSurvey | None]:
        seen = BlockSurvey.of(block) if survey else None
        kept = group[block.rows] >= 0
        chosen = block if kept.all() else only(block, kept)
        return cells.transpose(chosen, counts=None if seen is None else seen.counts or None), seen

    def keep(done: Future[tuple[Piece, BlockSurvey | None]]) -> None:
        piece, seen = done.result()
        cells.keep(piece)
        if seen is not None:
            surveys.append(seen)

    with ThreadPoolExecutor(threads) as pool:
        waiting: deque[Future[tuple[Piece, BlockSurvey | None]]] = deque()
        for block in blocks:
            waiting.append(pool.submit(work, block))
            del block  # releases its buffers
            if len(waiting) > threads:
                keep(waiting.popleft())
        for done in waiting:
            keep(done)
    return surveys


class GeneMajorSources:
    """Sources of cells, read gene by gene.

    Parameters
    ----------
    parts
        The sources; their cells have different numbers.
    n_genes
        G.
    """

    def __init__(self, parts: Sequence[SourcePart], n_genes: int) -> None:
        self.parts, self.n_genes = tuple(parts), n_genes
        self.counts = np.sum([part.cells.counts for part in parts], axis=0)
        kinds = [part.cells.dtype if part.divisor is None else part.divisor.dtype for part in parts]
        self.dtype: np.dtype[Any] = np.result_type(*kinds)
        self._levels: Levels | None = None
        if all(part.divisor is not None and part.cells.packed for part in parts):
            self._levels = Levels.of(np.concatenate([part.divisor for part in parts]))

    def rank(
        self, group: NDArray[np.int32], sizes: NDArray[np.int64], tables: RankTables,
        *, against: Against, threads: int | None,
    ) -> None:  # fmt: skip
        """Fill the tables, ``[P, G]``, a range of genes at a time."""
        scan = ranks.against_reference if against == "reference" else ranks.against_rest
        weight, shift = tables.weight, max((len(sizes) - 1).bit_length(), 1)
        order = None if self._levels is None else self._levels.order(shift)
        wide = order is not None and (tables.profile is not None or not order.of_bits)
        tabled = [] if order is None else self._tabled(order, group, wide=wide)

        def work(span: tuple[int, int]) -> None:
            lo, hi = span
            if order is None:
                found = self._entries(lo, hi, group)
            else:
                found = self._looked_up(lo, hi, group, order, tabled, wide=wide)
            shape, mask = (hi - lo, len(sizes)), (1 << found.shift) - 1
            sums, u, ties = np.zeros((3, *shape))
            narrow, stored = np.zeros(shape, weight.dtype), np.zeros(shape, np.int32)
            squares = np.zeros(shape if tables.squares.size else (0, 0))
            added = sums, squares, narrow, stored
            if found.values is None:
                ranks.add_keyed_genes(
                    found.first, found.last, found.keys, found.shift, found.base, weight, *added
                )
            else:
                ranks.add_genes(
                    found.first, found.last, found.values, found.keys, mask, weight, *added
                )
            if tables.profile is not None:
                tables.profile.take(found, lo, sums, stored, sizes)
            _sort(found)
            scan(
                found.keys, found.first, found.last, found.shift, found.zero, stored, sizes, u, ties
            )
            tables.put(slice(lo, hi), sums, squares, narrow, u, ties)

        with ThreadPoolExecutor(threads or cores()) as pool:
            at_once = min(max(_RANGE, int(self.counts.sum()) >> 7), _LONG_RANGE)
            list(pool.map(work, spans(self.counts, at_once)))

    def _entries(self, lo: int, hi: int, group: NDArray[np.int32]) -> _Entries:
        """Return the values of genes lo to hi, and keys ordered by value and group."""
        found = join([part.read(lo, hi) for part in self.parts])
        kept = group[found.cell] >= 0
        if not kept.all():
            before = np.concatenate(([0], np.cumsum(kept)))
            found = Columns(before[found.first], found.cell[kept], found.value[kept])
        value = np.ascontiguousarray(found.value, self.dtype)
        first, last, shift = found.first[:-1], found.first[1:], ranks.GROUP_BITS
        if value.dtype == np.float64:
            keys, unranked = group[found.cell].astype(np.uint64), np.arange(hi - lo)
        else:
            keys, unranked = np.empty(len(value), np.uint64), np.zeros(0, np.int64)
            ranks.pack(value.view(np.uint32), found.cell, group, keys)
        return _Entries(first, last, value, keys, shift, int(ranks.ZERO), unranked)

    def _tabled(self, order: KeyOrder, group: NDArray[np.int32], *, wide: bool) -> list[_Tabled]:
        """Tabulate the keys, and if `wide` the values, of the small counts of every cell."""
        none = np.zeros((0, 0), self.dtype)
        return [
            _Tabled(
                part.cells, piece, order.keys(piece.numbers, group[piece.numbers]),
                order.levels.values(piece.numbers) if wide else none,
            )
            for part in self.parts
            for piece in part.cells.pieces
        ]  # fmt: skip

    def _looked_up(
        self, lo: int, hi: int, group: NDArray[np.int32], order: KeyOrder,
        tabled: list[_Tabled], *, wide: bool,
    ) -> _Entries:  # fmt: skip
        """Look up keys, and if `wide` values, in the tables; compute those of larger counts."""
        divisor, shift = order.levels.divisor, order.shift
        first = np.concatenate(([0], np.cumsum(self.counts[lo:hi])))
        n = int(first[-1])
        values = _scratch.take("values", n if wide else 0, divisor.dtype)
        keys = _scratch.take("keys", n, np.uint32)
        places = _scratch.take("places", n, np.int32)
        counts = _scratch.take("counts", n, np.uint16)
        last, large = first[:-1].copy(), 0
        for block in tabled:
            large = block.append(lo, hi, (last, values, keys), (places, counts), large)
        unranked = np.zeros(0, np.int64)
        if large:
            at = places[:large]
            cell = keys[at]
            computed = log_divided(counts[:large].astype(divisor.dtype), divisor[cell])
            keys[at] = group[cell]
            if wide:
                values[at] = computed
            if order.of_bits:
                keys[at] |= (computed.view(np.uint32) - np.uint32(order.base)) << np.uint32(shift)
            else:
                of_gene = np.zeros(hi - lo, bool)
                of_gene[np.searchsorted(first, np.sort(at), side="right") - 1] = True
                unranked = np.flatnonzero(of_gene)
        return _Entries(
            first[:-1], last, values if wide else None, keys, shift, 0, unranked, order.base
        )


@dataclass
class RankTables:
    """The tables to fill, ``[P, G]``; see `vcell.metrics.groups.Grouped`."""

    sums: Array
    squares: Array  # empty if not requested
    narrow: NDArray[np.floating]
    weight: NDArray[np.floating]
    u: Array
    ties: Array
    profile: ProfileRanks | None = None

    def put(self, genes: slice, *found: NDArray[Any]) -> None:
        """Store the sums, squares, narrow sums, U and ties of some genes, ``[K, P]`` each."""
        tables = (self.sums, self.squares, self.narrow, self.u, self.ties)
        for table, part in zip(tables, found, strict=True):
            if table.size:
                table[:, genes] = part.T


class ProfileRanks:
    """Ranks of one profile, the mean of all groups' means in float32, among the controls.

    Attributes
    ----------
    profile
        ``[G]``; NaN where a group has no cells.
    below, equal
        ``[G]``: how many controls have less of a gene than the profile, and how many as much.
    """

    def __init__(self, n_genes: int) -> None:
        self.profile = np.zeros(n_genes, np.float32)
        self.below, self.equal = np.zeros((2, n_genes))

    def take(
        self, found: _Entries, lo: int, sums: Array, stored: NDArray[np.int32],
        sizes: NDArray[np.int64],
    ) -> None:  # fmt: skip
        """Rank some genes, from number `lo` on, whose sums are known."""
        assert found.values is not None, "ranks of a profile need values"
        with np.errstate(invalid="ignore"):
            means = np.ascontiguousarray((sums / sizes).T)
        profile = _mean_of_rows(means).astype(np.float32)
        below, equal = np.empty((2, len(profile)))
        mask = (1 << found.shift) - 1
        ranks.below_profile(
            found.first, found.last, found.values, found.keys, mask, profile, below, equal
        )
        absent = sizes[0] - stored[:, 0]
        genes = slice(lo, lo + len(profile))
        self.profile[genes] = profile
        self.below[genes] = below + np.where(profile > 0, absent, 0)
        self.equal[genes] = equal + np.where(profile == 0, absent, 0)


def _mean_of_rows(table: Array) -> Array:
    """Average row by row, so that a gene's mean does not depend on its neighbours."""
    total: Array = table[0].copy()
    for row in table[1:]:
        total += row
    total /= len(table)
    return total


def _sort(found: _Entries) -> None:
    """Sort every gene's keys; compute ranks for genes that lack them."""
    first, last = found.first, found.last.copy()
    mask = (1 << found.shift) - 1
    for k in found.unranked.tolist():
        a, b = first[k], last[k]
        assert found.values is not None, "keys without values have ranks"
        value, keys = found.values[a:b], found.keys[a:b]
        if keys.dtype == np.uint32 and value.dtype == np.float32:  # faster than choosing a method
            wide = _scratch.take("spare", b - a, np.uint64)
            ranks.widen(value.view(np.uint32), keys, mask, wide)
            wide.sort()
            ranks.narrow(wide, found.shift, keys)
        else:
            own = keys & keys.dtype.type(mask)
            ranks.rank_gene(value, np.argsort(value), own, found.shift, found.zero, keys)
        last[k] = a
    sizes = last - first
    if found.keys.dtype == np.uint32:
        least = radix.least()
        spare = _scratch.take("spare", int(sizes.max(initial=0)), np.uint32)
        radix.sort_runs(found.keys, first, last, found.shift, least, spare)
        sizes[sizes >= least] = 0
    rest = sizes > 1
    for a, b in zip(first[rest].tolist(), last[rest].tolist(), strict=True):
        found.keys[a:b].sort()
