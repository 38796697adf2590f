"""The plan of a flavour: reducers for the first pass, and the ranking made from their results."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
from numpy.typing import NDArray

from vcell.data.column import numbered
from vcell.errors import UserError
from vcell.passes import Reader
from vcell.passes.reducers import GeneMoments, MarkedTotals, NormalizedMoments, RareEntries

if TYPE_CHECKING:
    from vcell.passes import CellTable, Reducer

FLAVORS = ("seurat", "cell_ranger", "seurat_v3", "seurat_v3_paper", "pearson_residuals")


class Read(Protocol):
    """Reads the cells again: all that the rules keep, or those of `rows` (ascending)."""

    def __call__(
        self, reducers: Sequence[Reducer], *, rows: NDArray[np.int64] | None = None
    ) -> CellTable:
        """Fill the reducers, and return the measurements per cell."""


@dataclass(frozen=True)
class Ranking:
    """Genes ranked by their variability relative to genes of similar mean.

    Parameters
    ----------
    flavor
        The method.
    selected
        Selected genes ``[G]``; ties at the cut-off of an unbatched dispersion flavour are all
        selected, as in scanpy, so there can be more than requested.
    order
        All genes, best first ``[G]``.
    scores
        Columns per gene, named as in scanpy.
    n_cells
        Numbers of the used cells that have the gene ``[G]``.
    notes
        Messages for the user, such as a wider fit, or genes left out.
    """

    flavor: str
    selected: NDArray[np.bool_]
    order: NDArray[np.int64]
    scores: dict[str, NDArray[Any]]
    n_cells: NDArray[np.int64]
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class BatchLabels:
    """The batch of every cell of the source: number ``[C]`` (-1 for none), and the names."""

    codes: NDArray[np.int32]
    names: tuple[str, ...]

    @classmethod
    def of(cls, values: NDArray[Any]) -> BatchLabels:
        """Assign numbers to the values of an obs column in sorted order; -1 where missing."""
        codes, names = numbered(values)
        return cls(codes, tuple(str(name) for name in names.tolist()))

    def sizes(self, kept: NDArray[np.bool_]) -> NDArray[np.int64]:
        """Return the number of kept cells of each batch."""
        used = self.codes[kept]
        return np.bincount(used[used >= 0], minlength=len(self.names))


class GeneFilter:
    """Leaves out genes found in fewer than `min_cells` cells, before normalisation.

    Their counts must not be part of a cell's total. They have few entries, which are stored during
    the pass, so that totals can be corrected without another pass (up to 65 cells; beyond that, the
    cells are read again).
    """

    def __init__(self, n_genes: int, min_cells: int) -> None:
        self.min_cells = min_cells
        self._entries = RareEntries(n_genes, min_cells)

    def reducers(self) -> list[Reducer]:
        """Return the reducers of the first pass."""
        return [self._entries] if self.min_cells > 0 else []

    def mask(self, n_genes: int) -> NDArray[np.bool_]:
        """Return a mask of the genes that are kept."""
        return ~self._entries.dropped() if self.min_cells > 0 else np.ones(n_genes, bool)

    def losses(self, read: Read, n_cells: int) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
        """Return the cells whose total shrinks, ascending, and the differences."""
        if self.min_cells <= 1:
            return np.empty(0, np.int64), np.empty(0)
        if self._entries.complete:
            return self._entries.losses(n_cells)
        lost = MarkedTotals(self._entries.dropped(), n_cells)
        read([lost])
        cells, amounts = lost.export()
        return cells, amounts

    def read_again(self, read: Read, reducers: Sequence[Reducer], cells: NDArray[np.int64]) -> None:
        """Fill the reducers with some of the cells of `losses`: from memory if they were stored."""
        block = self._entries.rows_of(cells) if isinstance(read, Reader) else None
        if block is None or not isinstance(read, Reader):
            read(reducers, rows=cells)
        else:
            read.held(block)(reducers, rows=cells)


class FlavorPlan(ABC):
    """The computation of a flavour for one source; its first pass fills `moments`."""

    moments: GeneMoments | NormalizedMoments

    def __init__(self, setting: FlavorSettings) -> None:
        self.setting = setting
        self.filter = GeneFilter(setting.n_genes, setting.min_cells)
        batches = setting.batches
        self.codes = None if batches is None else batches.codes
        self.n_batches = 1 if batches is None else len(batches.names)

    def reducers(self) -> list[Reducer]:
        """Return the reducers of the first pass."""
        return [self.moments, *self.filter.reducers()]

    @abstractmethod
    def finish(self, read: Read, table: CellTable) -> Ranking:
        """Rank the genes; `read` runs another pass if the method needs one."""


@dataclass(frozen=True, kw_only=True)
class FlavorSettings:
    """The settings of every flavour."""

    flavor: str
    n_genes: int
    n_cells: int
    n_top: int
    target_sum: float | None  # None: the values are log1p already
    single: bool  # the source stores float32
    genes: NDArray[Any]  # names, for ties
    batches: BatchLabels | None = None
    min_cells: int = 0
    span: float = 0.3
    theta: float = 100.0

    def sizes(self, table: CellTable) -> NDArray[np.int64]:
        """Return the number of kept cells of each batch."""
        if self.batches is None:
            return np.array([np.count_nonzero(table.kept)])
        return self.batches.sizes(table.kept)

    def check_sizes(self, table: CellTable) -> NDArray[np.int64]:
        """Return the sizes of the batches; each needs two cells for a variance."""
        sizes = self.sizes(table)
        if (sizes < 2).any():
            if self.batches is None:
                left = "no cell is" if sizes[0] == 0 else "only one cell is"
                raise UserError(f"{left} left: there is no variance to rank genes by")
            name = self.batches.names[int(np.argmax(sizes < 2))]
            raise UserError(
                f"batch {name!r} has fewer than two cells",
                hint="merge small batches, or leave --batch-column out",
            )
        return sizes


def mean_var(
    total: NDArray[np.float64], squares: NDArray[np.float64], n: int
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return mean and unbiased variance from sums, in scanpy's order of operations."""
    mean = total / n
    var = squares / n - mean**2
    if n != 1:
        var *= n / (n - 1)
    return mean, var


