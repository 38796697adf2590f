"""What the rules of 2026 need to know of one side's cells, from one reading gene by gene.

Totals, jackknife and rank tests of every group, under any number of groupings at once: the whole
side, or both halves of it as the replicate anchor draws them five times over.

Legend: ``P`` perturbations, ``G`` genes, ``W = P + 1`` groups (the control first), ``Q`` groups of
all halves, ``C`` cells.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vcell.kernels import by_gene as kernels
from vcell.kernels.by_gene import LARGEST, TERMS
from vcell.metrics import de
from vcell.metrics.by_gene import ByGene, join

Array = NDArray[np.float64]
BULK_TARGET, CELL_TARGET = 5e4, 1e6
MIN_CPM, ALPHA, EPSILON = 5.0, 0.05, 1e-9
#: Entries that a thread works on at once; a gene that has more is worked on alone.
ENTRIES = 1 << 20
#: Bytes of sums and ranks that groupings measured together may take.
MEMORY = 1 << 30


@dataclass(frozen=True)
class Measured:
    """What one side's cells say.

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

    def table(self, perturbations: NDArray[np.str_], genes: NDArray[np.str_]) -> de.Table:
        """Return the tested genes as a table of differential expression."""
        t = self.tested
        return de.Table(
            u=self.u[:, t], p=self.p[:, t], fdr=self.fdr[:, t], lfc=self.lfc[:, t],
            score=self.score[:, t], target_mean=self.cpm[1:, t], reference_mean=self.cpm[0, t],
            sizes=self.sizes[1:], reference_sizes=np.full(len(self.sizes) - 1, self.sizes[0]),
            perturbations=perturbations, genes=genes[t],
        )  # fmt: skip

    @property
    def significant(self) -> NDArray[np.bool_]:
        """``[P, G]`` whether a gene was tested and called."""
        with np.errstate(invalid="ignore"):
            called: NDArray[np.bool_] = self.fdr < ALPHA
        return called


class Grouping:
    """Which group each cell is in, in one or several disjoint halves.

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
        """Prepare what the jackknife needs of cells and groups; see `vcell.kernels.by_gene`."""
        rest = self.wholes[group] - totals
        e, f = np.full(len(rows), -1.0), np.zeros(len(rows))  # nothing is left: the gene falls to 0
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


class _Raw:
    """The tables of one grouping being filled, gene by gene."""

    def __init__(self, grouping: Grouping, n_genes: int, n_ranges: int) -> None:
        self.grouping = grouping
        n = len(grouping.sizes)
        self.counts, self.parts, self.u, self.ties = (np.zeros((n_genes, n)) for _ in range(4))
        self.spread = np.zeros((n_ranges, n))

    def fill(self, number: int, lo: int, hi: int, found: Any, share: Array, ordered: Any) -> None:
        """Take a range of genes; `ordered` are their sorted keys and the bits of a cell number."""
        g = self.grouping
        stored = np.zeros((hi - lo, len(g.sizes)), np.int32)
        kernels.sums(
            found.first, found.cell, found.value, share, g.table, self.counts[lo:hi],
            self.parts[lo:hi], stored,
        )  # fmt: skip
        kernels.jackknife(
            found.first, found.cell, found.value, g.table, g.e, g.f, self.counts[lo:hi], g.wholes,
            g.sizes, g.powers, g.members, g.bounds, _SQUARED, BULK_TARGET, self.spread[number],
        )  # fmt: skip
        keys, id_bits = ordered
        kernels.against_reference(
            keys, found.first, id_bits, g.table, stored, g.sizes, g.width,
            self.u[lo:hi], self.ties[lo:hi],
        )  # fmt: skip

    def measured(self, half: int) -> Measured:
        """Return what one half's cells say."""
        g = self.grouping
        own = slice(half * g.width, (half + 1) * g.width)
        n, wholes = g.sizes[own], g.wholes[own]
        sums, parts, u, ties = (
            np.ascontiguousarray(table[:, own].T)
            for table in (self.counts, self.parts, self.u, self.ties)
        )
        with np.errstate(invalid="ignore"):
            means, cpm = sums / n[:, None], parts / n[:, None] * CELL_TARGET
        bulk = np.log1p(BULK_TARGET * sums / np.where(wholes > 0, wholes, 1.0)[:, None])
        spread = self.spread[:, own].sum(axis=0)
        share = (n - 1) / np.maximum(n, 1)
        noise = np.where(n < 2, 0.0, np.maximum(share * spread, 0.0))
        tested = cpm[0] > MIN_CPM
        p, score = de.wilcoxon(u[1:], ties[1:], n[1:, None], n[:1, None])
        p[:, ~tested] = np.nan
        fdr = np.full(p.shape, np.nan)
        fdr[:, tested] = de.benjamini_hochberg(p[:, tested])
        lfc = np.log2((cpm[1:] + EPSILON) / (cpm[0] + EPSILON))
        return Measured(
            bulk=bulk, noise=noise, tested=tested, p=p, fdr=fdr, lfc=lfc, means=means, cpm=cpm,
            u=u[1:], score=score, sizes=n,
        )  # fmt: skip


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
        Where the counts come from; several sources have cells of different numbers.
    groupings
        What to measure: for each, one result per half.
    totals
        ``[C]`` counts of every cell by its number.
    threads
        How many; None for one per core.

    Yields
    ------
    list of Measured
        Of each grouping, one per half. Take them one by one: each is ten tables ``[W, G]``.
    """
    counts = np.sum([part.counts for part in cells], axis=0)
    ranges = _ranges(counts)
    raw = [_Raw(grouping, len(counts), len(ranges)) for grouping in groupings]
    id_bits = max(int(len(totals) - 1).bit_length(), 1)

    def work(number: int) -> None:
        lo, hi = ranges[number]
        found = join([part.read(lo, hi) for part in cells])
        share, keys = np.empty(len(found.cell)), np.empty(len(found.cell), np.uint64)
        kernels.shares(found.cell, found.value, totals, share)
        kernels.keys(share.view(np.uint64), found.cell, id_bits, keys)
        for a, b in pairwise(found.first.tolist()):
            keys[a:b].sort()
        for each in raw:
            each.fill(number, lo, hi, found, share, (keys, id_bits))

    with ThreadPoolExecutor(threads or _cores()) as pool:
        for _ in pool.map(work, range(len(ranges))):
            pass
    while raw:
        each = raw.pop(0)
        yield [each.measured(half) for half in range(each.grouping.n_halves)]


def at_once(width: int, n_genes: int) -> int:
    """Return how many halvings can be measured together within `MEMORY`."""
    return max(MEMORY // (4 * 8 * 2 * width * n_genes), 1)


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _ranges(counts: NDArray[np.int64]) -> list[tuple[int, int]]:
    """Cut the genes into runs of about `ENTRIES` entries."""
    runs, lo, held = [], 0, 0
    for gene, n in enumerate(counts.tolist()):
        if gene > lo and held + n > ENTRIES:
            runs.append((lo, gene))
            lo, held = gene, 0
        held += n
    return [*runs, (lo, len(counts))]
