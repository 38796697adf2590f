"""Flavours "seurat_v3" and "seurat_v3_paper": variance of counts clipped and standardised by a fit.

A local regression of log variance on log mean predicts each gene's standard deviation; counts are
clipped at ``mean + deviation * sqrt(n)``, and their variance over the predicted one ranks the
genes.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from vcell.errors import UserError
from vcell.hvg.plan import FlavorPlan, FlavorSettings, Ranking, Read, mean_var, rank_counts
from vcell.kernels import clipped
from vcell.passes.reducers import ClippedSums, CountHistogram, GeneMoments

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from vcell.passes import CellTable, Reducer

_HISTOGRAM_BYTES = 128 << 20
_BINS = 240  # larger counts with a histogram column
_SPANS = (1.0, 1.5, 2.0, 3.0)  # multiples of the span to try if a fit fails


class StandardizedPlan(FlavorPlan):
    """One pass if the histograms of all batches fit, else two, with identical results."""

    def __init__(self, setting: FlavorSettings) -> None:
        super().__init__(setting)
        size = (setting.n_genes, self.n_batches)
        a_bin = CountHistogram.bytes_of(*size, 1) - CountHistogram.bytes_of(*size, 0)
        room = _HISTOGRAM_BYTES - CountHistogram.bytes_of(*size, 0)
        bins = min(_BINS, room // max(a_bin, 1))
        self.histogram = (
            CountHistogram(setting.n_genes, codes=self.codes, n_batches=self.n_batches, bins=bins)
            if bins >= 0
            else None
        )
        self.moments = GeneMoments(
            setting.n_genes, codes=self.codes, n_batches=self.n_batches, single=setting.single
        )

    def reducers(self) -> list[Reducer]:
        """Return the reducers of the first pass."""
        first: Reducer = self.histogram or self.moments
        return [first, *self.filter.reducers()]

    def finish(self, read: Read, table: CellTable) -> Ranking:
        """Fit, clip, rank."""
        setting = self.setting
        sizes = setting.check_sizes(table)
        kept = self.filter.mask(setting.n_genes)
        notes: list[str] = []
        total = self._moments(read)
        clip = np.full(total.shape[:2], np.inf)
        mean, spread = np.zeros(total.shape[:2]), np.ones(total.shape[:2])
        for batch, n in enumerate(sizes):
            mean[batch], var = mean_var(total[batch, :, 1], total[batch, :, 2], int(n))
            spread[batch, kept] = self._predict(mean[batch, kept], var[kept], batch, notes)
            clip[batch] = spread[batch] * np.sqrt(n) + mean[batch]
        sums = self._clipped(read, clip)
        n_cells = sizes[:, None]
        with np.errstate(over="ignore"):
            above = np.where(sums[..., 2] > 0, clip, 0.0) * sums[..., 2]
            values = sums[..., 0] + above
            squares = sums[..., 1] + above * np.where(sums[..., 2] > 0, clip, 0.0)
        norm = (1 / ((n_cells - 1) * np.square(spread))) * (
            n_cells * np.square(mean) + squares - 2 * values * mean
        )
        return rank_counts(
            setting, norm[:, kept], "variances_norm", total, sizes, kept, tuple(notes)
        )

    def _moments(self, read: Read) -> NDArray[np.float64]:
        """Return moments ``[B, G, 3]``; read again if the counts did not fit the histogram."""
        if self.histogram is not None:
            self.histogram.collect()
            if not (self.histogram.overflowed or self.histogram.fractional):
                h = self.histogram
                clipped.histogram_moments(
                    h.small, h.high, h.large, self.setting.single, self.moments.total
                )
                return self.moments.total
            self.histogram = None
            read([self.moments])
        return self.moments.total

    def _clipped(self, read: Read, clip: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return clipped sums ``[B, G, 3]``."""
        if self.histogram is None:
            sums = ClippedSums(clip, codes=self.codes)
            read([sums])
            return sums.total
        out = np.zeros((*clip.shape, 3))
        h = self.histogram
        clipped.clip_histogram(h.small, h.high, h.large, clip, out)
        return out

    def _predict(
        self, mean: NDArray[np.float64], var: NDArray[np.float64], batch: int, notes: list[str]
    ) -> NDArray[np.float64]:
        """Return the predicted standard deviation at each mean."""
        varies = var > 0
        fitted = np.zeros(len(mean))
        where = (
            "" if self.setting.batches is None else f" in batch {self.setting.batches.names[batch]}"
        )
        if not varies.any():
            raise UserError(f"no gene varies{where}, so none can be ranked")
        x, y = np.log10(mean[varies]), np.log10(var[varies])
        fitted[varies], widened = _loess(x, y, self.setting.span, where)
        if widened > self.setting.span:
            notes.append(
                f"the fit of variance on mean{where} failed at span {self.setting.span:g} and was "
                f"made at {widened:g}"
            )
        return np.asarray(np.sqrt(10**fitted))


def _loess(
    x: NDArray[np.float64], y: NDArray[np.float64], span: float, where: str
) -> tuple[NDArray[np.float64], float]:
    """Fit y on x locally, with a wider span if the given one fails; return the span used."""
    try:
        from skmisc.loess import loess
    except ImportError:
        raise UserError(
            "flavour seurat_v3 needs scikit-misc, which is not installed",
            hint="pip install scikit-misc",
        ) from None
    for multiple in _SPANS:
        wide = min(span * multiple, 1.0)
        model = loess(x, y, span=wide, degree=2)
        try:
            model.fit()
        except ValueError:
            continue
        return np.asarray(model.outputs.fitted_values), wide
    raise UserError(
        f"the fit of variance on mean{where} fails: too few genes or too few distinct means",
        hint="leave out rare genes (--min-cells 3), merge small batches, or use flavour seurat",
    )
