"""Upstream's tables: the columns, formulas and order of Geneformer's InSilicoPerturberStats.

Wilcoxon rank sums against a shared pool are computed by sorting the pool once. The rank sum of a
gene's values is the number of pool values below them (ties count a half) plus n(n + 1)/2, so all
genes cost one binary search per value. p is two-sided and normal without correction for ties, as in
``scipy.stats.ranksums``. Means are over values in the order of cells.

Upstream's pool of "random" genes contains the tested gene and treats the cells of a donor as
independent. These tables do the same, for comparison; ``genes.csv`` does not.
"""

from __future__ import annotations

import itertools
import random
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from vcell.errors import UserError

if TYPE_CHECKING:
    from collections.abc import Sequence

POOL = 100_000  # upstream's limit on the pool, drawn with seed 42


@dataclass(frozen=True)
class GeneValues:
    """Values of a run by gene, in ascending order of tokens.

    Attributes
    ----------
    tokens, names, ids
        ``[G]`` token, name and id of each gene.
    starts
        ``[G + 1]``: the values of gene g are ``starts[g]`` to ``starts[g + 1]``.
    values
        All values in that order, by column; the values of a gene are in the order of cells.
    """

    tokens: NDArray[np.int64]
    names: NDArray[Any]
    ids: NDArray[Any]
    starts: NDArray[np.int64]
    values: dict[str, NDArray[np.float64]]

    @classmethod
    def of(cls, frame: pd.DataFrame, columns: Sequence[str]) -> GeneValues:
        """Sort the rows of a run's table by gene and cell."""
        gene, cell = frame["gene"].to_numpy(np.int64), frame["cell"].to_numpy(np.int64)
        order = np.lexsort((cell, gene))
        tokens, first = np.unique(gene[order], return_index=True)
        starts = np.concatenate([first, [len(gene)]]).astype(np.int64)
        names = frame["symbol"].to_numpy(object)[order[first]]
        ids = frame["ensembl_id"].to_numpy(object)[order[first]]
        values = {name: frame[name].to_numpy(np.float64)[order] for name in columns}
        return cls(tokens, names, ids, starts, values)

    @property
    def counts(self) -> NDArray[np.int64]:
        """``[G]`` number of values of each gene."""
        return np.diff(self.starts)

    def means(self, column: str) -> NDArray[np.float64]:
        """``[G]`` means, computed by numpy gene by gene."""
        values, starts = self.values[column], self.starts
        return np.array([values[a:b].mean() for a, b in itertools.pairwise(starts)])

    def frame(self, **columns: Any) -> pd.DataFrame:
        """Return upstream's first three columns, and others."""
        first = {"Gene": self.tokens, "Gene_name": self.names, "Ensembl_ID": self.ids}
        return pd.DataFrame({**first, **columns})


def rank_sums(
    pool: NDArray[np.float64], values: NDArray[np.float64], starts: NDArray[np.int64]
) -> NDArray[np.float64]:
    """Return the p-value of ``ranksums(pool, gene's values)`` for every gene."""
    from scipy.special import ndtr

    ordered = np.sort(pool)
    below = np.searchsorted(ordered, values, "left") + np.searchsorted(ordered, values, "right")
    sums = np.concatenate([[0], np.cumsum(below)])  # integers: twice the count, exact
    wins = np.diff(sums[starts]) / 2
    n1, n2 = len(pool), np.diff(starts).astype(float)
    rank_sum_pool = n1 * (n1 + 1) / 2 + (n1 * n2 - wins)
    expected = n1 * (n1 + n2 + 1) / 2.0
    z = (rank_sum_pool - expected) / np.sqrt(n1 * n2 * (n1 + n2 + 1) / 12.0)
    return np.asarray(2 * ndtr(-np.abs(z)))


