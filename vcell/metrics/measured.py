"""The measurements of one side's cells for the rules of 2026, read once, gene by gene.

Totals, jackknife and rank tests of every group, for any number of groupings at once: all cells of
the side, or two halves of them, drawn five times for the replicate anchor.

Legend: ``P`` perturbations, ``G`` genes, ``W = P + 1`` groups (the control first), ``Q`` groups of
all halves, ``C`` cells.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from vcell.cores import cores
from vcell.data.log_scale import log_divided
from vcell.kernels import by_gene as kernels
from vcell.kernels.by_gene import LARGEST, TERMS
from vcell.metrics.by_gene import ByGene, Columns, join, spans
from vcell.metrics.significance import DeTable, benjamini_hochberg, wilcoxon

Array = NDArray[np.float64]
BULK_TARGET, CELL_TARGET = 5e4, 1e6
MIN_CPM, ALPHA, EPSILON = 5.0, 0.05, 1e-9
#: Limit on the bytes of the tables of halves that are measured together.
MEMORY = 640 << 20


@dataclass(frozen=True)
class Measured:
    """Measurements of one side's cells.

    Attributes
    ----------
    bulk
        ``[P + 1, G]`` log1p of group totals scaled to 50,000.
    noise
        ``[P + 1]`` jackknife variance of `bulk`, summed over genes.
    tested
        ``[G]`` genes above 5 CPM in the controls.
    p, fdr, lfc
        ``[P, G]``; p and fdr are NaN for genes that were not tested.
    means, cpm
        ``[P + 1, G]`` mean counts, and mean counts per million.
    u, score
        ``[P, G]`` Mann-Whitney U and its z-score.
    sizes
        ``[P + 1]`` cells of each group.

    For a half, `means`, `cpm`, `u` and `score` are empty: no score needs them.
    """

    bulk: Array
    noise: Array
    tested: NDArray[np.bool_]
    p: Array
    fdr: Array
    lfc: Array
    means: Array
    cpm: Array
    u: Array
    score: Array
    sizes: NDArray[np.int64]

    def table(self, perturbations: NDArray[np.str_], genes: NDArray[np.str_]) -> DeTable:
        """Return the tested genes as a table of differential expression."""
        t = self.tested
        return DeTable(
            u=self.u[:, t], p=self.p[:, t], fdr=self.fdr[:, t], lfc=self.lfc[:, t],
            score=self.score[:, t], target_mean=self.cpm[1:, t], reference_mean=self.cpm[0, t],
            sizes=self.sizes[1:], reference_sizes=np.full(len(self.sizes) - 1, self.sizes[0]),
            perturbations=perturbations, genes=genes[t],
        )  # fmt: skip

    @property
    def significant(self) -> NDArray[np.bool_]:
        """``[P, G]`` whether a gene is significant; untested genes are not."""
        with np.errstate(invalid="ignore"):
            called: NDArray[np.bool_] = self.fdr < ALPHA
        return called


class Grouping:
    """The groups of the cells, in one or several disjoint halves.

    Parameters
    ----------
    halves
        For each half the group of every cell: 0 the control, 1 to P, negative for none.
    width
        P + 1.
    totals
        Counts of every cell.
    """

    def __init__(
        self, halves: Sequence[NDArray[np.int32]], width: int, totals: NDArray[np.float64]
    ) -> None:
        self.width, self.n_halves = width, len(halves)
        self.table = np.full(len(totals), -1, np.int32)
        for h, group in enumerate(halves):
            kept = group >= 0
            self.table[kept] = group[kept] + h * width
        n = width * self.n_halves
        rows = np.flatnonzero(self.table >= 0)
        group = self.table[rows]
        self.sizes = np.bincount(group, minlength=n).astype(np.int64)
        self.wholes = np.bincount(group, totals[rows], minlength=n)
        self._leave_out(rows, group, totals[rows])

    def _leave_out(
        self, rows: NDArray[np.int64], group: NDArray[np.int32], totals: NDArray[np.float64]
    ) -> None:
        """Prepare the jackknife's factors of cells and groups; see `vcell.kernels.by_gene`."""
        rest = self.wholes[group] - totals
        e, f = np.full(len(rows), -1.0), np.zeros(len(rows))  # no cell is left: the gene is 0
        np.divide(totals, rest, out=e, where=rest > 0)
        np.divide(BULK_TARGET, rest, out=f, where=rest > 0)
        self.e, self.f = np.zeros((2, len(self.table)))
        self.e[rows], self.f[rows] = e, f
        n = len(self.sizes)
        self.powers = np.zeros((n, TERMS + 1))
        p = np.ones(len(rows))
        for k in range(1, TERMS + 1):
            p = p * e
            self.powers[:, k] = np.bincount(group, p, minlength=n)
        far = np.bincount(group, (rest <= 0) | (e > LARGEST), minlength=n) > 0
        self.powers[far, 0] = np.nan
        order = np.argsort(group, kind="stable")
        self.members = e[order]
        self.bounds = np.searchsorted(group[order], np.arange(n + 1))