def ranks_over_batches(
    scores: NDArray[np.float64], n_top: int
) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """Return each gene's median rank over the batches that select it, and their number.

    Parameters
    ----------
    scores
        ``[B, G]``, high is variable. Ties are in the order of numpy's default sort, as in scanpy.
    """
    ranks = np.argsort(np.argsort(-scores, axis=1), axis=1).astype(np.float32)
    chosen = np.sum(ranks < n_top, axis=0)
    ranks[ranks >= n_top] = np.nan
    masked = np.ma.masked_invalid(ranks)
    median = np.ma.median(masked, axis=0).filled(np.nan)  # type: ignore[no-untyped-call]
    return median, chosen


def rank_counts(
    setting: FlavorSettings,
    norm: NDArray[np.float64],
    name: str,
    total: NDArray[np.float64],
    sizes: NDArray[np.int64],
    kept: NDArray[np.bool_],
    notes: tuple[str, ...] = (),
) -> Ranking:
    """Rank genes by a normalised variance of their counts.

    Parameters
    ----------
    norm, name
        ``[B, kept]``, and its name among the scores.
    total
        ``[B, G, 3]`` moments of the counts.
    """
    rank, chosen = ranks_over_batches(norm, setting.n_top)
    average = np.mean(norm, axis=0)
    keys = (rank, -chosen) if setting.flavor == "seurat_v3" else (-chosen, rank)
    order = best_first(*keys, np.where(np.isnan(rank), -average, 0.0))
    n_cells, first, second = total.sum(axis=0).T
    means, variances = mean_var(first, second, int(sizes.sum()))
    columns = {name: average, "highly_variable_rank": rank}
    if setting.batches is not None:
        columns["highly_variable_nbatches"] = chosen
    scores, everything = with_filtered(kept, columns, order)
    return Ranking(
        setting.flavor,
        first_of(everything, setting.n_top),
        everything,
        {"means": means, "variances": variances} | scores,
        n_cells.astype(np.int64),
        notes,
    )


def with_filtered(
    kept: NDArray[np.bool_], columns: dict[str, NDArray[Any]], order: NDArray[np.int64]
) -> tuple[dict[str, NDArray[Any]], NDArray[np.int64]]:
    """Add the filtered genes to columns and order of the kept ones: without values, and last."""
    scores = {name: np.full(len(kept), np.nan) for name in columns}
    for name, values in columns.items():
        scores[name][kept] = values
    return scores, np.concatenate([np.flatnonzero(kept)[order], np.flatnonzero(~kept)])


def best_first(*keys: NDArray[Any]) -> NDArray[np.int64]:
    """Sort genes by the first key, then the others (all ascending, NaN last), then by position."""
    filled = [np.where(np.isnan(k), np.inf, k) for k in (np.asarray(k, float) for k in keys)]
    return np.lexsort(filled[::-1])


def first_of(order: NDArray[np.int64], n: int) -> NDArray[np.bool_]:
    """Return a mask of the first `n` genes in order."""
    mask = np.zeros(len(order), bool)
    mask[order[:n]] = True
    return mask
