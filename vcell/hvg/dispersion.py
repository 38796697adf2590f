"""Flavours "seurat" and "cell_ranger": dispersion relative to genes of similar mean."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from vcell.errors import UserError
from vcell.hvg.plan import (
    FlavorPlan,
    FlavorSettings,
    Ranking,
    Read,
    best_first,
    first_of,
    mean_var,
    with_filtered,
)
from vcell.passes.reducers import NormalizedMoments

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from vcell.passes import CellTable

_BINS = 20
_MAD = 0.6744897501960817  # median absolute deviation of a standard normal


class DispersionPlan(FlavorPlan):
    """Variance over mean, standardised within bins of the mean."""

    def __init__(self, setting: FlavorSettings) -> None:
        super().__init__(setting)
        self.moments = self._moments()

    def _moments(self, totals: NDArray[np.float64] | None = None) -> NormalizedMoments:
        return NormalizedMoments(
            self.setting.n_genes,
            target_sum=self.setting.target_sum,
            linear=self.setting.flavor == "seurat",
            codes=self.codes,
            n_batches=self.n_batches,
            totals=totals,
        )

    def finish(self, read: Read, table: CellTable) -> Ranking:
        """Rank the genes."""
        sizes = self.setting.check_sizes(table)
        kept = self.filter.mask(self.setting.n_genes)
        sums = self._corrected(read, table)[:, kept]
        if self.setting.batches is None:
            frame, selected = _one_batch(sums[0], int(sizes[0]), self.setting)
            order = best_first(-frame["dispersions_norm"])
        else:
            frame, order = _many_batches(sums, sizes, self.setting, self.setting.genes[kept])
            selected = first_of(order, self.setting.n_top)
        scores, everything = with_filtered(kept, frame, order)
        chosen = np.zeros(len(kept), bool)
        chosen[kept] = selected
        n_cells = self.moments.total[..., 0].sum(axis=0).astype(np.int64)
        return Ranking(self.setting.flavor, chosen, everything, scores, n_cells)

    def _corrected(self, read: Read, table: CellTable) -> NDArray[np.float64]:
        """Return the sums, with the counts of filtered genes subtracted from the cells' totals."""
        if self.setting.target_sum is None:
            return self.moments.total
        cells, losses = self.filter.losses(read, self.setting.n_cells)
        if not len(cells):
            return self.moments.total
        after = table.totals.copy()
        after[cells] -= losses
        minus, plus = self._moments(table.totals), self._moments(after)
        self.filter.read_again(read, [minus, plus], cells)
        return self.moments.total - minus.total + plus.total


def _one_batch(
    sums: NDArray[np.float64], n_cells: int, setting: FlavorSettings
) -> tuple[dict[str, NDArray[np.float64]], NDArray[np.bool_]]:
    """Return scores of one batch, and a mask of genes that reach the cut-off; ``sums[G, 3]``."""
    mean, var = mean_var(sums[:, 1], sums[:, 2], n_cells)
    mean[mean == 0] = 1e-12
    dispersion = var / mean
    if setting.flavor == "seurat":
        dispersion[dispersion == 0] = np.nan
        with np.errstate(invalid="ignore"):
            dispersion = np.log(dispersion)
        mean = np.log1p(mean)
    norm = _standardized(mean, dispersion, setting.flavor)
    usable = np.sort(norm[~np.isnan(norm)])[::-1]
    if len(usable) == 0:
        raise UserError(
            "no gene varies in these cells, so none can be ranked",
            hint="look at the file with `vcell inspect --full`",
        )
    cutoff = usable[min(setting.n_top, len(usable)) - 1]
    frame = {"means": mean, "dispersions": dispersion, "dispersions_norm": norm}
    return frame, np.nan_to_num(norm, nan=-np.inf) >= cutoff