class _Tables:
    """The tables of one grouping, ``[Q, G]``, filled range of genes by range of genes."""

    def __init__(self, grouping: Grouping, n_genes: int, n_ranges: int) -> None:
        self.grouping, self.whole = grouping, grouping.n_halves == 1
        n = len(grouping.sizes)
        self.spread = np.zeros((n_ranges, n))
        self.tested = np.zeros((grouping.n_halves, n_genes), bool)
        self.bulk, self.p, self.lfc = (np.empty((n, n_genes)) for _ in range(3))
        details = (n, n_genes) if self.whole else (0, 0)
        self.means, self.cpm, self.u, self.score = (np.empty(details) for _ in range(4))

    def fill(self, number: int, lo: int, hi: int, found: Columns, cpm: Array, keys: Keys) -> None:
        """Fill in a range of genes."""
        g = self.grouping
        counts, parts, u, ties = np.zeros((4, hi - lo, len(g.sizes)))
        stored = np.zeros(counts.shape, np.int32)
        first, cell, value = found.first, found.cell, found.value
        kernels.sums(first, cell, value, cpm, g.table, counts, parts, stored)
        kernels.jackknife(
            first, cell, value, g.table, g.e, g.f, counts, g.wholes, g.sizes, g.powers, g.members,
            g.bounds, _SQUARED, BULK_TARGET, self.spread[number],
        )  # fmt: skip
        kernels.against_reference(
            keys.ordered, first, keys.id_bits, g.table, stored, g.sizes, g.width, u, ties
        )
        tables = [np.ascontiguousarray(table.T) for table in (counts, parts, u, ties)]
        for half in range(g.n_halves):
            own = slice(half * g.width, (half + 1) * g.width)
            self._put(half, own, slice(lo, hi), *(table[own] for table in tables))

    def _put(
        self, half: int, own: slice, genes: slice, counts: Array, parts: Array, u: Array,
        ties: Array,
    ) -> None:  # fmt: skip
        """Fill the tables from one half's sums and ranks of some genes."""
        n, wholes = self.grouping.sizes[own, None], self.grouping.wholes[own, None]
        self.bulk[own, genes] = log_divided(BULK_TARGET * counts, np.where(wholes > 0, wholes, 1.0))
        with np.errstate(invalid="ignore"):
            cpm = parts / n
            tested = cpm[0] > MIN_CPM
            self.lfc[own, genes] = np.log2((cpm + EPSILON) / (cpm[0] + EPSILON))
        p, score = wilcoxon(u, ties, n, n[:1])
        p[:, ~tested] = np.nan
        self.p[own, genes], self.tested[half, genes] = p, tested
        if self.whole:
            with np.errstate(invalid="ignore"):
                self.means[:, genes] = counts / n
            self.cpm[:, genes], self.u[:, genes], self.score[:, genes] = cpm, u, score

    def measured(self, half: int, pool: ThreadPoolExecutor) -> Measured:
        """Return the measurements of one half."""
        g = self.grouping
        own = slice(half * g.width, (half + 1) * g.width)
        n, tested = g.sizes[own], self.tested[half]
        spread = (n - 1) / np.maximum(n, 1) * self.spread[:, own].sum(axis=0)
        p = self.p[own][1:]
        fdr = np.full(p.shape, np.nan)

        def adjust(row: int) -> None:
            fdr[row : row + 8, tested] = benjamini_hochberg(p[row : row + 8, tested])

        list(pool.map(adjust, range(0, len(p), 8)))
        return Measured(
            bulk=self.bulk[own], noise=np.where(n < 2, 0.0, np.maximum(spread, 0.0)),
            tested=tested, p=p, fdr=fdr, lfc=self.lfc[own][1:], means=self.means, cpm=self.cpm,
            u=self.u[1:], score=self.score[1:], sizes=n,
        )  # fmt: skip


