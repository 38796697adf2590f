"""Sums, means and rank sums of groups of cells, from blocks of CSR rows in bounded memory.

Legend: ``P`` groups (group 0 is the reference), ``G`` genes, ``N`` non-zeros.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, Literal, Protocol

import numpy as np
from numpy.typing import NDArray

from vcell.kernels import ranks

#: Bytes of sort keys held at once; more non-zeros are ranked in several passes over the cells.
MEMORY = 512 << 20
Against = Literal["reference", "rest"]


class Rows(Protocol):
    """Some cells as canonical CSR; `vcell.data.Block` is one."""

    @property
    def rows(self) -> NDArray[np.int64]:
        """Numbers of the cells."""
        ...

    @property
    def indptr(self) -> NDArray[np.int64]:
        """Where each row begins."""
        ...

    @property
    def indices(self) -> NDArray[np.int32]:
        """Columns, ascending in every row."""
        ...

    @property
    def data(self) -> NDArray[Any]:
        """Values, none of them zero."""
        ...


Blocks = Callable[[], Iterable[Rows]]  # starts reading the cells anew


@dataclass(frozen=True)
class Grouped:
    """What the cells of each group add up to, and how they rank.

    Attributes
    ----------
    sizes
        ``[P]`` cells of each group.
    sums, squares
        ``[P, G]`` float64 sums of the values and (if asked for) of their squares.
    mean32
        ``[P, G]`` means as scipy takes them of a float32 CSR matrix, or numpy of a dense one, to
        the bit.
    u, ties
        ``[P, G]`` Mann-Whitney U of each group against the reference (or the rest), and the sum of
        t^3 - t over blocks of equal values. Empty where ranks were not asked for.
    """

    sizes: NDArray[np.int64]
    sums: NDArray[np.float64]
    squares: NDArray[np.float64]
    mean32: NDArray[np.float32]
    u: NDArray[np.float64]
    ties: NDArray[np.float64]

    @property
    def means(self) -> NDArray[np.float64]:
        """``[P, G]`` arithmetic means; NaN for an empty group."""
        with np.errstate(invalid="ignore"):
            means: NDArray[np.float64] = self.sums / self.sizes[:, None]
        return means


def summarise(  # noqa: PLR0913 - all but four have defaults
    blocks: Blocks,
    group: NDArray[np.int32],
    n_groups: int,
    n_genes: int,
    *,
    against: Against | None = "reference",
    squares: bool = False,
    dense: bool = False,
    gene_counts: NDArray[np.int64] | None = None,
    memory: int = MEMORY,
    threads: int | None = None,
) -> Grouped:
    """Read the cells and sum, average and rank them by group.

    Parameters
    ----------
    blocks
        Starts reading the cells anew and yields them; called once per pass.
    group
        ``[cells]`` the group of each cell by its number, negative for none.
    n_groups, n_genes
        Sizes of the result.
    against
        What each group is ranked against; None leaves ranks out (one pass).
    squares
        Whether sums of squares are wanted.
    dense
        Whether the cells come from a dense matrix; only `mean32` depends on it.
    gene_counts
        ``[G]`` non-zeros of each gene among the cells with a group, where already known: saves a
        pass.
    memory
        Bytes of keys held at once.
    threads
        How many; None for one per core.
    """
    if n_groups > ranks.MOST_GROUPS:
        raise ValueError(f"{n_groups:,} groups; at most {ranks.MOST_GROUPS:,} can be told apart")
    sizes = np.bincount(group[group >= 0], minlength=n_groups).astype(np.int64)
    work = _Work(
        blocks, group, sizes, n_genes, squares=squares, dense=dense, threads=threads or _cores()
    )
    if against is None:
        for _ in work.read(summing=True):
            pass
        return work.grouped()
    counts = gene_counts if gene_counts is not None else _count(blocks, group, n_genes)
    summing = True
    with ThreadPoolExecutor(work.threads) as pool:
        for lo, hi in _passes(counts, memory // 8):
            work.rank(pool, counts, lo, hi, against=against, summing=summing)
            summing = False
    return work.grouped()


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _count(blocks: Blocks, group: NDArray[np.int32], n_genes: int) -> NDArray[np.int64]:
    """Count each gene's non-zeros among the cells that have a group."""
    counts = np.zeros(n_genes, np.int64)
    for block in blocks():
        kept = group[block.rows] >= 0
        each = np.repeat(kept, np.diff(block.indptr))
        ranks.count_genes(block.indices if kept.all() else block.indices[each], counts)
    return counts