def _standardized(
    mean: NDArray[np.float64], dispersion: NDArray[np.float64], flavor: str
) -> NDArray[np.float64]:
    """Return dispersions, standardised within their bins."""
    own = _bins(mean, flavor)
    centre, spread = np.full((2, len(mean)), np.nan)
    for genes in (np.flatnonzero(own == number) for number in np.unique(own[own >= 0])):
        values = dispersion[genes]
        if flavor == "seurat":
            middle, width = _mean_and_spread(values[~np.isnan(values)])
            if np.isnan(width):  # a bin with one usable gene: its norm is 1
                middle, width = 0.0, middle
        else:
            middle = float(np.median(values))
            width = float(np.median(np.abs(values - middle) / _MAD))
        centre[genes], spread[genes] = middle, width
    with np.errstate(divide="ignore", invalid="ignore"):
        norm: NDArray[np.float64] = (dispersion - centre) / spread
    return norm


def _bins(mean: NDArray[np.float64], flavor: str) -> NDArray[np.int64]:
    """Bin the means into 20 equal widths, as pandas' ``cut``, or into twentieths of the genes.

    A bin includes its upper edge; -1 means no bin.
    """
    if flavor == "seurat":
        low, high = float(mean.min()), float(mean.max())
        beyond = (high - low) * 1e-3  # so that the lowest mean is in the lowest bin
        if low == high:
            off = 1e-3 * abs(low) if low else 1e-3
            low, high, beyond = low - off, high + off, 0.0
        edges = np.linspace(low, high, _BINS + 1)
        edges[0] -= beyond
    else:
        edges = np.r_[-np.inf, np.percentile(mean, np.arange(10, 105, 5)), np.inf]
        if len(np.unique(edges)) < len(edges):
            raise UserError(
                "flavour cell_ranger bins genes by their mean, and too many of them have the same "
                f"one ({np.count_nonzero(mean <= 1e-12):,} of {len(mean):,} are not expressed at "
                "all)",
                hint="leave out genes of few cells, as --min-cells 3 does",
            )
    found = np.searchsorted(edges, mean, side="left")
    return np.where(found < len(edges), found - 1, -1)


def _mean_and_spread(values: NDArray[np.float64]) -> tuple[float, float]:
    """Return mean and standard deviation with the rounding of pandas, which scanpy uses.

    The sum is Kahan's, the variance Welford's. NaN where there are too few values.
    """
    total = compensation = running = squares = 0.0
    for n, value in enumerate(values.tolist(), 1):
        y = value - compensation
        after = total + y
        compensation = after - total - y
        total = after
        before = running
        running += (value - before) / n
        squares += (value - running) * (value - before)
    if not len(values):
        return np.nan, np.nan
    spread = float(np.sqrt(squares / (len(values) - 1))) if len(values) > 1 else np.nan
    return total / len(values), spread


def _mean_of_batches(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Average over batches, ``[B, G]``, ignoring missing values; summed as in pandas."""
    total, compensation = np.zeros((2, values.shape[1]))
    for row in values:
        there = ~np.isnan(row)
        y = row - compensation
        after = total + y
        compensation = np.where(there, after - total - y, compensation)
        total = np.where(there, after, total)
    with np.errstate(invalid="ignore"):
        mean: NDArray[np.float64] = total / np.count_nonzero(~np.isnan(values), axis=0)
    return mean


def _many_batches(
    sums: NDArray[np.float64],
    sizes: NDArray[np.int64],
    setting: FlavorSettings,
    genes: NDArray[Any],
) -> tuple[dict[str, NDArray[np.float64]], NDArray[np.int64]]:
    """Rank by the number of batches that select a gene, then by mean dispersion, then by name."""
    names = ("means", "dispersions", "dispersions_norm")
    n_genes = sums.shape[1]
    columns = {name: np.zeros((len(sizes), n_genes)) for name in names}
    chosen = np.zeros(n_genes, np.int64)
    for batch, size in enumerate(sizes):
        expressed = sums[batch, :, 0] > 0
        scores, selected = _one_batch(sums[batch, expressed], int(size), setting)
        for name in names:
            columns[name][batch, expressed] = scores[name]
        chosen[expressed] += selected
    frame: dict[str, NDArray[Any]] = {name: _mean_of_batches(columns[name]) for name in names}
    frame["highly_variable_nbatches"] = chosen
    by_name = np.empty(n_genes)
    by_name[np.argsort(genes.astype(str), kind="stable")] = np.arange(n_genes)
    return frame, best_first(-chosen, -frame["dispersions_norm"], by_name)
