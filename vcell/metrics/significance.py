"""Tests of differential expression, from the sums and ranks of `vcell.metrics.groups`.

Every choice has a name: three fold changes, two scopes of the false discovery rate, two tests.
P-values follow scipy's asymptotic Mann-Whitney test (tie and continuity correction, float64), FDR
is Benjamini and Hochberg's.

Legend: ``P`` perturbations, ``G`` genes tested.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray

from vcell import arrow, special
from vcell.kernels import ranks

if TYPE_CHECKING:
    from collections.abc import Iterator

    import pandas as pd

    from vcell.metrics.groups import Grouped

Scope = Literal["perturbation", "global"]
FoldChange = Literal["geometric", "clipped", "arithmetic"]
Array = NDArray[np.float64]
#: Tests computed at once: their arrays stay in the cache, in memory that is reused.
_AT_ONCE = 1 << 16
_CLIP = 20.0  # fold change in 2025's official tables where the reference is zero


@dataclass(frozen=True)
class DeTable:
    """One test per perturbation and gene.

    Attributes
    ----------
    u, p, fdr, lfc
        ``[P, G]`` statistic (U or t), p-value, false discovery rate, log2 fold change.
    score
        ``[P, G]`` z-score or t, signed.
    target_mean, reference_mean
        ``[P, G]`` and ``[G]`` (or ``[P, G]``): the means behind the fold change.
    sizes, reference_sizes
        ``[P]`` numbers of cells of each perturbation and of its reference.
    perturbations, genes
        Names of rows and columns.
    """

    u: Array
    p: Array
    fdr: Array
    lfc: Array
    score: Array
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
        target = np.repeat(np.arange(n), g), self.perturbations[rows].tolist()
        feature = np.tile(np.arange(g), n), self.genes.tolist()
        return pd.DataFrame(
            {
                "target": pd.Categorical.from_codes(*target),
                "feature": pd.Categorical.from_codes(*feature),
            }
            | self._numbers(rows)
        )

    def arrow(self, at_once: int | None = None, *, plain: bool = False) -> Iterator[Any]:
        """Yield the same as ``pyarrow.Table``, some perturbations at a time; `plain`: as text."""
        import pyarrow as pa

        g = len(self.genes)
        step = at_once or _rows_at_once(g)
        genes = self.genes.tolist()
        names = arrow.strings(self.perturbations.tolist()), arrow.strings(genes)
        for start in range(0, len(self.perturbations), step):
            rows = slice(start, min(start + step, len(self.perturbations)))
            n = rows.stop - start
            if plain:
                text = {
                    "target": arrow.strings(self.perturbations[rows].tolist(), each=g),
                    "feature": arrow.strings(genes, times=n),
                }
            else:
                codes = np.repeat(np.arange(start, rows.stop), g), np.tile(np.arange(g), n)
                text = {
                    name: arrow.categories(code, known)
                    for name, code, known in zip(("target", "feature"), codes, names, strict=True)
                }
            yield pa.table(
                text | {name: arrow.numbers(column) for name, column in self._numbers(rows).items()}
            )

    def _numbers(self, rows: slice) -> dict[str, NDArray[Any]]:
        """Return the columns of numbers, one line per perturbation and gene."""
        g = len(self.genes)
        target = self.target_mean[rows].astype(np.float64)
        reference = np.broadcast_to(self.reference_mean, self.lfc.shape)[rows].astype(np.float64)
        with np.errstate(divide="ignore", invalid="ignore"):
            change = np.nan_to_num((target - reference) / reference, nan=0.0, posinf=np.inf)
        return {
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

    def scanpy(self, rows: slice = slice(None)) -> pd.DataFrame:
        """Return scanpy's ``rank_genes_groups_df`` of the tests, by descending score in a group."""
        import pandas as pd

        order = np.argsort(-self.score[rows], axis=1, kind="stable")

        def ordered(values: Array) -> Array:
            return np.take_along_axis(values[rows], order, axis=1).ravel()

        return pd.DataFrame(
            {
                "group": np.repeat(self.perturbations[rows], order.shape[1]),
                "names": self.genes[order].ravel(),
                "scores": ordered(self.score),
                "logfoldchanges": ordered(self.lfc),
                "pvals": ordered(self.p),
                "pvals_adj": ordered(self.fdr),
            }
        )


