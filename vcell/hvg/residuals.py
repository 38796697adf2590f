"""Flavour "pearson_residuals": variance of analytic Pearson residuals of counts.

Two passes: sums per gene and cell, then the non-zeros; zeros are summed as a smooth function of a
cell's total (`vcell.kernels.pearson`).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from vcell.errors import UserError
from vcell.hvg.plan import FlavorPlan, FlavorSettings, Ranking, Read, rank_counts
from vcell.kernels.pearson import chebyshev_weights, zero_residual_sums
from vcell.passes.reducers import GeneMoments, ResidualSums

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from vcell.passes import CellTable

_NODES = 65  # enough for 1e-14 over depths that differ by a factor of 100,000


class ResidualPlan(FlavorPlan):
    """Ranks genes by the variance of their residuals, batch by batch."""

    def __init__(self, setting: FlavorSettings) -> None:
        super().__init__(setting)
        self.moments = GeneMoments(
            setting.n_genes, codes=self.codes, n_batches=self.n_batches, single=setting.single
        )

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
        return rank_counts(
            setting, variance[:, kept], "residual_variances", self.moments.total, sizes, kept
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