@dataclass(frozen=True)
class Keys:
    """Sort keys: the rank of the value and the cell in one number, ascending in every gene."""

    ordered: NDArray[np.uint64]
    id_bits: int  # number of low bits, which hold the cell

    @classmethod
    def of(cls, found: Columns, cpm: Array, n_cells: int) -> Keys:
        """Rank every gene's entries by log1p of CPM.

        Equal fractions of different counts, 2 of 20,000 and 3 of 30,000, round to CPM that may
        differ in the last bit, and log1p makes most of them equal again. cell-eval2 ranks the
        result, so the same operations of the same libraries are done here, bit for bit.
        """
        level = np.log1p(cpm)
        id_bits = max(int(n_cells - 1).bit_length(), 1)
        longest = int(np.diff(found.first).max(initial=1))
        place_bits = max((longest - 1).bit_length(), 1)
        ordered = np.empty(len(found.cell), np.uint64)
        kernels.keys(level.view(np.uint64), found.first, place_bits, ordered)
        for a, b in pairwise(found.first.tolist()):
            ordered[a:b].sort()
        kernels.settle(ordered, found.first, place_bits, level, found.cell, id_bits)
        return cls(ordered, id_bits)


_SQUARED = kernels.squared_coefficients(TERMS)


def measure(
    cells: Sequence[ByGene],
    groupings: Sequence[Grouping],
    totals: NDArray[np.float64],
    *,
    threads: int | None = None,
) -> Iterator[list[Measured]]:
    """Read the counts once, gene by gene, and measure them under every grouping.

    Parameters
    ----------
    cells
        Sources of counts; their cells must have different numbers.
    groupings
        Groupings to measure; each gives one result per half.
    totals
        ``[C]`` counts of every cell by its number.
    threads
        Number of threads; None for one per core.

    Yields
    ------
    list of Measured
        One per half of each grouping.
    """
    counts = np.sum([part.counts for part in cells], axis=0)
    ranges = spans(counts)
    scale = totals / CELL_TARGET
    scale[scale == 0] = 1.0
    tables = [_Tables(grouping, len(counts), len(ranges)) for grouping in groupings]

    def work(number: int) -> None:
        lo, hi = ranges[number]
        found = join([part.read(lo, hi) for part in cells])
        cpm = np.empty(len(found.cell))
        kernels.scaled(found.cell, found.value, scale, cpm)
        keys = Keys.of(found, cpm, len(totals))
        for table in tables:
            table.fill(number, lo, hi, found, cpm, keys)

    with ThreadPoolExecutor(threads or cores()) as pool:
        list(pool.map(work, range(len(ranges))))
        while tables:
            table = tables.pop(0)
            yield [table.measured(half, pool) for half in range(table.grouping.n_halves)]


def at_once(width: int, n_genes: int) -> int:
    """Return how many halvings can be measured together within `MEMORY`."""
    return max(MEMORY // (3 * 8 * 2 * width * n_genes), 1)