def adjusted(p: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return Benjamini-Hochberg adjusted p-values, as statsmodels' fdr_bh."""
    n = len(p)
    if not n:
        return p.astype(np.float64)
    order = np.argsort(p)
    scaled = p[order] / (np.arange(1, n + 1) / float(n))
    lowest = np.minimum.accumulate(scaled[::-1])[::-1]
    out = np.empty(n)
    out[order] = np.minimum(lowest, 1)
    return out


def pool_of(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return upstream's pool: all values of all genes, at most 100,000, drawn with its seed."""
    if len(values) <= POOL:
        return values
    chosen = random.Random(42).sample(range(len(values)), k=POOL)
    out: NDArray[np.float64] = values[np.array(chosen, np.int64)]
    return out


def goal_state_shift(data: GeneValues, goal: str, alternatives: Sequence[str]) -> pd.DataFrame:
    """Test each gene's shifts towards the goal against those of all genes."""

    def p_of(state: str) -> NDArray[np.float64]:
        values = data.values[f"shift_{state}"]
        return rank_sums(pool_of(values), values, data.starts)

    columns: dict[str, Any] = {"Shift_to_goal_end": data.means(f"shift_{goal}")}
    for state in alternatives:
        columns[f"Shift_to_alt_end_{state}"] = data.means(f"shift_{state}")
    columns["Goal_end_vs_random_pval"] = p_of(goal)
    for state in alternatives:
        columns[f"Alt_end_vs_random_pval_{state}"] = p_of(state)
    columns["Goal_end_FDR"] = adjusted(columns["Goal_end_vs_random_pval"])
    for state in alternatives:
        columns[f"Alt_end_FDR_{state}"] = adjusted(columns[f"Alt_end_vs_random_pval_{state}"])
    out = data.frame(**columns, N_Detections=data.counts)
    out["Sig"] = (out["Goal_end_FDR"] < 0.05).astype(int)
    return out.sort_values(
        by=["Sig", "Shift_to_goal_end", "Goal_end_FDR"], ascending=[False, False, True]
    )


def one_shift_to_goal(data: GeneValues, goal: str, alternatives: Sequence[str]) -> pd.DataFrame:
    """Return upstream's table for a group, which has no test."""
    columns = {"Shift_to_goal_end": data.means(f"shift_{goal}")}
    for state in alternatives:
        columns[f"Shift_to_alt_end_{state}"] = data.means(f"shift_{state}")
    return pd.DataFrame(columns)


def vs_null(data: GeneValues, null: GeneValues, column: str) -> pd.DataFrame:
    """Test each gene against the same gene in a null run."""
    test, other = data.means(column), np.full(len(data.tokens), np.nan)
    p, n_null = np.ones(len(data.tokens)), np.zeros(len(data.tokens), np.int64)
    place = {int(token): i for i, token in enumerate(null.tokens)}
    null_means = null.means(column)
    for i, token in enumerate(data.tokens):
        j = place.get(int(token))
        if j is None:
            continue
        tested = data.values[column][data.starts[i] : data.starts[i + 1]]
        nulls = null.values[column][null.starts[j] : null.starts[j + 1]]
        other[i], n_null[i] = null_means[j], len(nulls)
        p[i] = rank_sums(tested, nulls, np.array([0, len(nulls)]))[0]
    p = np.where(np.isnan(p), 1, p)
    out = data.frame(
        Test_avg_shift=test, Null_avg_shift=other, Test_vs_null_avg_shift=test - other,
        Test_vs_null_pval=p, Test_vs_null_FDR=adjusted(p), N_Detections_test=data.counts,
        N_Detections_null=n_null,
    )  # fmt: skip
    out["Sig"] = (out["Test_vs_null_FDR"] < 0.05).astype(int)
    return out.sort_values(
        by=["Sig", "Test_vs_null_avg_shift", "Test_vs_null_FDR"], ascending=[False, False, True]
    )


def mixture_model(data: GeneValues, column: str) -> pd.DataFrame:
    """Classify genes as impact or no impact by a mixture of two Gaussians over their means."""
    try:
        from sklearn.mixture import GaussianMixture
    except ImportError:
        raise UserError(
            "mixture_model needs scikit-learn, whose mixture upstream uses",
            hint="pip install 'vcell[isp]'",
        ) from None
    means = data.means(column)
    if len(means) < 2:
        raise UserError("a mixture of two needs at least two genes")
    fitted = GaussianMixture(n_components=2, random_state=0).fit(means.reshape(-1, 1))
    component = _impact(means, fitted)
    each = _impact(data.values[column], fitted)
    starts = data.starts
    share = [each[a:b].mean() * 100 for a, b in itertools.pairwise(starts)]
    out = data.frame(
        Test_avg_shift=means, Impact_component=component, Impact_component_percent=share,
        N_Detections=data.counts,
    )  # fmt: skip
    return out.sort_values(by=["Impact_component", "Test_avg_shift"], ascending=[False, True])


def _impact(values: NDArray[np.float64], fitted: Any) -> NDArray[np.int64]:
    """Return 1 for impact as upstream does: genes nearer to the first component."""
    impact, none = fitted.means_[0][0], fitted.means_[1][0]
    predicted = 1 - fitted.predict(values.reshape(-1, 1))
    return np.where(values > none, 0, np.where(values < impact, 1, predicted)).astype(np.int64)


def aggregate(data: GeneValues, column: str) -> pd.DataFrame:
    """List every cell's value with its gene; rows are numbered by gene, as upstream does."""
    names, number = np.repeat(data.names, data.counts), np.arange(int(data.counts.sum()))
    number -= np.repeat(data.starts[:-1], data.counts)
    return pd.DataFrame({"Cosine_sim": data.values[column], "Gene": names}, index=number)
