"""Sums, means and rank sums of groups of cells, from blocks of CSR rows in bounded memory.

Legend: ``P`` groups (group 0 is the reference), ``G`` genes, ``N`` non-zeros.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from contextlib import closing
from dataclasses import dataclass
from typing import Any, Literal, Protocol

import numpy as np
from numpy.typing import NDArray

from vcell.kernels import ranks
from vcell.kernels.groups import add_rows
from vcell.metrics import gene_major
from vcell.metrics.by_gene import GeneMajor

Against = Literal["reference", "rest"]


class Rows(Protocol):
    """Some cells as canonical CSR; `vcell.data.Block` is one."""

    @property
    def rows(self) -> NDArray[np.int64]:
        """Indices of the cells."""
        ...

    @property
    def indptr(self) -> NDArray[np.int64]:
        """Start of each row."""
        ...

    @property
    def indices(self) -> NDArray[np.int32]:
        """Columns, ascending in every row."""
        ...

    @property
    def data(self) -> NDArray[Any]:
        """Values, none of them zero."""
        ...


Blocks = Callable[[], Iterable[Rows]]  # reads the cells from the start


@dataclass(frozen=True)
class Grouped:
    """Sums and rank statistics of the cells of each group.

    Attributes
    ----------
    sizes
        ``[P]`` cells of each group.
    sums, squares
        ``[P, G]`` float64 sums of the values and (if requested) of their squares.
    own_means
        ``[P, G]`` means, bit for bit as scipy computes them for a CSR matrix, or numpy for a dense
        one, in the values' own precision.
    u, ties
        ``[P, G]`` Mann-Whitney U of each group against the reference (or the rest), and the sum of
        t^3 - t over blocks of equal values; for the reference, over its own cells. Empty if ranks
        were not requested.
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
    memory: int | None = None,
    threads: int | None = None,
) -> Grouped:
    """Read the cells and sum, average and rank them by group.

    Parameters
    ----------
    blocks
        Yields the cells; called once.
    group
        ``[cells]`` the group of each cell by its number, negative for none.
    n_groups, n_genes
        Sizes of the result.
    against
        What each group is ranked against; None for no ranks.
    squares
        Whether to compute sums of squares.
    dense
        Whether the cells come from a dense matrix; only `own_means` depends on it.
    memory
        Bytes of non-zeros held in memory, if not the default of `vcell.metrics.by_gene`; the rest
        goes to a temporary file.
    threads
        Number of threads; None for one per core.
    """
    _check(n_groups)
    if against is None:
        return _sums(blocks(), group, n_groups, n_genes, squares=squares, dense=dense)
    with closing(GeneMajor(n_genes, memory=memory)) as cells:
        gene_major.transpose(cells, blocks(), group, threads=threads)
        return grouped(
            gene_major.GeneMajorSources([gene_major.SourcePart(cells)], n_genes), group, n_groups,
            against=against, squares=squares, dense=dense, threads=threads,
        )  # fmt: skip


def grouped(
    cells: gene_major.GeneMajorSources, group: NDArray[np.int32], n_groups: int, *,
    against: Against = "reference", squares: bool = False, dense: bool = False,
    profile: gene_major.ProfileRanks | None = None, threads: int | None = None,
) -> Grouped:  # fmt: skip
    """Sum, average and rank transposed cells, as `summarise` does.

    `profile` is filled with the ranks of the mean profile among the reference's cells.
    """
    _check(n_groups)
    sizes = np.bincount(group[group >= 0], minlength=n_groups).astype(np.int64)
    shape = (n_groups, cells.n_genes)
    divisor, weight = _means_of(sizes, cells.dtype, dense=dense)
    sums, u, ties = np.zeros((3, *shape))
    narrow = np.zeros(shape, cells.dtype)
    wide = np.zeros(shape if squares else (0, 0))
    tables = gene_major.RankTables(sums, wide, narrow, weight, u, ties, profile)
    cells.rank(group, sizes, tables, against=against, threads=threads)
    return Grouped(sizes, sums, wide, narrow / divisor[:, None], u, ties)


def _check(n_groups: int) -> None:
    if n_groups > ranks.MOST_GROUPS:
        raise ValueError(f"{n_groups:,} groups; at most {ranks.MOST_GROUPS:,} can be told apart")


def _means_of(
    sizes: NDArray[np.int64], kind: np.dtype[Any], *, dense: bool
) -> tuple[NDArray[np.floating], NDArray[np.floating]]:
    """Return divisors of the sums, and factors of the values before summing.

    scipy multiplies every value by 1 / n, numpy divides the sum of a dense column by n.
    """
    n = np.maximum(sizes, 1).astype(np.float64)
    divisor, weight = (n, np.ones_like(n)) if dense else (np.ones_like(n), 1.0 / n)
    return divisor.astype(kind), weight.astype(kind)


def _sums(
    blocks: Iterable[Rows], group: NDArray[np.int32], n_groups: int, n_genes: int,
    *, squares: bool, dense: bool,
) -> Grouped:  # fmt: skip
    """Sum block by block, without ranks."""
    sizes = np.bincount(group[group >= 0], minlength=n_groups).astype(np.int64)
    shape = (n_groups, n_genes)
    sums, wide = np.zeros(shape), np.zeros(shape if squares else (0, 0))
    narrow: NDArray[np.floating] = np.zeros(shape, np.float32)
    for block in blocks:
        data = _narrow_or_wide(block.data)
        if data.dtype == np.float64 != narrow.dtype:
            narrow = narrow.astype(np.float64)
        _, weight = _means_of(sizes, narrow.dtype, dense=dense)
        add_rows(block.indptr, block.indices, data, group[block.rows], weight, sums, wide, narrow)
    divisor, _ = _means_of(sizes, narrow.dtype, dense=dense)
    none = np.zeros((0, 0))
    return Grouped(sizes, sums, wide, narrow / divisor[:, None], none, none)


def _narrow_or_wide(data: NDArray[Any]) -> NDArray[Any]:
    """Return float64 values unchanged, others as float32."""
    return np.ascontiguousarray(data, np.float64 if data.dtype == np.float64 else np.float32)
