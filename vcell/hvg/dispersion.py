"""Flavours "seurat" and "cell_ranger": dispersion against that of genes of similar mean."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from vcell.errors import UserError
from vcell.hvg.plan import (
    FlavorPlan,
    FlavorSettings,
    GeneFilter,
    Ranking,
    Read,
    best_first,
    first_of,
    mean_var,
)
from vcell.passes.reducers import NormalizedMoments

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from vcell.passes import CellTable, Reducer

_BINS = 20
_MAD = 0.6744897501960817  # a normal's median absolute deviation over its standard deviation


class DispersionPlan(FlavorPlan):
    """Variance over mean, standardised within bins of the mean."""

    def __init__(self, setting: FlavorSettings) -> None:
        self.setting = setting
        self.filter = GeneFilter(setting.n_genes, setting.min_cells)
        self.moments = self._moments()

    def _moments(self, totals: NDArray[np.float64] | None = None) -> NormalizedMoments:
        batches = self.setting.batches
        return NormalizedMoments(
            self.setting.n_genes,
            target_sum=self.setting.target_sum,
            linear=self.setting.flavor == "seurat",
            codes=None if batches is None else batches.codes,
            n_batches=1 if batches is None else len(batches.names),
            totals=totals,
        )

    def reducers(self) -> list[Reducer]:
        """Return what the first pass must gather."""
        return [self.moments, *self.filter.reducers()]

    def finish(self, read: Read, table: CellTable) -> Ranking:
        """Rank the genes."""
        sizes = self.setting.check_sizes(table)
        kept = self.filter.kept(self.setting.n_genes)
        sums = self._mended(read, table)[:, kept]
        if self.setting.batches is None:
            frame, selected = _one_batch(sums[0], int(sizes[0]), self.setting)
            order = best_first(-frame["dispersions_norm"])
        else:
            frame, order = _many_batches(sums, sizes, self.setting, self.setting.genes[kept])
            selected = first_of(order, self.setting.n_top)
        n_cells = self.moments.total[..., 0].sum(axis=0).astype(np.int64)
        return _widened(self.setting, kept, frame, selected, order, n_cells)

    def _mended(self, read: Read, table: CellTable) -> NDArray[np.float64]:
        """Return the sums with cells' totals less what genes that were left out held."""
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
    """Return scores of one batch and which genes reach its cut-off; ``sums[G, 3]``."""
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
    """Return dispersions less their bin's centre, over its spread."""
    import pandas as pd

    frame = pd.DataFrame({"mean": mean, "dispersion": dispersion})
    grouped = frame.groupby(_bins(frame["mean"], flavor), observed=True)["dispersion"]
    if flavor == "seurat":
        centre, spread = grouped.transform("mean"), grouped.transform("std")
        alone = spread.isna()  # a bin with one usable gene: its norm is 1
        spread = spread.where(~alone, centre)
        centre = centre.where(~alone, 0.0)
    else:
        centre = grouped.transform("median")
        spread = grouped.transform(_median_deviation)
    with np.errstate(divide="ignore", invalid="ignore"):
        norm = (frame["dispersion"].to_numpy() - centre.to_numpy()) / spread.to_numpy()
    return np.asarray(norm, np.float64)


def _bins(mean: Any, flavor: str) -> Any:
    """Cut the means into 20 equal widths, or at every twentieth of the genes."""
    import pandas as pd

    if flavor == "seurat":
        return pd.cut(mean, bins=_BINS)
    edges = np.r_[-np.inf, np.percentile(mean, np.arange(10, 105, 5)), np.inf]
    if len(np.unique(edges)) < len(edges):
        raise UserError(
            "flavour cell_ranger bins genes by their mean, and too many of them have the same one "
            f"({np.count_nonzero(mean <= 1e-12):,} of {len(mean):,} are not expressed at all)",
            hint="leave out genes of few cells, as --min-cells 3 does",
        )
    return pd.cut(mean, bins=edges)


def _median_deviation(values: Any) -> float:
    """Return the median absolute deviation, scaled to a normal's standard deviation."""
    array = np.asarray(values)
    return float(np.median(np.abs(array - np.median(array)) / _MAD))


def _many_batches(
    sums: NDArray[np.float64],
    sizes: NDArray[np.int64],
    setting: FlavorSettings,
    genes: NDArray[Any],
) -> tuple[dict[str, NDArray[np.float64]], NDArray[np.int64]]:
    """Rank by the number of batches that choose a gene, then by its mean standing, then by name."""
    import pandas as pd

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
    gene = np.tile(np.arange(n_genes), len(sizes))
    mean = pd.DataFrame({k: v.ravel() for k, v in columns.items()}).groupby(gene).mean()
    frame = {name: mean[name].to_numpy() for name in names}
    frame["highly_variable_nbatches"] = chosen
    by_name = np.empty(n_genes)
    by_name[np.argsort(genes.astype(str), kind="stable")] = np.arange(n_genes)
    return frame, best_first(-chosen, -frame["dispersions_norm"], by_name)


def _widened(
    setting: FlavorSettings,
    kept: NDArray[np.bool_],
    frame: dict[str, NDArray[np.float64]],
    selected: NDArray[np.bool_],
    order: NDArray[np.int64],
    n_cells: NDArray[np.int64],
) -> Ranking:
    """Put genes that were filtered out back, unranked and last."""
    place = np.flatnonzero(kept)
    scores = {}
    for name, values in frame.items():
        scores[name] = np.full(setting.n_genes, np.nan)
        scores[name][kept] = values
    chosen = np.zeros(setting.n_genes, bool)
    chosen[kept] = selected
    everything = np.concatenate([place[order], np.flatnonzero(~kept)])
    return Ranking(setting.flavor, chosen, everything, scores, n_cells)
