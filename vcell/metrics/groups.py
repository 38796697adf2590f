"""Sums, means and rank sums of groups of cells, from blocks of CSR rows in bounded memory.

Legend: ``P`` groups (group 0 is the reference), ``G`` genes, ``N`` non-zeros.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, Literal, Protocol

import numpy as np
from numpy.typing import NDArray

from vcell.cores import cores
from vcell.kernels import ranks
from vcell.metrics.by_gene import Columns, GeneMajor, only, spans

#: Bytes of non-zeros held in memory while they are turned round; more go to a temporary file.
MEMORY = 192 << 20
_AHEAD = 3  # blocks that are turned at once
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
    own_means
        ``[P, G]`` means as scipy takes them of a CSR matrix, or numpy of a dense one, to the bit,
        in the values' own precision.
    u, ties
        ``[P, G]`` Mann-Whitney U of each group against the reference (or the rest), and the sum of
        t^3 - t over blocks of equal values. Empty where ranks were not asked for.
    """

    sizes: NDArray[np.int64]
    sums: NDArray[np.float64]
    squares: NDArray[np.float64]
    own_means: NDArray[np.floating]
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
    memory: int = MEMORY,
    threads: int | None = None,
) -> Grouped:
    """Read the cells and sum, average and rank them by group.

    Parameters
    ----------
    blocks
        Starts reading the cells and yields them; called once.
    group
        ``[cells]`` the group of each cell by its number, negative for none.
    n_groups, n_genes
        Sizes of the result.
    against
        What each group is ranked against; None leaves ranks out.
    squares
        Whether sums of squares are wanted.
    dense
        Whether the cells come from a dense matrix; only `own_means` depends on it.
    memory
        Bytes of non-zeros held in memory; more go through a temporary file.
    threads
        How many; None for one per core.
    """
    if n_groups > ranks.MOST_GROUPS:
        raise ValueError(f"{n_groups:,} groups; at most {ranks.MOST_GROUPS:,} can be told apart")
    sizes = np.bincount(group[group >= 0], minlength=n_groups).astype(np.int64)
    work = _Work(group, sizes, n_genes, squares=squares, dense=dense)
    if against is None:
        for block in blocks():
            work.add(block)
        return work.grouped()
    with (
        closing(GeneMajor(n_genes, memory=memory)) as cells,
        ThreadPoolExecutor(threads or cores()) as pool,
    ):
        waiting: deque[Any] = deque()
        for block in blocks():
            waiting.append(pool.submit(_turned, cells, block, group))
            if len(waiting) > _AHEAD:
                cells.keep(waiting.popleft().result())
        for turned in waiting:
            cells.keep(turned.result())
        work.rank(cells, pool, against)
    return work.grouped()


class _Work:
    """The tables being filled."""

    def __init__(
        self, group: NDArray[np.int32], sizes: NDArray[np.int64], n_genes: int,
        *, squares: bool, dense: bool,
    ) -> None:  # fmt: skip
        self.group, self.sizes = group, sizes
        shape = (len(sizes), n_genes)
        self.sums = np.zeros(shape)
        self.squares = np.zeros(shape if squares else (0, 0))
        self.narrow: NDArray[np.floating] = np.zeros(shape, np.float32)
        # scipy multiplies every value by 1 / n, numpy divides the sum of a dense column by n
        n = np.maximum(sizes, 1).astype(np.float64)
        self.divisor, self._weight = (n, np.ones_like(n)) if dense else (np.ones_like(n), 1.0 / n)
        self.u: NDArray[np.float64] = np.zeros((0, 0))
        self.ties: NDArray[np.float64] = np.zeros((0, 0))

    def grouped(self) -> Grouped:
        means = self.narrow / self.divisor[:, None].astype(self.narrow.dtype)
        return Grouped(self.sizes, self.sums, self.squares, means, self.u, self.ties)

    def _widen(self, values: np.dtype[Any]) -> NDArray[np.floating]:
        """Take means in float64 from the first such values on; return the groups' weights."""
        if values == np.float64 != self.narrow.dtype:
            self.narrow = self.narrow.astype(np.float64)
        weight: NDArray[np.floating] = self._weight.astype(self.narrow.dtype)
        return weight

    def add(self, block: Rows) -> None:
        data = _narrow_or_wide(block.data)
        ranks.add_rows(
            block.indptr, block.indices, data, self.group[block.rows], self._widen(data.dtype),
            self.sums, self.squares, self.narrow,
        )  # fmt: skip

    def rank(self, cells: GeneMajor, pool: ThreadPoolExecutor, against: Against) -> None:
        """Sum, sort and scan the cells gene by gene."""
        self.u, self.ties = np.zeros((2, *self.sums.shape))
        weight = self._widen(cells.dtype)
        scan = ranks.against_reference if against == "reference" else ranks.against_rest

        def work(span: tuple[int, int]) -> None:
            lo, hi = span
            found = cells.read(lo, hi)
            self._add_genes(found, lo, hi, weight)
            keys = _keys(found, self.group)
            u, ties = np.zeros((2, len(self.sizes), hi - lo))
            scan(keys, found.first, 0, hi - lo, self.sizes, u, ties)
            self.u[:, lo:hi], self.ties[:, lo:hi] = u, ties

        list(pool.map(work, spans(cells.counts)))

    def _add_genes(self, found: Columns, lo: int, hi: int, weight: NDArray[np.floating]) -> None:
        shape = (hi - lo, len(self.sizes))
        sums, narrow = np.zeros(shape), np.zeros(shape, weight.dtype)
        squares = np.zeros(shape if self.squares.size else (0, 0))
        ranks.add_genes(
            found.first, found.cell, found.value, self.group, weight, sums, squares, narrow
        )
        self.sums[:, lo:hi], self.narrow[:, lo:hi] = sums.T, narrow.T
        if self.squares.size:
            self.squares[:, lo:hi] = squares.T


def _turned(cells: GeneMajor, block: Rows, group: NDArray[np.int32]) -> Any:
    kept = group[block.rows] >= 0
    return cells.turn(block if kept.all() else only(block, kept))


def _keys(found: Columns, group: NDArray[np.int32]) -> NDArray[np.uint64]:
    """Return every gene's values and groups as numbers that order as the values do, sorted."""
    keys = np.empty(len(found.cell), np.uint64)
    wide = found.value.dtype == np.float64
    if not wide:
        ranks.pack(found.value.view(np.uint32), found.cell, group, keys)
    for a, b in pairwise(found.first.tolist()):
        if wide:
            value = found.value[a:b]
            ranks.pack_wide(value, np.argsort(value), found.cell[a:b], group, keys[a:b])
        else:
            keys[a:b].sort()
    return keys


def _narrow_or_wide(data: NDArray[Any]) -> NDArray[Any]:
    """Return values as float64 if they are, else as float32."""
    return np.ascontiguousarray(data, np.float64 if data.dtype == np.float64 else np.float32)
