"""Differential expression from what `vcell.metrics.groups` has added up and ranked.

Every choice has a name: three fold changes, two scopes of the false discovery rate, two tests.
P-values follow scipy's asymptotic Mann-Whitney test (tie and continuity correction, float64), FDR
is Benjamini and Hochberg's.

Legend: ``P`` perturbations, ``G`` genes tested.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np
from numpy.typing import NDArray
from scipy import special

from vcell.kernels import ranks

if TYPE_CHECKING:
    import pandas as pd

    from vcell.metrics.groups import Grouped

Scope = Literal["perturbation", "global"]
Array = NDArray[np.float64]
_CLIP = 20.0  # the fold change that 2025's official tables give where the reference is zero


@dataclass(frozen=True)
class Table:
    """One test per perturbation and gene.

    Attributes
    ----------
    u, p, fdr, lfc
        ``[P, G]`` statistic, p-value, false discovery rate, log2 fold change.
    target_mean, reference_mean
        ``[P, G]`` and ``[G]`` (or ``[P, G]``): the means behind the fold change.
    sizes, reference_sizes
        ``[P]`` cells of each perturbation and of what it is compared with.
    perturbations, genes
        Names of rows and columns.
    """

    u: Array
    p: Array
    fdr: Array
    lfc: Array
    target_mean: NDArray[np.floating]
    reference_mean: NDArray[np.floating]
    sizes: NDArray[np.int64]
    reference_sizes: NDArray[np.int64]
    perturbations: NDArray[np.str_]
    genes: NDArray[np.str_]

    def frame(self, rows: slice = slice(None)) -> pd.DataFrame:
        """Return some perturbations as a long table in pdex's columns."""
        import pandas as pd

        n, g = len(self.perturbations[rows]), len(self.genes)
        target = self.target_mean[rows].astype(np.float64)
        reference = np.broadcast_to(self.reference_mean, self.lfc.shape)[rows].astype(np.float64)
        with np.errstate(divide="ignore", invalid="ignore"):
            change = np.nan_to_num((target - reference) / reference, nan=0.0, posinf=np.inf)
        return pd.DataFrame(
            {
                "target": pd.Categorical.from_codes(
                    np.repeat(np.arange(n), g), self.perturbations[rows].tolist()
                ),
                "feature": pd.Categorical.from_codes(np.tile(np.arange(g), n), self.genes.tolist()),
                "target_mean": target.ravel(),
                "ref_mean": reference.ravel(),
                "target_membership": np.repeat(self.sizes[rows], g),
                "ref_membership": np.repeat(self.reference_sizes[rows], g),
                "log2_fold_change": self.lfc[rows].ravel(),
                "percent_change": change.ravel(),
                "p_value": self.p[rows].ravel(),
                "statistic": self.u[rows].ravel(),
                "fdr": self.fdr[rows].ravel(),
            }
        )


def wilcoxon_p(u: Array, ties: Array, n1: NDArray[np.int64], n2: NDArray[np.int64]) -> Array:
    """Two-sided p-values of U, as ``scipy.stats.mannwhitneyu(method="asymptotic")`` has them.

    ``n1`` and ``n2`` broadcast against ``u``. Groups without spread, or without cells, get 1.
    """
    a, b = np.asarray(n1, np.float64), np.asarray(n2, np.float64)
    n = a + b
    middle = a * b / 2
    with np.errstate(divide="ignore", invalid="ignore"):
        spread = np.sqrt(a * b / 12 * ((n + 1) - ties / (n * (n - 1))))
        z = (np.maximum(u, a * b - u) - middle - 0.5) / spread
    p = np.clip(2 * special.ndtr(-z), 0.0, 1.0)
    return np.where(spread > 0, p, 1.0)


def benjamini_hochberg(p: Array, scope: Scope = "perturbation") -> Array:
    """Adjust p-values, within each row or over all of them."""
    if not p.size:
        return p.copy()
    if scope == "global":
        return benjamini_hochberg(p.reshape(1, -1)).reshape(p.shape)
    m = p.shape[1]
    order = np.argsort(p, axis=1, kind="stable")
    ordered = np.take_along_axis(p, order, axis=1) * (m / np.arange(1, m + 1))
    ordered = np.minimum.accumulate(ordered[:, ::-1], axis=1)[:, ::-1]
    adjusted = np.empty_like(p)
    np.put_along_axis(adjusted, order, np.clip(ordered, 0.0, 1.0), axis=1)
    return adjusted


def log2_ratio(target: NDArray[np.floating], reference: NDArray[np.floating], eps: float) -> Array:
    """log2((target + eps) / (reference + eps)); no change where both are zero."""
    lfc = np.empty(target.shape)
    ranks.log2_ratio(target, np.broadcast_to(reference, target.shape), eps, lfc)
    return lfc


def geometric_means(mean32: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return expm1 of mean log1p values, rounded as pdex rounds it."""
    means = np.empty_like(mean32)
    ranks.expm1(mean32.ravel(), means.ravel())
    return means


def clipped_log2_ratio(target: NDArray[np.floating], reference: NDArray[np.floating]) -> Array:
    """log2 of the fold change, which is 20 over a zero reference and 1/20 for a zero target."""
    target, reference = np.broadcast_arrays(target, reference)
    with np.errstate(divide="ignore", invalid="ignore"):
        change = target.astype(np.float64) / reference
    change = np.where(target == 0, 1 / _CLIP, np.where(reference == 0, _CLIP, change))
    return np.log2(np.where((target == 0) & (reference == 0), 1.0, change))


def against_reference(
    grouped: Grouped,
    perturbations: NDArray[np.str_],
    genes: NDArray[np.str_],
    *,
    fold_change: Literal["geometric", "clipped", "arithmetic"] = "geometric",
    scope: Scope = "perturbation",
    means: NDArray[np.floating] | None = None,
    eps: float = 0.0,
) -> Table:
    """Test groups 1 to P against group 0.

    Parameters
    ----------
    grouped
        Of log1p values, for "geometric" and "clipped" fold changes.
    perturbations, genes
        Names of groups 1 to P, and of the genes.
    fold_change
        "geometric": log2 of the ratio of expm1(mean(log1p)), +-inf where one side is zero (what
        cell-eval 0.7 and later do). "clipped": the same with 20 for infinity (the official tables
        of 2025). "arithmetic": of plain means, with `eps` added to both.
    scope
        Over which tests the false discovery rate is controlled.
    means
        ``[P + 1, G]`` means to use instead of the grouped ones.
    """
    n = grouped.sizes
    p = wilcoxon_p(grouped.u[1:], grouped.ties[1:], n[1:, None], n[:1, None])
    if means is None:
        means = geometric_means(grouped.mean32) if fold_change != "arithmetic" else grouped.means
    target, reference = means[1:], means[0]
    lfc = (
        clipped_log2_ratio(target, reference)
        if fold_change == "clipped"
        else log2_ratio(target, reference, eps)
    )
    return Table(
        u=grouped.u[1:], p=p, fdr=benjamini_hochberg(p, scope), lfc=lfc, target_mean=target,
        reference_mean=reference, sizes=n[1:], reference_sizes=np.full(len(n) - 1, n[0]),
        perturbations=perturbations, genes=genes,
    )  # fmt: skip