def _passes(counts: NDArray[np.int64], most: int) -> list[tuple[int, int]]:
    """Cut the genes into runs whose non-zeros fit; a gene that does not fit is a run of its own."""
    runs, lo, held = [], 0, 0
    for gene, n in enumerate(counts.tolist()):
        if gene > lo and held + n > most:
            runs.append((lo, gene))
            lo, held = gene, 0
        held += n
    return [*runs, (lo, len(counts))]


class _Work:
    """The tables being filled."""

    def __init__(
        self, blocks: Blocks, group: NDArray[np.int32], sizes: NDArray[np.int64], n_genes: int,
        *, squares: bool, dense: bool, threads: int,
    ) -> None:  # fmt: skip
        self.blocks, self.group, self.sizes, self.threads = blocks, group, sizes, threads
        shape = (len(sizes), n_genes)
        self.sums = np.zeros(shape)
        self.squares = np.zeros(shape if squares else (0, 0))
        self.narrow = np.zeros(shape, np.float32)
        # scipy multiplies every value by 1 / n, numpy divides the sum of a dense column by n
        own = np.maximum(sizes, 1).astype(np.float32)
        self.divisor = own if dense else np.ones_like(own)
        self.weight = (
            np.ones_like(own) if dense else (1.0 / np.maximum(sizes, 1)).astype(np.float32)
        )
        self.u: NDArray[np.float64] = np.zeros((0, 0))
        self.ties: NDArray[np.float64] = np.zeros((0, 0))

    def grouped(self) -> Grouped:
        mean32 = self.narrow / self.divisor[:, None]
        return Grouped(self.sizes, self.sums, self.squares, mean32, self.u, self.ties)

    def read(self, *, summing: bool) -> Iterable[Rows]:
        for block in self.blocks():
            if summing:
                self.add(block)
            yield block

    def add(self, block: Rows) -> None:
        data = _narrow_or_wide(block.data)
        ranks.add_rows(
            block.indptr, block.indices, data, self.group[block.rows], self.weight,
            self.sums, self.squares, self.narrow,
        )  # fmt: skip

    def rank(
        self, pool: ThreadPoolExecutor, counts: NDArray[np.int64], lo: int, hi: int,
        *, against: Against, summing: bool,
    ) -> None:  # fmt: skip
        """Scatter the non-zeros of genes lo to hi, sort each gene's, and scan them."""
        first = np.concatenate(([0], np.cumsum(counts[lo:hi])))
        keys = np.empty(first[-1], np.uint64)
        cursor = first[:-1].copy()
        cuts = _cuts(first, self.threads)
        for block in self.blocks():
            group = self.group[block.rows]
            data = _narrow_or_wide(block.data)
            wide = data.dtype == np.float64
            scatter = ranks.scatter_wide_keys if wide else ranks.scatter_keys
            bits = data.view(np.uint64 if wide else np.uint32)
            jobs = [
                pool.submit(
                    scatter, block.indptr, block.indices, bits, group,
                    lo + a, lo + b, cursor[a:b], keys,
                )
                for a, b in cuts
            ]  # fmt: skip
            if summing:
                self.add(block)
            for job in jobs:
                job.result()
        u, ties = np.zeros((2, len(self.sizes), hi - lo))
        scan = ranks.against_reference if against == "reference" else ranks.against_rest
        many = _cuts(first, 8 * self.threads)  # small jobs, so that no thread waits long
        for job in [
            pool.submit(_sort_and_scan, scan, keys, first, a, b, self.sizes, u, ties)
            for a, b in many
        ]:
            job.result()
        if not self.u.size:
            self.u, self.ties = np.zeros((2, len(self.sizes), len(counts)))
        self.u[:, lo:hi], self.ties[:, lo:hi] = u, ties


def _narrow_or_wide(data: NDArray[Any]) -> NDArray[Any]:
    """Return values as float64 if they are, else as float32."""
    return np.ascontiguousarray(data, np.float64 if data.dtype == np.float64 else np.float32)


def _cuts(first: NDArray[np.int64], parts: int) -> list[tuple[int, int]]:
    """Cut genes into runs of about equally many non-zeros."""
    n = len(first) - 1
    wanted = np.linspace(0, first[-1], parts + 1)[1:-1]
    edges = np.unique(np.concatenate(([0], np.searchsorted(first, wanted), [n])))
    return [(int(a), int(b)) for a, b in pairwise(edges)]


def _sort_and_scan(
    scan: Any, keys: NDArray[np.uint64], first: NDArray[np.int64], lo: int, hi: int,
    sizes: NDArray[np.int64], u: NDArray[np.float64], ties: NDArray[np.float64],
) -> None:  # fmt: skip
    for gene in range(lo, hi):
        keys[first[gene] : first[gene + 1]].sort()
    scan(keys, first, lo, hi, sizes, u, ties)
