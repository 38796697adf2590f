"""Flavour "pearson_residuals": variance of analytic Pearson residuals of counts.

Two passes: sums per gene and cell, then the non-zeros; zeros are summed as a smooth function of a
cell's total (`vcell.kernels.pearson`).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

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
    ranks_over_batches,
)
from vcell.kernels.pearson import chebyshev_weights, zero_residual_sums
from vcell.passes.reducers import GeneMoments, ResidualSums

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from vcell.passes import CellTable, Reducer

_NODES = 65  # enough for 1e-14 over depths that differ by a factor of 100,000


class ResidualPlan(FlavorPlan):
    """Ranks genes by the variance of their residuals, batch by batch."""

    def __init__(self, setting: FlavorSettings) -> None:
        self.setting = setting
        self.filter = GeneFilter(setting.n_genes, setting.min_cells)
        batches = setting.batches
        self.codes = None if batches is None else batches.codes
        self.moments = GeneMoments(
            setting.n_genes,
            codes=self.codes,
            n_batches=1 if batches is None else len(batches.names),
            single=setting.single,
        )

    def reducers(self) -> list[Reducer]:
        """Return the reducers of the first pass."""
        return [self.moments, *self.filter.reducers()]

    def finish(self, read: Read, table: CellTable) -> Ranking:
        """Read again for the residuals, and rank."""
        setting = self.setting
        sizes = setting.check_sizes(table)
        kept = self.filter.mask(setting.n_genes)
        depths = table.totals.copy()
        cells, losses = self.filter.losses(read, setting.n_cells)
        depths[cells] -= losses
        sums = np.where(kept, self.moments.total[..., 1], 0.0)
        if not sums.any(axis=1).all():
            raise UserError("no gene varies in these cells, so none can be ranked")
        shares = sums / sums.sum(axis=1, keepdims=True)
        clip = float(np.sqrt(sizes[0]))  # the first batch's for all, as in scanpy
        residuals = ResidualSums(
            shares, theta=setting.theta, clip=clip, codes=self.codes, depths=depths
        )
        read([residuals])
        variance = np.zeros(shares.shape)
        for batch, n in enumerate(sizes):
            own = table.kept if self.codes is None else table.kept & (self.codes == batch)
            zeros = _zeros(shares[batch], depths[own], setting.theta, clip)
            first = (residuals.total[batch, :, 0] + zeros[:, 0]) / n
            second = (residuals.total[batch, :, 1] + zeros[:, 1]) / n
            variance[batch] = np.where(sums[batch] > 0, second - first**2, 0.0)
        return self._rank(variance[:, kept], sizes, kept)

    def _rank(
        self, variance: NDArray[np.float64], sizes: NDArray[np.int64], kept: NDArray[np.bool_]
    ) -> Ranking:
        setting = self.setting
        rank, chosen = ranks_over_batches(variance, setting.n_top)
        average = np.mean(variance, axis=0)
        order = best_first(-chosen, rank, np.where(np.isnan(rank), -average, 0.0))
        total = self.moments.total
        means, variances = mean_var(
            total[:, :, 1].sum(axis=0), total[:, :, 2].sum(axis=0), int(sizes.sum())
        )
        scores = {"means": means, "variances": variances}
        columns = {"residual_variances": average, "highly_variable_rank": rank}
        if setting.batches is not None:
            columns["highly_variable_nbatches"] = chosen
        for name, values in columns.items():
            scores[name] = np.full(setting.n_genes, np.nan)
            scores[name][kept] = values
        n_cells = total[:, :, 0].sum(axis=0).astype(np.int64)
        everything = np.concatenate([np.flatnonzero(kept)[order], np.flatnonzero(~kept)])
        return Ranking(
            setting.flavor, first_of(everything, setting.n_top), everything, scores, n_cells
        )


def _zeros(
    share: NDArray[np.float64], depths: NDArray[np.float64], theta: float, clip: float
) -> NDArray[np.float64]:
    """Return sums over cells ``[G, 2]`` of the residual of a zero, and of its square."""
    out = np.empty((len(share), 2))
    depths = depths[depths > 0]
    low, high = (np.log(depths.min()), np.log(depths.max())) if len(depths) else (0.0, 0.0)
    smooth = clip * clip >= theta  # zeros are above -sqrt(theta): clipping has no effect on them
    if not smooth or high - low < 1e-9 or len(depths) <= _NODES:
        zero_residual_sums(share, depths, np.ones(len(depths)), theta, clip, out)
        return out
    nodes = np.cos(np.pi * np.arange(_NODES) / (_NODES - 1))
    position = 2 * (np.log(depths) - low) / (high - low) - 1
    weights = chebyshev_weights(position, nodes)
    at = np.exp(low + (nodes + 1) / 2 * (high - low))
    zero_residual_sums(share, at, weights, theta, clip, out)
    return out
