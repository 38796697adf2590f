"""The scores of 2025 from pseudobulk, fast enough for every epoch.

A `Truth` is made once from the real cells. After that a prediction of P x G means is scored in
milliseconds: PDS, MAE and correlation of effects as in `vcell evaluate`; DES from a sample of
control cells, shifted to the predicted means (or from predicted cells, if there are any).

    truth = Truth.of(grouped, names, genes, controls)    # from vcell.metrics.groups.summarise
    truth.score(means)          # {"overlap_at_N": ..., "mae": ..., ..., "score": ...}

Legend: ``P`` perturbations, ``G`` genes, ``C`` sampled control cells.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from vcell.cores import in_parts
from vcell.kernels import merged
from vcell.metrics import significance, vcc2025

if TYPE_CHECKING:
    from collections.abc import Sequence

    from vcell.metrics.groups import Grouped

Array = NDArray[np.float64]
DES, MAE, PDS, DELTA = "overlap_at_N", "mae", "discrimination_score_l1", "pearson_delta"


@dataclass(frozen=True)
class Truth:
    """Statistics of the real cells that the scores need.

    Attributes
    ----------
    perturbations, genes
        Names of rows and columns.
    means, control
        ``[P, G]`` and ``[G]`` means of log1p values.
    calls
        The significant genes of every perturbation.
    sizes, n_controls
        ``[P]`` numbers of real cells of each perturbation, and of the controls.
    first, value, count
        The sampled controls as runs (`vcell.kernels.merged`), gene by gene.
    """

    perturbations: NDArray[np.str_]
    genes: NDArray[np.str_]
    means: Array
    control: Array
    calls: vcc2025.Calls
    sizes: NDArray[np.int64]
    n_controls: int
    first: NDArray[np.int64]
    value: NDArray[np.float32]
    count: NDArray[np.float64]

    @classmethod
    def of(
        cls, grouped: Grouped, perturbations: Sequence[str], genes: Sequence[str], controls: Any
    ) -> Truth:
        """Compute the statistics from summed and ranked real cells.

        Parameters
        ----------
        grouped
            `vcell.metrics.groups.summarise` of log1p values: group 0 the controls, then P groups.
        perturbations, genes
            Their names, in that order.
        controls
            ``[C, G]`` control cells, log1p, CSR or dense; 128 drawn at random are enough.
        """
        names, columns = np.array(perturbations, np.str_), np.array(genes, np.str_)
        table = significance.differential(grouped, np.array(["", *names.tolist()]), columns)
        ordered = np.sort(_dense(controls).T, axis=1)
        first = np.empty(len(columns) + 1, np.int64)
        value, count = np.empty(ordered.size, np.float32), np.empty(ordered.size)
        n = merged.runs(np.ascontiguousarray(ordered), first, value, count)
        means = grouped.means
        return cls(
            names, columns, means[1:], means[0], vcc2025.Calls(table), grouped.sizes[1:],
            int(grouped.sizes[0]), first, value[:n].copy(), count[:n].copy(),
        )  # fmt: skip

    @cached_property
    def target(self) -> NDArray[np.int64]:
        """``[P]`` column of each perturbation's own gene, -1 for none."""
        place = {name: i for i, name in enumerate(self.genes.tolist())}
        return np.array([place.get(name, -1) for name in self.perturbations.tolist()])

    @cached_property
    def baseline(self) -> dict[str, float]:
        """Scores of the cell-mean baseline: every cell is the mean of all groups' means."""
        profile = np.concatenate([self.control[None], self.means]).mean(axis=0)
        means = np.repeat(profile[None], len(self.means), axis=0)
        return _mean(self._scores(means, self._calls(means, *self._alike(profile))))

    def score(
        self, means: NDArray[np.floating], cells: Any = None, group: Any = None
    ) -> dict[str, float]:
        """Score predicted means, averaged over perturbations.

        Parameters
        ----------
        means
            ``[P, G]`` predicted means of log1p values (effects plus `control`).
        cells, group
            P - 1). They are tested against the sampled controls as they are: with few cells, few
            genes are significant. Without them the sampled controls are shifted to the predicted
            means as counts would shift (`vcell.kernels.merged.moved`), and stand for as many cells
            as the real ones.

        Returns
        -------
        dict
            ``overlap_at_N`` (DES), ``mae``, ``discrimination_score_l1`` (PDS), ``pearson_delta``,
            and ``score``: the mean of the first three, scaled over `baseline`. If a prediction is
            not finite, all are NaN and ``score`` is 0.
        """
        found = _mean(self.per_perturbation(means, cells, group))
        return found | {"score": vcc2025.overall(found, self.baseline)}

    def per_perturbation(
        self, means: NDArray[np.floating], cells: Any = None, group: Any = None
    ) -> dict[str, Array]:
        """Return the scores of `score`, ``[P]`` each; NaN where a prediction is not finite."""
        wide, calls, lost = self._called(means, cells, group)
        found = self._scores(wide, calls)
        return {name: np.where(lost, np.nan, column) for name, column in found.items()}

    def overlap(self, means: NDArray[np.floating]) -> Array:
        """Return ``overlap_at_N``, ``[P]``; NaN where a prediction is not finite."""
        _, calls, lost = self._called(means)
        return np.where(lost, np.nan, vcc2025.overlap(self.calls, calls))

    def _called(
        self, means: NDArray[np.floating], cells: Any = None, group: Any = None
    ) -> tuple[Array, vcc2025.Calls, NDArray[np.bool_]]:
        """Return the means, the significant genes, and which rows are not finite."""
        wide = np.asarray(means, np.float64)
        if wide.shape != self.means.shape:
            raise ValueError(f"means of shape {wide.shape}; {self.means.shape} is wanted")
        lost = np.logical_not(np.isfinite(wide).all(axis=1))
        wide = np.where(lost[:, None], self.control, wide)
        ranked = self._moved(wide) if cells is None else self._tested(cells, np.asarray(group))
        lost |= np.isnan(ranked[0]).any(axis=1)
        return wide, self._calls(wide, *ranked), lost

    def _scores(self, means: Array, calls: vcc2025.Calls) -> dict[str, Array]:
        truth, guess = self.means - self.control, means - self.control
        return {
            DES: vcc2025.overlap(self.calls, calls),
            MAE: vcc2025.absolute_error(self.means, means),
            PDS: vcc2025.discrimination(vcc2025.distances(truth, guess, self.target)),
            DELTA: vcc2025.pearson(truth, guess),
        }

    def _moved(self, means: Array) -> tuple[Array, Array, NDArray[np.int64], int]:
        """Rank the controls, shifted to predicted means, against the controls themselves."""
        ratio, u, ties = np.ones((3, *means.shape))
        np.divide(np.maximum(means, 0), self.control, out=ratio, where=self.control > 0)
        sizes = self.sizes.astype(np.float64)
        in_parts(
            lambda a, b: merged.moved(
                self.first, self.value, self.count, ratio[a:b], sizes[a:b],
                float(self.n_controls), u[a:b], ties[a:b],
            ),
            len(means),
        )  # fmt: skip
        return u, ties, self.sizes, self.n_controls

    def _alike(self, profile: Array) -> tuple[Array, Array, NDArray[np.int64], int]:
        """Rank cells that all equal `profile` against the controls."""
        u, ties = np.zeros((2, *self.means.shape))
        weight = self.n_controls / max(self._sampled, 1)
        for n in np.unique(self.sizes).tolist():
            rows = np.flatnonzero(self.sizes == n)
            own = np.repeat(profile[None].astype(np.float32), n, axis=0)
            merged.cells_against(
                own, self.first, self.value, self.count, weight, u[rows[0]], ties[rows[0]]
            )
            u[rows], ties[rows] = u[rows[0]], ties[rows[0]]
        return u, ties, self.sizes, self.n_controls

    @property
    def _sampled(self) -> int:
        return int(self.count[: self.first[1]].sum()) if len(self.genes) else 0

    def _tested(
        self, cells: Any, group: NDArray[np.integer[Any]]
    ) -> tuple[Array, Array, NDArray[np.int64], int]:
        u, ties = np.zeros((2, *self.means.shape))
        sizes = np.bincount(group[group >= 0], minlength=len(self.means)).astype(np.int64)
        for p in np.flatnonzero(sizes):
            own = _dense(cells[np.flatnonzero(group == p)])
            merged.cells_against(own, self.first, self.value, self.count, 1.0, u[p], ties[p])
        return u, ties, sizes, self._sampled

    def _calls(
        self, means: Array, u: Array, ties: Array, sizes: NDArray[np.int64], n_controls: int
    ) -> vcc2025.Calls:
        """Return the significant genes of a prediction."""
        p, score = significance.wilcoxon(u, ties, sizes[:, None], np.array(n_controls))
        guess, own = (
            significance.geometric_means(np.maximum(x, 0).astype(np.float32))
            for x in (means, self.control)
        )
        table = significance.DeTable(
            u=u, p=p, fdr=significance.benjamini_hochberg(p),
            lfc=significance.log2_ratio(guess, own, 0.0),
            score=score, target_mean=guess, reference_mean=own, sizes=sizes,
            reference_sizes=np.full(len(sizes), n_controls), perturbations=self.perturbations,
            genes=self.genes,
        )  # fmt: skip
        return vcc2025.Calls(table)


def _mean(scores: dict[str, Array]) -> dict[str, float]:
    """Average over perturbations; a constant effect has correlation 0."""
    lost = np.isnan(scores[MAE]).any()
    delta = scores[DELTA] if lost else np.nan_to_num(scores[DELTA])
    return {name: float(column.mean()) for name, column in (scores | {DELTA: delta}).items()}


def _dense(cells: Any) -> NDArray[np.float32]:
    """Return cells as a dense array."""
    whole = cells.toarray() if hasattr(cells, "toarray") else cells
    return np.ascontiguousarray(whole, np.float32)