def _rows_at_once(n_genes: int) -> int:
    return max(_AT_ONCE // max(n_genes, 1), 1)


def wilcoxon(
    u: Array, ties: Array, n1: NDArray[np.int64], n2: NDArray[np.int64]
) -> tuple[Array, Array]:
    """Return two-sided p-values of U, as scipy's asymptotic ``mannwhitneyu``, and z-scores.

    ``n1`` and ``n2`` broadcast against ``u``. The z-score has the sign of the change and no
    continuity correction, as in scanpy. Without variance, or without cells, p is 1 and z is 0.
    """
    a, b = np.asarray(n1, np.float64), np.asarray(n2, np.float64)
    n = a + b
    middle = a * b / 2
    with np.errstate(divide="ignore", invalid="ignore"):
        spread = np.sqrt(a * b / 12 * ((n + 1) - ties / (n * (n - 1))))
        z = (np.maximum(u, a * b - u) - middle - 0.5) / spread
        score = (u - middle) / spread
    p = np.clip(2 * special.ndtr(-z), 0.0, 1.0)
    spreads = spread > 0
    return np.where(spreads, p, 1.0), np.where(spreads, score, 0.0)


def benjamini_hochberg(p: Array, scope: Scope = "perturbation") -> Array:
    """Adjust p-values, within each row or over all of them."""
    if not p.size:
        return p.copy()
    if scope == "global":
        return benjamini_hochberg(p.reshape(1, -1)).reshape(p.shape)
    m = p.shape[1]
    order = np.argsort(p, axis=1)  # the order of equal values does not matter
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


def geometric_means(own_means: NDArray[np.floating]) -> NDArray[np.floating]:
    """Return expm1 of mean log1p values, with pdex's rounding."""
    flat = np.ascontiguousarray(own_means).reshape(-1)
    means = np.empty_like(flat)
    ranks.expm1(flat, means)
    return means.reshape(own_means.shape)


def clipped_log2_ratio(target: NDArray[np.floating], reference: NDArray[np.floating]) -> Array:
    """Return log2 of the fold change: 20 for a zero reference, 1/20 for a zero target."""
    target, reference = np.broadcast_arrays(target, reference)
    with np.errstate(divide="ignore", invalid="ignore"):
        change = target.astype(np.float64) / reference
    change = np.where(target == 0, 1 / _CLIP, np.where(reference == 0, _CLIP, change))
    return np.log2(np.where((target == 0) & (reference == 0), 1.0, change))


def differential(  # noqa: PLR0913 - every choice has a name and a default
    grouped: Grouped,
    groups: NDArray[np.str_],
    genes: NDArray[np.str_],
    *,
    test: Literal["wilcoxon", "t-test"] = "wilcoxon",
    against: Literal["control", "rest"] = "control",
    fold_change: FoldChange = "geometric",
    scope: Scope = "perturbation",
    means: NDArray[np.floating] | None = None,
    eps: float = 0.0,
) -> DeTable:
    """Test groups against group 0, or each group against all other cells.

    Parameters
    ----------
    grouped
        Sums and ranks of log1p values (of any values, if `means` is given); with sums of squares
        for the t-test.
    groups, genes
        Names of all groups, the reference first, and of the genes.
    test
        Wilcoxon's rank-sum test, or Welch's t-test.
    against
        The reference (which gets no rows of its own), or all other cells.
    fold_change
        "geometric": log2 of the ratio of expm1(mean(log1p)), +-inf where one side is zero (what
        cell-eval 0.7 and later do). "clipped": the same with 20 for infinity (the official tables
        of 2025). "arithmetic": of `means`.
    scope
        Tests over which the false discovery rate is controlled.
    means
        ``[P, G]`` means of all groups to use instead of expm1(mean(log1p)).
    eps
        Constant added to both means.
    """
    first = 1 if against == "control" else 0
    n = grouped.sizes
    n1 = n[first:]
    n2 = np.full(len(n1), n[0]) if first else n.sum() - n1
    if test == "wilcoxon":
        u, ties = grouped.u[first:], grouped.ties[first:]
        p, score = np.empty(u.shape), np.empty(u.shape)
        for rows in _pieces(u):
            p[rows], score[rows] = wilcoxon(u[rows], ties[rows], n1[rows, None], n2[rows, None])
    else:
        u, p = welch(grouped, first)
        score = u
    if scope == "global":
        fdr = benjamini_hochberg(p, scope)
    else:
        fdr = np.empty(p.shape)
        for rows in _pieces(p):
            fdr[rows] = benjamini_hochberg(p[rows])
    target, reference = _both_means(grouped, first, means)
    lfc = (
        clipped_log2_ratio(target, reference)
        if fold_change == "clipped"
        else log2_ratio(target, reference, eps)
    )
    return DeTable(
        u=u, p=p, fdr=fdr, lfc=lfc, score=score, target_mean=target,
        reference_mean=reference, sizes=n1, reference_sizes=n2,
        perturbations=groups[first:], genes=genes,
    )  # fmt: skip


def _pieces(table: Array) -> Iterator[slice]:
    """Split the rows of a table into pieces of about `_AT_ONCE` entries."""
    step = _rows_at_once(table.shape[1])
    for start in range(0, len(table), step):
        yield slice(start, start + step)


def _both_means(
    grouped: Grouped, first: int, means: NDArray[np.floating] | None
) -> tuple[NDArray[np.floating], NDArray[np.floating]]:
    """Return the mean of every group and of its reference."""
    if first:
        used = geometric_means(grouped.own_means) if means is None else means
        return used[1:], used[0]
    n = grouped.sizes[:, None].astype(np.float64)
    plain = grouped.means if means is None else means.astype(np.float64)
    total = (plain * n).sum(axis=0)
    rest = (total - plain * n) / np.maximum(n.sum() - n, 1)
    if means is None:
        return np.expm1(plain), np.expm1(np.maximum(rest, 0))
    return plain, np.maximum(rest, 0)


def welch(grouped: Grouped, first: int) -> tuple[Array, Array]:
    """Return t and two-sided p of Welch's test; p is 1 where undefined."""
    from vcell.student import stdtr  # loads a BLAS, which rank tests do without

    n = grouped.sizes[:, None].astype(np.float64)
    sums, squares = grouped.sums, grouped.squares
    own = (n[1:], sums[1:], squares[1:]) if first else (n, sums, squares)
    other = (
        (n[:1], sums[:1], squares[:1])
        if first
        else (n.sum() - n, sums.sum(axis=0) - sums, squares.sum(axis=0) - squares)
    )
    with np.errstate(divide="ignore", invalid="ignore"):
        (m1, v1), (m2, v2) = _moments(*own), _moments(*other)
        t = (m1 - m2) / np.sqrt(v1 + v2)
        freedom = (v1 + v2) ** 2 / (v1**2 / (own[0] - 1) + v2**2 / (other[0] - 1))
        p = 2 * stdtr(freedom, -np.abs(t))
    undefined = ~np.isfinite(t) | ~np.isfinite(p)
    return np.where(undefined, 0.0, t), np.where(undefined, 1.0, p)


def _moments(n: Array, sums: Array, squares: Array) -> tuple[Array, Array]:
    """Return mean and squared standard error; variances within rounding error are 0."""
    mean = sums / n
    spread = squares - n * mean**2
    spread = np.where(spread > 1e-12 * squares, spread, 0.0)
    return mean, spread / (n - 1) / n
